"""TensorBoard's event files, written with its own package.

Not by its `SummaryWriter`, nor accelerate's tracker, which is the same: these import TensorFlow wherever it is
installed, which takes seconds, and memory that a run needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from os import getpid
from pathlib import Path
from socket import gethostname
from time import time
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from effnet.arch.serde import did_you_mean
from effnet.data.storage.atomic_write import atomic_write
from effnet.training.callbacks import Callback

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

    from effnet.training.callbacks import EpochMetrics


class TensorBoardLogger:
    """An event file of its own in ``folder``, whose points come in after those of older files.

    Points that an older file has at ``start`` and beyond were of a run that was stopped, and are not shown.
    Raises ``OSError`` where the file cannot be written.
    """

    def __init__(self, folder: Path, start_epoch: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names
        self._file = folder / f"events.out.tfevents.{int(time() * 1000):014d}.{gethostname()}.{getpid()}"
        self._append(Event(wall_time=time(), file_version="brain.Event:2"))
        self._append(Event(wall_time=time(), step=start_epoch, session_log=SessionLog(status=SessionLog.START)))

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


# Curves of a run in TensorBoard, Weights & Biases and others, while it goes.


TENSORBOARD = "tensorboard"


# By the names that accelerate calls them, and their packages
LOGGER_PACKAGES = {
    TENSORBOARD: "tensorboard",
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet-ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "wandb": "wandb",
}


PROJECT_NAME = "effnet"


class MetricLogger(Protocol):
    """Who is told the figures of each epoch: `Events`, and accelerate's trackers."""

    def log(self, values: dict[str, float], step: int) -> None:
        """The figures after epoch ``step``."""

    def finish(self) -> None:
        """Nothing more will come."""


class LoggingCallback(Callback):
    """Tells ``watch`` what happens, and the trackers in ``names`` the figures of each epoch.

    ``folder`` is the run's own for curves: TensorBoard's files lie in it, and what a resumed run needs to go on in the
    same curves without a point twice (aim, clearml and mlflow show it as a second one, from the epoch at which it went
    on). ``run``: what to call the run; ``settings``: everything to be shown beside it; ``figure``: what an epoch's
    ``select_top1`` is. To be closed, as by `contextlib.closing`. Trackers other than TensorBoard sign in and choose
    where they write by their own environment variables; the project is called effnet.
    Raises ``ValueError`` for a tracker that is not known or does not start, ``ImportError`` for one not installed.
    """

    def __init__(
        self,
        callback: Callback,
        folder: Path,
        names: Sequence[str],
        run_name: str = "",
        settings: Mapping[str, object] | None = None,
        metric_name: str = "top-1",
    ) -> None:
        check_installed(names)
        self._callback, self._metric_name = callback, metric_name
        self._loggers: dict[str, MetricLogger] = {}
        self._state_file = folder / "tracked.json"
        self._run_id, self._last_epoch = uuid4().hex, 0
        if self._state_file.is_file():
            known = json.loads(self._state_file.read_text())
            self._run_id, self._last_epoch = known["run"], known["epoch"]
        for name in dict.fromkeys(names):
            try:
                self._loggers[name] = _start_logger(
                    name, folder, run_name, self._run_id, self._last_epoch + 1, dict(settings or {})
                )
            except Exception as error:  # whatever its package raises
                self.close()
                raise ValueError(f"{name} does not start ({error}): set it up first, or train without it") from error

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """As `Watch.progress`."""
        self._callback.on_progress(phase, done, total)

    def on_message(self, text: str) -> None:
        """As `Watch.say`."""
        self._callback.on_message(text)

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """As `Watch.epoch`. A tracker that fails is told nothing more: a curve is not worth a run."""
        self._callback.on_epoch_end(metrics)
        if not self._loggers or metrics.epoch <= self._last_epoch:
            return  # of a run that was stopped before the epoch's checkpoint: it was trained once more
        values = {
            "training/loss": metrics.train_loss,
            "training/learning rate": metrics.learning_rate,
            "training/seconds": metrics.seconds,
            "held out/loss": metrics.selection_loss,
            f"held out/{self._metric_name}": metrics.selection_metric,
        }
        for name, tracker in list(self._loggers.items()):
            try:
                tracker.log(values, step=metrics.epoch)
            except Exception as error:
                del self._loggers[name]
                self.on_message(f"{name} has failed and is told nothing more; training goes on ({error})")
        self._last_epoch = metrics.epoch
        with atomic_write(self._state_file) as beside:
            beside.write_text(json.dumps({"run": self._run_id, "epoch": self._last_epoch}))

    def close(self) -> None:
        """Finishes every tracker."""
        for name, tracker in self._loggers.items():
            try:
                tracker.finish()
            except Exception as error:
                self.on_message(f"{name} did not finish well ({error})")
        self._loggers.clear()


def check_installed(names: Sequence[str]) -> None:
    """Raises ``ValueError`` for a name that is no tracker's, ``ImportError`` for one that is not installed."""
    for name in names:
        if name not in LOGGER_PACKAGES:
            known = list(LOGGER_PACKAGES)
            raise ValueError(f"there is no tracker {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")
        if find_spec(name) is None:
            raise ImportError(f"{name} is not installed: pip install {LOGGER_PACKAGES[name]}")


def default_loggers() -> tuple[str, ...]:
    """The trackers of a run for which none was asked: TensorBoard where it is installed."""
    return (TENSORBOARD,) if find_spec(TENSORBOARD) else ()


def _start_logger(
    name: str, folder: Path, run_name: str, run_id: str, start: int, settings: dict[str, object]
) -> MetricLogger:
    """The tracker ``name``, for the epochs from ``start`` on of the run that ``key`` tells from all others."""
    if name == TENSORBOARD:
        return TensorBoardLogger(folder, start)
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # there is one in a run; the trackers ask it which process they are in
    made = LOGGER_TYPE_TO_CLASS[name]
    folder.mkdir(parents=True, exist_ok=True)
    place = [str(folder)] if made.requires_logging_directory else []
    tracker = made(PROJECT_NAME, *place, **_resume_arguments(name, folder, run_name, run_id))
    tracker.start()
    tracker.store_init_configuration(dict(_flatten(settings)))
    found: MetricLogger = tracker
    return found


def _resume_arguments(name: str, folder: Path, run_name: str, run_id: str) -> dict[str, object]:
    """What makes the package go on with the run ``key`` where it knows it, and begin it where it does not."""
    known: dict[str, dict[str, object]] = {
        "wandb": {"id": run_id, "name": run_name, "resume": "allow", "dir": str(folder)},
        "swanlab": {
            "id": run_id[:21],
            "experiment_name": run_name,
            "resume": "allow",
            "logdir": str(folder / "swanlab"),
        },
        "trackio": {"name": f"{run_name} {run_id[:6]}".strip(), "resume": "allow"},
        "comet_ml": {"experiment_key": run_id},
        "dvclive": {"dir": str(folder / "dvclive"), "resume": True},
        "mlflow": {"run_name": run_name},
        "clearml": {"task_name": run_name},
    }
    return known.get(name, {})


def _flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Settings within settings as ``augment.crop``; what is no number, as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, (bool, int, float)) else str(value)
