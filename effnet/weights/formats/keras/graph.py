"""The layers of an EfficientNet as keras.applications builds them, from the arch alone: a model's JSON lists them.

Names, classes and order are those of keras-team/keras ``applications/efficientnet.py`` and ``efficientnet_v2.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from effnet.arch import Arch, Layer, Operation, layers, operations
from effnet.contract import Preprocess
from effnet.weights.layouts import keras

ACTIVATIONS = {"one": "softmax", "any": "sigmoid", "value": "linear"}  # of the answers, by the labels' kind
MOMENTUM = {False: 0.99, True: 0.9}  # of batch norm, in V1 and in V2


@dataclass(frozen=True)
class Node:
    """One layer of Keras."""

    kind: str  # its class, "Conv2D"
    name: str
    config: Mapping[str, Any]  # what it is made with, where Keras' default would not do
    inputs: tuple[str, ...]  # names of the layers before it
    shape: tuple[int, ...]  # of what it gives: (height, width, channels) or (channels,)


@dataclass
class Graph:
    """Layers in order, each added after those that it takes."""

    second: bool  # of V2
    nodes: list[Node] = field(default_factory=list)

    @property
    def last(self) -> Node:
        """The layer added last."""
        return self.nodes[-1]

    def add(self, kind: str, name: str, shape: tuple[int, ...], *more: str, **config: Any) -> None:
        """A layer after the last one, and after those called ``more``."""
        before = (self.last.name,) if self.nodes else ()
        self.nodes.append(Node(kind, name, config, (*before, *more), shape))

    def convolve(self, operation: Operation, name: str, norm: str) -> None:
        """A convolution, V1's padding before its stride, and the batch norm after it."""
        height, width, _ = self.last.shape
        kernel, stride = operation.kernel, operation.stride
        padding = "same"
        if stride == 2 and not self.second:
            pads = [[kernel // 2 - 1 + side % 2, kernel // 2] for side in (height, width)]
            padded = (height + sum(pads[0]), width + sum(pads[1]), operation.inputs)
            self.add("ZeroPadding2D", f"{name}_pad", padded, padding=pads)
            padding = "valid"
        config = {"kernel_size": [kernel, kernel], "strides": [stride, stride], "padding": padding, "use_bias": False}
        shape = (-(-height // stride), -(-width // stride), operation.channels)
        if operation.groups > 1:
            self.add("DepthwiseConv2D", name, shape, **config)
        else:
            self.add("Conv2D", name, shape, filters=operation.channels, **config)
        self.add("BatchNormalization", norm, shape, axis=3, momentum=MOMENTUM[self.second], epsilon=1e-3)

    def squeeze(self, found: list[Operation], prefix: str, activation: str) -> None:
        """Squeeze-excite of the last layer's map."""
        at, (height, width, channels) = self.last.name, self.last.shape
        self.add("GlobalAveragePooling2D", f"{prefix}se_squeeze", (channels,))
        self.add("Reshape", f"{prefix}se_reshape", (1, 1, channels), target_shape=[1, 1, channels])
        for operation, name in zip(found, ("se_reduce", "se_expand"), strict=True):
            act = "sigmoid" if operation.activation == "sigmoid" else activation
            config = {"filters": operation.channels, "kernel_size": [1, 1], "padding": "same", "activation": act}
            self.add("Conv2D", f"{prefix}{name}", (1, 1, operation.channels), **config)
        self.nodes.append(Node("Multiply", f"{prefix}se_excite", {}, (at, self.last.name), (height, width, channels)))


def nodes(arch: Arch, classes: int, channels: int, preprocess: Preprocess, kind: str = "one") -> list[Node]:
    """Every layer from the picture of ``preprocess``'s size, as 0 … 255, to what labels of ``kind`` answer with.

    They are probabilities, by softmax or sigmoid, or values. What stands before the stem normalises as ``preprocess``
    does; V1's mean and variance are weights, V2's are not.
    """
    graph = Graph(keras.is_v2(arch))
    shape = (*preprocess.size, channels)
    graph.add("InputLayer", "input_layer", shape, batch_shape=[None, *shape])
    _normalise(graph, shape, preprocess)
    for layer in layers(arch, classes, channels):
        if layer.kind == "classifier":
            _classify(graph, layer, arch.dropout, ACTIVATIONS[kind])
        else:
            _block(graph, layer, arch.activation)
    return graph.nodes


def _normalise(graph: Graph, shape: tuple[int, ...], preprocess: Preprocess) -> None:
    mean, std = list(preprocess.mean), list(preprocess.std)
    if graph.second and len({*mean}) == len({*std}) == 1:  # as S, M and L
        graph.add("Rescaling", "rescaling", shape, scale=1 / (255 * std[0]), offset=-mean[0] / std[0])
        return
    graph.add("Rescaling", "rescaling", shape, scale=1 / 255, offset=0.0)
    stated = {"mean": mean, "variance": [value**2 for value in std]} if graph.second else {}
    graph.add("Normalization", "normalization", shape, axis=[3], **stated)


def _block(graph: Graph, layer: Layer, activation: str) -> None:
    rows, prefix = keras.table(layer, graph.second)
    start = graph.last
    squeezed: list[Operation] = []
    for operation in operations(layer):
        convolution, norm = rows[operation.name.removeprefix(layer.name).lstrip(".")]
        if not operation.norm:
            squeezed.append(operation)
            if len(squeezed) == 2:
                graph.squeeze(squeezed, prefix, activation)
            continue
        graph.convolve(operation, f"{prefix}{convolution}", f"{prefix}{norm}")
        if operation.activation:
            graph.add(
                "Activation", f"{prefix}{norm.removesuffix('bn')}activation", graph.last.shape, activation=activation
            )
    if layer.residual:
        if layer.drop_path:
            config = {"rate": layer.drop_path, "noise_shape": [None, 1, 1, 1]}
            graph.add("Dropout", f"{prefix}drop", graph.last.shape, **config)
        graph.add("Add", f"{prefix}add", graph.last.shape, start.name)


def _classify(graph: Graph, layer: Layer, dropout: float, activation: str) -> None:
    graph.add("GlobalAveragePooling2D", "avg_pool", (layer.inputs,))
    if dropout:
        graph.add("Dropout", "top_dropout", (layer.inputs,), rate=dropout)
    graph.add("Dense", "predictions", (layer.channels,), units=layer.channels, activation=activation)
