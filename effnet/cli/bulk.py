"""``effnet predict … --out FILE``: whole folders, shards and stores into one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from effnet.prediction import Predictor


def predict_into(
    out: Path,
    sources: list[str],
    make: Callable[[], Predictor],
    asked: Mapping[str, Any],
    top: int,
    every: float,
    cluster: str | None,
    force: bool,
    strict: bool,
) -> None:
    """Does the work under a bar and says what is in the result.

    The status is 1 where no picture could be read, where a shard could not be read to its end, and, if ``strict``,
    where any picture could not.
    """
    from effnet.cli.printing import note, progress
    from effnet.prediction.folder import predict_into

    with progress("predicting") as step:
        done = predict_into(
            out,
            sources,
            make,
            asked,
            top=top,
            every=every,
            cluster=cluster,
            force=force,
            progress=lambda pictures: step(pictures, None),
        )
    unread = f"; {done.unread} of them could not be read, and their rows say why" if done.unread else ""
    if done.before:
        note(f"{out} is finished already, with {done.pictures} pictures{unread}; --force predicts them again")
        return
    note(f"{done.pictures} pictures are in {out}{unread}")
    if done.broken:
        note(f"{done.broken} shards could not be read to their end: the same command tries them, and only them, again")
    if done.broken or done.unread == done.pictures or (strict and done.unread):
        raise typer.Exit(1)
