"""Progress on stderr: a bar where somebody is looking, plain lines where nobody is."""

from __future__ import annotations

from typing import Self

from effnet.cli.printing import bars
from effnet.training.watch import Watch


class Shown(Watch):
    """Shows what a `Watch` hears; use as a context."""

    def __init__(self) -> None:
        self._bars = bars()
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
        self._bars.console.print(text, markup=False)
