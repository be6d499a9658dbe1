"""``effnet search``: networks and coefficients found by training many small networks on one's own pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet.arch import Arch
    from effnet.lab.search.dataset import SearchDataset
    from effnet.lab.search.scheduler import TrainingJob

PROGRESS_LINE_SECONDS = 30.0  # seconds between two lines where there is no terminal

DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="Labelled pictures: all that `effnet train` takes.")]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="NETWORK", help="What is grown or changed: by default nano at 16 pixels, without dropout."
    ),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(min=4, metavar="PIXELS", help="The base's pictures: by default its own.")
]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Networks trained at once, a thread each: by default one a core.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Where results are kept: by default search.db in --out; postgresql://… for several machines.",
    ),
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="What all that is drawn depends on.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, how long it takes, and what it could tell.")
]
OutOption = Annotated[
    Path, typer.Option(metavar="FOLDER", help="What is found is written here; a search here goes on.")
]


def resolve_base(name: str | None, side: int | None) -> Arch:
    """The network that a search starts from."""
    from effnet.cli.options import resolve_network
    from effnet.lab.search.proxy_training import BASE_ARCH

    arch = BASE_ARCH if name is None else replace(resolve_network(name).arch, dropout=0.0, drop_path=0.0)
    return arch if side is None else replace(arch, name=f"{arch.name}_{side}", resolution=side)


def load_examples(data: str, side: int, seed: int) -> SearchDataset:
    """The pictures of ``data``, with a bar."""
    from effnet.cli.printing import progress_bar
    from effnet.lab.search.dataset import load_dataset

    with progress_bar("reading pictures") as step:
        return load_dataset(data, side, seed, step)


def describe_resolution(examples: SearchDataset, chooses: bool = True) -> str:
    """Which differences the judged pictures can tell, in words.

    Raises ``ValueError`` where they are too few, or where what ``chooses`` has too few to choose by.
    """
    from effnet.lab.search.statistics import detectable_difference

    if chooses:
        detectable_difference(len(examples.selection))
    apart = 100 * detectable_difference(len(examples.test))
    told = (
        f"judged by {len(examples.test):,} pictures: differences below {apart:.1f} points may be by chance, though "
        "less so of networks that see the same pictures"
    )
    if chooses and not examples.has_test:
        told += "; there is no val or test split, so that these are what was chosen by"
    return told


@contextmanager
def status_line() -> Iterator[Callable[[str, bool], None]]:
    """For (a text, whether it is the last): a line that is refreshed in a terminal; elsewhere one now and then."""
    from rich.console import Console

    from effnet.cli.printing import note

    console, looked, before = Console(stderr=True, highlight=False), -PROGRESS_LINE_SECONDS, ""
    terminal = sys.stderr.isatty()

    def print_status(text: str, last: bool) -> None:
        nonlocal looked, before
        if terminal:
            status.update(text)
        elif text != before and (last or time.monotonic() - looked > PROGRESS_LINE_SECONDS):
            looked, before = time.monotonic(), text
            note(text)

    with console.status("", spinner="dots") as status:
        if not terminal:
            status.stop()
        yield print_status


@contextmanager
def training_progress(
    expected: Sequence[TrainingJob],
) -> Iterator[Callable[[Mapping[str, Any], Sequence[TrainingJob]], None]]:
    """What `effnet.lab.search.scheduler.perform` tells, said: how many of the ``expected`` trainings are done, and time left."""
    from effnet.cli.printing import format_duration

    whole, begun, first = sum(job.epochs for job in expected), time.monotonic(), -1
    with status_line() as say:

        def on_results(results: Mapping[str, Any], jobs: Sequence[TrainingJob]) -> None:
            nonlocal first
            done = [job.epochs for job in jobs if job.key in results]
            first = sum(done) if first < 0 else first
            left = max(whole, sum(job.epochs for job in jobs)) - sum(done)
            pace = (time.monotonic() - begun) / (sum(done) - first) if sum(done) > first else 0.0
            ahead = f", about {format_duration(pace * left)} left" if pace and left else ""
            say(f"{len(done)} of {max(len(expected), len(jobs))} trainings{ahead}", not left)

        yield on_results
