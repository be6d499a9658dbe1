"""The run directory: its files, the settings and images that a resumed run must share, and its result."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from effnet.arch.serde import read_json_object
from effnet.data.duplicates import LabelConflict, LabeledCopy
from effnet.data.storage.atomic_write import atomic_write, write_text
from effnet.data.storage.csv_files import csv_writer, read_records
from effnet.data.storage.process_lock import LOCK_NAME, lock_output
from effnet.evaluation import AnyEvaluation, Evaluation, read_evaluation
from effnet.training.callbacks import EpochMetrics

_FILE_SETTINGS = ("weights", "teacher")  # they name files, whose content counts and not their path
_MAX_NAMES = 3  # of images in a message


class ImageRow(NamedTuple):
    """What is recorded of an image; ``bytes`` and ``digest`` are empty where not known."""

    image: str
    label: str
    split: str
    bytes: str = ""  # size of the file
    digest: str = ""  # of its content


@dataclass(frozen=True)
class TrainResult:
    """The result of a run. ``evaluations`` are on images that no choice has seen, by the name of their split."""

    model: Path
    chosen: str  # "probe" or "fine-tuned"
    evaluations: dict[str, AnyEvaluation]
    history: tuple[EpochMetrics, ...]
    probe_metric: float | None  # the task's headline metric of the linear probe, leave-one-out
    skipped: tuple[str, ...]  # images that were left out, and why
    seconds: float = 0.0  # of the whole run, including those before it was resumed

    @property
    def report_split(self) -> str:
        """The split to quote: the test set, else the validation set, else the held-out images."""
        return "test" if "test" in self.evaluations else next(iter(self.evaluations))

    @property
    def evaluation(self) -> AnyEvaluation:
        """The evaluation on ``report_split``."""
        return self.evaluations[self.report_split]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, for JSON; ``primary_metric`` is the name and value to quote."""
        found = self.evaluation
        accuracies = {"top1": found.top1, "top5": found.top5} if isinstance(found, Evaluation) else {}
        return {
            "model": str(self.model),
            "chosen": self.chosen,
            "split": self.report_split,
            "primary_metric": found.primary_metric,
            **accuracies,
            "images": found.images,
            "evaluations": {name: evaluation.to_dict() for name, evaluation in self.evaluations.items()},
            "history": [vars(metrics) for metrics in self.history],
            "probe_metric": self.probe_metric,
            "skipped": list(self.skipped),
            "seconds": self.seconds,
        }


class RunDir:
    """The files of a run in ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.safetensors"
        self.report = path / "report.html"
        self.split_csv = path / "split.csv"
        self.label_conflicts = path / "label_conflicts.csv"
        self.lr_finder = path / "lr_finder.svg"
        self.checkpoints = path / "checkpoints"
        self.logs = path / "logs"
        self._settings = path / "run.json"
        self._result = path / "result.json"

    def claim(self, settings: dict[str, Any], resume: bool, images: Callable[[], list[ImageRow]] = list) -> None:
        """Check that the directory is free or, with ``resume``, holds a run with the same settings and images.

        ``images``: lists those of the data, if they must be compared one by one, so that the difference can be named.
        """
        if not is_occupied(self.path, self._settings, resume, "run"):
            return
        before, now = self.read_settings(), json.loads(json.dumps(settings))
        changed = describe_changed_settings(before, now)
        if changed:
            way = (
                self._describe_longer_training()
                if any(text.startswith(("epochs", "minutes")) for text in changed)
                else ""
            )
            raise ValueError(
                f"{self.path} has a run with other settings ({'; '.join(changed)}): resume it with the same ones{way}"
            )
        was_older = "images" not in before  # of a version that knew nothing but the path
        if before["data" if was_older else "images"] == now["data" if was_older else "images"]:
            return
        rows = self.read_split()  # without one nothing has been trained
        changes = describe_changed_images(rows, images(), compare_splits=False) if rows else []
        if was_older:  # its table has no unreadable images, which seem to be new
            changes = [change for change in changes if " new (" not in change]
        if changes:
            raise ValueError(
                f"{self.path} has a run on other images: {'; '.join(changes)}; resume it with the same ones, or choose "
                "another directory"
            )

    def _describe_longer_training(self) -> str:
        if self.model.is_file():
            return f", or train on from its model into another directory: --weights {self.model} --output FOLDER"
        return ", or begin in another directory: the learning rates of all epochs depend on their number"

    def claim_split(self, rows: list[ImageRow]) -> None:
        """Write the split of every image, unless there is one. Raises ``ValueError`` if that has other images."""
        before = self.read_split()
        changes = [] if before is None else describe_changed_images(before, rows)
        if changes:
            raise ValueError(
                f"{self.path} cannot be resumed: since it began, {'; '.join(changes)}; put the images back as they "
                "were, or choose another directory"
            )
        write_rows(self.split_csv, rows)

    def write_label_conflicts(self, conflicts: Sequence[LabelConflict]) -> None:
        """List the images that have several labels, each copy with the number of its image; remove an older list."""
        if not conflicts:
            self.label_conflicts.unlink(missing_ok=True)
            return
        rows = [(number, *copy) for number, copies in enumerate(conflicts, start=1) for copy in copies]
        write_rows(self.label_conflicts, rows, ("number", *LabeledCopy._fields))

    def read_split(self) -> list[ImageRow] | None:
        """Return the images of the run, with their splits; None if none are recorded yet."""
        return read_rows(self.split_csv)

    def lock(self) -> AbstractContextManager[None]:
        """Be the only process that trains here; raise `OutputInUseError` if another one does."""
        return lock_output(self.path)

    def begin(self, settings: dict[str, Any]) -> None:
        """Write the settings of a run that begins, so that it can be resumed."""
        for leftover in self.path.glob(".*.part"):  # of a process that was killed while writing
            leftover.unlink()
        if not self._settings.is_file():
            self.write_settings(settings)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write the settings of a run that begins, or goes on with its data at another path."""
        write_text(self._settings, json.dumps(settings, indent=1))

    def read_settings(self) -> dict[str, Any]:
        """Return the settings of the run."""
        return read_json_object(self._settings, dict[str, Any])

    def write_result(self, result: TrainResult) -> None:
        """Write the result, last of all: a run with a result is finished."""
        write_text(self._result, json.dumps(result.to_dict(), indent=1))

    def read_result(self) -> TrainResult | None:
        """Return the result of a finished run, or None."""
        if not self._result.is_file():
            return None
        return read_json_object(
            self._result,
            lambda data: TrainResult(
                self.model,
                data["chosen"],
                {name: read_evaluation(evaluation) for name, evaluation in data["evaluations"].items()},
                tuple(EpochMetrics(**metrics) for metrics in data["history"]),
                data["probe_metric"],
                tuple(data["skipped"]),
                data["seconds"],
            ),
        )


