"""Whether one reading is better than another: differences on the same pictures, with their standard errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch import Arch
from effnet.doctor.diagnosis import Configuration, Finding
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, RESAMPLING_LIBRARIES, Preprocess, default_crop_fraction
from effnet.tasks import softmax
from effnet.weights import default_preprocessing

Float64Array = NDArray[np.float64]


# About twenty readings are tried: at three standard errors one in forty healthy models would hear of a false cause.
SURE_SIGMAS = 3.0


LIKELY_SIGMAS = 2.0  # enough where batch norm's statistics say the same


MIN_LIKELIHOOD_GAIN = 0.01  # of log-likelihood, in nats: less is not worth a change


TEMPERATURES = np.geomspace(0.01, 1000, 76)  # in standard deviations of the logits


@dataclass(frozen=True, eq=False)
class LikelihoodScore:
    """How well logits fit: per picture, whether the likeliest class is the true one, and log p of the true class."""

    right: NDArray[np.bool_]
    likelihood: Float64Array

    @property
    def top1(self) -> float:
        """The share of pictures whose likeliest class is the true one."""
        return float(self.right.mean())

    def first(self, count: int) -> LikelihoodScore:
        """Of the first ``count`` pictures."""
        return LikelihoodScore(self.right[:count], self.likelihood[:count])


@dataclass(frozen=True)
class ScoreGain:
    """Mean differences of top-1 and log-likelihood, with the standard errors of these means."""

    top1: float
    top1_error: float
    likelihood: float
    likelihood_error: float

    @property
    def sigmas(self) -> float:
        """The gain in likelihood in standard errors."""
        return self.likelihood / max(self.likelihood_error, 1e-9)

    def is_significant(self, min_sigmas: float = SURE_SIGMAS, min_gain: float = MIN_LIKELIHOOD_GAIN) -> bool:
        """Whether it is above chance by ``least`` standard errors, in one measure or both, and worth a change."""
        by_top1 = self.top1 > min_sigmas * max(self.top1_error, 1e-9) and self.likelihood > -MIN_LIKELIHOOD_GAIN
        return by_top1 or (self.likelihood > min_gain and self.sigmas > min_sigmas and self.top1 > -self.top1_error)


def score_logits(logits: Float64Array, targets: NDArray[np.int64]) -> LikelihoodScore:
    """(N, classes) and the true outputs (N,), at the temperature under which the targets are least surprising.

    So a reading that only makes the network surer or less sure of itself gains nothing (arXiv:1706.04599).
    """
    rows = np.arange(len(targets))
    shifted = (logits - logits.max(1, keepdims=True)) / max(float(logits.std()), 1e-9)
    best: Float64Array | None = None
    for temperature in TEMPERATURES:
        scaled = shifted / temperature
        likelihood: Float64Array = scaled[rows, targets] - np.log(np.exp(scaled).sum(1))
        if best is None or likelihood.mean() > best.mean():
            best = likelihood
    assert best is not None
    return LikelihoodScore(logits.argmax(1) == targets, best)


def compare_scores(new: LikelihoodScore, old: LikelihoodScore) -> ScoreGain:
    """What ``new`` has over ``old`` on the pictures that both have seen: the first ones."""
    count = min(len(new.right), len(old.right))
    new, old = new.first(count), old.first(count)
    top1, top1_error = _mean_and_error(new.right.astype(float) - old.right.astype(float))
    return ScoreGain(top1, top1_error, *_mean_and_error(new.likelihood - old.likelihood))


def _mean_and_error(differences: Float64Array) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))


# The readings next to one: each differs by one thing that is commonly wrong.


Values = tuple[float, ...]


# What people normalise with, for values in [0, 1]; the arch's own official way is tried before these
NORMALIZATIONS: tuple[tuple[str, Values, Values], ...] = (
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


INTERPOLATIONS = ("bicubic", "bilinear", "nearest")


TENSORFLOW_INTERPOLATIONS = ("bicubic", "bilinear")


RESAMPLING_NAMES = {"pil": "PIL", "tensorflow": "TensorFlow 2", "tensorflow1": "TensorFlow 1"}


EPSILONS = (1e-3, 1e-5)  # TensorFlow's and this family's, PyTorch's


SIZE_STEP = 8 / 7  # 224 to 256: what FixRes (arXiv:1906.06423) finds best when training saw 224


_SAME_TOLERANCE = 0.02  # normalisations this close, in standard deviations, are one


@dataclass(frozen=True)
class Hypothesis:
    """One step away from a reading. ``code`` names the cause that it would mend, ``what`` what is tried."""

    code: str
    description: str
    configuration: Configuration


def list_hypotheses(configuration: Configuration, arch: Arch) -> Iterator[Hypothesis]:
    """The readings that differ from this one by one thing, the likelier causes first. Labels are `orders`' matter."""
    now, numerics = configuration.preprocess, configuration.numerics
    for what, mean, std in _normalization_hypotheses(now, arch):
        yield Hypothesis("mean-std", what, replace(configuration, preprocess=replace(now, mean=mean, std=std)))
    order = "RGB" if configuration.bgr else "BGR"
    yield Hypothesis(
        "channel-order", f"channels in the order {order}", replace(configuration, bgr=not configuration.bgr)
    )
    times = "once" if configuration.rescaled_twice else "twice"
    yield Hypothesis(
        "rescaled-twice",
        f"divided by 255 {times}",
        replace(configuration, rescaled_twice=not configuration.rescaled_twice),
    )
    for code, what, changed in (*_size_hypotheses(now, arch), *_crop_hypotheses(now), *_resize_hypotheses(now)):
        yield Hypothesis(code, what, replace(configuration, preprocess=replace(now, **changed)))
    for epsilon in EPSILONS:
        if epsilon != numerics.bn_eps:
            yield Hypothesis(
                "epsilon",
                f"batch-norm ε {epsilon:g}",
                replace(configuration, numerics=replace(numerics, bn_eps=epsilon)),
            )
    padding = "symmetric" if numerics.padding == "same" else "same"
    yield Hypothesis(
        "padding", f"{padding} padding", replace(configuration, numerics=replace(numerics, padding=padding))
    )
    if not configuration.recomputed_statistics:  # last: it hides whatever is wrong with mean and std
        yield Hypothesis(
            "statistics", "batch norm measured on these pictures", replace(configuration, recomputed_statistics=True)
        )


