"""Model soup: the average of networks that were fine-tuned from the same weights (arXiv:2203.05482).

Such networks mostly lie in one basin of the loss, whose middle is better than its sides, and the average costs no more
than one of them. Batch norm's statistics are averaged with the weights, as in the paper.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path

from effnet.data import ImageDataset, Splits, open_data
from effnet.data.storage.csv_files import read_records
from effnet.net import EfficientNet, surgery
from effnet.training.run_dir import RunDir
from effnet.training.validation import scale_logits, score_model
from effnet.weights import load

LossFunction = Callable[[EfficientNet], float]  # the loss on images that no network was trained on


@dataclass(frozen=True)
class SoupCandidate:
    """An average that was tried; ``members`` are indices of the given networks."""

    members: tuple[int, ...]
    loss: float
    accepted: bool


@dataclass(frozen=True)
class SoupResult:
    """What was tried, and the result. Networks are given by their index, from 0."""

    model_losses: tuple[float, ...]  # of each network
    candidates: tuple[SoupCandidate, ...]  # in the order in which they were tried
    members: tuple[int, ...]  # of the result; a single one if no average was better than the best network
    loss: float

    def summary(self) -> str:
        """Return one sentence."""
        best = min(self.model_losses)
        if len(self.members) == 1:
            return (
                f"no average of these {len(self.model_losses)} networks is better than number {self.members[0] + 1} "
                f"alone, loss {best:.4f}"
            )
        numbers = ", ".join(str(index + 1) for index in self.members)
        return f"average of networks {numbers}: loss {self.loss:.4f}, the best of them alone {best:.4f}"


def soup_runs(
    runs: Sequence[str | Path], data: str | Path | Splits, device: str | None = None
) -> tuple[EfficientNet, SoupResult]:
    """Average the models of finished runs.

    They are compared on the selection images that all runs have in common: the same where they had the same seed, or
    selected on the validation set. An image that one of them was trained on would favor that one. Raises ``ValueError``
    for runs that cannot be averaged or compared.
    """
    run_dirs = [RunDir(Path(run)) for run in runs]
    for run_dir in run_dirs:
        result = run_dir.read_result()
        if result is None:
            raise ValueError(f"{run_dir.path} has no finished run: pass directories that effnet train has left")
        if result.chosen == "probe":
            raise ValueError(
                f"{run_dir.path} kept its linear probe, which was fitted on the selection images: pass runs whose "
                "fine-tuning was better"
            )
    images = _common_selection_images(run_dirs, data if isinstance(data, Splits) else open_data(data))
    models = [load(run_dir.model) for run_dir in run_dirs]
    averaged, soup = make_soup(models, lambda model: score_model(model, images, device).loss)
    scale_logits(averaged, score_model(averaged, images, device).logit_scale)
    return averaged, soup


def make_soup(models: Sequence[EfficientNet], evaluate_loss: LossFunction) -> tuple[EfficientNet, SoupResult]:
    """Return the average of ``models``, or the best single one if no average is better; and what was tried.

    Models are added from the best to the worst, each only if it lowers the loss. Raises ``ValueError`` for models that
    differ in more than their weights, and if none has a finite loss.
    """
    _check_compatible(models)
    model_losses = [_loss_or_infinity(evaluate_loss, model) for model in models]
    order = sorted(range(len(models)), key=lambda index: model_losses[index])
    members: tuple[int, ...] = (order[0],)
    loss = model_losses[order[0]]
    if loss == inf:
        raise ValueError("none of these networks has a finite loss: their weights are damaged")
    candidates: list[SoupCandidate] = []
    for added in order[1:]:
        tried = (*members, added)
        tried_loss = _loss_or_infinity(evaluate_loss, _average([models[index] for index in tried]))
        candidates.append(SoupCandidate(tried, tried_loss, tried_loss < loss))
        if tried_loss < loss:
            members, loss = tried, tried_loss
    averaged = _average([models[index] for index in members])
    if len(members) > 1:
        others = f"averaged with {len(members) - 1} others of the same architecture"
        averaged.provenance = averaged.provenance.with_event(others)
    return averaged, SoupResult(tuple(model_losses), tuple(candidates), members, loss)


def _average(models: Sequence[EfficientNet]) -> EfficientNet:
    """Return the average of the weights, computed in float64, with everything else from the first of ``models``."""
    averaged = copy.deepcopy(models[0]).eval()
    states = [model.state_dict() for model in models]
    averaged.load_state_dict(
        {
            name: sum(state[name].double() for state in states) / len(states) if value.is_floating_point() else value
            for name, value in averaged.state_dict().items()
        }
    )
    return averaged


def _loss_or_infinity(evaluate_loss: LossFunction, model: EfficientNet) -> float:
    loss = float(evaluate_loss(model))
    return inf if isnan(loss) else loss


def _check_compatible(models: Sequence[EfficientNet]) -> None:
    if len(models) < 2:
        raise ValueError(f"a model soup needs at least two networks, got {len(models)}")
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for attribute in ("arch", "classes", "channels", "labels", "numerics", "preprocess"):
            if getattr(model, attribute) != getattr(first, attribute):
                name = {"arch": "architecture", "channels": "input channels"}.get(attribute, attribute)
                raise ValueError(
                    f"network {number} differs from the first in its {name}: a model soup needs networks of the same "
                    "architecture, classes and preprocessing"
                )
    if any(map(surgery.is_folded, models)):
        raise ValueError("batch norm is folded into one of these networks: pass the ones they were made from")


def _common_selection_images(run_dirs: Sequence[RunDir], splits: Splits) -> ImageDataset:
    names = [_selection_names(run_dir) for run_dir in run_dirs]
    common = set.intersection(*names) if names else set()
    if not names or 2 * len(common) < max(map(len, names)):
        raise ValueError(
            f"these runs have only {len(common)} selection images in common: pass runs with the same --seed, or with "
            "--select-on val"
        )
    on_val = {run_dir.read_settings().get("select_on") == "val" for run_dir in run_dirs}
    if len(on_val) > 1:
        raise ValueError("only some of these runs were selected on the validation set: pass runs that agree")
    source = splits.val if on_val == {True} else splits.train
    found = [] if source is None else [index for index, item in enumerate(source.items) if item.name in common]
    if source is None or len(found) < len(common):
        raise ValueError(
            f"the data has {len(found)} of the {len(common)} selection images: pass what the runs were trained on"
        )
    return source.subset(found)


def _selection_names(run_dir: RunDir) -> set[str]:
    with run_dir.split_csv.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["image"] for row in read_records(file) if row["split"] == "selection"}
