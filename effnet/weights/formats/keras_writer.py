"""The layers of an EfficientNet as keras.applications builds them, from the arch alone: a model's JSON lists them.

Names, classes and order are those of keras-team/keras ``applications/efficientnet.py`` and ``efficientnet_v2.py``.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effnet.arch import Arch, Layer, Operation, layers, operations
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.tasks import task_of
from effnet.weights import default_preprocessing
from effnet.weights.key_maps import is_v2, keras_rows

KERAS_BN_MOMENTUM = {False: 0.99, True: 0.9}  # of batch norm, in V1 and in V2


@dataclass(frozen=True)
class KerasNode:
    """One layer of Keras."""

    kind: str  # its class, "Conv2D"
    name: str
    config: Mapping[str, Any]  # what it is made with, where Keras' default would not do
    inputs: tuple[str, ...]  # names of the layers before it
    shape: tuple[int, ...]  # of what it gives: (height, width, channels) or (channels,)


@dataclass
class KerasGraph:
    """Layers in order, each added after those that it takes."""

    v2: bool  # of V2
    nodes: list[KerasNode] = field(default_factory=list)

    @property
    def last(self) -> KerasNode:
        """The layer added last."""
        return self.nodes[-1]

    def add(self, kind: str, name: str, shape: tuple[int, ...], *more: str, **config: Any) -> None:
        """A layer after the last one, and after those called ``more``."""
        before = (self.last.name,) if self.nodes else ()
        self.nodes.append(KerasNode(kind, name, config, (*before, *more), shape))

    def convolve(self, operation: Operation, name: str, norm: str) -> None:
        """A convolution, V1's padding before its stride, and the batch norm after it."""
        height, width, _ = self.last.shape
        kernel, stride = operation.kernel, operation.stride
        padding = "same"
        if stride == 2 and not self.v2:
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
        self.add("BatchNormalization", norm, shape, axis=3, momentum=KERAS_BN_MOMENTUM[self.v2], epsilon=1e-3)

    def squeeze_excite(self, found: list[Operation], prefix: str, activation: str) -> None:
        """Squeeze-excite of the last layer's map."""
        at, (height, width, channels) = self.last.name, self.last.shape
        self.add("GlobalAveragePooling2D", f"{prefix}se_squeeze", (channels,))
        self.add("Reshape", f"{prefix}se_reshape", (1, 1, channels), target_shape=[1, 1, channels])
        for operation, name in zip(found, ("se_reduce", "se_expand"), strict=True):
            act = "sigmoid" if operation.activation == "sigmoid" else activation
            config = {"filters": operation.channels, "kernel_size": [1, 1], "padding": "same", "activation": act}
            self.add("Conv2D", f"{prefix}{name}", (1, 1, operation.channels), **config)
        self.nodes.append(
            KerasNode("Multiply", f"{prefix}se_excite", {}, (at, self.last.name), (height, width, channels))
        )


def build_nodes(
    arch: Arch, classes: int, channels: int, preprocess: Preprocess, task: str = "classification"
) -> list[KerasNode]:
    """Every layer from the picture of ``preprocess``'s size, as 0 … 255, to what labels of ``kind`` answer with.

    They are probabilities, by softmax or sigmoid, or values. What stands before the stem normalises as ``preprocess``
    does; V1's mean and variance are weights, V2's are not.
    """
    graph = KerasGraph(is_v2(arch))
    shape = (*preprocess.size, channels)
    graph.add("InputLayer", "input_layer", shape, batch_shape=[None, *shape])
    _add_normalization(graph, shape, preprocess)
    for layer in layers(arch, classes, channels):
        if layer.kind == "classifier":
            _add_classifier(graph, layer, arch.dropout, task_of(task).activation)
        else:
            _add_block(graph, layer, arch.activation)
    return graph.nodes


