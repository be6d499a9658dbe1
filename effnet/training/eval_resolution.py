"""Search for the test resolution of a trained network (FixRes, arXiv:1906.06423), mostly above that of training.

A random crop shows objects larger than the whole image does at the same size. A larger image brings them back to the
size that the network was trained on, and shifts the activations' statistics, which can be re-estimated.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from effnet.arch.serde import check_int
from effnet.data import ImageDataset
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.training import init_model, validation

SIZE_FACTORS = (1.0, 1.15, 1.28, 1.45)
SIZE_MULTIPLE = 16
SIGNIFICANCE_LEVEL = 0.05  # probability that one of several sizes passes as better though none is
MAX_BATCH_NORM_IMAGES = 2_000


@dataclass(frozen=True)
class ResolutionTrial:
    """A resolution that was tried.

    ``improvement`` is how much lower its loss is than the original network's. ``noise`` is the multiple of its standard
    error that even the luckiest of all trials exceeds only once in twenty times.
    """

    image_size: tuple[int, int]  # height, width
    batch_norm_estimated: bool  # batch norm's statistics were re-estimated at this size
    loss: float
    metric: float
    improvement: float
    noise: float

    @property
    def is_significant(self) -> bool:
        """Whether it is clearly better."""
        return self.improvement > self.noise


@dataclass(frozen=True)
class ResolutionResult:
    """All trials, the original network first, and the index of the one that was chosen."""

    trials: tuple[ResolutionTrial, ...]
    chosen_index: int

    @property
    def best(self) -> ResolutionTrial:
        """The trial that was chosen."""
        return self.trials[self.chosen_index]

    def summary(self) -> str:
        """Return one sentence."""
        original, best = self.trials[0], self.best
        before = _format_size(original.image_size)
        if not self.chosen_index:
            nearest = max(self.trials[1:], key=lambda trial: trial.improvement - trial.noise)
            return (
                f"keeping {before}: no other size is clearly better (nearest {_format_size(nearest.image_size)}, loss "
                f"lower by {nearest.improvement:.4f}, noise level {nearest.noise:.4f})"
            )
        area = best.image_size[0] * best.image_size[1] / (original.image_size[0] * original.image_size[1])
        estimated = " with re-estimated batch norm" if best.batch_norm_estimated else ""
        return (
            f"{_format_size(best.image_size)}{estimated} instead of {before}: loss {best.loss:.4f} instead of "
            f"{original.loss:.4f} (noise level {best.noise:.4f}), {area:.2g} times the computation"
        )


def tune_resolution(
    model: EfficientNet,
    score_model: Callable[[EfficientNet], validation.SelectionScore],
    train_images: ImageDataset | None = None,
    sizes: Sequence[int] | None = None,
) -> tuple[EfficientNet, ResolutionResult]:
    """Return a copy of ``model`` for the best resolution, and all trials.

    Each size is tried with batch norm's statistics as they are, and re-estimated. Another size is only chosen if it is
    clearly better; the logits are then scaled to fit it. ``sizes`` are short sides in pixels, by default `SIZE_FACTORS`
    times the current one. Raises ``ValueError`` for an invalid size, and if there is nothing to try.
    """
    candidates = _candidate_sizes(model.preprocess, sizes)
    if list(candidates) == [model.preprocess.size] and not train_images:
        raise ValueError(f"{_format_size(model.preprocess.size)} is the current size: pass others to try")
    baseline = score_model(model)
    tried: list[tuple[EfficientNet, bool, validation.SelectionScore]] = [
        (_copy_model(model, model.preprocess), False, baseline)
    ]
    for size in candidates:
        preprocess = replace(model.preprocess, size=size)
        for estimated in (False, True) if train_images else (False,):
            if size == model.preprocess.size and not estimated:
                continue
            other = _copy_model(model, preprocess)
            if estimated:
                assert train_images is not None
                init_model.estimate_batch_norm(
                    other, init_model.inference_batches(train_images, preprocess, MAX_BATCH_NORM_IMAGES)
                )
            tried.append((other.eval(), estimated, score_model(other)))
    standard_errors = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / max(len(tried) - 1, 1))
    trials = [_make_trial(*one, baseline, standard_errors) for one in tried]
    significant = [index for index, trial in enumerate(trials) if trial.is_significant]
    chosen = min(significant, key=lambda index: trials[index].loss, default=0)
    best, _, score = tried[chosen]
    if chosen:
        validation.scale_logits(best, score.logit_scale)
        best.provenance = best.provenance.with_event(
            f"test resolution {_format_size(trials[chosen].image_size)} instead of {_format_size(trials[0].image_size)}"
        )
    return best, ResolutionResult(tuple(trials), chosen)


def _make_trial(
    model: EfficientNet,
    batch_norm_estimated: bool,
    score: validation.SelectionScore,
    baseline: validation.SelectionScore,
    standard_errors: float,
) -> ResolutionTrial:
    gains = np.array(baseline.losses) - np.array(score.losses)  # image by image: most of their spread is in both
    noise = standard_errors * gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("inf")
    size = model.preprocess.size
    return ResolutionTrial(size, batch_norm_estimated, score.loss, score.metric, float(gains.mean()), float(noise))


def _copy_model(model: EfficientNet, preprocess: Preprocess) -> EfficientNet:
    other = copy.deepcopy(model).eval()
    other.preprocess = preprocess
    return other


def _candidate_sizes(preprocess: Preprocess, sides: Sequence[int] | None) -> Iterable[tuple[int, int]]:
    """Return each (height, width) once, in the current aspect ratio."""
    height, width = preprocess.size
    short = min(height, width)
    if sides is None:
        rounded = [max(round(factor * short / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE for factor in SIZE_FACTORS[1:]]
        sides = [short, *rounded]
    for side in sides:
        check_int("size", side, 1)
    return dict.fromkeys((round(height * side / short), round(width * side / short)) for side in sides)


def _format_size(size: tuple[int, int]) -> str:
    return "×".join(map(str, size))
