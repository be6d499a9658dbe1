"""Search for the test resolution of a trained network (FixRes, arXiv:1906.06423), mostly above that of training.

A random crop shows objects larger than the whole image does at the same size. A larger image brings them back to the
size that the network was trained on, and shifts the activations' statistics, which can be re-estimated.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import NormalDist

from effnet.data import ImageDataset
from effnet.net import EfficientNet
from effnet.training import init_model, validation

SIZE_FACTORS = (1.15, 1.28, 1.45)
SIZE_MULTIPLE = 16
SIGNIFICANCE_LEVEL = 0.05  # probability that one of several sizes passes as better though none is
MAX_BATCH_NORM_IMAGES = 2_000


@dataclass(frozen=True)
class ResolutionTrial:
    """A resolution that was tried."""

    image_size: tuple[int, int]  # height, width
    batch_norm_estimated: bool  # batch norm's statistics were re-estimated at this size
    loss: float
    improvement: float  # how much lower the loss is than the original network's
    noise: float  # the multiple of its standard error that the luckiest of all trials exceeds once in twenty times


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
    model: EfficientNet, score_model: Callable[[EfficientNet], validation.SelectionScore], train_images: ImageDataset
) -> tuple[EfficientNet, ResolutionResult]:
    """Return a copy of ``model`` for the best resolution, and all trials.

    Sizes are `SIZE_FACTORS` times the current one. Each is tried with batch norm's statistics as they are, and
    re-estimated. Another one is only chosen if it is clearly better; the logits are then scaled to fit it.
    """
    tried: list[tuple[EfficientNet, bool, validation.SelectionScore]] = []
    for size in _candidate_sizes(*model.preprocess.size):
        for estimated in (False, True):
            other = copy.deepcopy(model).eval()
            other.preprocess = replace(model.preprocess, size=size)
            if estimated:
                batches = init_model.inference_batches(train_images, other.preprocess, MAX_BATCH_NORM_IMAGES)
                init_model.estimate_batch_norm(other, batches)
            tried.append((other, estimated, score_model(other)))
    standard_errors = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / (len(tried) - 1))
    trials = []
    for other, estimated, score in tried:
        gain_and_noise = validation.compare_losses(tried[0][2].losses, score.losses, standard_errors)
        trials.append(ResolutionTrial(other.preprocess.size, estimated, score.loss, *gain_and_noise))
    significant = [index for index, trial in enumerate(trials) if trial.improvement > trial.noise]
    chosen = min(significant, key=lambda index: trials[index].loss, default=0)
    best, _, score = tried[chosen]
    if chosen:
        validation.scale_logits(best, score.logit_scale)
        best.provenance = best.provenance.with_event(
            f"test resolution {_format_size(trials[chosen].image_size)} instead of {_format_size(trials[0].image_size)}"
        )
    return best, ResolutionResult(tuple(trials), chosen)


def _candidate_sizes(height: int, width: int) -> Iterable[tuple[int, int]]:
    """Return the current size and each larger one once, in the current aspect ratio."""
    short = min(height, width)
    sides = [max(round(factor * short / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE for factor in SIZE_FACTORS]
    return dict.fromkeys((round(height * side / short), round(width * side / short)) for side in (short, *sides))


def _format_size(size: tuple[int, int]) -> str:
    return "×".join(map(str, size))
