"""How results look: calm tables in a terminal, the same with nothing cut off in a pipe, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import floor, log10
from typing import TYPE_CHECKING, Any

import typer

from effnet.draw.formatting import format_si as format_si
from effnet.draw.formatting import format_size as format_size

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

_PIPE_WIDTH = 100_000  # columns of a pipe or a file, where nobody needs lines to be broken


def new_table(*headings: str, left: Collection[str] = ()) -> Table:
    """An empty table. Columns hold numbers and lean to the right, but those in ``left``."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        made.add_column(heading, justify="left" if heading in left else "right", overflow="fold")
    return made


def print_results(*parts: Table | str) -> None:
    """Prints tables and lines of text on standard output, with an empty line on either side of a table."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for index, part in enumerate(parts):
        if index and not (isinstance(part, str) and isinstance(parts[index - 1], str)):
            console.print()
        console.print(part, soft_wrap=isinstance(part, str))


def print_json(data: Any) -> None:
    """Prints ``data`` as JSON on standard output; ASCII only, so that no terminal or locale can spoil it."""
    print(json.dumps(data, indent=2))


def note(text: str) -> None:
    """Prints one line for a human being on standard error."""
    print(f"effnet: {text}", file=sys.stderr)


def progress_bars(hidden: bool = False) -> Progress:
    """Bars on standard error that leave nothing behind, and are not there where it is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = hidden or not sys.stderr.isatty()
    # Standard output stays what it is: rich would send it to standard error, even where it goes to a file.
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden)


@contextmanager
def progress_bar(what: str, hidden: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, where that is a terminal: to be called with (done, in all or None if not known)."""
    with progress_bars(hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def format_number(value: float) -> str:
    """A number in four significant digits, and all that stand before the point: ``41.23``, ``0.001234``, ``12,346``."""
    if value == 0 or not 1e-5 <= abs(value) < 1e12:
        return f"{value:.4g}"
    digits = max(0, 3 - floor(log10(abs(value))))
    return f"{value:,.{digits}f}"


def format_duration(seconds: float) -> str:
    """``45 seconds``, ``12 minutes``, ``3.4 hours``."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def format_percent(share: float) -> str:
    """A fraction as ``97.3%``."""
    return f"{share:.1%}"


# Pictures that could be read and those that could not: counted, named, and what that makes of the exit status.


class ReadCounter:
    """Counts pictures, and names on standard error those that could not be read.

    ``step`` hears how many there were after each, and None, since nobody knows how many there will be.
    """

    def __init__(self, step: Callable[[int, int | None], None] = lambda done, total: None) -> None:
        self.step, self.read, self.unreadable = step, 0, 0

    def add(self, name: str, found: object) -> bool:
        """Whether the picture was read: ``found`` is no error, nor a text that says why not."""

        why = str(found) if isinstance(found, (str, ValueError)) else ""
        self.read, self.unreadable = (self.read, self.unreadable + 1) if why else (self.read + 1, self.unreadable)
        self.step(self.read + self.unreadable, None)
        if why:
            note(why if name in why else f"{name}: {why}")
        return not why

    def finish(self, message: str = "", strict: bool = False) -> None:
        """Says what was ``done`` and how many were not read.

        The status is 1 where no picture could be read, or with ``strict`` not all.
        """

        if message:
            note(message)
        if self.unreadable:
            note(f"{self.unreadable} of {self.read + self.unreadable} pictures could not be read")
        if not self.read or (strict and self.unreadable):
            raise typer.Exit(1)
