"""Curves of a run in TensorBoard, Weights & Biases and others, while it goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from effnet.arch.record import did_you_mean
from effnet.training.events import Events
from effnet.training.watch import Watch
from effnet.weights.atomic import replacing

if TYPE_CHECKING:
    from effnet.training.history import Epoch

TENSORBOARD = "tensorboard"
# By the names that accelerate calls them, and their packages
PACKAGES = {
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
PROJECT = "effnet"


class Tracker(Protocol):
    """Who is told the figures of each epoch: `Events`, and accelerate's trackers."""

    def log(self, values: dict[str, float], step: int) -> None:
        """The figures after epoch ``step``."""

    def finish(self) -> None:
        """Nothing more will come."""


class Tracked(Watch):
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
        watch: Watch,
        folder: Path,
        names: Sequence[str],
        run: str = "",
        settings: Mapping[str, object] | None = None,
        figure: str = "top-1",
    ) -> None:
        installed(names)
        self._watch, self._figure = watch, figure
        self._trackers: dict[str, Tracker] = {}
        self._state = folder / "tracked.json"
        self._run, self._last = uuid4().hex, 0
        if self._state.is_file():
            known = json.loads(self._state.read_text())
            self._run, self._last = known["run"], known["epoch"]
        for name in dict.fromkeys(names):
            try:
                self._trackers[name] = _started(name, folder, run, self._run, self._last + 1, dict(settings or {}))
            except Exception as error:  # whatever its package raises
                self.close()
                raise ValueError(f"{name} does not start ({error}): set it up first, or train without it") from error

    def progress(self, stage: str, done: int, total: int) -> None:
        """As `Watch.progress`."""
        self._watch.progress(stage, done, total)

    def say(self, text: str) -> None:
        """As `Watch.say`."""
        self._watch.say(text)

    def epoch(self, line: Epoch) -> None:
        """As `Watch.epoch`. A tracker that fails is told nothing more: a curve is not worth a run."""
        self._watch.epoch(line)
        if not self._trackers or line.epoch <= self._last:
            return  # of a run that was stopped before the epoch's checkpoint: it was trained once more
        values = {
            "training/loss": line.loss,
            "training/learning rate": line.learning_rate,
            "training/seconds": line.seconds,
            "held out/loss": line.select_loss,
            f"held out/{self._figure}": line.select_top1,
        }
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(values, step=line.epoch)
            except Exception as error:
                del self._trackers[name]
                self.say(f"{name} has failed and is told nothing more; training goes on ({error})")
        self._last = line.epoch
        with replacing(self._state) as beside:
            beside.write_text(json.dumps({"run": self._run, "epoch": self._last}))

    def close(self) -> None:
        """Finishes every tracker."""
        for name, tracker in self._trackers.items():
            try:
                tracker.finish()
            except Exception as error:
                self.say(f"{name} did not finish well ({error})")
        self._trackers.clear()


def installed(names: Sequence[str]) -> None:
    """Raises ``ValueError`` for a name that is no tracker's, ``ImportError`` for one that is not installed."""
    for name in names:
        if name not in PACKAGES:
            known = list(PACKAGES)
            raise ValueError(f"there is no tracker {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")
        if find_spec(name) is None:
            raise ImportError(f"{name} is not installed: pip install {PACKAGES[name]}")


def default() -> tuple[str, ...]:
    """The trackers of a run for which none was asked: TensorBoard where it is installed."""
    return (TENSORBOARD,) if find_spec(TENSORBOARD) else ()


def _started(name: str, folder: Path, run: str, key: str, start: int, settings: dict[str, object]) -> Tracker:
    """The tracker ``name``, for the epochs from ``start`` on of the run that ``key`` tells from all others."""
    if name == TENSORBOARD:
        return Events(folder, start)
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # there is one in a run; the trackers ask it which process they are in
    made = LOGGER_TYPE_TO_CLASS[name]
    folder.mkdir(parents=True, exist_ok=True)
    place = [str(folder)] if made.requires_logging_directory else []
    tracker = made(PROJECT, *place, **_same_run(name, folder, run, key))
    tracker.start()
    tracker.store_init_configuration(dict(_flat(settings)))
    found: Tracker = tracker
    return found


def _same_run(name: str, folder: Path, run: str, key: str) -> dict[str, object]:
    """What makes the package go on with the run ``key`` where it knows it, and begin it where it does not."""
    known: dict[str, dict[str, object]] = {
        "wandb": {"id": key, "name": run, "resume": "allow", "dir": str(folder)},
        "swanlab": {"id": key[:21], "experiment_name": run, "resume": "allow", "logdir": str(folder / "swanlab")},
        "trackio": {"name": f"{run} {key[:6]}".strip(), "resume": "allow"},
        "comet_ml": {"experiment_key": key},
        "dvclive": {"dir": str(folder / "dvclive"), "resume": True},
        "mlflow": {"run_name": run},
        "clearml": {"task_name": run},
    }
    return known.get(name, {})


def _flat(settings: Mapping[str, object], before: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Settings within settings as ``augment.crop``; what is no number, as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, (bool, int, float)) else str(value)
