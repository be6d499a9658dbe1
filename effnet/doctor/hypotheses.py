"""Hypotheses of what is wrong with a configuration, and how their scores are compared."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch import Arch
from effnet.doctor.diagnosis import Configuration
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, RESAMPLING_LIBRARIES, Preprocess, default_crop_fraction
from effnet.tasks import Float64Array, softmax
from effnet.weights.defaults import default_preprocess

IntArray = NDArray[np.int64]
ChannelValues = tuple[float, ...]
LabelOrder = tuple[int, ...]  # for each label, the output that is taken for it

# About twenty configurations are tried: at three standard errors one in forty healthy models would get a false finding
SURE_SIGMAS = 3.0
LIKELY_SIGMAS = 2.0  # enough if the batch-norm statistics agree
MIN_LIKELIHOOD_GAIN = 0.01  # of log-likelihood, in nats: less is not worth a change
TEMPERATURES = np.geomspace(0.01, 1000, 76)  # in standard deviations of the logits

# Usual normalizations, for values in [0, 1]; the architecture's official one is tried before these
NORMALIZATIONS: tuple[tuple[str, ChannelValues, ChannelValues], ...] = (
    ("ImageNet's mean and std", IMAGENET_MEAN, IMAGENET_STD),
    ("mean 0.5, std 0.5: −1 to 1", (0.5,) * 3, (0.5,) * 3),
    ("mean 0, std 1: 0 to 1", (0.0,) * 3, (1.0,) * 3),
    ("no rescaling: 0 to 255", (0.0,) * 3, (1 / 255,) * 3),
    (
        "ImageNet's mean and std on 0 to 255",
        tuple(mean / 255 for mean in IMAGENET_MEAN),
        tuple(std / 255 for std in IMAGENET_STD),
    ),
)
NORMALIZATION_TOLERANCE = 0.02  # normalizations this close, in standard deviations, are the same
TRIED_INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
TENSORFLOW_INTERPOLATIONS = ("bicubic", "bilinear")
RESAMPLING_NAMES = {"pil": "PIL", "tensorflow": "TensorFlow 2", "tensorflow1": "TensorFlow 1"}
EPSILONS = (1e-3, 1e-5)  # of TensorFlow and this family, of PyTorch
SIZE_STEP = 8 / 7  # 224 to 256: what FixRes (arXiv:1906.06423) finds best for training at 224

MIN_IMAGES_PER_CLASS = 4  # to derive a label order from the predictions
# How outputs are commonly sorted; digits split a name into texts and numbers in turn
_SORT_KEYS: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("as text", str),
    ("as text, ignoring case", str.casefold),
    ("by their numbers", lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]),
)


@dataclass(frozen=True)
class Hypothesis:
    """One change of a configuration; ``code`` names the cause that it would repair."""

    code: str
    description: str
    configuration: Configuration


def list_hypotheses(configuration: Configuration, arch: Arch) -> Iterator[Hypothesis]:
    """Yield configurations that differ in one thing, likely causes first. See also `label_order_hypotheses`."""
    current, numerics = configuration.preprocess, configuration.numerics
    for what, mean, std in _normalization_hypotheses(current, arch):
        yield Hypothesis("mean-std", what, replace(configuration, preprocess=replace(current, mean=mean, std=std)))
    order = "RGB" if configuration.bgr else "BGR"
    yield Hypothesis("channel-order", f"channels as {order}", replace(configuration, bgr=not configuration.bgr))
    times, twice = ("once", False) if configuration.rescaled_twice else ("twice", True)
    yield Hypothesis("rescaled-twice", f"divided by 255 {times}", replace(configuration, rescaled_twice=twice))
    for code, what, changes in _preprocess_hypotheses(current, arch):
        yield Hypothesis(code, what, replace(configuration, preprocess=replace(current, **changes)))
    for epsilon in EPSILONS:
        if epsilon != numerics.bn_eps:
            changed = replace(configuration, numerics=replace(numerics, bn_eps=epsilon))
            yield Hypothesis("epsilon", f"batch-norm ε {epsilon:g}", changed)
    padding = "symmetric" if numerics.padding == "same" else "same"
    changed = replace(configuration, numerics=replace(numerics, padding=padding))
    yield Hypothesis("padding", f"{padding} padding", changed)
    if not configuration.recomputed_statistics:  # last: it hides any wrong mean and std
        changed = replace(configuration, recomputed_statistics=True)
        yield Hypothesis("statistics", "batch-norm statistics of these images", changed)


def _normalization_hypotheses(current: Preprocess, arch: Arch) -> Iterator[tuple[str, ChannelValues, ChannelValues]]:
    """Yield (description, mean, std), without near-duplicates."""
    official = default_preprocess(arch)
    tried = [(current.mean, current.std)]
    candidates = ((f"the official {arch.name}'s mean and std", official.mean, official.std), *NORMALIZATIONS)
    for what, mean, std in candidates:
        if not any(same_normalization(mean, std, *other) for other in tried):
            tried.append((mean, std))
            names = [name for name, *values in NORMALIZATIONS if values == [mean, std]]
            yield (names[0] if names else what), mean, std


def same_normalization(
    mean: ChannelValues, std: ChannelValues, other_mean: ChannelValues, other_std: ChannelValues
) -> bool:
    """Return whether two normalizations give nearly the same input."""
    return all(
        abs(a - b) < NORMALIZATION_TOLERANCE * std_a and abs(std_a / std_b - 1) < NORMALIZATION_TOLERANCE
        for a, std_a, b, std_b in zip(mean, std, other_mean, other_std, strict=True)
    )


def _preprocess_hypotheses(current: Preprocess, arch: Arch) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (code, description, changes): the architecture's own resolution, one step smaller, one step larger, …"""
    smaller, larger = (
        tuple(max(round(side * step / 8), 1) * 8 for side in current.size) for step in (1 / SIZE_STEP, SIZE_STEP)
    )
    for size in dict.fromkeys(((arch.resolution, arch.resolution), smaller, larger)):
        if size != current.size:
            yield "size", f"{size[0]}×{size[1]} pixels", {"size": size}
    tried = [current.crop_fraction] if current.resize == "crop" else []
    for fraction in (default_crop_fraction(min(current.size)), 0.875, 1.0):
        if all(abs(fraction - other) > 0.005 for other in tried):
            tried.append(fraction)
            yield "crop", f"crop {fraction:.3g}", {"crop_fraction": fraction, "resize": "crop"}
    if current.resize == "crop":
        yield "crop", "squashed, not cropped", {"crop_fraction": 1.0, "resize": "squash"}
    for interpolation in TRIED_INTERPOLATIONS:
        if interpolation != current.interpolation:
            library = current.resampling if interpolation in TENSORFLOW_INTERPOLATIONS else "pil"
            changes = {"interpolation": interpolation, "resampling": library}
            yield "interpolation", f"{interpolation} interpolation", changes
    for library in RESAMPLING_LIBRARIES:
        if library != current.resampling and (library == "pil" or current.interpolation in TENSORFLOW_INTERPOLATIONS):
            yield "resampling", f"the resize of {RESAMPLING_NAMES[library]}", {"resampling": library}


