"""A soup: several networks fine-tuned from the same weights, averaged into one that costs no more (arXiv:2203.05482).

Networks that started from the same weights mostly lie in one valley, and the middle of it is better than its slopes.
Batch norm's statistics are averaged with the weights, as in the paper.
"""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from effnet.data import ImageDataset, Splits, open_data
from effnet.net import EfficientNet
from effnet.net.surgery import is_folded
from effnet.training.metrics import make_scorer, scale_logits
from effnet.training.run_dir import RunDir
from effnet.weights import load

LossFunction = Callable[[EfficientNet], float]  # a loss on pictures that no network has learned from: lower is better


@dataclass(frozen=True)
class SoupCandidate:
    """A soup that was tried: the places of its ``networks``, its ``loss``, and whether it was ``kept``."""

    members: tuple[int, ...]
    loss: float
    accepted: bool


@dataclass(frozen=True)
class SoupResult:
    """What was tried and what came of it. Networks go by their places in what was given, from 0."""

    model_losses: tuple[float, ...]  # each network's own loss
    candidates: tuple[SoupCandidate, ...]  # in the order in which they were tried
    members: tuple[int, ...]  # what is in the soup; one: nothing was better than the best network alone
    loss: float

    def in_words(self) -> str:
        """A sentence for a person."""
        best = min(self.model_losses)
        if len(self.members) == 1:
            return (
                f"no soup of these {len(self.model_losses)} networks is better than number {self.members[0] + 1} alone, "
                f"loss {best:.4f}"
            )
        named = ", ".join(str(place + 1) for place in self.members)
        return f"the average of networks {named}: loss {self.loss:.4f}, the best of them alone {best:.4f}"


def make_soup(
    models: Sequence[EfficientNet], evaluate_loss: LossFunction, greedy: bool = True
) -> tuple[EfficientNet, SoupResult]:
    """The average of ``models``, or of those that help, in evaluation mode, and how it came to be.

    ``greedy``: they are added from the best to the worst, each kept only where the average's loss becomes lower; else
    it is the average of all. What comes back is never worse by ``judge`` than the best of ``models``: where no average
    is better, it is that one. The models stay as they are. Raises ``ValueError`` for fewer than two, for networks that
    differ in more than their numbers, and where ``judge`` gives no number for any.
    """
    _check_compatible(models)
    singles = [_loss_or_infinity(evaluate_loss, model) for model in models]
    order = sorted(range(len(models)), key=lambda place: singles[place])
    if singles[order[0]] == float("inf"):
        raise ValueError("none of these networks has a loss that is a number: their weights are damaged")
    best, loss = models[order[0]], singles[order[0]]
    chosen: tuple[int, ...] = (order[0],)
    tastes: list[SoupCandidate] = []
    kept = _WeightSum(best)
    for step in [order[1:]] if not greedy else [[place] for place in order[1:]]:
        pot = kept
        for place in step:
            pot = pot.with_model(models[place])
        tried = pot.average(best)
        found, inside = _loss_or_infinity(evaluate_loss, tried), (*chosen, *step)
        tastes.append(SoupCandidate(inside, found, found < loss))
        if found < loss:
            kept, chosen, loss = pot, inside, found
    made = kept.average(best)
    if len(chosen) > 1:
        made.provenance = made.provenance.with_event(f"averaged with {len(chosen) - 1} others of the same architecture")
    return made, SoupResult(tuple(singles), tuple(tastes), chosen, loss)


class _WeightSum:
    """The sum of networks' numbers, in float64."""

    def __init__(self, first: EfficientNet) -> None:
        self.count = 1
        self.sum: dict[str, Tensor] = {
            name: value.double() for name, value in first.state_dict().items() if value.is_floating_point()
        }

    def with_model(self, model: EfficientNet) -> _WeightSum:
        """Another pot, with ``model`` in it too."""
        pot = copy.copy(self)
        numbers = model.state_dict()
        pot.count = self.count + 1
        pot.sum = {name: value + numbers[name].to(value) for name, value in self.sum.items()}
        return pot

    def average(self, like: EfficientNet) -> EfficientNet:
        """The average, with everything else from ``like``."""
        made = copy.deepcopy(like).eval()
        before = made.state_dict()
        averages = {name: (value / self.count).to(before[name].dtype) for name, value in self.sum.items()}
        made.load_state_dict({**before, **averages})
        return made


