"""Experiment trackers: what they receive, that a resumed run continues the curve, and failures."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from effnet.training.callbacks import Callback, EpochMetrics
from effnet.training.loggers import LoggingCallback, resolve_loggers
from tests.training.conftest import Recorder

READ = """
import json, sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")  # or it imports TensorFlow where that is installed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
tags = events.Tags()["scalars"]
print(json.dumps({tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}))
"""


def line(epoch: int) -> EpochMetrics:
    return EpochMetrics(epoch, 2.0 / epoch, 1.0 / epoch, 0.5 + 0.0625 * epoch, 0.25, 3.5)


def curves(folder: Path) -> dict[str, list[list[float]]]:
    """As TensorBoard itself reads them."""
    command = [sys.executable, "-c", READ, str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    read: dict[str, list[list[float]]] = json.loads(process.stdout)
    return read


def test_resumed_run_continues_the_same_curves(tmp_path: Path) -> None:
    recorder, folder = Recorder(), tmp_path / "logs"
    with closing(LoggingCallback(recorder, folder, ("tensorboard",))) as callback:
        callback.on_progress("epoch", 1, 2)
        callback.on_message("a word")
        callback.on_epoch_end(line(1))
        callback.on_epoch_end(line(2))
    callback = LoggingCallback(recorder, folder, ("tensorboard",))  # never closed, as by kill -9
    callback.on_epoch_end(line(3))
    state = (folder / "logged.json").read_text()
    callback.on_epoch_end(line(4))
    (folder / "logged.json").write_text(state)  # killed between the point and the note of it
    with closing(LoggingCallback(recorder, folder, ("tensorboard",))) as callback:
        callback.on_epoch_end(line(3))  # from a checkpoint before its end
        callback.on_epoch_end(line(4))
        callback.on_epoch_end(line(5))
    logged = curves(folder)
    assert logged["train/loss"] == [[epoch, pytest.approx(2.0 / epoch)] for epoch in range(1, 6)]
    assert logged["selection/loss"] == [[epoch, pytest.approx(1.0 / epoch)] for epoch in range(1, 6)]
    assert logged["selection/top-1"] == [[epoch, 0.5 + 0.0625 * epoch] for epoch in range(1, 6)]
    assert logged["train/learning_rate"] == [[epoch, 0.25] for epoch in range(1, 6)]
    assert logged["train/seconds"] == [[epoch, 3.5] for epoch in range(1, 6)]
    assert (recorder.messages, recorder.progress) == (["a word"], [("epoch", 1, 2)])
    assert recorder.epochs == [line(epoch) for epoch in (1, 2, 3, 4, 3, 4, 5)]


def test_tensorboard_imports_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from effnet.training.loggers import TensorBoardLogger\n"
        "TensorBoardLogger(Path(sys.argv[1]), 1).finish(); print('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert process.stdout.strip() == "False"


def test_unknown_and_missing_trackers() -> None:
    with pytest.raises(ValueError, match="unknown tracker 'wanb'; did you mean wandb"):
        resolve_loggers(["wanb"])
    with pytest.raises(ImportError, match="tracking by comet_ml requires comet-ml: pip install comet-ml"):
        resolve_loggers(["tensorboard", "comet_ml"])
    assert resolve_loggers(None) == ("tensorboard",)


class Run:
    """What `wandb.init` gives."""

    begun: ClassVar[list[dict[str, Any]]] = []
    settings: ClassVar[dict[str, Any]] = {}
    points: ClassVar[list[tuple[int, dict[str, float]]]] = []
    finished: ClassVar[int] = 0

    def log(self, values: dict[str, float], step: int) -> None:
        if step == 3:
            raise ConnectionError("no network")
        self.points.append((step, values))

    def finish(self) -> None:
        type(self).finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the package, behind accelerate's own tracker."""
    monkeypatch.setattr(Run, "begun", [])
    monkeypatch.setattr(Run, "settings", {})
    monkeypatch.setattr(Run, "points", [])
    monkeypatch.setattr(Run, "finished", 0)

    class Config:
        def update(self, values: dict[str, Any], allow_val_change: bool) -> None:
            Run.settings.update(values)

    def init(**options: Any) -> Run:
        Run.begun.append(options)
        return Run()

    package: Any = ModuleType("wandb")
    package.init, package.config, package.__spec__ = init, Config(), object()
    monkeypatch.setitem(sys.modules, "wandb", package)
    module: ModuleType = package
    return module


def test_others_run_through_accelerate(tmp_path: Path, wandb: ModuleType) -> None:
    settings = {"seed": 3, "recipe": {"batch_size": 32, "augment": {"crop": 0.5}, "size": None}}
    with closing(LoggingCallback(Callback(), tmp_path, ("wandb",), "photos", settings)) as callback:
        callback.on_epoch_end(line(1))
    with closing(LoggingCallback(Callback(), tmp_path, ("wandb",), "photos", settings)) as callback:
        callback.on_epoch_end(line(1))
        callback.on_epoch_end(line(2))
    first, second = Run.begun
    assert first == second  # the same run's id
    assert (first["project"], first["name"], first["resume"]) == ("effnet", "photos", "allow")
    assert len(first["id"]) == 32
    assert Run.settings == {"seed": 3, "recipe.batch_size": 32, "recipe.augment.crop": 0.5, "recipe.size": "None"}
    assert [step for step, _ in Run.points] == [1, 2]
    assert Run.points[0][1]["train/loss"] == 2.0
    assert Run.finished == 2


def test_failing_tracker_does_not_stop_the_run(tmp_path: Path, wandb: ModuleType) -> None:
    recorder = Recorder()
    with closing(LoggingCallback(recorder, tmp_path, ("tensorboard", "wandb"))) as callback:
        for epoch in range(1, 5):
            callback.on_epoch_end(line(epoch))
    assert [step for step, _ in Run.points] == [1, 2]
    assert recorder.messages == ["wandb failed and is disabled; training continues (no network)"]
    assert [step for step, _ in curves(tmp_path)["train/loss"]] == [1, 2, 3, 4]


def test_tracker_that_fails_to_start(tmp_path: Path, wandb: Any) -> None:
    def init(**_: Any) -> Run:
        raise PermissionError("no key")

    wandb.init = init
    with pytest.raises(ValueError, match=r"wandb failed to start \(no key\): set it up first, or train without it"):
        LoggingCallback(Callback(), tmp_path, ("tensorboard", "wandb"))
