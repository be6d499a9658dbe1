"""Which pictures a run learns from, which it chooses by, and which it only reports on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from effnet.arch.record import choice
from effnet.clock.machine import cores
from effnet.data import Pictures, Splits, check, holdout
from effnet.data.pictures import Marks
from effnet.data.twins import marks, overlap, together, twins
from effnet.training.watch import Watch
from effnet.weights.atomic import replacing

REPORT_SHARE = 0.2  # of all pictures, where the data has no split of its own to report on
DECODED_MOST = 5_000  # pictures that are compared by what they show; more by their bytes, which takes no time
SELECT_ON = ("holdout", "val")


@dataclass(frozen=True, eq=False)
class Plan:
    """``fit`` is learned from, ``select`` decides every choice; ``report`` holds what no choice has seen, by name."""

    fit: Pictures
    select: Pictures
    report: dict[str, Pictures]
    left_out: tuple[str, ...] = ()
    refits: bool = True  # ``select`` is a part of the training set: in the end a head may be fitted on both

    @property
    def known(self) -> Pictures:
        """Every picture that is learned from or chosen by, those of ``fit`` first."""
        return Pictures((*self.fit.items, *self.select.items), self.fit.labels, self.fit.mirror)

    def in_words(self) -> str:
        """One line: how many pictures are for what."""
        reported = ", ".join(f"{len(found)} of {name} to report on" for name, found in self.report.items())
        return (
            f"{len(self.fit)} pictures to learn from, {len(self.select)} to choose by, {reported}; "
            f"{len(self.fit.labels.names)} classes"
        )

    def write(self, path: Path) -> None:
        """A CSV of every picture: its name, class and part."""
        parts = {"fit": self.fit, "select": self.select, **self.report}
        with replacing(path) as beside, beside.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("picture", "label", "part"))
            for part, pictures in parts.items():
                rows.writerows((item.name, pictures.said(item), part) for item in pictures.items)


def training_pictures(splits: Splits) -> Pictures:
    """The pictures to learn from. Raises ``ValueError`` where the data has none."""
    if splits.train is None:
        raise ValueError("the data has no training pictures: give a folder with train/, or with one folder a class")
    return splits.train


def plan(splits: Splits, seed: int, select_on: str, strict: bool, watch: Watch, select_share: float) -> Plan:
    """The plan for ``splits``, every picture read once to see that it can be.

    A validation or test set is only reported on; choices are made on ``select_share`` of the training set, unless
    ``select_on="val"``. Without either, a stratified fifth is held out to report on. Raises ``ValueError`` where that
    cannot be done, and with ``strict`` the ``PictureError`` of the first picture that cannot be read.
    """
    choice("select_on", select_on, SELECT_ON)
    left_out: list[str] = []
    decoded, known = len(training_pictures(splits)) <= DECODED_MOST, Marks()

    def readable(pictures: Pictures) -> Pictures:
        good, errors = check(pictures, cores(), marks=known if decoded else None)
        if errors and strict:
            raise errors[0]
        left_out.extend(map(str, errors))
        return good

    train = readable(training_pictures(splits))
    given = {name: readable(found) for name, found in (("val", splits.val), ("test", splits.test)) if found is not None}
    if left_out:
        count = "1 picture" if len(left_out) == 1 else f"{len(left_out)} pictures"
        watch.say(f"{count} cannot be read, left out: {'; '.join(left_out[:5])}")
    if not decoded:
        known = marks((train, *given.values()), decoded=False)
    for sentence in overlap(Splits(train, given.get("val"), given.get("test")), known=known):
        watch.say(sentence)
    train = together(train, twins(train, known=known))  # or what is chosen by would have been learned
    if select_on == "val":
        if "val" not in given:
            raise ValueError("--select-on val needs a validation folder (val/) in the data")
        select = given.pop("val")
        if not given:
            watch.say("choices are made on val: its figures are not those of unseen pictures")
            given = {"val (chosen by)": select}
        return Plan(train, select, given, tuple(left_out), refits=False)
    if not given:
        train, given["holdout"] = holdout(train, REPORT_SHARE, seed)
        watch.say(f"no validation folder: {len(given['holdout'])} pictures are held out, for the report alone")
    fit, select = holdout(train, select_share, seed + 1)
    return Plan(fit, select, given, tuple(left_out))
