"""Which images a run trains on, which it makes its choices by, and which it only reports on."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from effnet.data import ImageDataset, Splits, check_images, dataset, duplicates, holdout
from effnet.data.storage.atomic_write import atomic_write
from effnet.tasks import task_of
from effnet.timing.machine import count_cores
from effnet.training.callbacks import Callback
from effnet.training.config import TrainConfig

TEST_FRACTION = 0.2  # of all images, if the data has neither a validation nor a test set
MAX_IMAGES_COMPARED_BY_PIXELS = 5_000  # duplicates among more images are found by the files' bytes, which is fast


@dataclass(frozen=True, eq=False)
class DataPlan:
    """The images of a run: ``train``, ``selection`` for every choice, ``test_sets`` that no choice has seen."""

    train: ImageDataset
    selection: ImageDataset
    test_sets: dict[str, ImageDataset]
    skipped: tuple[str, ...] = ()
    probe_on_selection: bool = True  # the selection images are part of the training set: the final probe may use them

    @property
    def splits(self) -> dict[str, ImageDataset]:
        """All images by the name of their split."""
        return {"train": self.train, "selection": self.selection, **self.test_sets}

    def summary(self) -> str:
        """Return one line: how many images are for what."""
        test = ", ".join(f"{len(images)} {name}" for name, images in self.test_sets.items())
        return (
            f"{len(self.train)} training, {len(self.selection)} selection and {test} images; "
            f"{len(self.train.labels.names)} {task_of(self.train.labels.task).plural}"
        )

    def write_csv(self, path: Path) -> None:
        """Write the name, label and split of every image."""
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("image", "label", "split"))
            for split, images in self.splits.items():
                rows.writerows((item.name, images.format_label(item), split) for item in images.items)


def make_plan(splits: Splits, config: TrainConfig, callback: Callback) -> DataPlan:
    """Return the plan for ``splits``; every image is read once to see that it can be.

    Validation and test sets are only reported on. Choices are made on ``selection_fraction`` of the training set,
    unless ``select_on="val"``. Without a validation or test set, a stratified fifth is held out as one.
    """
    skipped: list[str] = []
    by_pixels, fingerprints = len(training_images(splits)) <= MAX_IMAGES_COMPARED_BY_PIXELS, dataset.Fingerprints()

    def keep_readable(images: ImageDataset) -> ImageDataset:
        readable, errors = check_images(images, count_cores(), fingerprints=fingerprints if by_pixels else None)
        if errors and config.strict:
            raise errors[0]
        skipped.extend(map(str, errors))
        return readable

    train = keep_readable(training_images(splits))
    test_sets = {name: keep_readable(images) for name, images in splits.available.items() if name != "train"}
    if skipped:
        count = "1 image is" if len(skipped) == 1 else f"{len(skipped)} images are"
        callback.on_message(f"{count} unreadable and skipped: {'; '.join(skipped[:5])}")
    if not by_pixels:
        fingerprints = duplicates.compute_fingerprints((train, *test_sets.values()), decoded=False)
    checked = Splits(train, test_sets.get("val"), test_sets.get("test"))
    for message in duplicates.describe_split_overlap(checked, fingerprints=fingerprints):
        callback.on_message(message)
    # Duplicates stay together, or choices would be made on images that were trained on
    train = duplicates.group_duplicates(train, duplicates.find_duplicates(train, fingerprints=fingerprints))
    if config.select_on == "val":
        if "val" not in test_sets:
            raise ValueError("--select-on val requires a validation set (a folder val/ in the data)")
        selection = test_sets.pop("val")
        if not test_sets:
            callback.on_message("selection on val: its metrics are not those of unseen images")
            test_sets = {"val (selection)": selection}
        return DataPlan(train, selection, test_sets, tuple(skipped), probe_on_selection=False)
    if not test_sets:
        train, test_sets["holdout"] = holdout(train, TEST_FRACTION, config.seed)
        callback.on_message(f"no validation set: {len(test_sets['holdout'])} images are held out for the report")
    train, selection = holdout(train, config.resolved_recipe.selection_fraction, config.seed + 1)
    return DataPlan(train, selection, test_sets, tuple(skipped))


def training_images(splits: Splits) -> ImageDataset:
    """Return the training set. Raises ``ValueError`` if there is none, or all its images are of one class."""
    if splits.train is None:
        raise ValueError("the data has no training images: pass a folder with train/, or with one folder per class")
    names = splits.train.labels.names
    if splits.train.labels.task == "classification" and len(names) == 1:
        raise ValueError(f"the data has only one class, {names[0]!r}: a classifier needs at least two")
    return splits.train


def fingerprint_splits(splits: Mapping[str, ImageDataset]) -> str:
    r"""Return the SHA-256 of all images' splits, names and labels, by which two runs can tell that their data is equal.

    It is taken over lines ``split\tname\tlabel\n`` in UTF-8, sorted. ``label`` is the class name, several joined by
    ``|``, or the values as Python writes them. Neither the order of the images counts nor what the files contain.
    """
    lines = (
        f"{split}\t{item.name}\t{_exact_label(item, images)}\n".encode("utf-8", "surrogatepass")
        for split, images in splits.items()
        for item in images.items
    )
    return sha256(b"".join(sorted(lines))).hexdigest()


def _exact_label(item: dataset.Item, images: ImageDataset) -> str:
    if isinstance(item.label, tuple) and images.labels.task == "regression":
        return "|".join(map(repr, item.label))
    return "|".join(map(images.labels.name, item.classes))
