"""Printing: tables, JSON, progress bars, number formats, and the count of images that could not be read."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from effnet.draw import text as draw_text

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table


format_si, format_size, printable = draw_text.format_si, draw_text.format_size, draw_text.printable


def new_table(*headings: str, left: Collection[str] = (), rows: Iterable[Iterable[str]] = ()) -> "Table":
    """Return a table with right-aligned columns, except those in ``left``. Its cells are made `printable`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    class PrintableTable(Table):
        def add_row(self, *cells: Any, **settings: Any) -> None:
            super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **settings)

    table = PrintableTable(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        shown = "\n".join(map(printable, heading.split("\n")))
        table.add_column(shown, justify="left" if heading in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_results(*parts: "Table | str") -> None:
    """Print tables and lines of text on standard output, with an empty line around each table."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100_000  # in a pipe or a file lines must not be broken
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for index, part in enumerate(parts):
        if index and not (isinstance(part, str) and isinstance(parts[index - 1], str)):
            console.print()
        shown = "\n".join(map(printable, part.split("\n"))) if isinstance(part, str) else part
        console.print(shown, soft_wrap=isinstance(part, str))


def print_json(data: Any) -> None:
    """Print ``data`` as JSON on standard output; ASCII only, whatever the locale."""
    print(json.dumps(data, indent=2))


def note(*lines: str) -> None:
    """Print lines for a person on standard error."""
    for line in lines:
        print(f"effnet: {printable(line, keep_lines=True)}", file=sys.stderr)


def describe_skipped(reasons: Collection[str]) -> list[str]:
    """Return lines that say which images could not be read, if any."""
    heading = f"skipped, because they could not be read: {len(reasons)}"
    return [heading, *(f"  {printable(reason)}" for reason in reasons)] if reasons else []


def note_written(paths: Collection[Path]) -> None:
    """Say which files were written, if any."""
    if paths:
        note(f"wrote {', '.join(path.name for path in paths)} to {next(iter(paths)).parent}")


def progress_bars(hidden: bool = False) -> "Progress":
    """Return transient progress bars on standard error, hidden where it is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = hidden or not sys.stderr.isatty()
    # rich would redirect standard output to standard error, even where it goes to a file
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden)


@contextmanager
def progress_bar(description: str, hidden: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on standard error; yield a function of (done, total), where an unknown total is None."""
    with progress_bars(hidden) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def format_number(value: float) -> str:
    """Format with four significant digits, and all digits before the point: ``41.23``, ``0.001234``, ``12,346``."""
    if value == 0 or not 1e-5 <= abs(value) < 1e12:
        return f"{value:.4g}"
    return f"{value:,.{max(0, 3 - floor(log10(abs(value))))}f}"


def format_duration(seconds: float) -> str:
    """Format as ``45 seconds``, ``12 minutes`` or ``3.4 hours``."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def format_percent(fraction: float) -> str:
    """Format a fraction as ``97.3%``."""
    return f"{fraction:.1%}"


class ReadCounter:
    """Counts images, tells ``step`` their number, and reports on standard error those that could not be read."""

    def __init__(self, step: Callable[[int, int | None], None] = lambda done, total: None) -> None:
        self.step, self.read, self.unreadable = step, 0, 0

    def add(self, name: str, result: object) -> bool:
        """Count an image; return whether it was read: ``result`` is neither an error nor a text that says why not."""
        reason = str(result) if isinstance(result, (str, ValueError)) else ""
        self.read, self.unreadable = self.read + (not reason), self.unreadable + bool(reason)
        self.step(self.read + self.unreadable, None)
        if reason:
            note(reason if name in reason else f"{name}: {reason}")
        return not reason

    def finish(self, message: str = "", strict: bool = False) -> None:
        """Print ``message`` and how many images were unreadable; exit with 1 if all, or with ``strict`` any, were."""
        if message:
            note(message)
        if self.unreadable:
            note(f"{self.unreadable} of {self.read + self.unreadable} images could not be read")
        if not self.read or (strict and self.unreadable):
            raise typer.Exit(1)