def is_occupied(path: Path, settings: Path, resume: bool, content: str) -> bool:
    """Return whether ``path`` has a run to ``resume``, of which ``settings`` is a file; False if it is free.

    Raises ``FileExistsError`` for a directory that is in use; ``content`` says what it should have: "run" or "folds".
    """
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose a directory that is empty or does not exist")
    if not path.is_dir() or all(file.name == LOCK_NAME for file in path.iterdir()):
        return False
    if not resume:
        raise FileExistsError(f"{path} is in use: choose another directory, or continue its {content} with --resume")
    if not settings.is_file():
        raise FileExistsError(f"{path} is not empty and has no {content} to resume: choose another directory")
    return True


def write_rows(path: Path, rows: Iterable[tuple[object, ...]], headings: Sequence[str] = ImageRow._fields) -> None:
    """Write a CSV: by default the images of a run."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        write_row = csv_writer(file)
        for row in (headings, *rows):
            write_row(row)


def read_rows(path: Path) -> list[ImageRow] | None:
    """Return what `write_rows` has written, older versions without sizes and digests; None if it is not there."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            records = read_records(file)
        return [ImageRow(**{field: row.get(field) or "" for field in ImageRow._fields}) for row in records]
    except FileNotFoundError:
        return None


def describe_changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs: ``["seed was 0, now 5"]``. Where the data and files lie does not count."""
    ignored = {"data", "images", *_FILE_SETTINGS, *(f"{name}_digest" for name in _FILE_SETTINGS)}
    changes = dict(_iter_changes({name: before.get(name) for name in now if name not in ignored},
                                 {name: value for name, value in now.items() if name not in ignored}))  # fmt: skip
    for name in _FILE_SETTINGS:
        old, new = before.get(f"{name}_digest"), now.get(f"{name}_digest")
        equal = old == new if old and new else _is_same_path(before.get(name), now.get(name))
        if not equal:
            same_name = "another file of that name" if before.get(name) == now.get(name) else _format(now.get(name))
            changes[name] = f"{name} was {_format(before.get(name))}, now {same_name}"
    return list(changes.values())


def _iter_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that differs, also of one within a recipe or an architecture, and how."""
    for name in dict.fromkeys((*now, *before)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _iter_changes(old, new)
        elif old != new:
            yield name, f"{name} was {_format(old)}, now {_format(new)}"


def _format(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("name", "another"))
    return "not given" if value is None else str(value)


def _is_same_path(before: object, now: object) -> bool:
    if before == now:
        return True
    return all(isinstance(path, str) for path in (before, now)) and os.path.realpath(str(before)) == os.path.realpath(
        str(now)
    )


def describe_changed_images(
    before: Sequence[ImageRow], now: Sequence[ImageRow], compare_splits: bool = True
) -> list[str]:
    """Return how the images differ: ``["2 images are gone (a.jpg, b.jpg)"]``. What is not known on a side is equal."""
    old, new = _index_by_name(before), _index_by_name(now)
    common = [(old[key], new[key]) for key in old.keys() & new.keys()]
    relabeled = [row.image for known, row in common if known.label != row.label]
    changed = [
        row.image for known, row in common if _differ(known.digest, row.digest) or _differ(known.bytes, row.bytes)
    ]
    moved = [row.image for known, row in common if compare_splits and known.split != row.split]
    descriptions = [
        _count("gone", [name for name, number in old if (name, number) not in new], "is", "are"),
        _count("new", [name for name, number in new if (name, number) not in old], "is", "are"),
        _count("another label", relabeled, "has", "have"),
        _count("changed", changed, "has", "have"),
        _count("in another split", moved, "is", "are"),
    ]
    found = [text for text in descriptions if text]
    if not found and compare_splits and [row.image for row in before] != [row.image for row in now]:
        return ["the images are in another order"]
    return found


def _index_by_name(rows: Iterable[ImageRow]) -> dict[tuple[str, int], ImageRow]:
    """Index rows by name and, as train and val may both have an a/1.jpg, by how often it occurred before."""
    seen: dict[str, int] = {}
    index = {}
    for row in rows:
        seen[row.image] = number = seen.get(row.image, -1) + 1
        index[row.image, number] = row
    return index


def _differ(before: str, now: str) -> bool:
    return bool(before and now) and before != now


def _count(how: str, names: Sequence[str], singular: str, plural: str) -> str:
    if not names:
        return ""
    listed = ", ".join(sorted(names)[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")
    count = f"1 image {singular}" if len(names) == 1 else f"{len(names):,} images {plural}"
    return f"{count} {how} ({listed})"