def label_order_hypotheses(configuration: Configuration, names: Sequence[str], outputs: int) -> Iterator[Hypothesis]:
    """Yield common label orders: every label shifted by one output, or outputs in sorted order."""
    current = configuration.label_order
    for step, where in ((1, "after"), (-1, "before")):
        changed = replace(configuration, label_order=tuple((output + step) % outputs for output in current))
        yield Hypothesis("labels-shifted", f"each label for the output {where} its own", changed)
    tried, positions = {current}, sorted(current)
    for how, key in _SORT_KEYS:
        ranked = sorted(range(len(names)), key=lambda index: key(names[index]))
        order = tuple(positions[rank] for rank in np.argsort(ranked).tolist())
        if order not in tried:
            tried.add(order)
            yield Hypothesis("labels-order", f"labels sorted {how}", replace(configuration, label_order=order))


def match_label_order(
    logits: Float64Array, labels: IntArray, current: LabelOrder
) -> "tuple[LabelOrder, LikelihoodScore] | None":
    """Return the label order that the predictions suggest, and its score on images that it was not derived from.

    Each half of the images is scored by the order derived from the other half. Labels without images keep their output,
    or get one that is left. None if a class has too few images.
    """
    counts = np.bincount(labels, minlength=len(current))
    if counts[counts > 0].min() < MIN_IMAGES_PER_CLASS:
        return None
    halves = np.zeros(len(labels), np.int64)
    for label in np.flatnonzero(counts):
        halves[labels == label] = np.arange(counts[label]) % 2
    probabilities, targets = softmax(logits), np.zeros(len(labels), np.int64)
    for half in (0, 1):
        order = np.array(_assign_outputs(probabilities[halves != half], labels[halves != half], current))
        targets[halves == half] = order[labels[halves == half]]
    return _assign_outputs(probabilities, labels, current), score_logits(logits, targets)


