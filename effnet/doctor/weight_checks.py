"""What a model tells without pictures: damaged numbers, statistics never measured, labels that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from torch import Tensor, nn

from effnet.doctor.diagnosis import Finding
from effnet.doctor.hypotheses import same_normalization
from effnet.net import EfficientNet
from effnet.weights import default_preprocessing
from effnet.weights.conversion import drop_batch_counters

DEAD_CHANNEL_SCALE = 1e-8  # a batch-norm gain or variance below this: the channel says the same of every picture
_MAX_LISTED_LAYERS = 3


def check_weights(model: EfficientNet) -> Iterator[Finding]:
    """What is wrong with the numbers and the labels."""
    damaged = [name for name, tensor in drop_batch_counters(model.state_dict()).items() if not tensor.isfinite().all()]
    if damaged:
        yield Finding(
            "not-finite",
            "wrong",
            f"{_join_names(damaged)} hold NaN or infinity",
            "train again with a lower learning rate or from an earlier checkpoint: these numbers are lost",
            {"tensors": len(damaged)},
        )
        return
    yield from _check_statistics(model)
    yield from _check_classifier(model)
    yield from _check_labels(model)


def has_statistics(model: EfficientNet) -> bool:
    """Whether batch norm holds statistics; not so where it was folded away and only its bias came back."""
    return any(bool(norm.running_mean.any()) for _, norm in _batch_norms(model) if norm.running_mean is not None)


def _batch_norms(model: EfficientNet) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def _norm_tensors(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance, gain, bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var, norm.weight.detach(), norm.bias.detach()


def _check_statistics(model: EfficientNet) -> Iterator[Finding]:
    negative, never, dead = [], [], []
    norms = _batch_norms(model)
    for name, norm in norms:
        mean, variance, gain, bias = _norm_tensors(norm)
        if (variance < 0).any():
            negative.append(name)
        untouched = not mean.any() and bool((variance == variance[0]).all())
        folded = bool((gain == 1).all()) and bool(bias.any())
        if untouched and not folded:
            never.append(name)
        elif (
            ((gain.abs() < DEAD_CHANNEL_SCALE) | (variance < DEAD_CHANNEL_SCALE)).float().mean() > 0.5
        ) and not untouched:
            dead.append(name)
    if negative:
        yield Finding(
            "negative-variance",
            "wrong",
            f"batch norm has negative variances in {_join_names(negative)}",
            "convert the weights again: these tensors are damaged, or others under the wrong names",
            {"layers": len(negative)},
        )
    if never:
        every = len(never) == len(norms)
        yield Finding(
            "never-measured",
            "wrong",
            f"{'every batch norm' if every else _join_names(never)} still has mean 0 and one variance for all channels: "
            "its statistics were never measured",
            "train the model, or load its statistics with its weights"
            + (" (a file without running_mean and running_var?)" if every else ""),
            {"layers": len(never), "of": len(norms)},
        )
    if dead:
        yield Finding(
            "dead-channels",
            "suspect",
            f"more than half of the channels say nothing in {_join_names(dead)}",
            "compare the file with its source: weights pruned or damaged look like this",
            {"layers": len(dead)},
        )


def _check_classifier(model: EfficientNet) -> Iterator[Finding]:
    if not isinstance(model.classifier, nn.Linear):
        return
    weight, bias = model.classifier.weight.detach(), model.classifier.bias.detach()
    bound = 1 / sqrt(model.classes)
    uniform = abs(float(weight.std()) * sqrt(3) / bound - 1) < 0.05 and float(weight.abs().max()) <= bound * (1 + 1e-6)
    if not bias.any() and (uniform or not weight.any()):
        yield Finding(
            "untrained-head",
            "wrong",
            f"the classifier of {model.classes} classes has random weights and no bias: it was never trained",
            "train it (effnet train DATA --recipe probe), or load the weights with their own number of classes",
            {"classes": model.classes},
        )


def _check_labels(model: EfficientNet) -> Iterator[Finding]:
    named = len(model.labels.names)
    if not named or named == model.classes:
        return
    if model.classes == named + 1:
        seen = f"{model.classes} outputs and {named} labels: the first output may be a background class"
        remedy = 'put "background" before the labels, if labelled pictures say that each belongs to the next output'
        yield Finding("labels-shifted", "suspect", seen, remedy, {"outputs": model.classes, "labels": named})
    else:
        yield Finding(
            "labels-count",
            "wrong",
            f"{model.classes} outputs and {named} labels",
            "give the labels of these very weights, one an output",
            {"outputs": model.classes, "labels": named},
        )


def find_unusual(model: EfficientNet) -> Iterator[Finding]:
    """What differs from the official weights of this architecture: no fault, but where to look first."""
    now, usual, name = model.preprocess, default_preprocessing.default_preprocess(model.arch), model.arch.name
    if len(now.mean) == len(usual.mean) and not same_normalization(now.mean, now.std, usual.mean, usual.std):
        yield _make_remark(
            "mean-std",
            f"mean {_format_values(now.mean)}, std {_format_values(now.std)}; official {name}: {_format_values(usual.mean)}, {_format_values(usual.std)}",
        )
    ratio = sqrt(now.size[0] * now.size[1]) / model.arch.resolution
    if not 0.7 <= ratio <= 1.6:
        yield _make_remark(
            "size", f"pictures of {now.size[0]}×{now.size[1]} pixels for a network made for {model.arch.resolution}"
        )
    if (model.numerics.padding == "same") != (model.numerics.bn_eps > 1e-4):
        yield _make_remark(
            "numerics",
            f"{model.numerics.padding} padding with a batch-norm ε of {model.numerics.bn_eps:g}: those from TensorFlow "
            "have same and 0.001, those trained in PyTorch symmetric and 1e-05",
        )


def _make_remark(code: str, seen: str) -> Finding:
    return Finding(f"unusual-{code}", "remark", seen, "try it on labelled pictures: effnet doctor MODEL DATA")


def _format_values(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.3g}' for value in values)})"


def _join_names(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED_LAYERS} more" if len(names) > _MAX_LISTED_LAYERS else ""
    return ", ".join(names[:_MAX_LISTED_LAYERS]) + more
