"""Networks as people build them around a library's backbone, and classes of libraries that are not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tests.parity.zoo import networks


class PhotoClassifier(nn.Module):
    """A backbone and one linear layer, as in most notebooks."""

    def __init__(self, backbone: nn.Module, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(1280, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        logits: Tensor = self.fc(self.backbone(x))
        return logits


class TwoHeads(nn.Module):
    """A backbone with two classifiers: either could be meant."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.species = nn.Linear(1280, 5)
        self.color = nn.Linear(1280, 3)


class Siamese(nn.Module):
    """A backbone that compares two images."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Sequential(nn.Linear(1280, 256), nn.ReLU(), nn.Linear(256, 64))


class TwoTowers(nn.Module):
    """Two networks of equal rank."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left = left
        self.right = right


class Watched(nn.Module):
    """A network whose class writes a file when one of its objects is restored."""

    marker: Path

    def __init__(self, network: nn.Module, marker: Path) -> None:
        super().__init__()
        self.network = network
        self.marker = marker

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        Path(state["marker"]).touch()
        self.__dict__.update(state)


@torch.no_grad()
def with_head(network: nn.Module, name: str, head: nn.Module) -> nn.Module:
    """Return a copy of ``network`` whose module ``name`` is ``head``, with random weights and statistics."""
    network = deepcopy(network)
    network.set_submodule(name, randomize_head(head))
    return network.eval()


@torch.no_grad()
def randomize_head(head: nn.Module) -> nn.Module:
    """Set random biases and, for features near 0.3, random statistics."""
    torch.manual_seed(1)
    for module in head.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
            module.running_mean.normal_(0.3, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, module.in_features**-0.5)
            if module.bias is not None:
                module.bias.normal_(0, 0.1)
    return head.eval()


def without_classifier(network: nn.Module) -> nn.Module:
    """Return a copy of timm's network that returns embeddings."""
    copy: Any = deepcopy(network)
    copy.reset_classifier(0)
    return copy.eval()  # type: ignore[no-any-return]


def photo_classifier(bias: bool = True) -> nn.Module:
    """Return `PhotoClassifier` with random weights."""
    network = PhotoClassifier(without_classifier(networks.timm()), networks.CLASSES, bias)
    randomize_head(network.fc)
    return network.eval()


@contextmanager
def pretended_modules(classes: Mapping[str, type]) -> Iterator[None]:
    """Let classes be pickled under names of libraries that are not installed: "fastai.learner.Learner"."""
    before = dict(sys.modules)
    try:
        for name, kind in classes.items():
            module, _, kind.__qualname__ = name.rpartition(".")
            kind.__name__, kind.__module__ = kind.__qualname__, module
            parts = module.split(".")
            for count in range(1, len(parts) + 1):
                sys.modules.setdefault(".".join(parts[:count]), ModuleType(".".join(parts[:count])))
            setattr(sys.modules[module], kind.__name__, kind)
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