def _assign_outputs(probabilities: Float64Array, labels: IntArray, current: LabelOrder) -> LabelOrder:
    """Assign one output to each label, such that the total probability of the labels' outputs is the largest."""
    from scipy.optimize import linear_sum_assignment

    present = np.unique(labels)
    totals = np.stack([probabilities[labels == label].sum(0) for label in present])  # (present labels, outputs)
    rows, columns = linear_sum_assignment(totals, maximize=True)
    order = dict(zip(present[rows].tolist(), columns.tolist(), strict=True))
    free = [output for output in range(probabilities.shape[1]) if output not in order.values()]
    for label, output in enumerate(current):
        if label not in order and output in free:
            order[label] = output
            free.remove(output)
    for label in range(len(current)):
        if label not in order:
            order[label] = free.pop(0)
    return tuple(order[label] for label in range(len(current)))


@dataclass(frozen=True, eq=False)
class LikelihoodScore:
    """Per image, whether the most likely class is the true one, and log p of the true class."""

    right: NDArray[np.bool_]
    likelihood: Float64Array

    @property
    def top1(self) -> float:
        """Top-1 accuracy."""
        return float(self.right.mean())


@dataclass(frozen=True)
class ScoreGain:
    """Mean differences of top-1 accuracy and log-likelihood, with their standard errors."""

    top1: float
    top1_error: float
    likelihood: float
    likelihood_error: float

    @property
    def sigmas(self) -> float:
        """The gain of log-likelihood in standard errors."""
        return self.likelihood / max(self.likelihood_error, 1e-9)

    @property
    def top1_sigmas(self) -> float:
        """The gain of top-1 accuracy in standard errors."""
        return self.top1 / max(self.top1_error, 1e-9)

    def is_significant(self, min_sigmas: float = SURE_SIGMAS, min_gain: float = MIN_LIKELIHOOD_GAIN) -> bool:
        """Return whether accuracy or log-likelihood gains enough standard errors, and enough to be worth a change."""
        by_top1 = self.top1 > min_sigmas * max(self.top1_error, 1e-9) and self.likelihood > -MIN_LIKELIHOOD_GAIN
        return by_top1 or (self.likelihood > min_gain and self.sigmas > min_sigmas and self.top1 > -self.top1_error)


def score_logits(logits: Float64Array, targets: IntArray) -> LikelihoodScore:
    """Score logits (N, classes) against the true outputs (N,), at the temperature of the highest likelihood.

    So a configuration gains nothing from making the network more or less confident (arXiv:1706.04599).
    """
    rows = np.arange(len(targets))
    shifted = (logits - logits.max(1, keepdims=True)) / max(float(logits.std()), 1e-9)
    likelihoods: Iterator[Float64Array] = (
        scaled[rows, targets] - np.log(np.exp(scaled).sum(1))
        for scaled in (shifted / temperature for temperature in TEMPERATURES)
    )
    return LikelihoodScore(logits.argmax(1) == targets, max(likelihoods, key=lambda each: float(each.mean())))


def compare_scores(new: LikelihoodScore, old: LikelihoodScore) -> ScoreGain:
    """Return the gain of ``new`` over ``old`` on the images that both have seen: the first ones."""
    count = min(len(new.right), len(old.right))
    right = new.right[:count].astype(float) - old.right[:count].astype(float)
    means_and_errors = []
    for differences in (right, new.likelihood[:count] - old.likelihood[:count]):
        means_and_errors += [float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(count))]
    return ScoreGain(*means_and_errors)
