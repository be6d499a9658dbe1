"""Keras files, written without Keras.

This is our own code because writing them with Keras would take TensorFlow.

- ``.h5``: weights by layer, named as Keras 2 publishes them. ``EfficientNetB0(weights=…)`` and ``load_weights`` of
  Keras 2 and 3 open it.
- ``.weights.h5``: Keras 3's weights by class and count.
- ``.keras``: the whole model, for ``keras.models.load_model``. Its outputs are probabilities, as keras.applications'
  are, or values for regression.

Each is built in memory first, so that only plain bytes are written when the disk may be full.
"""

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

from effnet.arch import Arch, Layer, Operation, layers, operations
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.tasks import task_of
from effnet.weights import defaults, key_maps

# class → its variables in the order in which Keras counts them
LAYER_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
    "normalization": ("mean", "variance", "count"),
}
Array = NDArray[Any]
KERAS_VERSION = "3.0.0"  # the first that opens what is written here

log = logging.getLogger("effnet")


def write_keras(path: Path, suffix: str, tensors: dict[str, torch.Tensor], model: EfficientNet) -> None:
    """Write ``tensors`` to a file of the kind of ``suffix``: ".h5", ".weights.h5" or ".keras"."""
    nodes = build_nodes(model.arch, model.classes, model.channels, model.preprocess, model.labels.task)
    weights = _collect_weights(nodes, tensors, model)
    if suffix == ".keras":
        path.write_bytes(_write_archive(nodes, weights, model))
        return
    _warn_fixed_preprocessing(model, suffix)
    path.write_bytes(_write_by_class(nodes, weights) if suffix == ".weights.h5" else _write_by_layer(nodes, weights))


# The layers of an EfficientNet as keras.applications builds them ---------------------------------------------------
#
# Names, classes and order are those of keras-team/keras ``applications/efficientnet.py`` and ``efficientnet_v2.py``.


@dataclass(frozen=True)
class KerasNode:
    """One layer of Keras, of the class ``kind`` ("Conv2D")."""

    kind: str
    name: str
    config: Mapping[str, Any]  # its arguments, where Keras' defaults differ
    inputs: tuple[str, ...]  # names of the layers before it
    shape: tuple[int, ...]  # of the output: (height, width, channels) or (channels,)


