"""Experiment trackers: TensorBoard, and Weights & Biases, MLflow and others through accelerate."""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from os import getpid
from pathlib import Path
from socket import gethostname
from time import time
from typing import Any
from uuid import uuid4

from effnet.arch.serde import did_you_mean, read_json_object
from effnet.data.storage.atomic_write import write_text
from effnet.telemetry import disable_telemetry
from effnet.training.callbacks import Callback, EpochMetrics, ForwardingCallback

TENSORBOARD = "tensorboard"
LOGGER_PACKAGES = {  # accelerate's names, and their packages
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


class LoggingCallback(ForwardingCallback):
    """Sends the metrics of each epoch to experiment trackers, and everything to ``callback``.

    Trackers other than TensorBoard are configured by their own environment variables; the project is "effnet". A
    resumed run continues the same curves without duplicate points (aim, clearml and mlflow show a second run that
    starts at the epoch where it was resumed). ``folder`` holds TensorBoard's files and the state that a resumed run
    needs; ``metric_name`` names an epoch's ``selection_metric``. ``ValueError`` for a tracker that fails to start.
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
        super().__init__(callback)
        self._metric_name = metric_name
        self._loggers: dict[str, Any] = {}  # `TensorBoardLogger`, and accelerate's trackers
        self._state_file = folder / "logged.json"
        self._run_id, self._last_epoch = uuid4().hex, 0
        if self._state_file.is_file():
            state = read_json_object(self._state_file, lambda state: (str(state["run_id"]), int(state["epoch"])))
            self._run_id, self._last_epoch = state
        for name in dict.fromkeys(names):
            try:
                self._loggers[name] = self._start_logger(name, folder, run_name, settings or {})
            except Exception as error:  # anything that its package raises
                self.close()
                raise ValueError(f"{name} failed to start ({error}): set it up first, or train without it") from error

    def _start_logger(self, name: str, folder: Path, run_name: str, settings: Mapping[str, object]) -> Any:
        if name == TENSORBOARD:
            return TensorBoardLogger(folder, self._last_epoch + 1)
        disable_telemetry("accelerate")
        disable_telemetry(name)
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        # By these a package continues the run of this id if it exists, and starts it if not
        run_id, swanlab = self._run_id, f"{folder}/swanlab"
        arguments: dict[str, dict[str, object]] = {
            "wandb": {"id": run_id, "name": run_name, "resume": "allow", "dir": str(folder)},
            "swanlab": {"id": run_id[:21], "experiment_name": run_name, "resume": "allow", "logdir": swanlab},
            "trackio": {"name": f"{run_name} {run_id[:6]}".strip(), "resume": "allow"},
            "comet_ml": {"experiment_key": run_id},
            "dvclive": {"dir": f"{folder}/dvclive", "resume": True},
            "mlflow": {"run_name": run_name},
            "clearml": {"task_name": run_name},
        }
        PartialState()  # the trackers ask it which process they are in
        tracker_class = LOGGER_TYPE_TO_CLASS[name]
        folder.mkdir(parents=True, exist_ok=True)
        directory = [str(folder)] if tracker_class.requires_logging_directory else []
        tracker = tracker_class("effnet", *directory, **arguments.get(name, {}))
        tracker.start()
        tracker.store_init_configuration(dict(_flatten(settings)))
        return tracker

    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        """Log the metrics. A tracker that fails is dropped: its curves are not worth the run."""
        super().on_epoch_end(metrics)
        if not self._loggers or metrics.epoch <= self._last_epoch:
            return  # the run was interrupted between this epoch and its checkpoint, and trains it again
        values = {
            "train/loss": metrics.train_loss,
            "train/learning_rate": metrics.learning_rate,
            "train/seconds": metrics.seconds,
            "selection/loss": metrics.selection_loss,
            f"selection/{self._metric_name}": metrics.selection_metric,
        }
        for name, logger in list(self._loggers.items()):
            try:
                logger.log(values, step=metrics.epoch)
            except Exception as error:
                del self._loggers[name]
                self.on_message(f"{name} failed and is disabled; training continues ({error})")
        self._last_epoch = metrics.epoch
        write_text(self._state_file, json.dumps({"run_id": self._run_id, "epoch": self._last_epoch}))

    def close(self) -> None:
        """Finish every tracker."""
        for name, logger in self._loggers.items():
            try:
                logger.finish()
            except Exception as error:
                self.on_message(f"{name} failed to finish ({error})")
        self._loggers.clear()


class TensorBoardLogger:
    """An event file in ``folder``; from ``start_epoch`` on its points replace those of older files, of an earlier try.

    Written by TensorBoard's record writer. Its `SummaryWriter`, which accelerate uses, imports TensorFlow wherever that
    is installed, which takes seconds and memory that a run needs.
    """

    def __init__(self, folder: Path, start_epoch: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names
        self._file = folder / f"events.out.tfevents.{int(time() * 1000):014d}.{gethostname()}.{getpid()}"
        self._append(file_version="brain.Event:2")
        self._append(step=start_epoch, session_log={"status": "START"})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to the curve of each name; it is in the file when this returns."""
        points = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._append(step=step, summary={"value": points})

    def finish(self) -> None:
        """Nothing to do: the file is only open while a point is written."""

    def _append(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self._file.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time(), **event).SerializeToString())


def resolve_loggers(names: Sequence[str] | None) -> Sequence[str]:
    """Return the trackers to use, by default TensorBoard if it is installed.

    Raises ``ValueError`` for an unknown tracker, ``ImportError`` for one that is not installed.
    """
    if names is None:
        return (TENSORBOARD,) if find_spec(TENSORBOARD) else ()
    for name in names:
        if name not in LOGGER_PACKAGES:
            known = list(LOGGER_PACKAGES)
            raise ValueError(f"unknown tracker {name!r}{did_you_mean(name, known)}; available: {', '.join(known)}")
        if find_spec(name) is None:
            package = '"effnet[train]"' if name == TENSORBOARD else LOGGER_PACKAGES[name]
            raise ImportError(f"tracking by {name} requires {LOGGER_PACKAGES[name]}: pip install {package}")
    return names


def _flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield nested settings as ``augment.mixup``; other values than numbers as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, (bool, int, float)) else str(value)
