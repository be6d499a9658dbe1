"""How predictions are printed: as JSON, as CSV, or as a table, by the kind of the model's labels."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.contract import Labels
    from effnet.prediction import Prediction


def print_json(found: Iterable[Prediction]) -> None:
    """One array, an element a line, whole even where the work ends before its time."""
    print("[", end="")
    try:
        for index, one in enumerate(found):
            print(",\n " if index else "", json.dumps(one.to_dict()), sep="", end="", flush=True)
    finally:
        print("]")


def print_csv(found: Iterable[Prediction], labels: Labels, outputs: int) -> None:
    """A line a label; a picture of which none is right has one line without; of values a line a picture."""
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    names = [labels.name(index) for index in range(outputs)]
    write(("picture", *names) if labels.kind == "value" else ("picture", "rank", "label", "probability"))
    for one in found:
        if labels.kind == "value":
            write((one.picture, *(one.values[name] for name in names)))
            continue
        for rank, (label, share) in enumerate(zip(one.labels, one.probabilities, strict=True), start=1):
            write((one.picture, rank, label, f"{share:.6g}"))
        if not one.labels:
            write((one.picture, "", "", ""))


def print_table(found: list[Prediction], labels: Labels) -> None:
    """A row a picture."""
    from effnet.cli.printing import figure, percent, show, table

    if labels.kind == "value":
        names = tuple(found[0].values)
        shown = table("picture", *names, left=("picture",))
        for one in found:
            shown.add_row(one.picture, *(figure(one.values[name]) for name in names))
    elif labels.kind == "any":
        shown = table("picture", "labels", left=("picture", "labels"))
        for one in found:
            pairs = zip(one.labels, one.probabilities, strict=True)
            shown.add_row(one.picture, ", ".join(f"{label} {percent(share)}" for label, share in pairs) or "none")
    else:
        several = len(found[0].labels) > 1
        headings = ("picture", "label", "probability", *(("runners-up",) if several else ()))
        shown = table(*headings, left=("picture", "label", "runners-up"))
        for one in found:
            others = zip(one.labels[1:], one.probabilities[1:], strict=True)
            told = ", ".join(f"{label} {percent(share)}" for label, share in others)
            shown.add_row(one.picture, one.label, percent(one.probability), *((told,) if several else ()))
    show(shown)
