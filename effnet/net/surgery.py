"""What is done to a network after it is built: fold batch norm, new head, other input channels, drop rates, freeze."""

from __future__ import annotations

import copy

import torch
from torch import nn

from effnet.arch.serde import check_choice, check_float, check_int
from effnet.metadata import Labels
from effnet.net.layers import BATCH_NORMS, ConvNorm, StochasticDepth
from effnet.net.network import Classifier, EfficientNet


def fold_batch_norm(model: EfficientNet) -> EfficientNet:
    """A copy for inference in which every batch norm is folded into its convolution: the same outputs, fewer passes.

    W' = W · γ/√(σ² + ε), b' = β − μ · γ/√(σ² + ε), worked out in float64. The copy cannot be trained or saved.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, BATCH_NORMS):
            norm, weight = module.norm, module.conv.weight
            assert norm.running_mean is not None
            assert norm.running_var is not None
            with torch.no_grad():
                gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
                shift = norm.bias.double() - norm.running_mean.double() * gain
                scaled = weight.double() * gain[:, None, None, None]
            module.conv.weight = nn.Parameter(scaled.to(weight), requires_grad=False)
            module.conv.bias = nn.Parameter(shift.to(weight), requires_grad=False)
            module.norm = nn.Identity()
    return folded.requires_grad_(False)


def is_folded(model: EfficientNet) -> bool:
    """Whether batch norm was folded away."""
    return isinstance(model.stem.norm, nn.Identity)


def set_classes(model: EfficientNet, classes: int, labels: Labels | None = None) -> EfficientNet:
    """Gives ``model`` a new, freshly initialised classifier with ``classes`` outputs (0: none) and returns it.

    Raises ``ValueError`` where ``labels`` are of another number.
    """
    check_int("classes", classes, 0)
    labels = labels or Labels()
    if labels.names and len(labels.names) != classes:
        raise ValueError(f"{len(labels.names)} labels do not fit {classes} classes")
    like = model.head.conv.weight
    model.classifier = Classifier(model.head.conv.out_channels, classes).to(like) if classes else nn.Identity()
    model.classes, model.labels = classes, labels
    return model


def set_input_channels(model: EfficientNet, channels: int, mode: str = "tile") -> EfficientNet:
    """Lets ``model`` see pictures of ``channels`` channels, keeping what its stem has learned, and returns it.

    "sum": every new channel gets the mean of the old kernels, scaled so that equal channels give the old response.
    "tile": old kernels are repeated in turn (r g b r …) under the same scaling. With one channel both are the sum of
    the old kernels: a preprocessed grey picture answers exactly as its copy in three equal channels did.
    Mean and std of ``preprocess`` follow (averaged, or repeated). Raises ``ValueError`` for less than one channel.
    """
    check_int("channels", channels, 1)
    check_choice("how", mode, ("sum", "tile"))
    stem = model.stem.conv
    old, before = stem.weight, stem.in_channels
    with torch.no_grad():
        total = old.sum(1, keepdim=True)  # (out, 1, 3, 3)
        if mode == "sum" or channels == 1:
            weight = total.repeat(1, channels, 1, 1) / channels
        else:
            turn = [index % before for index in range(channels)]
            weight = old[:, turn] * (before / channels)
            # Where the turns do not come out even, equal channels would answer otherwise: spread what is missing.
            weight = weight + (total - weight.sum(1, keepdim=True)) / channels
    stem.weight = nn.Parameter(weight.contiguous(), requires_grad=old.requires_grad)
    stem.in_channels = model.channels = channels
    model.preprocess = model.preprocess.with_channels(channels, average=mode == "sum" or channels == 1)
    return model


def set_drop_path(model: EfficientNet, drop_path: float) -> EfficientNet:
    """Sets stochastic depth to rise from 0 at the first block to nearly ``rate`` at the last, as officially.

    Raises ``ValueError`` for a rate outside of [0, 1).
    """
    check_float("rate", drop_path, 0, 0.99)
    depths = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    for index, depth in enumerate(depths):
        depth.drop_prob = drop_path * index / len(depths)
    return model


def freeze(model: EfficientNet, until: str | None) -> EfficientNet:
    """Stops training of all parts up to and with ``until`` ("stem", "stage3", "head"), frees the rest; returns it.

    None frees everything. Frozen parts stay in evaluation mode: batch norm keeps its statistics, stochastic depth
    rests. Raises ``ValueError`` for a part that the network does not have.
    """
    if until is not None:
        check_choice("until", until, model.feature_names())
    model.frozen_until = until
    model.requires_grad_(True)
    for name in model.frozen_names():
        model.get_submodule(name).requires_grad_(False)
    return model.train(model.training)
