"""From a network to a file, written beside its place and moved there when it is whole."""

from __future__ import annotations

import logging
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

from effnet.arch.serde import check_choice
from effnet.data.storage.atomic_write import atomic_write
from effnet.metadata import Numerics
from effnet.net import EfficientNet
from effnet.net.surgery import is_folded
from effnet.weights import formats
from effnet.weights.conversion import convert, drop_batch_counters
from effnet.weights.key_maps import LAYOUTS
from effnet.weights.loading import build_network, read_weights

log = logging.getLogger("effnet")


def save(model: EfficientNet, path: str | Path, layout: str = "effnet") -> Path:
    """Writes ``model`` to ``path`` and returns it.

    "effnet": one ``.safetensors`` that carries its whole contract. Any other layout: the tensors under that ecosystem's
    names, in the format that the suffix means: ``.safetensors``, ``.pth`` and ``.pt`` for PyTorch's people; ``.h5``,
    ``.weights.h5`` and ``.keras``; ``.index``, with its ``.data-…`` beside it; ``.tflite``. "huggingface": where it is
    called as transformers' weights are, the two files that ``from_pretrained`` asks for are written beside it. An
    existing file stays whole until the new one is. Where the ecosystem's networks compute with other numerics than
    these weights expect, that is logged; `effnet.weights.saving.transfer` compares the answers.
    Raises ``ValueError`` for a wrong suffix, a network that the ecosystem has not, or one whose batch norm was folded
    away; ``OSError`` where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    check_choice("layout", layout, tuple(LAYOUTS))
    allowed = LAYOUTS[layout].suffixes
    suffix = ".weights.h5" if path.name.endswith(".weights.h5") else path.suffix  # Keras tells the two apart
    if suffix not in allowed:
        raise ValueError(f"{path}: weights in {layout}'s layout are written to {' or '.join(allowed)}")
    if is_folded(model):
        raise ValueError("batch norm was folded into this copy: save the network that it was made from")
    kept = LAYOUTS[layout]
    if kept.fixed_numerics and kept.numerics(model.arch) != model.numerics:
        theirs, ours = kept.numerics(model.arch).describe(), model.numerics.describe()
        log.warning("%s: %s's network computes with %s, these weights expect %s", path.name, layout, theirs, ours)
    tensors = convert(drop_batch_counters(model.state_dict()), model.arch, "effnet", layout, model.numerics)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    companions = formats.companion_files(path, model, layout)
    with atomic_write(path) as beside:
        formats.write_checkpoint(beside, suffix, tensors, model, layout)
    for name, text in companions.items():
        with atomic_write(path.with_name(name)) as beside:
            beside.write_text(text, encoding="utf-8")
    return path


# From a network to another ecosystem's file, and no file without proof: it is read back and asked the same.


TEST_IMAGES = 2


# float32 sums in another order differ by 1e-6 to 1e-5 of the largest logit; a wrong padding, ε or axis by far more.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class VerifiedFile:
    """What was written, and how far the network in it answers from the one that it was made from."""

    path: Path
    layout: str
    numerics: Numerics  # what that ecosystem's network computes with
    max_difference: float  # the largest difference of a logit over the largest logit; 0: the same bits


def save_verified(model: EfficientNet, path: str | Path, layout: str, tolerance: float = TOLERANCE) -> VerifiedFile:
    """Writes ``model`` to ``path`` in ``layout``, reads it back as that ecosystem would, and compares the answers.

    Both networks see the same two pictures at the model's own size. Where they differ by more than ``tolerance`` of the
    largest logit, ``ValueError`` says so and nothing is written; what was at ``path`` before stays whole.
    Raises also what `save` raises.
    """
    path = Path(path)
    with _temporary_folder(path) as folder:
        written = save(model, folder / path.name, layout)
        kept = LAYOUTS[layout]
        numerics = kept.numerics(model.arch) if kept.fixed_numerics else model.numerics
        again = build_network(read_weights(written, layout, model.arch, numerics))
        difference = max_relative_difference(model, again)
        if not difference <= tolerance:  # NaN is no agreement
            raise ValueError(_difference_message(model, layout, numerics, difference, tolerance))
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):  # what the name promises: last
            file.replace(path.parent / file.name)
    return VerifiedFile(path, layout, numerics, difference)


@torch.no_grad()
def max_relative_difference(one: EfficientNet, other: EfficientNet) -> float:
    """The largest difference of the two networks' answers over the largest answer, for two made-up pictures."""
    x = _random_images(one)
    # In memory of their own: numbers that lie askew in a file that is mapped are summed in another order.
    expected, got = (deepcopy(network).eval()(x) for network in (one, other))
    if expected.shape != got.shape:
        return float("nan")
    difference = (expected - got).abs().max() / expected.abs().max().clamp_min(1e-30)
    return float(difference)


def _random_images(model: EfficientNet) -> Tensor:
    """Normalised pictures with coarse and fine structure, always the same: (2, channels, height, width)."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(TEST_IMAGES, model.channels, *model.preprocess.size)
    for cells in (3, 9, 27):
        noise = torch.randn(TEST_IMAGES, model.channels, cells, cells, generator=generator)
        total += F.interpolate(noise, model.preprocess.size, mode="bilinear", align_corners=False)
    return total.to(model.stem.conv.weight)


def _difference_message(model: EfficientNet, layout: str, theirs: Numerics, difference: float, tolerance: float) -> str:
    told = f"in {layout}'s layout {model.arch.name} would answer {difference:.1e} of the largest logit away"
    told += f" (allowed: {tolerance:g}), so nothing is written"
    if theirs != model.numerics:
        told += (
            f": {layout}'s network computes with {theirs.describe()}, these weights expect "
            f"{model.numerics.describe()}; a layout that leaves both open, as timm's, can carry them"
        )
    return told


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder on the same disk as ``path``, gone when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".{path.name}.{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
