"""Labeled images: `ImageDataset`, its items and splits, the encoding of labels, and the check for unreadable files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.serde import check_int
from effnet.data import deep_pixels, image_io, prefetch
from effnet.data.storage.file_names import normalize_name
from effnet.metadata import Labels
from effnet.tasks import task_of

Label = int | tuple[int, ...] | tuple[float, ...]  # a class; multi-label: all that are present; regression: the values
RawLabel = int | float | str | list[Any] | None  # a label as it stands in a file; None if it has none


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One labeled image."""

    image: Path | image_io.LazyImage | image_io.Pixels  # a file, one inside an archive or a table, or uint8 (H, W, 3)
    label: Label
    name: str  # identifies the image wherever its folder lies
    weight: float = 1.0  # how much it counts in training
    group: str = ""  # images of one group (a patient, a camera) are never on both sides of a split
    fold: int | None = None  # the cross-validation fold that the data itself puts it into

    @property
    def classes(self) -> tuple[int, ...]:
        """The class indices that are present: one, or for multi-label several or none."""
        return (self.label,) if isinstance(self.label, int) else tuple(map(int, self.label))


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labeled images in a fixed order. ``allow_flip``: a mirrored image keeps its label (a digit does not)."""

    items: tuple[Item, ...]
    labels: Labels
    allow_flip: bool = True

    def __len__(self) -> int:
        return len(self.items)

    @property
    def targets(self) -> NDArray[np.int64] | NDArray[np.float32]:
        """The true labels: int64 (N,) class indices for classification, else ``target_matrix``."""
        if self.labels.task != "classification":
            return self.target_matrix
        return np.fromiter((item.label for item in self.items), np.int64, len(self.items))

    @property
    def target_matrix(self) -> NDArray[np.float32]:
        """The ideal outputs, float32 (N, classes): 1 for labels that are present and 0 for others, or the values."""
        matrix = np.zeros((len(self.items), len(self.labels.names)), np.float32)
        has_classes = task_of(self.labels.task).has_probabilities
        for row, item in zip(matrix, self.items, strict=True):
            if has_classes:
                row[list(item.classes)] = 1
            else:
                row[:] = item.label
        return matrix

    def class_counts(self) -> tuple[int, ...]:
        """Return the number of images of each class, in the order of ``labels``; for regression of each value."""
        if not task_of(self.labels.task).has_probabilities:
            return (len(self.items),) * len(self.labels.names)
        present = np.fromiter((index for item in self.items for index in item.classes), np.int64)
        return tuple(np.bincount(present, minlength=len(self.labels.names)).tolist())

    def format_label(self, item: Item) -> str:
        """Return the label of ``item`` as text; several are separated by a bar."""
        if isinstance(item.label, tuple) and not task_of(self.labels.task).has_probabilities:
            return "|".join(f"{value:g}" for value in item.label)
        return "|".join(map(self.labels.name, item.classes))

    def subset(self, indices: Iterable[int]) -> "ImageDataset":
        """Return a dataset of these images, in this order, with the same labels."""
        return replace(self, items=tuple(self.items[index] for index in indices))


@dataclass(frozen=True, eq=False)
class Splits:
    """The training, validation and test images of a source, where it has them."""

    train: ImageDataset | None = None
    val: ImageDataset | None = None
    test: ImageDataset | None = None

    @property
    def available(self) -> dict[str, ImageDataset]:
        """The splits that exist, by name."""
        return {name: found for name in ("train", "val", "test") if (found := getattr(self, name)) is not None}


Fingerprints = dict[Item, bytes]  # equal for two files of the same image


def check_images(
    dataset: ImageDataset,
    num_workers: int = 2,
    fingerprints: Fingerprints | None = None,
    contents: Fingerprints | None = None,
) -> tuple[ImageDataset, list[image_io.ImageError]]:
    """Decode every image once, to the end of its file; return those that can be read, and an error for each other one.

    ``fingerprints`` is filled with a digest of each image, so that `effnet.data.duplicates` need not decode it again,
    ``contents`` with one of its file.
    Raises ``ValueError`` if a class has no readable image left.
    """
    check_int("num_workers", num_workers, 1)

    def check(item: Item) -> image_io.ImageError | None:
        source = item.image
        try:
            if contents is not None and not isinstance(source, (Path, np.ndarray)):
                source = _LoadedImage(source.name, source.read())  # perhaps from far away: once is enough
            image = read_reduced(source)
        except image_io.ImageError as error:
            return error
        if fingerprints is not None:
            fingerprints[item] = fingerprint_image(image)
        if contents is not None:
            contents[item] = digest_content(source)
        return None

    errors = prefetch.parallel_map(check, dataset.items, num_workers)
    good = dataset.subset(index for index, error in enumerate(errors) if error is None)
    has_classes = task_of(dataset.labels.task).has_probabilities
    for label, (before, after) in enumerate(zip(dataset.class_counts(), good.class_counts(), strict=True)):
        if before and not after:
            failed = zip(dataset.items, errors, strict=True)
            first = next(error for item, error in failed if label in item.classes or not has_classes)
            of_class = f" of class {dataset.labels.names[label]!r}" if has_classes else ""
            raise ValueError(f"none of the {before} images{of_class} can be read; the first: {first}")
    return good, [error for error in errors if error is not None]


def read_reduced(image: Path | image_io.LazyImage | image_io.Pixels) -> Image.Image:
    """Read an image, a JPEG at an eighth of its size: still to the end of the file, and several times as fast.

    Of 16 bits those that it uses are read, or dark ones would all be black and equal.
    """
    return image_io.read_image(image, reduce_to=(1, 1), bits=deep_pixels.OWN_MAXIMUM)


def fingerprint_image(image: Image.Image) -> bytes:
    """Return a digest of the pixels."""
    return blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()


def digest_content(image: Path | image_io.LazyImage | image_io.Pixels) -> bytes:
    """Return a digest of the image's file. Raises ``OSError`` or ``ImageError`` if it cannot be read."""
    if isinstance(image, np.ndarray):
        content = repr(image.shape).encode() + image.tobytes()
    else:
        content = image.read_bytes() if isinstance(image, Path) else image.read()
    return blake2b(content, digest_size=16).digest()


