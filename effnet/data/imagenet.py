"""ImageNet as it is distributed: validation images in one flat folder, their classes in a file elsewhere.

The training folders (``train/n01440764/…``) are plain class folders, and the labels are synsets in sorted order, which
is the order of every published network.
"""

import csv
import os
import re
from pathlib import Path

from effnet.arch.serde import import_extra
from effnet.data.dataset import ImageDataset, Item
from effnet.metadata import Labels

KAGGLE_SOLUTION_FILE = "LOC_val_solution.csv"
SYNSET_LABELS_FILE = "imagenet_2012_validation_synset_labels.txt"
DEVKIT_GROUND_TRUTH_FILE = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT_META_FILE = "meta.mat"
DEVKIT_FOLDER = Path("ILSVRC2012_devkit_t12", "data")

_VALIDATION_PATTERN = re.compile(r"ILSVRC2012_val_(\d+)\.")


def contains_imagenet(folder: Path, split: str) -> bool:
    """Return whether ``folder`` itself contains files named as ImageNet's ``"val"`` or ``"test"`` images."""
    with os.scandir(folder) as entries:
        return any(re.match(rf"ILSVRC2012_{split}_\d+\.", entry.name) for entry in entries)


def open_imagenet_validation(folder: Path, root: Path, labels: Labels | None = None) -> ImageDataset:
    """Open the validation images in ``folder`` with their classes from the ground truth.

    It is searched in ``folder``, ``root`` and the devkit in either: Kaggle's ``LOC_val_solution.csv``, a text file with
    one synset per line, or the devkit's numbers with its ``meta.mat``. Raises ``ValueError`` if it is missing, does not
    fit the images, or has a class not in ``labels``, those of the training images.
    """
    matches = (_VALIDATION_PATTERN.match(name) for name in os.listdir(folder))
    images = sorted((int(match[1]), Path(folder, match.string)) for match in matches if match)
    source, synsets = _read_ground_truth(folder, root)
    if source.name != KAGGLE_SOLUTION_FILE and len(synsets) != len(images):  # Kaggle's rows name their images
        raise ValueError(
            f"{source} has {len(synsets):,} lines and {folder} has {len(images):,} images: use the two that belong "
            "together (50,000 each)"
        )
    names = labels.names if labels else tuple(sorted(set(synsets.values())))
    index = {name: label for label, name in enumerate(names)}
    for number, file in images:
        if number not in synsets:
            raise ValueError(f"{source} has no class for {file.name}: use the file that belongs to these images")
        if synsets[number] not in index:
            raise ValueError(f"{folder} has a class {synsets[number]!r} that train does not have")
    items = (Item(file, index[synsets[number]], file.name) for number, file in images)
    return ImageDataset(tuple(items), Labels(names))


def _read_ground_truth(folder: Path, root: Path) -> tuple[Path, dict[int, str]]:
    """Return the first file found and the synset of each image by its number, from 1 on."""
    for name, parse in (
        (KAGGLE_SOLUTION_FILE, _read_kaggle_solution),
        (SYNSET_LABELS_FILE, lambda path: dict(enumerate(path.read_text().split(), 1))),
        (DEVKIT_GROUND_TRUTH_FILE, _read_devkit_ground_truth),
    ):
        for place in (folder, root, folder / DEVKIT_FOLDER, root / DEVKIT_FOLDER):
            if (place / name).is_file():
                return place / name, parse(place / name)
    raise ValueError(
        f"{folder} has ImageNet's validation images without their classes: put {KAGGLE_SOLUTION_FILE}, "
        f"{SYNSET_LABELS_FILE}, or {DEVKIT_GROUND_TRUTH_FILE} with {DEVKIT_META_FILE} beside them or into {root}"
    )


def _read_kaggle_solution(path: Path) -> dict[int, str]:
    synsets = {}
    with path.open(newline="") as file:
        for row in csv.reader(file):
            match = _VALIDATION_PATTERN.match(f"{row[0]}.") if row else None
            if match and len(row) > 1 and row[1].split():
                synsets[int(match[1])] = row[1].split()[0]  # "n03995372 85 1 499 272": the rest is a box
    return synsets


def _read_devkit_ground_truth(path: Path) -> dict[int, str]:
    """The devkit numbers classes by ILSVRC2012_ID, not in sorted order of synsets: ``meta.mat`` has the key."""
    meta = path.with_name(DEVKIT_META_FILE)
    if not meta.is_file():
        raise ValueError(f"{path} needs {DEVKIT_META_FILE}, which defines its numbers: put the devkit's beside it")
    scipy_io = import_extra("scipy.io", "train", f"{meta} requires", "scipy")
    table = scipy_io.loadmat(meta, squeeze_me=True)["synsets"]
    ids = {int(number): str(synset) for number, synset in zip(table["ILSVRC2012_ID"], table["WNID"], strict=True)}
    try:
        return {line: ids[int(number)] for line, number in enumerate(path.read_text().split(), 1)}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} must have one number of {DEVKIT_META_FILE} per line: {error}") from None
