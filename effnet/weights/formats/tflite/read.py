"""From a ``.tflite`` to tensors by name: float32, float16 and quantised files alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effnet.contract import Labels, Numerics
from effnet.weights.formats.content import Content
from effnet.weights.formats.safetensors import HEADER
from effnet.weights.formats.tflite import metadata, schema
from effnet.weights.formats.tflite.normalisation import stated
from effnet.weights.formats.tflite.walk import Convolution, walk
from effnet.weights.formats.tflite.write import INTERFACE
from effnet.weights.layouts.tflite import called


def read(path: Path) -> Content:
    """Weights and biases of all convolutions as float32, and what the file says of pictures, padding and labels.

    Quantised numbers are given back as what they mean, to the half step that quantising cost. Logits are the
    network's output: a softmax at its end is left out. Raises ``ValueError`` with one sentence for a file that is
    damaged, cut off, or does what no EfficientNet does. A file is cut off too where its metadata names labels that are
    not behind its end any more.
    """
    try:
        return _read(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except schema.DAMAGE as error:
        raise ValueError(f"{path}: damaged or cut off ({error})") from None


def _read(content: bytes) -> Content:
    graph = schema.decode(content)
    found = walk(graph)
    facts = metadata.read(graph.metadata.get(metadata.NAME, b""), content)
    if not graph.inputs:
        raise ValueError("damaged: it takes no picture")
    stem, last = found.convolutions[0], found.convolutions[-1]
    picture = stated(graph.tensors[graph.inputs[0]], found.picture, facts.normalised, stem.weight.shape[-1])
    if HEADER in graph.metadata:  # our own file says more than can be seen in it
        if INTERFACE in graph.metadata:
            stem.weight = _unscaled(stem.weight, graph.metadata[HEADER], graph.metadata[INTERFACE])
        return Content(_tensors(found.convolutions), {HEADER: graph.metadata[HEADER].decode()}, "tflite")
    if not (picture.factor == 1).all():
        stem.weight = (stem.weight * picture.factor).astype(np.float32)
    labels, remarks = Labels(), picture.remarks
    if facts.labels and last.kind == "linear" and len(facts.labels) == len(last.bias):
        labels = Labels(facts.labels)
    elif facts.labels:
        remarks += (f"its {len(facts.labels)} labels are not those of its outputs, and are left out",)
    return Content(
        _tensors(found.convolutions),
        {},
        "tflite",
        picture.preprocess,
        _numerics(found.convolutions),
        labels,
        remarks,
    )


def _unscaled(weight: NDArray[Any], header: bytes, interface: bytes) -> NDArray[Any]:
    """The stem's kernels of an exported file, into which the division by std was moved unless others are to do it."""
    if json.loads(interface)["input"] == "normalised":
        return weight
    std = np.array(json.loads(header)["preprocess"]["std"])
    whole: NDArray[Any] = (weight.astype(np.float64) * std * 255).astype(np.float32)
    return whole


def _tensors(convolutions: list[Convolution]) -> dict[str, Tensor]:
    tensors = {}
    for index, each in enumerate(convolutions):
        name = called(index, each.kind, each.stride, each.activation)
        tensors[f"{name}/weight"], tensors[f"{name}/bias"] = _tensor(each.weight), _tensor(each.bias)
    return tensors


def _tensor(numbers: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(numbers, np.float32))  # a copy: nothing keeps the file's bytes alive


def _numerics(convolutions: list[Convolution]) -> Numerics | None:
    """The padding that the windows have, which shows where they stride; batch norm's ε is folded away."""
    fused: set[str] = set()
    others: set[str] = set()
    for index, each in enumerate(convolutions):
        if each.padding:
            (fused if index and each.kind == "conv" else others).add(each.padding)
    if len(fused) > 1 or len(others) > 1:
        raise ValueError("it pads some convolutions as TensorFlow does and some symmetrically, as no EfficientNet does")
    padding = next(iter(others or fused), None)
    if padding is None:
        return None
    return Numerics(padding, fused_padding="" if fused <= {padding} else next(iter(fused)))