def _loss_or_infinity(evaluate_loss: LossFunction, model: EfficientNet) -> float:
    """What ``judge`` says, and the worst of all for what is no number."""
    found = float(evaluate_loss(model))
    return found if found == found else float("inf")


def _check_compatible(models: Sequence[EfficientNet]) -> None:
    if len(models) < 2:
        raise ValueError(f"a soup is made of at least two networks, and there {('is one', 'are none')[not models]}")
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for what in ("arch", "classes", "channels", "labels", "numerics", "preprocess"):
            if getattr(model, what) != getattr(first, what):
                name = {"arch": "architecture", "channels": "input channels"}.get(what, what)
                raise ValueError(
                    f"network {number} differs from the first in its {name}: a soup needs networks of one architecture "
                    "with the same classes, that see pictures alike"
                )
    if any(map(is_folded, models)):
        raise ValueError("batch norm was folded into one of these copies: give the networks that they were made from")


# A soup of finished runs: their models averaged, judged by the pictures that all of them chose by.


def soup_runs(
    runs: Sequence[str | Path], data: str | Path | Splits, greedy: bool = True, device: str | None = None
) -> tuple[EfficientNet, SoupResult]:
    """The soup of the models in ``runs``, folders that `train` left, on the ``data`` that they were trained on.

    It is judged by the pictures that every one of the runs held out to choose by (``select`` in its ``split.csv``):
    the same where they had the same seed, or chose on the validation set; a picture that one of them has learned from
    would speak for that one. Raises ``ValueError`` where few are common, a folder holds no finished run, a run
    kept its probe, whose head was fitted on these pictures too, or the networks differ (see `soup`).
    """
    folders = [RunDir(Path(run)) for run in runs]
    for folder in folders:
        result = folder.read_result()
        if result is None:
            raise ValueError(f"{folder.path} holds no finished run: give folders that effnet train has left")
        if result.chosen == "probe":
            raise ValueError(
                f"{folder.path} kept its probe, which has seen the pictures to choose by: give runs whose "
                "fine-tuning was better"
            )
    splits = data if isinstance(data, Splits) else open_data(data)
    pictures = _common_selection_images(folders, splits)
    examine = make_scorer(pictures, device)
    made, found = make_soup([load(folder.model) for folder in folders], lambda model: examine(model).loss, greedy)
    scale_logits(made, examine(made).logit_scale)
    return made, found


def _common_selection_images(folders: Sequence[RunDir], splits: Splits) -> ImageDataset:
    """The pictures that all runs chose by."""
    selects = [_selection_names(folder) for folder in folders]
    common = set.intersection(*selects) if selects else set()
    if not selects or 2 * len(common) < max(map(len, selects)):
        raise ValueError(
            f"these runs chose by different pictures ({len(common)} in common): give runs of one --seed, or with "
            "--select-on val"
        )
    from_val = {json.loads((folder.path / "run.json").read_text()).get("select_on") == "val" for folder in folders}
    if len(from_val) > 1:
        raise ValueError("some of these runs chose by the validation set and some did not: give runs that agree")
    source = splits.val if from_val == {True} else splits.train
    there = [] if source is None else [place for place, item in enumerate(source.items) if item.name in common]
    if source is None or len(there) < len(common):
        raise ValueError(
            f"the data has {len(there)} of the {len(common)} pictures that the runs chose by: give what they were "
            "trained on"
        )
    return source.subset(there)


def _selection_names(folder: RunDir) -> set[str]:
    with folder.split_csv.open(newline="", encoding="utf-8") as file:
        return {row["picture"] for row in csv.DictReader(file) if row["part"] == "select"}
