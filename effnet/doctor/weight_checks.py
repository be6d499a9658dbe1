"""Checks without images: damaged weights, statistics that were never measured, labels that do not match."""

from collections.abc import Iterator
from math import sqrt

from torch import Tensor, nn

from effnet.doctor import diagnosis, hypotheses
from effnet.net import EfficientNet
from effnet.weights import conversion, default_preprocessing

DEAD_CHANNEL_SCALE = 1e-8  # batch-norm weight or variance below which a channel is constant
_MAX_LISTED_LAYERS = 3


def check_weights(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    """Yield what is wrong with the weights and the labels."""
    damaged = [
        name
        for name, tensor in conversion.drop_batch_counters(model.state_dict()).items()
        if not tensor.isfinite().all()
    ]
    if damaged:
        yield diagnosis.Finding(
            "not-finite",
            "wrong",
            f"{_join_names(damaged)} contain NaN or Inf",
            "train again with a lower learning rate or from an earlier checkpoint: these weights are lost",
            {"tensors": len(damaged)},
        )
        return
    yield from _check_statistics(model)
    yield from _check_classifier(model)
    yield from _check_labels(model)


def has_statistics(model: EfficientNet) -> bool:
    """Return whether batch norm has statistics; not so if it was folded and only its bias was restored."""
    return any(bool(norm.running_mean.any()) for _, norm in _batch_norms(model) if norm.running_mean is not None)


def _batch_norms(model: EfficientNet) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def _norm_tensors(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, variance, weight, bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var, norm.weight.detach(), norm.bias.detach()


def _check_statistics(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    negative, initial, dead = [], [], []
    norms = _batch_norms(model)
    for name, norm in norms:
        mean, variance, weight, bias = _norm_tensors(norm)
        if (variance < 0).any():
            negative.append(name)
        is_initial = not mean.any() and bool((variance == variance[0]).all())
        was_folded = bool((weight == 1).all()) and bool(bias.any())
        constant = (weight.abs() < DEAD_CHANNEL_SCALE) | (variance < DEAD_CHANNEL_SCALE)
        if is_initial and not was_folded:
            initial.append(name)
        elif constant.float().mean() > 0.5 and not is_initial:
            dead.append(name)
    if negative:
        yield diagnosis.Finding(
            "negative-variance",
            "wrong",
            f"batch norm has negative variances in {_join_names(negative)}",
            "convert the weights again: these tensors are damaged, or have wrong names",
            {"layers": len(negative)},
        )
    if initial:
        all_initial = len(initial) == len(norms)
        yield diagnosis.Finding(
            "never-measured",
            "wrong",
            f"{'every batch norm' if all_initial else _join_names(initial)} still has mean 0 and the same variance for "
            "all channels: its statistics were never measured",
            "train the model, or load its statistics with its weights"
            + (" (a file without running_mean and running_var?)" if all_initial else ""),
            {"layers": len(initial), "of": len(norms)},
        )
    if dead:
        yield diagnosis.Finding(
            "dead-channels",
            "suspect",
            f"more than half of the channels are constant in {_join_names(dead)}",
            "compare the file with its source: pruned or damaged weights look like this",
            {"layers": len(dead)},
        )


def _check_classifier(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    if not isinstance(model.classifier, nn.Linear):
        return
    weight, bias = model.classifier.weight.detach(), model.classifier.bias.detach()
    bound = 1 / sqrt(model.classes)
    uniform = abs(float(weight.std()) * sqrt(3) / bound - 1) < 0.05 and float(weight.abs().max()) <= bound * (1 + 1e-6)
    if not bias.any() and (uniform or not weight.any()):
        yield diagnosis.Finding(
            "untrained-head",
            "wrong",
            f"the classifier of {model.classes} classes has random weights and no bias: it was never trained",
            "train it (effnet train DATA --recipe probe), or load the weights with their own number of classes",
            {"classes": model.classes},
        )


def _check_labels(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    labels, outputs = len(model.labels.names), model.classes
    if not labels or labels == outputs:
        return
    observation, evidence = f"{outputs} outputs and {labels} labels", {"outputs": outputs, "labels": labels}
    if outputs == labels + 1:
        observation += ": the first output may be a background class"
        remedy = 'put "background" before the labels, if labeled images show that each belongs to the next output'
        yield diagnosis.Finding("labels-shifted", "suspect", observation, remedy, evidence)
    else:
        remedy = "use the labels of these weights, one per output"
        yield diagnosis.Finding("labels-count", "wrong", observation, remedy, evidence)


def find_unusual(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    """Yield differences from the architecture's official weights: not wrong, but where to look first."""
    current, official, name = model.preprocess, default_preprocessing.default_preprocess(model.arch), model.arch.name
    mean, std = current.mean, current.std
    if len(mean) == len(official.mean) and not hypotheses.same_normalization(mean, std, official.mean, official.std):
        yield _make_remark(
            "mean-std",
            f"mean {_format_values(mean)}, std {_format_values(std)}; official {name}: "
            f"{_format_values(official.mean)}, {_format_values(official.std)}",
        )
    height, width = current.size
    if not 0.7 <= sqrt(height * width) / model.arch.resolution <= 1.6:
        yield _make_remark("size", f"images of {height}×{width} for a network designed for {model.arch.resolution}")
    numerics = model.numerics
    if (numerics.padding == "same") != (numerics.bn_eps > 1e-4):
        yield _make_remark(
            "numerics",
            f"{numerics.padding} padding with a batch-norm ε of {numerics.bn_eps:g}: weights from TensorFlow have same "
            "and 0.001, those trained in PyTorch symmetric and 1e-05",
        )


def _make_remark(code: str, observation: str) -> diagnosis.Finding:
    return diagnosis.Finding(f"unusual-{code}", "remark", observation, "try labeled images: effnet doctor MODEL DATA")


def _format_values(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.3g}' for value in values)})"


def _join_names(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED_LAYERS} more" if len(names) > _MAX_LISTED_LAYERS else ""
    return ", ".join(names[:_MAX_LISTED_LAYERS]) + more