def _normalization_hypotheses(now: Preprocess, arch: Arch) -> Iterator[tuple[str, Values, Values]]:
    """Mean and std to try, in words too; none that is nearly another."""
    usual = default_preprocessing.default_preprocess(arch)
    tried = [(now.mean, now.std)]
    for what, mean, std in ((f"the official {arch.name}'s mean and std", usual.mean, usual.std), *NORMALIZATIONS):
        if not any(same_normalization(mean, std, *other) for other in tried):
            tried.append((mean, std))
            named = [name for name, *values in NORMALIZATIONS if values == [mean, std]]
            yield (named[0] if named else what), mean, std


def same_normalization(mean: Values, std: Values, other_mean: Values, other_std: Values) -> bool:
    """Whether two normalisations give nearly the same input."""
    return all(
        abs(one - two) < _SAME_TOLERANCE * spread and abs(spread / other - 1) < _SAME_TOLERANCE
        for one, spread, two, other in zip(mean, std, other_mean, other_std, strict=True)
    )


def _size_hypotheses(now: Preprocess, arch: Arch) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The arch's own resolution, one step smaller, one larger."""
    smaller, larger = (
        (_round_to_eight(now.size[0] * step), _round_to_eight(now.size[1] * step))
        for step in (1 / SIZE_STEP, SIZE_STEP)
    )
    for size in dict.fromkeys(((arch.resolution, arch.resolution), smaller, larger)):
        if size != now.size:
            yield "size", f"{size[0]}×{size[1]} pixels", {"size": size}


