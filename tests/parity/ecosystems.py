"""Weights from every ecosystem into our network and out again, and how far its network and ours are apart."""

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
from tests.parity import twins

# layout → the package that has its networks
LAYOUTS = {
    "torchvision": "torchvision",
    "lukemelas": "efficientnet_pytorch",
    "huggingface": "transformers",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "tflite": "ai_edge_litert",
}
ODD = (197, 251)
# Those that `make test` compares; the others are left to `make parity`.
QUICK = ("b0", "b1", "b2", "b3", "b4", "v2_b0", "v2_b1", "v2_b2", "v2_b3", "v2_s", "lite0", "lite1", "edge_s")


class Peer(Protocol):
    """A module of ``tests.parity.peers``: one ecosystem, used as its users use it. Networks are its own objects."""

    VARIANTS: tuple[str, ...]  # our names of the networks that it has
    SUFFIXES: tuple[str, ...]  # of the files that its users save, the usual one first
    DOUBLE: bool  # it computes in float64
    LIMIT: float  # the largest difference allowed, over the largest logit

    def build(self, name: str) -> Any:
        """Its network with random weights, and batch-norm statistics that were measured on pictures, then perturbed."""

    def write(self, network: Any, path: Path) -> None:
        """Saves the network in its own way."""

    def read(self, name: str, path: Path) -> Any:
        """Its own loader, strict, on a file that we wrote."""

    def answer(self, network: Any, x: Tensor) -> Tensor:
        """Preprocessed pictures (N, 3, H, W), float64 -> logits (N, classes); in float64 where it has that."""

    def sizes(self, name: str) -> tuple[tuple[int, int], ...]:
        """The sizes (height, width) at which it can be asked: the native one first, then what else it allows."""


@dataclass(frozen=True)
class Figures:
    """Largest differences over the largest logit: theirs into ours at each size, and out again at the native one."""

    there: dict[tuple[int, int], float]
    back: float


def peer(layout: str) -> Peer:
    """The module that knows the ecosystem of ``layout``."""
    module: Any = import_module(f"tests.parity.peers.{layout}")
    return module


def missing(layout: str) -> bool:
    """Whether the package of that ecosystem is not installed."""
    return find_spec(LAYOUTS[layout]) is None


def every() -> Iterator[tuple[str, str, str]]:
    """(layout, variant, suffix) of everything that there is to compare, the small networks first."""
    for layout in LAYOUTS:
        if not missing(layout):
            known = peer(layout)
            for name in sorted(known.VARIANTS, key=lambda name: ARCHS[name].resolution):
                for suffix in known.SUFFIXES if name in ("b0", "v2_b0", "lite0") else known.SUFFIXES[:1]:
                    yield layout, name, suffix


@torch.no_grad()
def compare(layout: str, name: str, suffix: str, folder: Path) -> Figures:
    """Their random network through a file into ours, and from there through a file into theirs."""
    known = peer(layout)
    theirs = known.build(name)
    file = folder / f"theirs{suffix}"
    known.write(theirs, file)
    ours = load(file)  # nothing is said to it: layout and arch are recognised
    assert (ours.arch.name, ours.provenance.layout) == (name, layout)
    written = save(ours, folder / f"ours{suffix}", layout)
    ours = ours.double() if known.DOUBLE else ours
    pictures = {size: twins.random_pictures(1, size) for size in known.sizes(name)}
    answers = {size: known.answer(theirs, x) for size, x in pictures.items()}
    there = {
        size: twins.apart(ours(x.to(ours.stem.conv.weight)).double(), answers[size].double())
        for size, x in pictures.items()
    }
    del theirs, ours
    native, x = next(iter(pictures.items()))
    again = known.answer(known.read(name, written), x)
    return Figures(there, twins.apart(again.double(), answers[native].double()))
