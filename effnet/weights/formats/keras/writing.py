"""The three kinds of Keras' files, written without Keras.

- ``.h5``: weights by layer, named as Keras 2 publishes them. What ``EfficientNetB0(weights=…)`` and ``load_weights``
  open, of Keras 2 and 3.
- ``.weights.h5``: Keras 3's weights by class and count.
- ``.keras``: the whole model, for ``keras.models.load_model``. Its answers are probabilities, as keras.applications',
  or values where the labels are such.

Each is put together in memory first, so that a full disk is met while plain bytes are written.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effnet.net import EfficientNet
from effnet.weights import official
from effnet.weights.formats.keras.counted import VARIABLES
from effnet.weights.formats.keras.graph import Node, nodes
from effnet.weights.layouts import keras

Array = NDArray[Any]
VERSION = "3.0.0"  # of Keras, the first that opens what is written here
YEAR = (1980, 1, 1, 0, 0, 0)  # of everything in an archive, so that the same network makes the same bytes

log = logging.getLogger("effnet")


def write(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` as Keras' own file of the kind that ``suffix`` means: ".h5", ".weights.h5" or ".keras"."""
    graph = nodes(model.arch, model.classes, model.channels, model.preprocess, model.labels.kind)
    weights = _weights(graph, tensors, model)
    if suffix == ".keras":
        path.write_bytes(_archive(graph, weights, model))
        return
    _say_fixed(model, suffix)
    path.write_bytes(_by_class(graph, weights) if suffix == ".weights.h5" else _by_layer(graph, weights))


def _weights(graph: list[Node], tensors: dict[str, Tensor], model: EfficientNet) -> dict[str, dict[str, Array]]:
    """Layer → its variables by name, in Keras' order."""
    found: dict[str, dict[str, Array]] = {}
    for node in graph:
        if node.name == "normalization" and not keras.is_v2(model.arch):
            mean, std = (np.array(values, np.float64) for values in (model.preprocess.mean, model.preprocess.std))
            found[node.name] = {
                "mean": mean.astype(np.float32),
                "variance": (std**2).astype(np.float32),
                "count": np.zeros((), np.int64),
            }
            continue
        for name in VARIABLES.get(_snake(node.kind), ()):
            if f"{node.name}/{name}" in tensors:
                tensor = tensors[f"{node.name}/{name}"]
                known = tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # numpy has no bfloat16
                found.setdefault(node.name, {})[name] = known.numpy()
    return found


def _by_layer(graph: list[Node], weights: dict[str, dict[str, Array]]) -> bytes:
    buffer = BytesIO()
    kinds = {node.name: node.kind for node in graph}
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = _texts(list(kinds))
        file.attrs["backend"] = np.bytes_("tensorflow")
        file.attrs["keras_version"] = np.bytes_(VERSION)
        for layer, kind in kinds.items():
            group = file.create_group(layer)
            variables = weights.get(layer, {})
            published = {
                f"{layer}/{'depthwise_' if kind == 'DepthwiseConv2D' else ''}{name}:0": value
                for name, value in variables.items()
            }
            group.attrs["weight_names"] = _texts(list(published))
            for name, value in published.items():
                group[name] = value
        file.create_group("top_level_model_weights").attrs["weight_names"] = _texts([])
    return buffer.getvalue()


def _by_class(graph: list[Node], weights: dict[str, dict[str, Array]]) -> bytes:
    buffer = BytesIO()
    counts: Counter[str] = Counter()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for node in graph:
            kind = _snake(node.kind)
            group = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
            variables = file.create_group(f"layers/{group}/vars")
            variables.attrs["name"] = node.name
            for place, value in enumerate(weights.get(node.name, {}).values()):
                variables[str(place)] = value
    return buffer.getvalue()


def _archive(graph: list[Node], weights: dict[str, dict[str, Array]], model: EfficientNet) -> bytes:
    first, last = graph[0].name, graph[-1].name
    name = f"efficientnet{model.arch.name.replace('_', '-')}"
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": True,
            "layers": _layers(graph),
            "input_layers": [[first, 0, 0]],
            "output_layers": [[last, 0, 0]],
        },
        "registered_name": "Functional",
    }
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, content in (
            ("metadata.json", json.dumps({"keras_version": VERSION}).encode()),
            ("config.json", json.dumps(config).encode()),
            ("model.weights.h5", _by_class(graph, weights)),
        ):
            archive.writestr(zipfile.ZipInfo(entry, YEAR), content)
    return buffer.getvalue()


def _layers(graph: list[Node]) -> list[dict[str, Any]]:
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


def _say_fixed(model: EfficientNet, suffix: str) -> None:
    """A file of weights cannot change what keras.applications' V2 does to pictures: logs where that is not ours."""
    theirs, ours = official.preprocess(model.arch), model.preprocess
    same = all(np.allclose(getattr(theirs, part), getattr(ours, part), atol=1e-6) for part in ("mean", "std"))
    if keras.is_v2(model.arch) and not same:
        log.warning(
            "%s: Keras' own %s normalises by mean %s and std %s inside, these weights expect %s and %s: "
            'build it with include_preprocessing=False and normalise before it, or save a ".keras", which carries them',
            *(suffix, model.arch.name, theirs.mean, theirs.std, ours.mean, ours.std),
        )


def _snake(kind: str) -> str:
    """A class as Keras' groups spell it: "DepthwiseConv2D" → "depthwise_conv2d"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"(?<=\w)(?=[A-Z][a-z])", "_", kind)).lower()


def _texts(texts: list[str]) -> Array:
    return np.array([text.encode() for text in texts], dtype=f"S{max(map(len, texts), default=1)}")