def _round_to_eight(side: float) -> int:
    return max(round(side / 8), 1) * 8


def _crop_hypotheses(now: Preprocess) -> Iterator[tuple[str, str, dict[str, Any]]]:
    tried = [now.crop_fraction] if now.resize == "crop" else []
    for crop in (default_crop_fraction(min(now.size)), 0.875, 1.0):
        if all(abs(crop - other) > 0.005 for other in tried):
            tried.append(crop)
            yield "crop", f"crop {crop:.3g}", {"crop": crop, "resize": "crop"}
    if now.resize == "crop":
        yield "crop", "squashed, not cropped", {"crop": 1.0, "resize": "squash"}


def _resize_hypotheses(now: Preprocess) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for interpolation in INTERPOLATIONS:
        if interpolation != now.interpolation:
            whose = now.resampling if interpolation in TENSORFLOW_INTERPOLATIONS else "pil"
            changed = {"interpolation": interpolation, "resampling": whose}
            yield "interpolation", f"{interpolation} interpolation", changed
    for resampling in RESAMPLING_LIBRARIES:
        if resampling != now.resampling and (resampling == "pil" or now.interpolation in TENSORFLOW_INTERPOLATIONS):
            yield "resampling", f"the resize of {RESAMPLING_NAMES[resampling]}", {"resampling": resampling}


# Labels in another order: shifted by one, sorted another way, or in an order that only the confusions tell.


IntArray = NDArray[np.int64]


LabelOrder = tuple[int, ...]  # for each label, the output that is taken for it


MIN_IMAGES_PER_CLASS = 4  # pictures a class, before confusions may tell an order


# How outputs are commonly numbered; digits in a name split it into texts and numbers in turn
_SORT_KEYS: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("as text", str),
    ("as text, small letters and capitals alike", str.casefold),
    ("by their numbers", lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]),
)


def label_order_hypotheses(configuration: Configuration, names: Sequence[str], outputs: int) -> Iterator[Hypothesis]:
    """The orders that are commonly meant: every label one output further or one back, or outputs in sorted order."""
    now = configuration.label_order
    for step, where in ((1, "after"), (-1, "before")):
        shifted = tuple((output + step) % outputs for output in now)
        yield Hypothesis(
            "labels-shifted", f"each label for the output {where} its own", replace(configuration, label_order=shifted)
        )
    tried, places = {now}, sorted(now)
    for how, key in _SORT_KEYS:
        ranked = sorted(range(len(names)), key=lambda index: key(names[index]))
        order = tuple(places[place] for place in np.argsort(ranked).tolist())
        if order not in tried:
            tried.add(order)
            yield Hypothesis("labels-order", f"labels sorted {how}", replace(configuration, label_order=order))


def match_label_order(
    logits: Float64Array, labels: IntArray, now: LabelOrder
) -> tuple[LabelOrder, LikelihoodScore] | None:
    """The order under which the network is most often right, and its score on pictures that did not choose it.

    Each half of the pictures (N,) is judged by the order found on the other half. None where there are too few of a
    class for that. ``labels`` are indices into ``now``; labels without pictures keep their output, or get a spare one.
    """
    counts = np.bincount(labels, minlength=len(now))
    if counts[counts > 0].min() < MIN_IMAGES_PER_CLASS:
        return None
    turn = np.zeros(len(labels), np.int64)
    for label in np.flatnonzero(counts):
        turn[labels == label] = np.arange(counts[label]) % 2
    shares, targets = softmax(logits), np.zeros(len(labels), np.int64)
    for half in (0, 1):
        order = np.array(_assign_outputs(shares[turn != half], labels[turn != half], now))
        targets[turn == half] = order[labels[turn == half]]
    return _assign_outputs(shares, labels, now), score_logits(logits, targets)


