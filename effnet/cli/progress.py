"""Progress on stderr: a bar where somebody is looking, plain lines where nobody is."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from effnet.training.watch import Watch


class Shown(Watch):
    """Shows what a `Watch` hears; use as a context."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._console = console
        self._stage: str | None = None
        self._task = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of ``stage``."""
        if stage != self._stage:
            self._bars.reset(self._task, description=stage, total=total, visible=True)
            self._stage = stage
        self._bars.update(self._task, completed=done)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False)
