"""A soup of finished runs: their models averaged, judged by the pictures that all of them chose by."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from effnet.data import Pictures, Splits, open_data
from effnet.net import EfficientNet
from effnet.training.examiner import examiner, scale_head
from effnet.training.folder import RunFolder
from effnet.training.soup import Soup, soup
from effnet.weights import load


def soup_of_runs(
    runs: Sequence[str | Path], data: str | Path | Splits, greedy: bool = True, device: str | None = None
) -> tuple[EfficientNet, Soup]:
    """The soup of the models in ``runs``, folders that `train` left, on the ``data`` that they were trained on.

    It is judged by the pictures that every one of the runs held out to choose by (``select`` in its ``split.csv``):
    the same where they had the same seed, or chose on the validation set; a picture that one of them has learned from
    would speak for that one. Raises ``ValueError`` where few are common, a folder holds no finished run, a run
    kept its probe, whose head was fitted on these pictures too, or the networks differ (see `soup`).
    """
    folders = [RunFolder(Path(run)) for run in runs]
    for folder in folders:
        result = folder.result()
        if result is None:
            raise ValueError(f"{folder.folder} holds no finished run: give folders that effnet train has left")
        if result.chosen == "probe":
            raise ValueError(
                f"{folder.folder} kept its probe, which has seen the pictures to choose by: give runs whose "
                "fine-tuning was better"
            )
    splits = data if isinstance(data, Splits) else open_data(data)
    pictures = _chosen_by(folders, splits)
    examine = examiner(pictures, device)
    made, found = soup([load(folder.model) for folder in folders], lambda model: examine(model).loss, greedy)
    scale_head(made, examine(made).gain)
    return made, found


def _chosen_by(folders: Sequence[RunFolder], splits: Splits) -> Pictures:
    """The pictures that all runs chose by."""
    selects = [_select(folder) for folder in folders]
    common = set.intersection(*selects) if selects else set()
    if not selects or 2 * len(common) < max(map(len, selects)):
        raise ValueError(
            f"these runs chose by different pictures ({len(common)} in common): give runs of one --seed, or with "
            "--select-on val"
        )
    from_val = {json.loads((folder.folder / "run.json").read_text()).get("select_on") == "val" for folder in folders}
    if len(from_val) > 1:
        raise ValueError("some of these runs chose by the validation set and some did not: give runs that agree")
    source = splits.val if from_val == {True} else splits.train
    there = [] if source is None else [place for place, item in enumerate(source.items) if item.name in common]
    if source is None or len(there) < len(common):
        raise ValueError(
            f"the data has {len(there)} of the {len(common)} pictures that the runs chose by: give what they were "
            "trained on"
        )
    return source.take(there)


def _select(folder: RunFolder) -> set[str]:
    with folder.split.open(newline="", encoding="utf-8") as file:
        return {row["picture"] for row in csv.DictReader(file) if row["part"] == "select"}