def _add_normalization(graph: KerasGraph, shape: tuple[int, ...], preprocess: Preprocess) -> None:
    mean, std = list(preprocess.mean), list(preprocess.std)
    if graph.v2 and len({*mean}) == len({*std}) == 1:  # as S, M and L
        graph.add("Rescaling", "rescaling", shape, scale=1 / (255 * std[0]), offset=-mean[0] / std[0])
        return
    graph.add("Rescaling", "rescaling", shape, scale=1 / 255, offset=0.0)
    stated = {"mean": mean, "variance": [value**2 for value in std]} if graph.v2 else {}
    graph.add("Normalization", "normalization", shape, axis=[3], **stated)


def _add_block(graph: KerasGraph, layer: Layer, activation: str) -> None:
    rows, prefix = keras_rows(layer, graph.v2)
    start = graph.last
    squeezed: list[Operation] = []
    for operation in operations(layer):
        convolution, norm = rows[operation.name.removeprefix(layer.name).lstrip(".")]
        if not operation.norm:
            squeezed.append(operation)
            if len(squeezed) == 2:
                graph.squeeze_excite(squeezed, prefix, activation)
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


def _add_classifier(graph: KerasGraph, layer: Layer, dropout: float, activation: str) -> None:
    graph.add("GlobalAveragePooling2D", "avg_pool", (layer.inputs,))
    if dropout:
        graph.add("Dropout", "top_dropout", (layer.inputs,), rate=dropout)
    graph.add("Dense", "predictions", (layer.channels,), units=layer.channels, activation=activation)


# The three kinds of Keras' files, written without Keras.
#
# - ``.h5``: weights by layer, named as Keras 2 publishes them. What ``EfficientNetB0(weights=…)`` and ``load_weights``
#   open, of Keras 2 and 3.
# - ``.weights.h5``: Keras 3's weights by class and count.
# - ``.keras``: the whole model, for ``keras.models.load_model``. Its answers are probabilities, as keras.applications',
#   or values where the labels are such.
#
# Each is put together in memory first, so that a full disk is met while plain bytes are written.


Array = NDArray[Any]


KERAS_VERSION = "3.0.0"  # of Keras, the first that opens what is written here


ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # of everything in an archive, so that the same network makes the same bytes


log = logging.getLogger("effnet")


