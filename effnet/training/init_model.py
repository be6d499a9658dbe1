"""The network that training begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from effnet.arch import Arch, resolve_arch
from effnet.data import ImageDataset, load_input
from effnet.data.augment import stable_seed
from effnet.data.prefetch import prefetch_map
from effnet.data.preprocessing import normalize
from effnet.metadata import Labels, Preprocess
from effnet.net import EfficientNet, create
from effnet.training.recipes import Recipe
from effnet.weights import load

BATCH_NORM_BATCH_SIZE = 32
MIN_IMAGES_TO_UPDATE_BATCH_NORM = 20_000  # training pictures; not measured above 2,000


def build_model(
    model: str | Arch | None,
    weights: str | Path | None,
    labels: Labels,
    recipe: Recipe,
    image_size: int | None,
    seed: int,
) -> EfficientNet:
    """``model`` with a head for ``labels``: from ``weights``, the published ones for None, random ones for "none"."""
    torch.manual_seed(stable_seed(seed, "start"))
    classes = len(labels.names)
    if weights == "none":
        network = create(_with_stem_stride(resolve_arch(model or "b0"), recipe), classes)
    else:
        network = load(weights if weights is not None else str(model or "b0"), arch=model, classes=classes)
        wanted = _with_stem_stride(network.arch, recipe)
        if wanted != network.arch:
            other = EfficientNet(
                wanted, classes, network.channels, network.numerics, network.preprocess, provenance=network.provenance
            )
            other.load_state_dict(network.state_dict())
            network = other
    network.labels = labels
    network.preprocess = replace(network.preprocess, resampling="pil")  # as the random crops of training are resized
    side = image_size or recipe.image_size
    if side is not None:
        network.preprocess = replace(network.preprocess, size=(side, side))
    return network


def _with_stem_stride(arch: Arch, recipe: Recipe) -> Arch:
    return arch if recipe.stem_stride is None else replace(arch, stem_stride=recipe.stem_stride)


def choose_batch_norm(image_count: int, pretrained: bool) -> tuple[str, str]:
    """What to do about batch norm's statistics, and why, for so many training pictures.

    Never "estimated": measured anew on 100 to 2,000 pictures of CIFAR-10 they cost 19 to 23 points of top-1, on photos
    1 to 2; to follow two epochs of 500 or 1,500 cost 7 and 11 (docs/diary/2026-11-21-training.md).
    """
    if not pretrained:
        return "train", "there are none to begin with"
    if image_count < MIN_IMAGES_TO_UPDATE_BATCH_NORM:
        return (
            "frozen",
            f"those that the weights bring are better than any from fewer than {MIN_IMAGES_TO_UPDATE_BATCH_NORM:,} pictures",
        )
    return "train", f"{image_count:,} pictures are enough to follow the weights"


def inference_batches(images: ImageDataset, preprocess: Preprocess, max_images: int | None = None) -> Iterator[Tensor]:
    """The pictures as predicting sees them, up to ``most`` of them evenly spread: uint8 (N, H, W, 3) each."""
    stride = -(-len(images) // max_images) if max_images else 1
    reduced = replace(preprocess, decode="reduced")
    prepared = prefetch_map(lambda item: load_input(item.image, reduced), images.items[::stride])
    while chunk := list(islice(prepared, BATCH_NORM_BATCH_SIZE)):
        yield torch.from_numpy(np.stack(chunk))


@torch.no_grad()
def estimate_batch_norm(model: EfficientNet, batches: Iterable[Tensor]) -> None:
    """Measures batch norm's statistics anew: the plain mean over ``batches``, uint8 (N, H, W, 3) each."""
    measured = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    training, before = model.training, [norm.momentum for norm in measured]
    model.eval()  # no dropout, no stochastic depth
    for norm in measured:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    for pictures in batches:
        model(normalize(pictures.to(next(model.parameters()).device), model.preprocess))
    for norm, momentum in zip(measured, before, strict=True):
        norm.momentum = momentum
    model.train(training)
