"""Networks of the libraries, with random weights and statistics, built once and shared by many files."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effnet.data.torchvision_compat import declare_operators
from tests.parity import timm_comparison
from tests.parity.peers import random_weights
from tests.parity.zoo.table import Sample

CLASSES = 7
LABELS = ("ant", "bee", "cricket", "dragonfly", "earwig", "fly", "gnat")
SIZE = (64, 64)


@cache
def images(channels: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    """Return one normalized random image, in float64."""
    planes = timm_comparison.random_images(channels, size, seed=5)[:, :1]  # (channels, 1, H, W)
    return planes.transpose(0, 1).contiguous()  # (1, channels, H, W)


def randomize(network: nn.Module, channels: int = 3) -> nn.Module:
    """Set random weights and statistics."""
    return random_weights.randomize(network, training_images(channels))


@cache
def training_images(channels: int = 3) -> Tensor:
    """Return the images on which statistics are measured."""
    return timm_comparison.random_images(8 * channels, (64, 64))[:, :1].reshape(8, channels, 64, 64)


@cache
def timm(name: str = "tf_efficientnet_b0", classes: int = CLASSES, **options: Any) -> nn.Module:
    """Return timm's network."""
    from timm import create_model

    torch.manual_seed(0)
    network = create_model(name, num_classes=classes, **options)
    return randomize(network, options.get("in_chans", 3))


@cache
def torchvision(name: str = "efficientnet_b0", classes: int = CLASSES) -> nn.Module:
    """Return torchvision's network."""
    declare_operators()
    from torchvision.models import get_model

    torch.manual_seed(0)
    return randomize(get_model(name, weights=None, num_classes=classes))


@cache
def lukemelas(name: str = "efficientnet-b0", classes: int = CLASSES, channels: int = 3) -> nn.Module:
    """Return the network of EfficientNet-PyTorch, padding for any image size."""
    from efficientnet_pytorch import EfficientNet

    torch.manual_seed(0)
    return randomize(EfficientNet.from_name(name, in_channels=channels, num_classes=classes, image_size=None), channels)


_ANSWERS: dict[tuple[Any, ...], tuple[Any, Tensor]] = {}


@torch.no_grad()
def answer(
    network: nn.Module, x: Tensor | None = None, call: Callable[[nn.Module, Tensor], Any] | None = None
) -> Tensor:
    """Return the network's answer in float64; ``call`` runs another method than the network itself."""
    x = images() if x is None else x
    key = (
        id(network),
        "" if call is None else getattr(call, "__name__", repr(call)),
        tuple(x.shape),
        float(x.flatten()[0]),
    )
    if key not in _ANSWERS:
        copy = deepcopy(network).double().eval()
        _ANSWERS[key] = network, (copy(x) if call is None else call(copy, x))  # keeps the network: its id stays its own
    found: Tensor = _ANSWERS[key][1]
    return found


def state(network: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return the network's tensors, each name after ``prefix``."""
    return {f"{prefix}{name}": tensor.detach() for name, tensor in network.state_dict().items()}


def sample(path: Path, network: nn.Module, **options: Any) -> Sample:
    """Return the sample of a file that holds the weights of ``network``."""
    return Sample(path, images(), answer(network), **options)


def pooled(network: nn.Module, x: Tensor) -> Tensor:
    """Return the embedding: the head's map, averaged."""
    if hasattr(network, "forward_features"):  # timm
        maps: Tensor = network.forward_features(x)
    elif hasattr(network, "extract_features"):  # EfficientNet-PyTorch
        maps = network.extract_features(x)
    else:
        maps = network.features(x)  # type: ignore[operator]  # torchvision
    return maps.mean((2, 3))


def pooled_sample(path: Path, network: nn.Module, **options: Any) -> Sample:
    """Return the sample of a file whose classifier is not one linear layer."""
    return Sample(path, images(), answer(network, call=pooled), **options)


def softmax(network: nn.Module, x: Tensor) -> Tensor:
    """Return the probabilities of all classes for one normalized image."""
    return answer(network, x)[0].softmax(0)


def sigmoid(network: nn.Module, x: Tensor) -> Tensor:
    """Return the probabilities of the two classes that one output with a sigmoid tells apart."""
    probability = answer(network, x)[0, 0].sigmoid()
    return torch.stack((1 - probability, probability))
