"""From a network to another ecosystem's file, and no file without proof: it is read back and asked the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.contract import Numerics
from effnet.net import EfficientNet
from effnet.weights.layouts import LAYOUTS
from effnet.weights.load import build, opened
from effnet.weights.save import save

PICTURES = 2
# float32 sums in another order differ by 1e-6 to 1e-5 of the largest logit; a wrong padding, ε or axis by far more.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Transfer:
    """What was written, and how far the network in it answers from the one that it was made from."""

    path: Path
    layout: str
    numerics: Numerics  # what that ecosystem's network computes with
    difference: float  # the largest difference of a logit over the largest logit; 0: the same bits


def transfer(model: EfficientNet, path: str | Path, layout: str, tolerance: float = TOLERANCE) -> Transfer:
    """Writes ``model`` to ``path`` in ``layout``, reads it back as that ecosystem would, and compares the answers.

    Both networks see the same two pictures at the model's own size. Where they differ by more than ``tolerance`` of the
    largest logit, ``ValueError`` says so and nothing is written; what was at ``path`` before stays whole.
    Raises also what `save` raises.
    """
    path = Path(path)
    with _beside(path) as folder:
        written = save(model, folder / path.name, layout)
        kept = LAYOUTS[layout]
        numerics = kept.numerics(model.arch) if kept.fixed else model.numerics
        again = build(opened(written, layout, model.arch, numerics))
        difference = apart(model, again)
        if not difference <= tolerance:  # NaN is no agreement
            raise ValueError(_refusal(model, layout, numerics, difference, tolerance))
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):  # what the name promises: last
            file.replace(path.parent / file.name)
    return Transfer(path, layout, numerics, difference)


@torch.no_grad()
def apart(one: EfficientNet, other: EfficientNet) -> float:
    """The largest difference of the two networks' answers over the largest answer, for two made-up pictures."""
    x = _pictures(one)
    # In memory of their own: numbers that lie askew in a file that is mapped are summed in another order.
    expected, got = (deepcopy(network).eval()(x) for network in (one, other))
    if expected.shape != got.shape:
        return float("nan")
    difference = (expected - got).abs().max() / expected.abs().max().clamp_min(1e-30)
    return float(difference)


def _pictures(model: EfficientNet) -> Tensor:
    """Normalised pictures with coarse and fine structure, always the same: (2, channels, height, width)."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(PICTURES, model.channels, *model.preprocess.size)
    for cells in (3, 9, 27):
        noise = torch.randn(PICTURES, model.channels, cells, cells, generator=generator)
        total += F.interpolate(noise, model.preprocess.size, mode="bilinear", align_corners=False)
    return total.to(model.stem.conv.weight)


def _refusal(model: EfficientNet, layout: str, theirs: Numerics, difference: float, tolerance: float) -> str:
    told = f"in {layout}'s layout {model.arch.name} would answer {difference:.1e} of the largest logit away"
    told += f" (allowed: {tolerance:g}), so nothing is written"
    if theirs != model.numerics:
        told += (
            f": {layout}'s network computes with {theirs.in_words()}, these weights expect "
            f"{model.numerics.in_words()}; a layout that leaves both open, as timm's, can carry them"
        )
    return told


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty folder on the same disk as ``path``, gone when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".{path.name}.{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
