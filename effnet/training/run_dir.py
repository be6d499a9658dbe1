"""The folder of a run: what lies in it, whose it is, and whether the run is finished."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.data.storage.atomic_write import atomic_write
from effnet.evaluation import AnyEvaluation, Evaluation, read_evaluation
from effnet.training.callbacks import EpochMetrics


@dataclass(frozen=True)
class TrainResult:
    """What a run has made. ``evaluations`` are of the pictures that no choice has seen, by the name of their split."""

    model: Path
    chosen: str  # "probe" or "fine-tuned"
    evaluations: dict[str, AnyEvaluation]
    history: tuple[EpochMetrics, ...]
    probe_metric: float | None  # of the probe, each training picture left out in turn
    unreadable: tuple[str, ...]
    seconds: float = 0.0  # of the whole run, all its parts where it was resumed

    @property
    def report_split(self) -> str:
        """The split to quote: the test set, else the validation set, else what was held out."""
        return "test" if "test" in self.evaluations else next(iter(self.evaluations))

    @property
    def evaluation(self) -> AnyEvaluation:
        """The evaluation on ``split``."""
        return self.evaluations[self.report_split]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON; ``figure`` is what to quote: its name and its value."""
        found = self.evaluation
        ranked = {"top1": found.top1, "top5": found.top5} if isinstance(found, Evaluation) else {}
        return {
            "model": str(self.model),
            "chosen": self.chosen,
            "split": self.report_split,
            "figure": found.primary_metric,
            **ranked,
            "pictures": found.images,
            "evaluations": {name: found.to_dict() for name, found in self.evaluations.items()},
            "history": [vars(line) for line in self.history],
            "probe_top1": self.probe_metric,
            "left_out": list(self.unreadable),
            "seconds": self.seconds,
        }


class RunDir:
    """The files of a run in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.model = folder / "model.safetensors"
        self.report = folder / "report.html"
        self.split_csv = folder / "split.csv"
        self.checkpoints = folder / "checkpoints"
        self.logs = folder / "logs"
        self._settings_file = folder / "run.json"
        self._result_file = folder / "result.json"

    def claim(self, settings: dict[str, Any], resume: bool) -> None:
        """Sees that the folder is free, or with ``resume`` holds a run of the same settings.

        Raises ``FileExistsError`` for a folder in use, ``ValueError`` for a run with other settings.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file: give a folder that is empty or does not exist")
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return
        if not resume:
            raise FileExistsError(f"{self.path} is in use: give another folder, or --resume to go on with its run")
        if not self._settings_file.is_file():
            raise FileExistsError(f"{self.path} is not empty and holds no run to resume: give another folder")
        before, now = json.loads(self._settings_file.read_text()), json.loads(json.dumps(settings))
        changed = [f"{name} was {before.get(name)}" for name in now if before.get(name) != now[name]]
        if changed:
            raise ValueError(f"{self.path} holds a run with other settings ({'; '.join(changed)}): resume it as it was")

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Writes down what the run is, before anything of it is lost by a stop."""
        for leftover in self.path.glob(".*.part"):  # of a process that was killed while it wrote
            leftover.unlink()
        _write_json(self._settings_file, settings)

    def write_result(self, result: TrainResult) -> None:
        """Writes the result, last of all: a run with a result is finished."""
        _write_json(self._result_file, result.to_dict())

    def read_result(self) -> TrainResult | None:
        """The result of a finished run, or None."""
        if not self._result_file.is_file():
            return None
        found = json.loads(self._result_file.read_text())
        return TrainResult(
            self.model,
            found["chosen"],
            {name: read_evaluation(one) for name, one in found["evaluations"].items()},
            tuple(EpochMetrics(**line) for line in found["history"]),
            found["probe_top1"],
            tuple(found["left_out"]),
            found.get("seconds", 0.0),
        )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(content, indent=1))
