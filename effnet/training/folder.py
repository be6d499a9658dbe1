"""The folder of a run: what lies in it, whose it is, and whether the run is finished."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.evaluation import Evaluation, Judged, read
from effnet.training.history import Epoch
from effnet.weights.atomic import replacing


@dataclass(frozen=True)
class Result:
    """What a run has made. ``evaluations`` are of the pictures that no choice has seen, by the name of their split."""

    model: Path
    chosen: str  # "probe" or "fine-tuned"
    evaluations: dict[str, Judged]
    history: tuple[Epoch, ...]
    probe_top1: float | None  # of the probe, each training picture left out in turn
    left_out: tuple[str, ...]
    seconds: float = 0.0  # of the whole run, all its parts where it was resumed

    @property
    def split(self) -> str:
        """The split to quote: the test set, else the validation set, else what was held out."""
        return "test" if "test" in self.evaluations else next(iter(self.evaluations))

    @property
    def evaluation(self) -> Judged:
        """The evaluation on ``split``."""
        return self.evaluations[self.split]

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, for JSON; ``figure`` is what to quote: its name and its value."""
        found = self.evaluation
        ranked = {"top1": found.top1, "top5": found.top5} if isinstance(found, Evaluation) else {}
        return {
            "model": str(self.model),
            "chosen": self.chosen,
            "split": self.split,
            "figure": found.headline,
            **ranked,
            "pictures": found.pictures,
            "evaluations": {name: found.to_dict() for name, found in self.evaluations.items()},
            "history": [vars(line) for line in self.history],
            "probe_top1": self.probe_top1,
            "left_out": list(self.left_out),
            "seconds": self.seconds,
        }


class RunFolder:
    """The files of a run in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.safetensors"
        self.report = folder / "report.html"
        self.split = folder / "split.csv"
        self.checkpoints = folder / "checkpoints"
        self.logs = folder / "logs"
        self._settings = folder / "run.json"
        self._result = folder / "result.json"

    def claim(self, settings: dict[str, Any], resume: bool) -> None:
        """Sees that the folder is free, or with ``resume`` holds a run of the same settings.

        Raises ``FileExistsError`` for a folder in use, ``ValueError`` for a run with other settings.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"{self.folder} is a file: give a folder that is empty or does not exist")
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return
        if not resume:
            raise FileExistsError(f"{self.folder} is in use: give another folder, or --resume to go on with its run")
        if not self._settings.is_file():
            raise FileExistsError(f"{self.folder} is not empty and holds no run to resume: give another folder")
        before, now = json.loads(self._settings.read_text()), json.loads(json.dumps(settings))
        changed = [f"{name} was {before.get(name)}" for name in now if before.get(name) != now[name]]
        if changed:
            raise ValueError(
                f"{self.folder} holds a run with other settings ({'; '.join(changed)}): resume it as it was"
            )

    def begin(self, settings: dict[str, Any]) -> None:
        """Writes down what the run is, before anything of it is lost by a stop."""
        for leftover in self.folder.glob(".*.part"):  # of a process that was killed while it wrote
            leftover.unlink()
        _write(self._settings, settings)

    def finish(self, result: Result) -> None:
        """Writes the result, last of all: a run with a result is finished."""
        _write(self._result, result.to_dict())

    def result(self) -> Result | None:
        """The result of a finished run, or None."""
        if not self._result.is_file():
            return None
        found = json.loads(self._result.read_text())
        return Result(
            self.model,
            found["chosen"],
            {name: read(one) for name, one in found["evaluations"].items()},
            tuple(Epoch(**line) for line in found["history"]),
            found["probe_top1"],
            tuple(found["left_out"]),
            found.get("seconds", 0.0),
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as beside:
        beside.write_text(json.dumps(content, indent=1))