def _assign_outputs(shares: Float64Array, labels: IntArray, now: LabelOrder) -> LabelOrder:
    """One output for each label, so that the probability given to the labels' outputs is the largest in all."""
    from scipy.optimize import linear_sum_assignment

    seen = np.unique(labels)
    given = np.stack([shares[labels == label].sum(0) for label in seen])  # (seen labels, outputs)
    rows, columns = linear_sum_assignment(given, maximize=True)
    order = dict(zip(seen[rows].tolist(), columns.tolist(), strict=True))
    free = [output for output in range(shares.shape[1]) if output not in order.values()]
    for label, output in enumerate(now):
        if label not in order and output in free:
            order[label] = output
            free.remove(output)
    for label in range(len(now)):
        if label not in order:
            order[label] = free.pop(0)
    return tuple(order[label] for label in range(len(now)))


# What is said of each cause: what was seen, and what to do about it.


_MAX_LISTED_LABELS = 4  # labels of an order that are listed


def score_finding(
    change: Hypothesis,
    now: Configuration,
    new: LikelihoodScore,
    old: LikelihoodScore,
    better: ScoreGain,
    names: Sequence[str],
) -> Finding:
    """The finding that ``change`` of ``now`` scores surely better."""
    seen = (
        f"{_describe_change(change, now)}: on {len(new.right)} pictures top-1 goes from {old.top1:.1%} to {new.top1:.1%} "
        f"({format_points(better.top1, better.top1_error)}), log-likelihood from {old.likelihood.mean():.3f} to "
        f"{new.likelihood.mean():.3f} ({better.likelihood:+.3f} ± {better.likelihood_error:.3f})"
    )
    evidence = {
        "top1": old.top1,
        "new_top1": new.top1,
        "top1_gain": better.top1,
        "top1_error": better.top1_error,
        "gain": better.likelihood,
        "error": better.likelihood_error,
        "pictures": len(new.right),
    }
    return Finding(change.code, "wrong", seen, suggest_remedy(change, now, names), evidence)


def stem_finding(change: Hypothesis, now: Configuration, new: float, old: float, images: int) -> Finding:
    """The finding that under ``change`` of ``now`` the stem's statistics lie nearer to the stored ones."""
    seen = (
        f"{_describe_change(change, now)}: on {images} pictures the stem's batch-norm statistics then lie {new:.2f} standard "
        f"deviations from the stored ones, not {old:.2f}"
    )
    evidence = {"shift": old, "new_shift": new, "pictures": images}
    return Finding(change.code, "suspect", seen, suggest_remedy(change, now, ()), evidence)


def unlike_training_finding(shift: float, images: int) -> Finding:
    """The finding that no reading brings the stem's statistics near the stored ones."""
    return Finding(
        "unlike-training",
        "suspect",
        f"on {images} pictures the stem's batch-norm statistics lie {shift:.2f} standard deviations from the stored "
        "ones, and no usual mean, std or order of channels brings them near",
        "look whether these pictures are like those of the training; labelled ones tell more",
        {"shift": shift, "pictures": images},
    )


def unknown_labels_finding(missing: Sequence[str], known: Sequence[str]) -> Finding:
    """The finding that the pictures have classes which the model's labels do not name."""
    return Finding(
        "labels-unknown",
        "wrong",
        f"{len(missing)} classes of the pictures are not among the model's labels: {_join_names(missing)}; "
        f"among these are {_join_names(known)}",
        "call folders and labels the same; the pictures of these classes were left out",
        {"classes": len(missing)},
    )


def format_points(gain: float, error: float) -> str:
    """A difference of two shares with its standard error: ``+2.1 ± 0.7 points``."""
    return f"{100 * gain:+.1f} ± {100 * error:.1f} points"