def write_keras(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` as Keras' own file of the kind that ``suffix`` means: ".h5", ".weights.h5" or ".keras"."""
    graph = build_nodes(model.arch, model.classes, model.channels, model.preprocess, model.labels.task)
    weights = _collect_weights(graph, tensors, model)
    if suffix == ".keras":
        path.write_bytes(_write_archive(graph, weights, model))
        return
    _warn_fixed_preprocessing(model, suffix)
    path.write_bytes(_write_by_class(graph, weights) if suffix == ".weights.h5" else _write_by_layer(graph, weights))


def _collect_weights(
    graph: list[KerasNode], tensors: dict[str, Tensor], model: EfficientNet
) -> dict[str, dict[str, Array]]:
    """Layer → its variables by name, in Keras' order."""
    found: dict[str, dict[str, Array]] = {}
    for node in graph:
        if node.name == "normalization" and not is_v2(model.arch):
            mean, std = (np.array(values, np.float64) for values in (model.preprocess.mean, model.preprocess.std))
            found[node.name] = {
                "mean": mean.astype(np.float32),
                "variance": (std**2).astype(np.float32),
                "count": np.zeros((), np.int64),
            }
            continue
        for name in LAYER_VARIABLES.get(_snake_case(node.kind), ()):
            if f"{node.name}/{name}" in tensors:
                tensor = tensors[f"{node.name}/{name}"]
                known = tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # numpy has no bfloat16
                found.setdefault(node.name, {})[name] = known.numpy()
    return found


def _write_by_layer(graph: list[KerasNode], weights: dict[str, dict[str, Array]]) -> bytes:
    buffer = BytesIO()
    kinds = {node.name: node.kind for node in graph}
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = _byte_strings(list(kinds))
        file.attrs["backend"] = np.bytes_("tensorflow")
        file.attrs["keras_version"] = np.bytes_(KERAS_VERSION)
        for layer, kind in kinds.items():
            group = file.create_group(layer)
            variables = weights.get(layer, {})
            published = {
                f"{layer}/{'depthwise_' if kind == 'DepthwiseConv2D' else ''}{name}:0": value
                for name, value in variables.items()
            }
            group.attrs["weight_names"] = _byte_strings(list(published))
            for name, value in published.items():
                group[name] = value
        file.create_group("top_level_model_weights").attrs["weight_names"] = _byte_strings([])
    return buffer.getvalue()


def _write_by_class(graph: list[KerasNode], weights: dict[str, dict[str, Array]]) -> bytes:
    buffer = BytesIO()
    counts: Counter[str] = Counter()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for node in graph:
            kind = _snake_case(node.kind)
            group = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
            variables = file.create_group(f"layers/{group}/vars")
            variables.attrs["name"] = node.name
            for place, value in enumerate(weights.get(node.name, {}).values()):
                variables[str(place)] = value
    return buffer.getvalue()


def _write_archive(graph: list[KerasNode], weights: dict[str, dict[str, Array]], model: EfficientNet) -> bytes:
    first, last = graph[0].name, graph[-1].name
    name = f"efficientnet{model.arch.name.replace('_', '-')}"
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": True,
            "layers": _layers_json(graph),
            "input_layers": [[first, 0, 0]],
            "output_layers": [[last, 0, 0]],
        },
        "registered_name": "Functional",
    }
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, content in (
            ("metadata.json", json.dumps({"keras_version": KERAS_VERSION}).encode()),
            ("config.json", json.dumps(config).encode()),
            ("model.weights.h5", _write_by_class(graph, weights)),
        ):
            archive.writestr(zipfile.ZipInfo(entry, ZIP_DATE), content)
    return buffer.getvalue()


def _layers_json(graph: list[KerasNode]) -> list[dict[str, Any]]:
    """The layers as Keras 3 spells them in JSON, each with the tensors that it takes."""
    shapes = {node.name: [None, *node.shape] for node in graph}
    spelled = []
    for node in graph:
        taken = [
            {
                "class_name": "__keras_tensor__",
                "config": {"shape": shapes[name], "dtype": "float32", "keras_history": [name, 0, 0]},
            }
            for name in node.inputs
        ]
        args: list[Any] = [taken] if len(taken) > 1 else taken
        spelled.append(
            {
                "module": "keras.layers",
                "class_name": node.kind,
                "config": {"name": node.name, **node.config},
                "registered_name": None,
                "name": node.name,
                "inbound_nodes": [{"args": args, "kwargs": {}}] if taken else [],
            }
        )
    return spelled


def _warn_fixed_preprocessing(model: EfficientNet, suffix: str) -> None:
    """A file of weights cannot change what keras.applications' V2 does to pictures: logs where that is not ours."""
    theirs, ours = default_preprocessing.default_preprocess(model.arch), model.preprocess
    same = all(np.allclose(getattr(theirs, part), getattr(ours, part), atol=1e-6) for part in ("mean", "std"))
    if is_v2(model.arch) and not same:
        log.warning(
            "%s: Keras' own %s normalises by mean %s and std %s inside, these weights expect %s and %s: "
            'build it with include_preprocessing=False and normalise before it, or save a ".keras", which carries them',
            *(suffix, model.arch.name, theirs.mean, theirs.std, ours.mean, ours.std),
        )


def _snake_case(kind: str) -> str:
    """A class as Keras' groups spell it: "DepthwiseConv2D" → "depthwise_conv2d"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"(?<=\w)(?=[A-Z][a-z])", "_", kind)).lower()


def _byte_strings(texts: list[str]) -> Array:
    return np.array([text.encode() for text in texts], dtype=f"S{max(map(len, texts), default=1)}")


# class → its variables in the order in which Keras counts them
LAYER_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
    "normalization": ("mean", "variance", "count"),
}
