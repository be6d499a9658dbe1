"""``effnet shard``: labelled pictures into WebDataset shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.options import JsonOption, StrictOption

MAX_UNREADABLE_SHOWN = 10  # pictures that were left out, by name


def shard(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder with one folder of pictures a class, or any other source.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the shards: a new one, or to go on in.")],
    megabytes: Annotated[float, typer.Option("--size", min=0.01, metavar="MB", help="Of a shard, about.")] = 256,
    resize: Annotated[
        int | None, typer.Option(min=1, metavar="SIDE", help="Make the short side of larger pictures so many pixels.")
    ] = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write pictures as WebDataset shards.

    OUT gets train-000000.tar, …, and an index with classes and counts. Splits are kept. After a kill the same command
    goes on. Train from them with `effnet train OUT`, or from where you put them: `effnet train s3://bucket/OUT`.
    """
    from dataclasses import asdict

    from effnet.cli.printing import note, print_json, progress_bar
    from effnet.data import open_data
    from effnet.data.webdataset_writer import write_shards

    splits = open_data(data)
    with progress_bar("writing") as step:
        written = write_shards(
            splits, out, megabytes, resize, strict, progress=lambda split, done, total: step(done, total)
        )
    if as_json:
        print_json(asdict(written))
        return
    note(
        f"{written.num_images:,} pictures are in {len(written.shards)} shards in {out}"
        f"{', and were there before' * written.already_complete}"
    )
    if written.skipped:
        note(f"left out, since they could not be read: {len(written.skipped)}")
        for why in written.skipped[:MAX_UNREADABLE_SHOWN]:
            note(f"  {why}")
