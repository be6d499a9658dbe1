"""``effnet shard``: labeled images as WebDataset shards."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from effnet.arch import serde
from effnet.cli import options, printing

MAX_UNREADABLE_SHOWN = 10


def shard(
    data: Annotated[
        str, Argument(metavar="DATA", help="A folder with one subfolder per class, or any other data source.")
    ],
    out: Annotated[Path, Argument(metavar="OUT", help="The folder for the shards: a new one, or one to resume.")],
    shard_size: Annotated[float, options.real("Approximate size of a shard.", min=0.01, metavar="MB")] = 256,
    resize: Annotated[
        int | None,
        options.number("Downscale larger images to this short side.", max=serde.MAX_IMAGE_SIDE, metavar="PIXELS"),
    ] = None,
    bits: options.BitsOption = None,
    strict: options.StrictOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write images as WebDataset shards.

    OUT gets train-000000.tar, …, and an index with classes and counts. Splits are kept. After a crash the same command
    resumes. Train from them with `effnet train OUT`, or from an object store: `effnet train s3://bucket/OUT`.
    """
    from dataclasses import asdict

    from effnet.data import duplicates, open_data, webdataset_writer

    splits = open_data(data)
    duplicates.log_label_conflicts(splits.available)
    with printing.progress_bar("writing") as step:
        result = webdataset_writer.write_shards(
            splits, out, shard_size, resize, strict, progress=lambda split, done, total: step(done, total), bits=bits
        )
    if as_json:
        printing.print_json(asdict(result))
        return
    existing = " (they already existed)" if result.already_complete else ""
    printing.note(f"{result.images:,} images in {len(result.shards)} shards in {out}{existing}")
    printing.note(*printing.describe_skipped(result.skipped)[: 1 + MAX_UNREADABLE_SHOWN])