@dataclass(frozen=True, eq=False, slots=True)
class _LoadedImage:
    """A `LazyImage` that has been read."""

    name: str
    content: bytes

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class LabelEncoder:
    """Turns labels as they stand in shards and tables into class indices or values."""

    labels: Labels
    class_to_index: dict[str, int]
    source: str  # the file or split that defines them

    @classmethod
    def fit(
        cls, raw_labels: Iterable[RawLabel], names: Sequence[str] | None, named_by: str, found_in: str
    ) -> "LabelEncoder":
        """Find out what ``raw_labels``, all from ``found_in``, mean; ``names``: if the file ``named_by`` has them.

        Integers and strings are classes, lists of them multi-label; floats and lists of them values, not to be mixed.
        """
        raw_labels = [label for label in raw_labels if label is not None]
        is_list = [isinstance(label, list) for label in raw_labels]
        flat: list[Any] = [part for label in raw_labels for part in (label if isinstance(label, list) else [label])]
        types = {type(part) for part in flat}
        if any(is_list) != all(is_list) or not types <= {int, float, str, bool} or types >= {float, str}:
            raise ValueError(f"the labels in {found_in} are of several types: use one type for all images")
        if float in types:
            width = len(raw_labels[0]) if isinstance(raw_labels[0], list) else 1
            chosen = tuple(names) if names and len(names) == width else tuple(f"value {n + 1}" for n in range(width))
            return cls(Labels(chosen if width > 1 or names else ("value",), "regression"), {}, named_by)
        if names is not None:
            chosen = tuple(names)
        elif types <= {int, bool}:
            chosen = tuple(map(str, range(max(flat, default=0) + 1)))
        else:
            chosen = tuple(sorted({normalize_name(str(part)) for part in flat}))
        labels = Labels(chosen, "multilabel" if any(is_list) else "classification")
        return cls(
            labels,
            {normalize_name(name): index for index, name in enumerate(chosen)},
            found_in if names is None else named_by,
        )

    def encode(self, raw: RawLabel, name: str) -> Label:
        """Return the label of the image ``name``. Raises ``ValueError`` if it is not one of ``labels``."""
        if not task_of(self.labels.task).has_probabilities:
            values = tuple(float(value) for value in (raw if isinstance(raw, list) else [raw]))  # type: ignore[arg-type]
            if len(values) != len(self.labels.names):
                raise ValueError(f"{name} has {len(values)} values, others have {len(self.labels.names)}")
            return values
        if isinstance(raw, list) and self.labels.task == "multilabel":
            return tuple(sorted({self._encode_class(part, name) for part in raw}))
        return self._encode_class(raw, name)

    def build_item(self, image: image_io.LazyImage, raw: RawLabel, name: str, without_label: str) -> Item:
        """Return an item; without a label, one whose reading raises the sentence that ``without_label`` ends."""
        if raw is None:
            return Item(image_io.UnreadableImage(image.name, f"{image.name} {without_label}"), self.placeholder(), name)
        return Item(image, self.encode(raw, image.name), name)

    def placeholder(self) -> Label:
        """Return a label of the right form for an item without one."""
        if self.labels.task == "classification":
            return 0
        return () if self.labels.task == "multilabel" else (0.0,) * len(self.labels.names)

    def _encode_class(self, raw: Any, name: str) -> int:
        if isinstance(raw, str):
            if (name_of_class := normalize_name(raw)) in self.class_to_index:
                return self.class_to_index[name_of_class]
        elif isinstance(raw, int) and 0 <= raw < len(self.labels.names):
            return int(raw)
        raise ValueError(f"{name} has the label {raw!r}, which {self.source} does not have")
