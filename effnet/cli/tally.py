"""Pictures that could be read and those that could not: counted, named, and what that makes of the exit status."""

from __future__ import annotations

from collections.abc import Callable

import typer


class Tally:
    """Counts pictures, and names on standard error those that could not be read.

    ``step`` hears how many there were after each, and None, since nobody knows how many there will be.
    """

    def __init__(self, step: Callable[[int, int | None], None] = lambda done, total: None) -> None:
        self.step, self.read, self.unread = step, 0, 0

    def read_one(self, name: str, found: object) -> bool:
        """Whether the picture was read: ``found`` is no error, nor a text that says why not."""
        from effnet.cli.printing import note

        why = str(found) if isinstance(found, (str, ValueError)) else ""
        self.read, self.unread = (self.read, self.unread + 1) if why else (self.read + 1, self.unread)
        self.step(self.read + self.unread, None)
        if why:
            note(why if name in why else f"{name}: {why}")
        return not why

    def end(self, done: str = "", strict: bool = False) -> None:
        """Says what was ``done`` and how many were not read.

        The status is 1 where no picture could be read, or with ``strict`` not all.
        """
        from effnet.cli.printing import note

        if done:
            note(done)
        if self.unread:
            note(f"{self.unread} of {self.read + self.unread} pictures could not be read")
        if not self.read or (strict and self.unread):
            raise typer.Exit(1)
