"""ONNX files of other exporters."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effnet.metadata import Numerics
from tests.parity.zoo import keras_files, networks
from tests.parity.zoo.table import FLOAT32_LIMIT, Opens, Refused, Sample, ZooFile, write_photo

SAME, NATIVE = Numerics("same", 1e-3), Numerics("symmetric", 1e-5)


def files() -> Iterator[ZooFile]:
    # Folded into float32 weights by the exporter
    folded = Opens(limit=FLOAT32_LIMIT)
    for name, (source, padding) in SOURCES.items():
        yield ZooFile(
            "ONNX of torch.onnx, traced",
            f"{name}, batch norm folded",
            partial(write_traced, source, {}),
            folded,
            sweep=name in ("timm native", "EfficientNet-PyTorch"),
        )
        yield ZooFile(
            "ONNX of torch.onnx, traced",
            f"{name}, batch norm kept",
            partial(write_traced, source, KEPT),
            Opens(numerics=padding),
            sweep=name != "timm native",
        )
    yield ZooFile(
        "ONNX of torch.onnx, traced", "any batch and size", partial(write_traced, networks.torchvision, DYNAMIC), folded
    )
    yield ZooFile("ONNX of torch.onnx, traced", "softmax at the end", write_softmax, folded)
    yield ZooFile(
        "ONNX of torch.onnx, traced",
        "normalization in front",
        write_normalizing,
        Opens(limit=FLOAT32_LIMIT, preprocess={"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}),
        sweep=True,
    )
    yield ZooFile(
        "ONNX of torch.onnx, traced",
        "Relu6 of Lite as Clip",
        partial(write_traced, lite, {}),
        Opens(arch="lite0", limit=FLOAT32_LIMIT),
    )
    yield ZooFile(
        "ONNX of torch.onnx, dynamo",
        "named weights beside the graph, batch norm folded",
        write_dynamo,
        Opens(numerics=NATIVE, limit=FLOAT32_LIMIT),
        sweep=True,
    )
    yield ZooFile(
        "ONNX of tf2onnx",
        "Keras' B0: channels last, some batch norm folded",
        write_tf2onnx,
        Opens(limit=FLOAT32_LIMIT, preprocess=keras_files.OWN),
        sweep=True,
    )
    yield ZooFile("ONNX of another network", "ResNet-18", write_resnet, Refused(says=("(?i)nearest|EfficientNet",)))


def lite() -> nn.Module:
    return networks.timm("tf_efficientnet_lite0")


def timm_native() -> nn.Module:
    return networks.timm("efficientnet_b0")


SOURCES: dict[str, tuple[Callable[[], nn.Module], Numerics]] = {
    "torchvision": (networks.torchvision, NATIVE),
    "timm native": (timm_native, NATIVE),
    "timm ported": (networks.timm, SAME),
    "EfficientNet-PyTorch": (networks.lukemelas, SAME),
}
KEPT = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
DYNAMIC = {
    "input_names": ["input"],
    "output_names": ["output"],
    "dynamic_axes": {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}},
}


def export(network: nn.Module, path: Path, options: dict[str, Any]) -> None:
    """Export as ``torch.onnx.export(model, x, path)`` did until torch 2.9: by tracing."""
    pytest.importorskip("onnx")
    if hasattr(network, "set_swish"):  # as its users must
        network.set_swish(memory_efficient=False)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (networks.images().float(),), file, dynamo=False, **options)
    path.write_bytes(file.getvalue())


def write_traced(source: Callable[[], nn.Module], options: dict[str, Any], folder: Path) -> Sample:
    network = source()
    path = folder / "model.onnx"
    export(network, path, options)
    return networks.sample(path, network)


class _Softmax(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        probabilities: Tensor = self.network(x).softmax(1)
        return probabilities


class _Normalizing(nn.Module):
    """A network that takes RGB in 0 … 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor((0.5, 0.4, 0.3))[:, None, None])
        self.register_buffer("std", torch.tensor((0.2, 0.25, 0.3))[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def write_softmax(folder: Path) -> Sample:
    """Write a network that answers probabilities; the classifier's logits are what is compared."""
    network = networks.torchvision()
    path = folder / "softmax.onnx"
    export(_Softmax(network), path, {})
    photo = write_photo(folder, 3, partial(networks.softmax, network))
    return networks.sample(path, network, photo=photo)


def write_normalizing(folder: Path) -> Sample:
    network = networks.torchvision()
    path = folder / "normalizing.onnx"
    export(_Normalizing(network).eval(), path, {})
    return networks.sample(path, network)


def write_dynamo(folder: Path) -> Sample:
    """Write by torch's exporter since 2.9, which needs onnxscript."""
    pytest.importorskip("onnxscript")
    network = networks.torchvision()
    path = folder / "dynamo.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (networks.images().float(),), path, dynamo=True, verbose=False)
    return networks.sample(path, network)


def write_resnet(folder: Path) -> Sample:
    from effnet.data.torchvision_compat import declare_operators

    declare_operators()
    from torchvision.models import resnet18

    path = folder / "resnet18.onnx"
    export(resnet18(weights=None).eval(), path, {})
    return Sample(path)


def write_tf2onnx(folder: Path) -> Sample:
    """Convert a SavedModel on the command line, as tf2onnx's users do: it folds only some batch norms."""
    pytest.importorskip("tf2onnx")
    sample = keras_files.write_folder(keras_files.export_model, folder)
    path = folder / "model.onnx"
    words = ("-m", "tf2onnx.convert", "--saved-model", str(sample.path), "--output", str(path))
    subprocess.run((sys.executable, *words), check=True, capture_output=True)
    return replace(sample, path=path)
