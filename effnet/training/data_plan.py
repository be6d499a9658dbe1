"""Which pictures a run learns from, which it chooses by, and which it only reports on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from effnet.arch.serde import check_choice
from effnet.data import ImageDataset, Splits, check_images, holdout
from effnet.data.dataset import Fingerprints
from effnet.data.duplicates import compute_fingerprints, describe_split_overlap, find_duplicates, group_duplicates
from effnet.data.storage.atomic_write import atomic_write
from effnet.timing.machine import count_cores
from effnet.training.callbacks import Callback

TEST_FRACTION = 0.2  # of all pictures, where the data has no split of its own to report on
MAX_IMAGES_COMPARED_BY_PIXELS = (
    5_000  # pictures that are compared by what they show; more by their bytes, which takes no time
)
SELECTION_SOURCES = ("holdout", "val")


@dataclass(frozen=True, eq=False)
class DataPlan:
    """``fit`` is learned from, ``select`` decides every choice; ``report`` holds what no choice has seen, by name."""

    train: ImageDataset
    selection: ImageDataset
    test_sets: dict[str, ImageDataset]
    unreadable: tuple[str, ...] = ()
    probe_on_selection: bool = True  # ``select`` is a part of the training set: in the end a head may be fitted on both

    @property
    def train_and_selection(self) -> ImageDataset:
        """Every picture that is learned from or chosen by, those of ``fit`` first."""
        return ImageDataset((*self.train.items, *self.selection.items), self.train.labels, self.train.allow_flip)

    def in_words(self) -> str:
        """One line: how many pictures are for what."""
        reported = ", ".join(f"{len(found)} of {name} to report on" for name, found in self.test_sets.items())
        return (
            f"{len(self.train)} pictures to learn from, {len(self.selection)} to choose by, {reported}; "
            f"{len(self.train.labels.names)} classes"
        )

    def write_csv(self, path: Path) -> None:
        """A CSV of every picture: its name, class and part."""
        parts = {"fit": self.train, "select": self.selection, **self.test_sets}
        with atomic_write(path) as beside, beside.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("picture", "label", "part"))
            for part, pictures in parts.items():
                rows.writerows((item.name, pictures.format_label(item), part) for item in pictures.items)


def training_images(splits: Splits) -> ImageDataset:
    """The pictures to learn from. Raises ``ValueError`` where the data has none."""
    if splits.train is None:
        raise ValueError("the data has no training pictures: give a folder with train/, or with one folder a class")
    return splits.train


def make_plan(
    splits: Splits, seed: int, select_on: str, strict: bool, callback: Callback, selection_fraction: float
) -> DataPlan:
    """The plan for ``splits``, every picture read once to see that it can be.

    A validation or test set is only reported on; choices are made on ``select_share`` of the training set, unless
    ``select_on="val"``. Without either, a stratified fifth is held out to report on. Raises ``ValueError`` where that
    cannot be done, and with ``strict`` the ``PictureError`` of the first picture that cannot be read.
    """
    check_choice("select_on", select_on, SELECTION_SOURCES)
    left_out: list[str] = []
    decoded, known = len(training_images(splits)) <= MAX_IMAGES_COMPARED_BY_PIXELS, Fingerprints()

    def readable(pictures: ImageDataset) -> ImageDataset:
        good, errors = check_images(pictures, count_cores(), fingerprints=known if decoded else None)
        if errors and strict:
            raise errors[0]
        left_out.extend(map(str, errors))
        return good

    train = readable(training_images(splits))
    given = {name: readable(found) for name, found in (("val", splits.val), ("test", splits.test)) if found is not None}
    if left_out:
        count = "1 picture" if len(left_out) == 1 else f"{len(left_out)} pictures"
        callback.on_message(f"{count} cannot be read, left out: {'; '.join(left_out[:5])}")
    if not decoded:
        known = compute_fingerprints((train, *given.values()), decoded=False)
    for sentence in describe_split_overlap(Splits(train, given.get("val"), given.get("test")), fingerprints=known):
        callback.on_message(sentence)
    train = group_duplicates(
        train, find_duplicates(train, fingerprints=known)
    )  # or what is chosen by would have been learned
    if select_on == "val":
        if "val" not in given:
            raise ValueError("--select-on val needs a validation folder (val/) in the data")
        select = given.pop("val")
        if not given:
            callback.on_message("choices are made on val: its figures are not those of unseen pictures")
            given = {"val (chosen by)": select}
        return DataPlan(train, select, given, tuple(left_out), probe_on_selection=False)
    if not given:
        train, given["holdout"] = holdout(train, TEST_FRACTION, seed)
        callback.on_message(
            f"no validation folder: {len(given['holdout'])} pictures are held out, for the report alone"
        )
    fit, select = holdout(train, selection_fraction, seed + 1)
    return DataPlan(fit, select, given, tuple(left_out))
