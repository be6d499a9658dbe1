"""``effnet search``: networks and coefficients found by training many small networks on one's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet.arch import Arch
    from effnet.search.examples import Examples

Data = Annotated[str, typer.Argument(metavar="DATA", help="Labelled pictures: all that `effnet train` takes.")]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="NETWORK", help="What is grown or changed: by default nano at 16 pixels, without dropout."
    ),
]
Side = Annotated[int | None, typer.Option(min=4, metavar="PIXELS", help="The base's pictures: by default its own.")]
Processes = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Networks trained at once, a thread each: by default one a core.")
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Where results are kept: by default search.db in --out; postgresql://… for several machines.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="What all that is drawn depends on.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, how long it takes, and what it could tell.")
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="What is found is written here; a search here goes on.")]


def base(name: str | None, side: int | None) -> Arch:
    """The network that a search starts from."""
    from effnet.cli.networks import opened
    from effnet.search.proxy import BASE

    arch = BASE if name is None else replace(opened(name).arch, dropout=0.0, drop_path=0.0)
    return arch if side is None else replace(arch, name=f"{arch.name}_{side}", resolution=side)


def decoded(data: str, side: int, seed: int) -> Examples:
    """The pictures of ``data``, with a bar."""
    from effnet.cli.printing import progress
    from effnet.search.examples import examples

    with progress("reading pictures") as step:
        return examples(data, side, seed, step)


@contextmanager
def following(expected: int) -> Iterator[Callable[[Mapping[str, Any], Sequence[Any]], None]]:
    """What `effnet.search.jobs.perform` tells, as a bar of the ``expected`` trainings."""
    from effnet.cli.printing import progress

    with progress("training networks") as step:
        yield lambda results, jobs: step(len(results), max(expected, len(jobs)))
