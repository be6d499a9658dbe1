"""How results look: calm tables in a terminal, the same with nothing cut off in a pipe, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import floor, log10
from typing import TYPE_CHECKING, Any

from effnet.draw.diagram.words import short as short
from effnet.draw.diagram.words import sides as sides

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

_NO_END = 100_000  # columns of a pipe or a file, where nobody needs lines to be broken


def table(*headings: str, left: Collection[str] = ()) -> Table:
    """An empty table. Columns hold numbers and lean to the right, but those in ``left``."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        made.add_column(heading, justify="left" if heading in left else "right", overflow="fold")
    return made


def show(*parts: Table | str) -> None:
    """Prints tables and lines of text on standard output, with an empty line on either side of a table."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _NO_END
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for index, part in enumerate(parts):
        if index and not (isinstance(part, str) and isinstance(parts[index - 1], str)):
            console.print()
        console.print(part, soft_wrap=isinstance(part, str))


def show_json(data: Any) -> None:
    """Prints ``data`` as JSON on standard output; ASCII only, so that no terminal or locale can spoil it."""
    print(json.dumps(data, indent=2))


def note(text: str) -> None:
    """Prints one line for a human being on standard error."""
    print(f"effnet: {text}", file=sys.stderr)


def bars(hidden: bool = False) -> Progress:
    """Bars on standard error that leave nothing behind, and are not there where it is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = hidden or not sys.stderr.isatty()
    # Standard output stays what it is: rich would send it to standard error, even where it goes to a file.
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=hidden)


@contextmanager
def progress(what: str, hidden: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, where that is a terminal: to be called with (done, in all or None if not known)."""
    with bars(hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def figure(value: float) -> str:
    """A number in four significant digits, and all that stand before the point: ``41.23``, ``0.001234``, ``12,346``."""
    if value == 0 or not 1e-5 <= abs(value) < 1e12:
        return f"{value:.4g}"
    digits = max(0, 3 - floor(log10(abs(value))))
    return f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """``45 seconds``, ``12 minutes``, ``3.4 hours``."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def percent(share: float) -> str:
    """A fraction as ``97.3%``."""
    return f"{share:.1%}"
