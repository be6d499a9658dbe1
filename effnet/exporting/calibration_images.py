"""The pictures that ranges are taken from, and those by which the written file is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.data import open_data
from effnet.data.dataset import ImageDataset, Item
from effnet.data.folders import list_image_files
from effnet.data.image_io import ImageError, InputImage, load_input
from effnet.data.prefetch import prefetch_map
from effnet.metadata import Labels, Preprocess
from effnet.net import EfficientNet

MIN_CALIBRATION_IMAGES = 8  # to take ranges from: fewer say nothing of the next picture
MAX_EVALUATION_BYTES = 2**29  # of the pictures to judge by, which are held in memory


@dataclass(frozen=True, eq=False)
class QuantizationData:
    """``calibration`` and ``judged``: (N, H, W, C) of 0 … 255. ``unreadable``: how many of either were left out.

    ``targets``: what is right of the latter, None: not known. Classes (N,); or for every output (N, classes) whether it
    is right, or its value.
    """

    calibration: InputImage
    evaluation: InputImage
    targets: NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.float32] | None
    unreadable: int


def load_quantization_data(source: str | Path, model: EfficientNet, count: int) -> QuantizationData:
    """``count`` pictures of a folder to calibrate by, spread over its classes, and as many as fit to judge by.

    ``source``: a folder, or a file that `open_data` understands. With train and val it is calibrated by the one and
    judged by the other; else by all that there is. The labels count where they are the network's. Raises ``ValueError``
    for fewer than `LEAST` pictures.
    """
    root = Path(source)
    if not root.exists():
        raise ValueError(f"{root} is no folder: int8 needs a folder of pictures like those that it will see")
    train, held, labelled = _find_items(root, model)
    first = _load_items(sample_by_class(train, count), model.preprocess)
    if len(first[0]) < MIN_CALIBRATION_IMAGES:
        raise ValueError(
            f"{root} has {len(first[0])} readable pictures, and int8 needs {MIN_CALIBRATION_IMAGES} to take ranges from"
        )
    bytes_each = first[0][0].nbytes
    second = _load_items(
        sample_by_class(list(held.items), max(MAX_EVALUATION_BYTES // bytes_each, 1)), model.preprocess
    )
    targets = _target_array(ImageDataset(second[1], held.labels)) if labelled else None
    return QuantizationData(first[0], second[0], targets, len(first[2] | second[2]))


def _find_items(root: Path, model: EfficientNet) -> tuple[list[Item], ImageDataset, bool]:
    """Items to calibrate by, pictures to judge by, and whether their labels are the network's, in its order."""
    try:
        splits = open_data(root)
    except ValueError:  # no class folders
        if not root.is_dir():
            raise
        items = tuple(Item(path, 0, path.name) for path in list_image_files(root))
        return list(items), ImageDataset(items, Labels()), False
    train = splits.train or splits.val or splits.test
    assert train is not None
    held = splits.val or splits.test or train
    ordered = _match_labels(held, model.labels, model.classes)
    return list(train.items), ordered or held, ordered is not None


def _match_labels(dataset: ImageDataset, known: Labels, classes: int) -> ImageDataset | None:
    """The same with the network's labels; None where theirs are others, or of another kind."""
    found = dataset.labels
    if found.task != known.task:
        return None
    if not known.names:
        return dataset if len(found.names) == classes else None
    if not set(found.names) <= set(known.names) or (
        known.task != "classification" and len(found.names) < len(known.names)
    ):
        return None
    order = [known.names.index(name) for name in found.names]

    def place(label: int | tuple[int, ...] | tuple[float, ...]) -> int | tuple[int, ...] | tuple[float, ...]:
        if isinstance(label, int):
            return order[label]
        if known.task == "regression":
            return tuple(label[order.index(index)] for index in range(len(order)))
        return tuple(order[int(index)] for index in label)

    return ImageDataset(tuple(replace(item, label=place(item.label)) for item in dataset.items), known)


def _target_array(dataset: ImageDataset) -> NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.float32]:
    match dataset.labels.task:
        case "classification":
            return dataset.targets
        case "multilabel":
            return dataset.target_matrix > 0
    return dataset.target_matrix


def sample_by_class(items: list[Item], count: int) -> list[Item]:
    """``count`` of ``items``, as many of each class as there are, in turn; within a class evenly over its order.

    Those with several labels, or values, count as one class.
    """
    if len(items) <= count:
        return items
    members: dict[int, list[Item]] = {}
    for item in items:
        members.setdefault(item.label if isinstance(item.label, int) else 0, []).append(item)
    share = dict.fromkeys(members, 0)
    left = count
    while left:  # one each in turn, until the smaller classes are used up
        open_ = [label for label in members if share[label] < len(members[label])][:left]
        for label in open_:
            share[label] += 1
        left -= len(open_)
    return [
        members[label][index * len(members[label]) // share[label]]
        for label in members
        for index in range(share[label])
    ]


def _load_items(items: list[Item], preprocess: Preprocess) -> tuple[InputImage, tuple[Item, ...], set[str]]:
    """The readable ones of ``items``, these items, and the names of the others."""

    def prepare(item: Item) -> InputImage | None:
        try:
            return load_input(item.image, preprocess)
        except ImageError:
            return None

    made = list(zip(items, prefetch_map(prepare, items), strict=True))
    unreadable = {item.name for item, picture in made if picture is None}
    stack = [picture for _, picture in made if picture is not None]
    kept = tuple(item for item, picture in made if picture is not None)
    return np.stack(stack) if stack else np.empty((0, *preprocess.size, 3), np.uint8), kept, unreadable