def _describe_change(change: Hypothesis, now: Configuration) -> str:
    """What was wrong, in words."""
    new, preprocess = change.configuration, now.preprocess
    match change.code:
        case "mean-std":
            return f"mean and std are wrong: the weights fit {change.description}"
        case "channel-order":
            return f"the weights are for channels in the order {'BGR' if new.bgr else 'RGB'}"
        case "rescaled-twice":
            return f"the weights were trained on values divided by 255 {'twice' if new.rescaled_twice else 'once'}"
        case "size":
            return f"{_format_size(new)} pixels suit better than {_format_size(now)}"
        case "crop":
            return f"{change.description} suits better than {_format_crop(now)}"
        case "interpolation":
            return f"{change.description} suits better than {preprocess.interpolation}"
        case "resampling":
            return f"{change.description} suits better than that of {RESAMPLING_NAMES[preprocess.resampling]}"
        case "epsilon":
            return f"batch norm's ε is wrong: {new.numerics.bn_eps:g} fits, not {now.numerics.bn_eps:g}"
        case "padding":
            return f"the padding is wrong: {new.numerics.padding} fits, not {now.numerics.padding}"
        case "statistics":
            return "batch norm's statistics do not fit the weights: measured anew on these pictures they do"
        case "labels-shifted":
            where = (
                "after"
                if new.label_order[0]
                == (now.label_order[0] + 1) % (max(max(now.label_order), max(new.label_order)) + 1)
                else "before"
            )
            return f"the labels are shifted by one: each belongs to the output {where} its own"
        case "labels-order":
            return f"the labels are in another order than the outputs ({change.description})"
    raise AssertionError(change.code)


def suggest_remedy(change: Hypothesis, now: Configuration, names: Sequence[str]) -> str:
    """What to do."""
    new = change.configuration
    preprocess, numerics = new.preprocess, new.numerics
    match change.code:
        case "mean-std":
            return f"preprocess: mean {_format_values(preprocess.mean)}, std {_format_values(preprocess.std)}"
        case "channel-order":
            return "swap the first and the last input channel of the stem's convolution"
        case "rescaled-twice":
            return f"preprocess: mean and std {'255 times as large' if new.rescaled_twice else '255 times smaller'}"
        case "size":
            return f"preprocess: size {preprocess.size}"
        case "crop":
            return f"preprocess: resize {preprocess.resize!r}" + (
                f", crop {preprocess.crop_fraction:.4g}" if preprocess.resize == "crop" else ""
            )
        case "interpolation" | "resampling":
            return f"preprocess: {change.code} {getattr(preprocess, change.code)!r}"
        case "epsilon":
            return f"load the weights with Numerics({numerics.padding!r}, bn_eps={numerics.bn_eps:g})"
        case "padding":
            return f"load the weights with Numerics({numerics.padding!r}, bn_eps={numerics.bn_eps:g})"
        case "statistics":
            return (
                "measure them on pictures of the training; a momentum of .99 meant TensorFlow's way is .01 in PyTorch"
            )
        case "labels-shifted":
            return f"move the labels by one: output {new.label_order[0]} is {names[0]!r}"
        case "labels-order":
            moved = [
                f"output {new} is {name!r}"
                for name, old, new in zip(names, now.label_order, new.label_order, strict=True)
                if old != new
            ]
            more = f" and {len(moved) - _MAX_LISTED_LABELS} more" if len(moved) > _MAX_LISTED_LABELS else ""
            return f"reorder the labels: {', '.join(moved[:_MAX_LISTED_LABELS])}{more}"
    raise AssertionError(change.code)


def _format_values(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _format_size(reading: Configuration) -> str:
    return "×".join(map(str, reading.preprocess.size))


def _format_crop(reading: Configuration) -> str:
    return f"crop {reading.preprocess.crop_fraction:.3g}" if reading.preprocess.resize == "crop" else "squashed"


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED_LABELS} more" if len(names) > _MAX_LISTED_LABELS else ""
    return ", ".join(map(repr, names[:_MAX_LISTED_LABELS])) + more
