"""TensorBoard's event files, written with its own package.

Not by its `SummaryWriter`, nor accelerate's tracker, which is the same: these import TensorFlow wherever it is
installed, which takes seconds, and memory that a run needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import getpid
from pathlib import Path
from socket import gethostname
from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class Events:
    """An event file of its own in ``folder``, whose points come in after those of older files.

    Points that an older file has at ``start`` and beyond were of a run that was stopped, and are not shown.
    Raises ``OSError`` where the file cannot be written.
    """

    def __init__(self, folder: Path, start: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names
        self._file = folder / f"events.out.tfevents.{int(time() * 1000):014d}.{gethostname()}.{getpid()}"
        self._append(Event(wall_time=time(), file_version="brain.Event:2"))
        self._append(Event(wall_time=time(), step=start, session_log=SessionLog(status=SessionLog.START)))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """A point on the curve of each name; it is in the file when this returns."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(Event(wall_time=time(), step=step, summary=Summary(value=points)))

    def finish(self) -> None:
        """Nothing is left to do: the file is never open for longer than a point takes."""

    def _append(self, event: Event) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._file.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
