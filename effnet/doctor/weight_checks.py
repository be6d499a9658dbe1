"""Checks without images: damaged weights, statistics that were never measured, labels that do not match."""

from collections.abc import Iterator
from math import sqrt

from torch import nn

from effnet.doctor import advice, diagnosis, hypotheses
from effnet.net import EfficientNet
from effnet.weights import conversion, defaults

DEAD_CHANNEL_SCALE = 1e-8  # batch-norm weight or variance below which a channel is constant


def check_weights(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    """Yield what is wrong with the weights and the labels."""
    tensors = conversion.drop_batch_counters(model.state_dict())
    if damaged := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        observation = f"{advice.join_first(damaged)} contain NaN or Inf"
        remedy = "train again with a lower learning rate or from an earlier checkpoint: these weights are lost"
        yield diagnosis.Finding("not-finite", "wrong", observation, remedy, {"tensors": len(damaged)})
        return
    yield from _check_statistics(model)
    yield from _check_classifier(model)
    yield from _check_labels(model)


def has_statistics(model: EfficientNet) -> bool:
    """Return whether batch norm has statistics; not so if it was folded and only its bias was restored."""
    return any(bool(norm.running_mean.any()) for _, norm in _batch_norms(model) if norm.running_mean is not None)


def _batch_norms(model: EfficientNet) -> list[tuple[str, nn.BatchNorm2d]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def _check_statistics(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    negative, initial, dead = [], [], []
    norms = _batch_norms(model)
    for name, norm in norms:
        tensors = norm.state_dict()
        mean, variance, weight, bias = (tensors[n] for n in ("running_mean", "running_var", "weight", "bias"))
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
        observation = f"batch norm has negative variances in {advice.join_first(negative)}"
        remedy = "convert the weights again: these tensors are damaged, or have wrong names"
        yield diagnosis.Finding("negative-variance", "wrong", observation, remedy, {"layers": len(negative)})
    if initial:
        which, remedy = advice.join_first(initial), "train the model, or load its statistics with its weights"
        if len(initial) == len(norms):
            which, remedy = "every batch norm", f"{remedy} (a file without running_mean and running_var?)"
        observation = f"{which} still has mean 0 and the same variance for all channels"
        observation += ": its statistics were never measured"
        yield diagnosis.Finding(
            "never-measured", "wrong", observation, remedy, {"layers": len(initial), "of": len(norms)}
        )
    if dead:
        observation = f"more than half of the channels are constant in {advice.join_first(dead)}"
        remedy = "compare the file with its source: pruned or damaged weights look like this"
        yield diagnosis.Finding("dead-channels", "suspect", observation, remedy, {"layers": len(dead)})


def _check_classifier(model: EfficientNet) -> Iterator[diagnosis.Finding]:
    if not isinstance(model.classifier, nn.Linear):
        return
    weight, bias = model.classifier.weight.detach(), model.classifier.bias.detach()
    bound = 1 / sqrt(model.classes)
    uniform = abs(float(weight.std()) * sqrt(3) / bound - 1) < 0.05 and float(weight.abs().max()) <= bound * (1 + 1e-6)
    if not bias.any() and (uniform or not weight.any()):
        observation = f"the classifier of {model.classes} classes has random weights and no bias: it was never trained"
        remedy = "train it (effnet train DATA --recipe probe), or load the weights with their own number of classes"
        yield diagnosis.Finding("untrained-head", "wrong", observation, remedy, {"classes": model.classes})


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
    current, official, name = model.preprocess, defaults.default_preprocess(model.arch), model.arch.name
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
