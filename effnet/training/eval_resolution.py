"""Which size of pictures a trained network sees best (arXiv:1906.06423): mostly one larger than it was trained at.

A random crop of training shows things larger than the whole picture does at the same size. A larger one brings them
back to the size that the network knows, and shifts the statistics of its maps, which can be measured anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from effnet.arch.serde import check_int
from effnet.data import ImageDataset
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.training.init_model import estimate_batch_norm, inference_batches
from effnet.training.metrics import SelectionScore, scale_logits

SIZE_FACTORS = (1.0, 1.15, 1.28, 1.45)
SIZE_MULTIPLE = 16  # sides are multiples of this
SIGNIFICANCE_LEVEL = 0.05  # the chance with which sizes of which none is better are taken for one that is
MAX_BATCH_NORM_IMAGES = 2_000  # pictures for batch norm's statistics


@dataclass(frozen=True)
class ResolutionTrial:
    """A size that was tried. ``gain`` is by how much the loss is below that of the network as it was.

    Of ``gain``, up to ``chance`` may be the luck of the pictures: so many standard errors of their differences that
    not even the luckiest of all trials gets there but once in twenty times.
    """

    image_size: tuple[int, int]  # height, width
    batch_norm_estimated: bool  # batch norm's statistics were measured anew at this size
    loss: float
    metric: float
    improvement: float
    noise: float

    @property
    def is_significant(self) -> bool:
        """Whether that is clear."""
        return self.improvement > self.noise


@dataclass(frozen=True)
class ResolutionResult:
    """All that was tried, the network as it was first, and the place of what was taken."""

    trials: tuple[ResolutionTrial, ...]
    chosen_index: int

    @property
    def best(self) -> ResolutionTrial:
        """What was taken."""
        return self.trials[self.chosen_index]

    def in_words(self) -> str:
        """A sentence for a person."""
        before, best = self.trials[0], self.best
        if not self.chosen_index:
            nearest = max(self.trials[1:], key=lambda trial: trial.improvement - trial.noise)
            return (
                f"{_format_size(before.image_size)} stays: no other size is clearly better (the nearest, {_format_size(nearest.image_size)}, "
                f"by {nearest.improvement:.4f} in loss, of which {nearest.noise:.4f} may be chance)"
            )
        area = best.image_size[0] * best.image_size[1] / (before.image_size[0] * before.image_size[1])
        measured = ", batch norm measured anew" if best.batch_norm_estimated else ""
        return (
            f"{_format_size(best.image_size)}{measured} instead of {_format_size(before.image_size)}: loss {best.loss:.4f} instead of "
            f"{before.loss:.4f}, by {best.improvement:.4f}, of which {best.noise:.4f} may be chance; {area:.2g} × the work"
        )


def tune_resolution(
    model: EfficientNet,
    score_model: Callable[[EfficientNet], SelectionScore],
    train_images: ImageDataset | None = None,
    sizes: Sequence[int] | None = None,
) -> tuple[EfficientNet, ResolutionResult]:
    """``model`` at the size that it sees best, in evaluation mode, and what was tried; the model stays as it is.

    ``judge`` scores a network, at its own ``preprocess``, on pictures to choose by (see `examiner`). ``learned``: the
    training pictures, on which batch norm's statistics are measured anew at each size, up to 2,000 of them; without
    them the statistics stay as they are. ``sizes``: short sides in pixels, by default 1, 1.15, 1.28 and 1.45 times the
    present one. Each is tried with the statistics as they are, and measured. Another size is taken only where it is
    clearly better, of several the best, and its logits are scaled as suits it. Raises ``ValueError`` for a size that
    is no whole number above 0, and where there is none but the present one.
    """
    sides = _candidate_sizes(model.preprocess, sizes)
    if list(sides) == [model.preprocess.size] and not train_images:
        raise ValueError(f"{_format_size(model.preprocess.size)} is the present size: give others to try")
    before = score_model(model)
    tried: list[tuple[EfficientNet, bool, SelectionScore]] = [(_copy_model(model, model.preprocess), False, before)]
    for size in sides:
        preprocess = replace(model.preprocess, size=size)
        for measured in (False, True) if train_images else (False,):
            if size == model.preprocess.size and not measured:
                continue
            other = _copy_model(model, preprocess)
            if measured:
                assert train_images is not None
                estimate_batch_norm(other, inference_batches(train_images, preprocess, MAX_BATCH_NORM_IMAGES))
            tried.append((other.eval(), measured, score_model(other)))
    errors = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / max(len(tried) - 1, 1))
    trials = [_make_trial(*one, before, errors) for one in tried]
    clear = [place for place, trial in enumerate(trials) if trial.is_significant]
    chosen = min(clear, key=lambda place: trials[place].loss, default=0)
    made = tried[chosen][0]
    if chosen:
        scale_logits(made, tried[chosen][2].logit_scale)
        made.provenance = made.provenance.with_event(
            f"seen at {_format_size(trials[chosen].image_size)} instead of {_format_size(trials[0].image_size)}"
        )
    return made, ResolutionResult(tuple(trials), chosen)


def _make_trial(
    model: EfficientNet,
    batch_norm_estimated: bool,
    score: SelectionScore,
    baseline: SelectionScore,
    standard_errors: float,
) -> ResolutionTrial:
    gained = np.array(baseline.losses) - np.array(score.losses)  # picture by picture: most of their spread is in both
    chance = standard_errors * gained.std(ddof=1) / len(gained) ** 0.5 if len(gained) > 1 else float("inf")
    return ResolutionTrial(
        model.preprocess.size, batch_norm_estimated, score.loss, score.metric, float(gained.mean()), float(chance)
    )


def _copy_model(model: EfficientNet, preprocess: Preprocess) -> EfficientNet:
    other = copy.deepcopy(model).eval()
    other.preprocess = preprocess
    return other


def _candidate_sizes(preprocess: Preprocess, sides: Sequence[int] | None) -> Iterable[tuple[int, int]]:
    """(height, width) of each size, in the present shape, none twice."""
    height, width = preprocess.size
    short = min(height, width)
    sides = (
        sides
        if sides is not None
        else [_round_to_multiple(factor * short) if factor > 1 else short for factor in SIZE_FACTORS]
    )
    for side in sides:
        check_int("size", side, 1)
    return dict.fromkeys((round(height * side / short), round(width * side / short)) for side in sides)


def _round_to_multiple(side: float) -> int:
    return max(round(side / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE


def _format_size(size: tuple[int, int]) -> str:
    return "×".join(map(str, size))