@dataclass
class _KerasGraph:
    """Layers in order, each added after its inputs."""

    arch: Arch
    nodes: list[KerasNode] = field(default_factory=list)

    @property
    def last(self) -> KerasNode:
        return self.nodes[-1]

    def add(self, kind: str, name: str, shape: tuple[int, ...], *inputs: str, **config: Any) -> None:
        """Add a layer after the last one, with additional ``inputs``."""
        before = (self.last.name,) if self.nodes else ()
        self.nodes.append(KerasNode(kind, name, config, (*before, *inputs), shape))

    def convolve(self, operation: Operation, name: str, norm: str) -> None:
        """Add a convolution, V1's padding before its stride, and the batch norm after it."""
        height, width, _ = self.last.shape
        kernel, stride, v2 = operation.kernel, operation.stride, key_maps.is_v2(self.arch)
        padding = "same"
        if stride == 2 and not v2:
            pads = [[kernel // 2 - 1 + side % 2, kernel // 2] for side in (height, width)]
            padded = (height + sum(pads[0]), width + sum(pads[1]), operation.inputs)
            self.add("ZeroPadding2D", f"{name}_pad", padded, padding=pads)
            padding = "valid"
        config: dict[str, Any] = {"filters": operation.channels} if operation.groups == 1 else {}
        config |= {"kernel_size": [kernel] * 2, "strides": [stride] * 2, "padding": padding, "use_bias": False}
        shape = (-(-height // stride), -(-width // stride), operation.channels)
        self.add("DepthwiseConv2D" if operation.groups > 1 else "Conv2D", name, shape, **config)
        momentum = defaults.KERAS_MOMENTUM["v2" if v2 else "v1"]
        self.add("BatchNormalization", norm, shape, axis=3, momentum=momentum, epsilon=1e-3)

    def squeeze_excite(self, convolutions: list[Operation], prefix: str) -> None:
        start, channels = self.last, self.last.shape[-1]
        self.add("GlobalAveragePooling2D", f"{prefix}se_squeeze", (channels,))
        self.add("Reshape", f"{prefix}se_reshape", (1, 1, channels), target_shape=[1, 1, channels])
        for operation, name in zip(convolutions, ("se_reduce", "se_expand"), strict=True):
            activation = "sigmoid" if operation.activation == "sigmoid" else self.arch.activation
            config = {"filters": operation.channels, "kernel_size": [1, 1], "padding": "same", "activation": activation}
            self.add("Conv2D", f"{prefix}{name}", (1, 1, operation.channels), **config)
        inputs = (start.name, self.last.name)
        self.nodes.append(KerasNode("Multiply", f"{prefix}se_excite", {}, inputs, start.shape))

    def block(self, layer: Layer) -> None:
        table, start = key_maps.keras_table(self.arch), self.last
        rows, prefix = table.rows_of(layer), table.prefix(layer, 0)
        squeeze_excite: list[Operation] = []
        for operation in operations(layer):
            conv, norm = rows[operation.name.removeprefix(layer.name).lstrip(".")]
            if not operation.norm:
                squeeze_excite.append(operation)
                if len(squeeze_excite) == 2:
                    self.squeeze_excite(squeeze_excite, prefix)
                continue
            self.convolve(operation, f"{prefix}{conv}", f"{prefix}{norm}")
            if operation.activation:
                name = f"{prefix}{norm.removesuffix('bn')}activation"
                self.add("Activation", name, self.last.shape, activation=self.arch.activation)
        if layer.residual:
            if layer.drop_path:
                config = {"rate": layer.drop_path, "noise_shape": [None, 1, 1, 1]}
                self.add("Dropout", f"{prefix}drop", self.last.shape, **config)
            self.add("Add", f"{prefix}add", self.last.shape, start.name)

    def classifier(self, layer: Layer, activation: str) -> None:
        self.add("GlobalAveragePooling2D", "avg_pool", (layer.inputs,))
        if self.arch.dropout:
            self.add("Dropout", "top_dropout", (layer.inputs,), rate=self.arch.dropout)
        self.add("Dense", "predictions", (layer.channels,), units=layer.channels, activation=activation)

    def normalization(self, shape: tuple[int, ...], preprocess: Preprocess) -> None:
        """Add the layers that turn pixels of 0 … 255 into the network's input."""
        mean, std = list(preprocess.mean), list(preprocess.std)
        v2 = key_maps.is_v2(self.arch)
        if v2 and len({*mean}) == len({*std}) == 1:  # as S, M and L
            self.add("Rescaling", "rescaling", shape, scale=1 / (255 * std[0]), offset=-mean[0] / std[0])
            return
        self.add("Rescaling", "rescaling", shape, scale=1 / 255, offset=0.0)
        stated = {"mean": mean, "variance": [value**2 for value in std]} if v2 else {}
        self.add("Normalization", "normalization", shape, axis=[3], **stated)


def build_nodes(
    arch: Arch, classes: int, channels: int, preprocess: Preprocess, task: str = "classification"
) -> list[KerasNode]:
    """Return every layer from images of 0 … 255 to the probabilities, or values, of ``task``.

    V1's mean and variance are weights, V2's are not.
    """
    graph, shape = _KerasGraph(arch), (*preprocess.size, channels)
    graph.add("InputLayer", "input_layer", shape, batch_shape=[None, *shape])
    graph.normalization(shape, preprocess)
    for layer in layers(arch, classes, channels):
        if layer.kind == "classifier":
            graph.classifier(layer, task_of(task).activation)
        else:
            graph.block(layer)
    return graph.nodes


# Files ----------------------------------------------------------------------------------------------------------------


def _collect_weights(
    nodes: list[KerasNode], tensors: dict[str, torch.Tensor], model: EfficientNet
) -> dict[str, dict[str, Array]]:
    """Return layer → its variables by name, in Keras' order."""
    found: dict[str, dict[str, Array]] = {}
    for node in nodes:
        if node.name == "normalization" and not key_maps.is_v2(model.arch):
            mean, std = (np.array(values, np.float64) for values in (model.preprocess.mean, model.preprocess.std))
            variables = {"mean": mean.astype(np.float32), "variance": (std**2).astype(np.float32)}
            found[node.name] = {**variables, "count": np.zeros((), np.int64)}
            continue
        for name in LAYER_VARIABLES.get(_snake_case(node.kind), ()):
            tensor = tensors.get(f"{node.name}/{name}")
            if tensor is not None:
                array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # numpy has no bfloat16
                found.setdefault(node.name, {})[name] = array
    return found


def _write_by_layer(nodes: list[KerasNode], weights: dict[str, dict[str, Array]]) -> bytes:
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = _byte_strings([node.name for node in nodes])
        file.attrs["backend"] = np.bytes_("tensorflow")
        file.attrs["keras_version"] = np.bytes_(KERAS_VERSION)
        for node in nodes:
            group = file.create_group(node.name)
            prefix = "depthwise_" if node.kind == "DepthwiseConv2D" else ""
            variables = {f"{node.name}/{prefix}{name}:0": value for name, value in weights.get(node.name, {}).items()}
            group.attrs["weight_names"] = _byte_strings(list(variables))
            for name, value in variables.items():
                group[name] = value
        file.create_group("top_level_model_weights").attrs["weight_names"] = _byte_strings([])
    return buffer.getvalue()


def _write_by_class(nodes: list[KerasNode], weights: dict[str, dict[str, Array]]) -> bytes:
    buffer = BytesIO()
    counts: Counter[str] = Counter()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for node in nodes:
            kind = _snake_case(node.kind)
            group = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
            variables = file.create_group(f"layers/{group}/vars")
            variables.attrs["name"] = node.name
            for index, value in enumerate(weights.get(node.name, {}).values()):
                variables[str(index)] = value
    return buffer.getvalue()


def _write_archive(nodes: list[KerasNode], weights: dict[str, dict[str, Array]], model: EfficientNet) -> bytes:
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": f"efficientnet{model.arch.name.replace('_', '-')}",
            "trainable": True,
            "layers": _layers_json(nodes),
            "input_layers": [[nodes[0].name, 0, 0]],
            "output_layers": [[nodes[-1].name, 0, 0]],
        },
        "registered_name": "Functional",
    }
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # without dates, so that equal networks give equal bytes
        for name, content in (
            ("metadata.json", json.dumps({"keras_version": KERAS_VERSION}).encode()),
            ("config.json", json.dumps(config).encode()),
            ("model.weights.h5", _write_by_class(nodes, weights)),
        ):
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _layers_json(nodes: list[KerasNode]) -> list[dict[str, Any]]:
    tensors = {
        node.name: {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, *node.shape], "dtype": "float32", "keras_history": [node.name, 0, 0]},
        }
        for node in nodes
    }
    found = []
    for node in nodes:
        inputs = [tensors[name] for name in node.inputs]
        args: list[Any] = [inputs] if len(inputs) > 1 else inputs
        found.append(
            {
                "module": "keras.layers",
                "class_name": node.kind,
                "config": {"name": node.name, **node.config},
                "registered_name": None,
                "name": node.name,
                "inbound_nodes": [{"args": args, "kwargs": {}}] if inputs else [],
            }
        )
    return found


def _warn_fixed_preprocessing(model: EfficientNet, suffix: str) -> None:
    """Log if keras.applications' V2 would preprocess differently, which a weights file cannot change."""
    theirs, ours = defaults.default_preprocess(model.arch), model.preprocess
    same = all(np.allclose(getattr(theirs, part), getattr(ours, part), atol=1e-6) for part in ("mean", "std"))
    if key_maps.is_v2(model.arch) and not same:
        log.warning(
            "%s: Keras' own %s normalizes by mean %s and std %s inside, these weights expect %s and %s: "
            'build it with include_preprocessing=False and normalize before it, or save a ".keras", which carries them',
            *(suffix, model.arch.name, theirs.mean, theirs.std, ours.mean, ours.std),
        )


def _snake_case(kind: str) -> str:
    """Return a class as Keras spells it in groups: "DepthwiseConv2D" → "depthwise_conv2d"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"(?<=\w)(?=[A-Z][a-z])", "_", kind)).lower()


def _byte_strings(texts: list[str]) -> Array:
    return np.array([text.encode() for text in texts], dtype=f"S{max(map(len, texts), default=1)}")
