"""Changes to an existing network: fold batch norm, new classifier or input channels, drop path, freezing."""

import copy

import torch
from torch import nn

from effnet.arch.serde import check_choice, check_float, check_int
from effnet.metadata import Labels
from effnet.net import layers, network


def fold_batch_norm(model: network.EfficientNet) -> network.EfficientNet:
    """Return a copy for inference with every batch norm folded into its convolution: same outputs, fewer passes.

    W' = W · γ/√(σ² + ε), b' = β − μ · γ/√(σ² + ε), computed in float64. The copy cannot be trained or saved.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        if isinstance(module, layers.ConvNorm) and isinstance(module.norm, layers.BATCH_NORMS):
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


def is_folded(model: network.EfficientNet) -> bool:
    """Whether batch norm has been folded."""
    return isinstance(model.stem.norm, nn.Identity)


def set_classes(model: network.EfficientNet, classes: int, labels: Labels | None = None) -> network.EfficientNet:
    """Replace the classifier in place by a newly initialized one with ``classes`` outputs (0: none); return ``model``.

    Raises ``ValueError`` if the number of ``labels`` differs from ``classes``.
    """
    check_int("classes", classes, 0)
    labels = labels or Labels()
    if labels.names and len(labels.names) != classes:
        raise ValueError(f"{len(labels.names)} labels do not match {classes} classes")
    head = model.head.conv
    model.classifier = network.Classifier(head.out_channels, classes).to(head.weight) if classes else nn.Identity()
    model.classes, model.labels = classes, labels
    return model


def set_input_channels(model: network.EfficientNet, channels: int, mode: str = "tile") -> network.EfficientNet:
    """Change the number of input channels in place, keeping what the stem has learned; return ``model``.

    Under both modes equal channels give the old response, and a single channel the sum of the old kernels: a
    preprocessed gray image gives exactly the output of its copy in three equal channels. Mean and std of
    ``preprocess`` follow.

    The mode "tile" repeats the old kernels cyclically (r g b r …), scaled; "sum" gives every channel their mean. Raises
    ``ValueError`` if ``channels`` is below 1 or the mode unknown.
    """
    check_int("channels", channels, 1)
    check_choice("mode", mode, ("sum", "tile"))
    stem = model.stem.conv
    old, before = stem.weight, stem.in_channels
    with torch.no_grad():
        total = old.sum(1, keepdim=True)  # (out, 1, 3, 3)
        if mode == "sum" or channels == 1:
            weight = total.repeat(1, channels, 1, 1) / channels
        else:
            weight = old[:, [index % before for index in range(channels)]] * (before / channels)
            # Unless the repeats come out even, equal channels would give another response: spread the difference
            weight = weight + (total - weight.sum(1, keepdim=True)) / channels
    stem.weight = nn.Parameter(weight.contiguous(), requires_grad=old.requires_grad)
    stem.in_channels = model.channels = channels
    model.preprocess = model.preprocess.with_channels(channels, average=mode == "sum" or channels == 1)
    return model


def set_drop_path(model: network.EfficientNet, drop_path: float) -> network.EfficientNet:
    """Let stochastic depth grow from 0 at the first block to nearly ``drop_path`` at the last, in place.

    Raises ``ValueError`` unless the rate is in [0, 1).
    """
    check_float("drop_path", drop_path, 0, 0.99)
    modules = [module for module in model.modules() if isinstance(module, layers.StochasticDepth)]
    for index, module in enumerate(modules):
        module.drop_prob = drop_path * index / len(modules)
    return model


def freeze(model: network.EfficientNet, until: str | None) -> network.EfficientNet:
    """Freeze everything up to and including ``until`` ("stem", "stage3", "head"), unfreeze the rest; in place.

    None unfreezes everything. Frozen modules stay in evaluation mode: batch norm keeps its statistics and stochastic
    depth is off. Raises ``ValueError`` if the network has no such stage.
    """
    if until is not None:
        check_choice("until", until, model.feature_names())
    model.frozen_until = until
    model.requires_grad_(True)
    for name in model.frozen_names():
        model.get_submodule(name).requires_grad_(False)
    return model.train(model.training)
