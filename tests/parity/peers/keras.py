"""Networks of keras.applications, which take pixels and normalize them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from effnet.arch import ARCHS
from effnet.net import EfficientNet, create
from tests.parity import timm_comparison
from tests.parity.ecosystems import ODD
from tests.quiet_tensorflow import tensorflow

VARIANTS = (
    *("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"),
    *("v2_b0", "v2_b1", "v2_b2", "v2_b3", "v2_s", "v2_m", "v2_l"),
)
SUFFIXES = (".h5", ".weights.h5", ".keras")
FLOAT64 = False  # its layers compute in float32
LIMIT = 1e-4
MEAN, STD = numpy.array([0.485, 0.456, 0.406]), numpy.array([0.229, 0.224, 0.225])


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings of Keras; for every call of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def keras() -> Any:
    """Import the package when first needed, which takes seconds."""
    tensorflow()
    with quiet():
        import keras as package
    return package


def constructor(name: str) -> Any:
    """Return its builder: ``EfficientNetV2S`` for "v2_s"."""
    return getattr(keras().applications, f"EfficientNet{name.upper().replace('_', '')}")


def create_network(name: str, size: tuple[int, int] | None = None, **options: Any) -> Any:
    """Create its network as it comes, with logits as output."""
    size = size or (ARCHS[name].resolution,) * 2
    return constructor(name)(weights=None, input_shape=(*size, 3), **{"classifier_activation": None, **options})


@quiet()
def build(name: str) -> Any:
    """Create its network with random weights, and statistics that our network measured on images.

    Enough images are used that float32 stays well within the limit; with fewer, random networks are chaotic.
    """
    torch.manual_seed(0)
    ours = create(name)
    timm_comparison.randomize(ours, timm_comparison.random_images(16, (160, 160)))
    network = create_network(name)
    copy_weights(network, ours)
    if not name.startswith("v2_"):
        set_normalization(network, MEAN, STD**2)
    return network


def set_normalization(network: Any, mean: Any, variance: Any) -> None:
    """Set the mean and variance that V1's second layer would adapt to data."""
    layer = next(layer for layer in network.layers if type(layer).__name__ == "Normalization")
    layer.set_weights([numpy.float32(mean), numpy.float32(variance), numpy.int64(0)])
    layer.finalize_state()


def copy_weights(network: Any, ours: EfficientNet) -> None:
    """Copy our weights into its layers by name: ``set_weights`` takes kernels as (height, width, in, out)."""
    pairs = [("stem_conv", "stem_bn", ours.stem), ("top_conv", "top_bn", ours.head)]
    for number in range(1, 1 + len(ours.arch.stages)):
        for letter, block in zip("abcdefghijklmnopqrstuvwxyz", ours.get_submodule(f"stage{number}"), strict=False):
            prefix = f"block{number}{letter}_"
            own = {key: module for key, module in block.named_children() if not isinstance(module, torch.nn.Identity)}
            if "fused" in own:
                first = "expand" if "project" in own else "project"
                pairs.append((f"{prefix}{first}_conv", f"{prefix}{first}_bn", own["fused"]))
            if "expand" in own:
                pairs.append((f"{prefix}expand_conv", f"{prefix}expand_bn", own["expand"]))
            if "depthwise" in own:
                depthwise = "dwconv2" if ours.arch.name.startswith("v2_") else "dwconv"
                pairs.append((f"{prefix}{depthwise}", f"{prefix}bn", own["depthwise"]))
            if "project" in own:
                pairs.append((f"{prefix}project_conv", f"{prefix}project_bn", own["project"]))
            if "squeeze_excite" in own:
                for part in ("reduce", "expand"):
                    conv = getattr(own["squeeze_excite"], part)
                    kernel = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
                    network.get_layer(f"{prefix}se_{part}").set_weights([kernel, conv.bias.detach().numpy()])
    for convolution, norm, pair in pairs:
        kernel = pair.conv.weight.detach().numpy()
        order = (2, 3, 0, 1) if "dwconv" in convolution else (2, 3, 1, 0)
        network.get_layer(convolution).set_weights([kernel.transpose(order)])
        values = (pair.norm.weight, pair.norm.bias, pair.norm.running_mean, pair.norm.running_var)
        network.get_layer(norm).set_weights([value.detach().numpy() for value in values])
    if ours.classes and any(layer.name == "predictions" for layer in network.layers):
        weight, bias = ours.classifier.weight.detach().numpy(), ours.classifier.bias.detach().numpy()
        network.get_layer("predictions").set_weights([weight.T, bias])


@quiet()
def write(network: Any, path: Path) -> None:
    """Write Keras 3's weights, its archive, or the whole model as HDF5."""
    if path.name.endswith(".weights.h5"):
        network.save_weights(path)
    else:
        network.save(path)


@quiet()
def read(name: str, path: Path) -> Any:
    """Create its network with the weights in the file, or load it from an archive without the softmax."""
    if path.suffix == ".keras":
        network = keras().models.load_model(path)
        network.get_layer("predictions").activation = keras().activations.linear
        return network
    return constructor(name)(weights=path, classifier_activation="softmax")


@quiet()
def predict(network: Any, x: Tensor) -> Tensor:
    """Return logits for normalized images, rebuilding the network for their size."""
    size = tuple(x.shape[2:])
    if network.input_shape[1:3] != size:
        other = create_network(next(name for name in VARIANTS if has_name(network, name)), size)
        other.set_weights(network.get_weights())
        for layer in other.layers:
            if type(layer).__name__ == "Normalization" and layer.weights:
                layer.finalize_state()
        network = other
    network.get_layer("predictions").activation = keras().activations.linear
    return torch.from_numpy(numpy.asarray(network(pixels(network, x), training=False)))


def has_name(network: Any, name: str) -> bool:
    """Return whether it is our ``name``: "efficientnetv2-s" is "v2_s"."""
    return bool(network.name == f"efficientnet{name.replace('_', '-')}")


def pixels(network: Any, x: Tensor) -> Any:
    """Convert normalized images (N, 3, H, W) to pixels 0 … 255 (N, H, W, 3), undoing its normalization."""
    images = x.permute(0, 2, 3, 1).double().numpy()  # (N, H, W, 3)
    if any(type(layer).__name__ == "Normalization" for layer in network.layers):
        return ((images * STD + MEAN) * 255).astype(numpy.float32)
    return ((images + 1) * 128).astype(numpy.float32)


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """V1 pads for the size that it is built with; `predict` rebuilds it."""
    native = ARCHS[name].resolution
    return (native, native), ODD
