"""The folded network as a walk over named maps, so that each can be looked at, or replaced by its 8-bit image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from effnet.arch import Layer, Operation, layers, operations
from effnet.net import EfficientNet
from effnet.net.layers import ConvNorm

Change = Callable[[str, Tensor], Tensor]  # of a map or a weight: its name and its values -> its values


def same(name: str, x: Tensor) -> Tensor:
    """Changes nothing."""
    return x


def walk(model: EfficientNet, x: Tensor, maps: Change = same, weights: Change = same) -> Tensor:
    """The network's answer to ``x`` (N, C, H, W), normalised; every map and weight goes through what is given.

    ``model`` is folded. A weight is asked for right after its input was shown. The maps are called as in the ONNX graph
    (`effnet.exporting.onnx`): "input", "stem", "stem.relu6", "stage2.0.squeeze_excite.expand.gated", "stage2.1.add",
    "embedding", "logits".
    """
    x = maps("input", x)
    for layer in layers(model.arch, model.classes, model.channels):
        x = step(model, layer, x, maps, weights)
    return x if model.classes else embedding(x, maps)


def step(model: EfficientNet, layer: Layer, x: Tensor, maps: Change = same, weights: Change = same) -> Tensor:
    """One layer of `walk`."""
    if layer.kind == "classifier":
        classifier = model.classifier
        assert isinstance(classifier, nn.Linear)
        x = embedding(x, maps)
        return maps("logits", F.linear(x, weights(layer.name, classifier.weight), classifier.bias))
    start = whole = x
    for operation in operations(layer):
        if operation.name.endswith("squeeze_excite.reduce"):
            whole = x
            x = maps(f"{operation.name}.mean", x.mean((2, 3), keepdim=True))
        x = _convolve(model, operation, x, maps, weights)
        if operation.activation == "sigmoid":
            x = maps(f"{operation.name}.gated", whole * x)
    return maps(f"{layer.name}.add", x + start) if layer.residual else x


def embedding(x: Tensor, maps: Change = same) -> Tensor:
    """The head's map, averaged."""
    return maps("embedding", x.mean((2, 3)))


def _convolve(model: EfficientNet, operation: Operation, x: Tensor, maps: Change, weights: Change) -> Tensor:
    conv = linear(model, operation.name)
    x = maps(operation.name, functional_call(conv, {"weight": weights(operation.name, conv.weight)}, (x,)))
    activation = activation_of(model, operation)
    return maps(f"{operation.name}.{activation}", ACTIVATIONS[activation](x)) if activation else x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
}


def activation_of(model: EfficientNet, operation: Operation) -> str:
    """What follows ``operation``: "silu", "relu", "relu6", "sigmoid", or "" for nothing."""
    return model.arch.activation if operation.activation == "act" else operation.activation


def linear(model: EfficientNet, name: str) -> nn.Conv2d | nn.Linear:
    """The module that holds the weight and the bias of operation ``name``."""
    module = model.get_submodule(name)
    found = module.conv if isinstance(module, ConvNorm) else module
    assert isinstance(found, (nn.Conv2d, nn.Linear))
    return found


def all_operations(model: EfficientNet) -> Iterator[tuple[Layer, Operation]]:
    """Every operation of the network, in the order in which they run, with its layer."""
    for layer in layers(model.arch, model.classes, model.channels):
        for operation in operations(layer):
            yield layer, operation
