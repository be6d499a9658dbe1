"""Compare with the networks of every ecosystem, importing their weights and exporting them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from effnet.arch import ARCHS
from effnet.weights import load, save
from tests.parity import timm_comparison

# layout → package with its networks
LAYOUTS = {
    "torchvision": "torchvision",
    "lukemelas": "efficientnet_pytorch",
    "huggingface": "transformers",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "tflite": "ai_edge_litert",
}
ODD = (197, 251)
# Compared by `make test`; the others only by `make parity`
FAST_VARIANTS = ("b0", "v2_b0", "lite0", "edge_s")


class Peer(Protocol):
    """Interface of the modules in ``tests.parity.peers``: one ecosystem, with its own network objects."""

    VARIANTS: tuple[str, ...]  # our names of its networks
    SUFFIXES: tuple[str, ...]  # of its files, the usual one first
    FLOAT64: bool  # whether it supports float64
    LIMIT: float  # of the largest difference relative to the largest logit

    def build(self, name: str) -> Any:
        """Build a network with random weights, and batch-norm statistics measured on images and then perturbed."""

    def write(self, network: Any, path: Path) -> None:
        """Save the network as the ecosystem does."""

    def read(self, name: str, path: Path) -> Any:
        """Load a file written by effnet with the ecosystem's own loader, strictly."""

    def predict(self, network: Any, x: Tensor) -> Tensor:
        """Compute logits (N, classes) of normalized images (N, 3, H, W) in float64; in float64 if supported."""

    def sizes(self, name: str) -> tuple[tuple[int, int], ...]:
        """Return the sizes (height, width) to compare at: the native one first, then another if supported."""


@dataclass(frozen=True)
class Differences:
    """Largest differences relative to the largest logit: imported by size, exported at the native size."""

    imported: dict[tuple[int, int], float]
    exported: float


def peer(layout: str) -> Peer:
    """Return the module for the ecosystem of ``layout``."""
    module: Any = import_module(f"tests.parity.peers.{layout}")
    return module


def is_missing(layout: str) -> bool:
    """Return whether the package of that ecosystem is not installed."""
    return find_spec(LAYOUTS[layout]) is None


def all_cases() -> Iterator[tuple[str, str, str]]:
    """Yield (layout, variant, suffix) of all comparisons, small networks first."""
    for layout in LAYOUTS:
        if not is_missing(layout):
            module = peer(layout)
            for name in sorted(module.VARIANTS, key=lambda name: ARCHS[name].resolution):
                for suffix in module.SUFFIXES if name in ("b0", "v2_b0", "lite0") else module.SUFFIXES[:1]:
                    yield layout, name, suffix


@torch.no_grad()
def compare(layout: str, name: str, suffix: str, folder: Path) -> Differences:
    """Import the weights of a random network through a file, and export them again."""
    module = peer(layout)
    theirs = module.build(name)
    path = folder / f"theirs{suffix}"
    module.write(theirs, path)
    ours = load(path)  # detects layout and arch
    assert (ours.arch.name, ours.provenance.layout) == (name, layout)
    exported_path = save(ours, folder / f"ours{suffix}", layout)
    ours = ours.double() if module.FLOAT64 else ours
    images = {size: timm_comparison.random_images(1, size) for size in module.sizes(name)}
    expected = {size: module.predict(theirs, x) for size, x in images.items()}
    imported = {
        size: timm_comparison.relative_difference(ours(x.to(ours.stem.conv.weight)).double(), expected[size].double())
        for size, x in images.items()
    }
    del theirs, ours
    native, x = next(iter(images.items()))
    exported = module.predict(module.read(name, exported_path), x)
    return Differences(imported, timm_comparison.relative_difference(exported.double(), expected[native].double()))
