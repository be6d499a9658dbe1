"""ImageNet as it is handed out: validation pictures flat in one folder, their classes in a file elsewhere.

The training folders (``train/n01440764/…``) are plain class folders, and labels are synsets in sorted order, which is
the order of every published network.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from effnet.data.dataset import ImageDataset, Item
from effnet.metadata import Labels

_VALIDATION_PATTERN = re.compile(r"ILSVRC2012_val_(\d+)\.")
_TEST_PATTERN = re.compile(r"ILSVRC2012_test_\d+\.")

KAGGLE_SOLUTION_FILE = "LOC_val_solution.csv"
SYNSET_LABELS_FILE = "imagenet_2012_validation_synset_labels.txt"
DEVKIT_GROUND_TRUTH_FILE = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT_META_FILE = "meta.mat"
DEVKIT_FOLDER = Path("ILSVRC2012_devkit_t12", "data")


def is_imagenet_validation(folder: Path) -> bool:
    """Whether pictures named as ImageNet's validation pictures lie directly in ``folder``."""
    return _contains_match(folder, _VALIDATION_PATTERN)


def is_imagenet_test(folder: Path) -> bool:
    """Whether pictures named as ImageNet's test pictures, whose labels are not public, lie directly in ``folder``."""
    return _contains_match(folder, _TEST_PATTERN)


def open_imagenet_validation(folder: Path, root: Path, labels: Labels | None = None) -> ImageDataset:
    """The validation pictures in ``folder``, each with the class that the ground truth gives it.

    The truth is searched in ``folder``, ``root`` and the devkit in either: Kaggle's ``LOC_val_solution.csv``, a text
    with one synset a line, or the devkit's numbers with its ``meta.mat``. ``labels`` are those of the training
    pictures; without them, all synsets of the truth, sorted. Raises ``ValueError`` where the truth is missing, does
    not fit the pictures, or has a class that ``labels`` has not.
    """
    numbered = sorted(
        (int(match[1]), Path(folder, match.string)) for match in _list_matches(folder, _VALIDATION_PATTERN)
    )
    source, truth = _read_ground_truth(folder, root)
    if source.name != KAGGLE_SOLUTION_FILE and len(truth) != len(
        numbered
    ):  # Kaggle's rows name their pictures: more do no harm
        raise ValueError(
            f"{source} has {len(truth):,} lines and {folder} has {len(numbered):,} pictures: bring the two that belong "
            f"together (50,000 each)"
        )
    names = labels.names if labels else tuple(sorted(set(truth.values())))
    index = {name: label for label, name in enumerate(names)}
    items: list[Item] = []
    for number, file in numbered:
        if number not in truth:
            raise ValueError(f"{source} has no class for {file.name}: bring the file that belongs to these pictures")
        if truth[number] not in index:
            raise ValueError(f"{folder} has a class {truth[number]!r} that train has not")
        items.append(Item(file, index[truth[number]], file.name))
    return ImageDataset(tuple(items), Labels(names))


def _read_ground_truth(folder: Path, root: Path) -> tuple[Path, dict[int, str]]:
    """The file found first, and its synset for the number of each picture, from 1."""
    places = (folder, root, folder / DEVKIT_FOLDER, root / DEVKIT_FOLDER)
    for name, parse in (
        (KAGGLE_SOLUTION_FILE, _read_kaggle_solution),
        (SYNSET_LABELS_FILE, _read_synset_labels),
        (DEVKIT_GROUND_TRUTH_FILE, _read_devkit_ground_truth),
    ):
        for place in places:
            if (place / name).is_file():
                return place / name, parse(place / name)
    raise ValueError(
        f"{folder} has ImageNet's validation pictures without their classes: put {KAGGLE_SOLUTION_FILE}, "
        f"{SYNSET_LABELS_FILE}, or {DEVKIT_GROUND_TRUTH_FILE} "
        f"with {DEVKIT_META_FILE} beside them or into {root}"
    )


def _read_kaggle_solution(path: Path) -> dict[int, str]:
    truth = {}
    with path.open(newline="") as file:
        for row in csv.reader(file):
            match = _VALIDATION_PATTERN.match(f"{row[0]}.") if row else None
            if match and len(row) > 1 and row[1].split():
                truth[int(match[1])] = row[1].split()[0]  # "n03995372 85 1 499 272": the rest is a box
    return truth


def _read_synset_labels(path: Path) -> dict[int, str]:
    return dict(enumerate(path.read_text().split(), 1))


def _read_devkit_ground_truth(path: Path) -> dict[int, str]:
    """The devkit's numbers are its own (ILSVRC2012_ID), not the sorted order of synsets: ``meta.mat`` has the key."""
    meta = path.with_name(DEVKIT_META_FILE)
    if not meta.is_file():
        raise ValueError(
            f"{path} needs {DEVKIT_META_FILE}, which says what its numbers mean: put the devkit's beside it"
        )
    from scipy.io import loadmat

    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    ids = {int(number): str(synset) for number, synset in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    try:
        return {line: ids[int(number)] for line, number in enumerate(path.read_text().split(), 1)}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} must have one number of {DEVKIT_META_FILE} a line: {error}") from None


def _contains_match(folder: Path, pattern: re.Pattern[str]) -> bool:
    with os.scandir(folder) as entries:
        return any(pattern.match(entry.name) for entry in entries)


def _list_matches(folder: Path, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    return [match for match in map(pattern.match, os.listdir(folder)) if match]
