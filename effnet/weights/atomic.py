"""A file and its companions take their places together."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from effnet.data.storage.atomic import replacing as replacing


def take_place(made: Path, path: Path, beside: Path) -> None:
    """Moves the file ``made`` to ``beside``, which is about to become ``path``, and all else in its folder next to it.

    What lies with ``made``, as weights beside a graph, takes its places just before what names it does.
    """
    with ExitStack() as companions:
        for file in made.parent.iterdir():
            if file != made:
                file.replace(companions.enter_context(replacing(path.with_name(file.name))))
        made.replace(beside)
