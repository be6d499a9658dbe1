"""A network made ready to be asked why: in evaluation mode, its pictures normalised, its classes known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effnet.arch.serde import check_choice, check_int, did_you_mean
from effnet.data.image_io import InputImage
from effnet.data.preprocessing import normalize
from effnet.net import EfficientNet
from effnet.tasks import task_of

# What every method gives: logits (N, all classes), and a function from classes to their maps (N, classes, h, w)
LogitsAndMaps = tuple[Tensor, Callable[[Sequence[int]], Tensor]]


@contextmanager
def evaluation_mode(model: EfficientNet) -> Iterator[None]:
    """Within it ``model`` answers as in prediction, whatever mode it is in; afterwards it is as it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def require_classifier(model: EfficientNet) -> nn.Linear:
    """The classifier. Raises ``ValueError`` for a network without one."""
    if not isinstance(model.classifier, nn.Linear):
        raise ValueError("this network has no classifier, and so no class to explain: give it a head first")
    return model.classifier


def to_input(model: EfficientNet, images: InputImage) -> Tensor:
    """(N, H, W, 3) of 0 to 255 -> (N, 3, H, W) as ``model`` takes them, where it is."""
    weight = require_classifier(model).weight
    batch = torch.from_numpy(np.array(images)).to(weight.device)
    return normalize(batch, model.preprocess).to(weight.dtype)


def class_indices(model: EfficientNet, classes: Sequence[str | int]) -> list[int]:
    """The numbers of classes that are given by name or number. Raises ``ValueError`` for one that there is not."""
    known = model.labels.names[: model.classes]
    return [known.index(one) if one in known else _class_index(model, one) for one in classes]


def _class_index(model: EfficientNet, one: str | int) -> int:
    if isinstance(one, str) and not one.isdecimal():
        raise ValueError(f"there is no class {one!r}{did_you_mean(one, list(model.labels.names))}")
    if not 0 <= int(one) < model.classes:
        raise ValueError(f"there is no class {one}: the network has {model.classes}, from 0 to {model.classes - 1}")
    return int(one)


# Class activation maps (arXiv:1512.04150): how much each part of a picture speaks for a class.
#
# The family ends in a mean over the head's map and one linear layer. Weighing that map's channels before the mean instead
# of after it gives the same sum: the map is exact, with no gradient and nothing approximated.


@torch.no_grad()
def class_activation_maps(
    model: EfficientNet, images: InputImage, classes: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Class activation maps of ``pictures``: float32 (N, classes, height, width) of the head's map.

    ``pictures``: (N, H, W, 3) of 0 to 255, as `effnet.data.image_io.pixels` gives them, of any size; or a single one
    (H, W, 3), whose maps are (classes, height, width). ``classes``: which, in this order; None for all.
    A map's sum is the class's logit without its bias, so that its values are shares of the logit: map_c = Σ_k w_ck A_k
    divided by the number of its pixels. Of a network whose labels are values, they are shares of the value.
    ``model`` answers as in prediction, whatever mode it is in, and is left as it was.
    Raises ``ValueError`` for a network without a classifier, and for a class that it does not have.
    """
    require_classifier(model)
    chosen = class_indices(model, range(model.classes) if classes is None else classes)
    with evaluation_mode(model):
        _, maps = compute_cam(model, to_input(model, images if images.ndim == 4 else images[None]))
    found: NDArray[np.float32] = maps(chosen).float().cpu().numpy()  # (N, classes, h, w)
    return found if images.ndim == 4 else found[0]


@torch.no_grad()
def compute_cam(model: EfficientNet, x: Tensor) -> LogitsAndMaps:
    """Of pictures (N, C, H, W), normalised, with ``model`` in evaluation mode: logits, and exact maps of the head."""
    classifier = require_classifier(model)
    last = model.features(x)["head"]  # (N, K, h, w)

    @torch.no_grad()
    def maps(classes: Sequence[int]) -> Tensor:
        return torch.einsum("ck,nkhw->nchw", classifier.weight[list(classes)], last) / last[0, 0].numel()

    return classifier(last.mean((2, 3))), maps


# Grad-CAM (arXiv:1610.02391): what a class's logit would gain if a part's map grew, at any part of the network.


def compute_gradcam(model: EfficientNet, x: Tensor, layer: str = "head") -> LogitsAndMaps:
    """Of pictures (N, C, H, W), normalised, with ``model`` in evaluation mode: logits, and maps of the part ``at``.

    ``at``: "stem", "stage1" … "head". A map is ReLU(Σ_k α_k A_k), with α_k the mean over pixels of the logit's
    derivative by the channel A_k: a first-order estimate, whose sum means nothing. At the head it is the class
    activation map where that is positive. Raises ``ValueError`` for a part that the network does not have.
    """
    classifier, parts = require_classifier(model), model.feature_names()
    if layer not in parts:
        raise ValueError(f"there is no part {layer!r}: {model.arch.name} has {', '.join(parts)}")
    below, above = parts[: parts.index(layer) + 1], parts[parts.index(layer) + 1 :]
    with torch.no_grad():
        for name in below:
            x = model.get_submodule(name)(x)
    here = x.requires_grad_()  # (N, K, h, w)
    with torch.enable_grad():
        for name in above:
            x = model.get_submodule(name)(x)
        logits: Tensor = classifier(x.mean((2, 3)))

    def maps(classes: Sequence[int]) -> Tensor:
        found = here.new_zeros((len(here), len(classes), *here.shape[2:]))
        for index, one in enumerate(classes):
            (slope,) = torch.autograd.grad(logits[:, one].sum(), here, retain_graph=True)
            weight = slope.mean((2, 3), keepdim=True)  # (N, K, 1, 1)
            found[:, index] = (weight * here.detach()).sum(1).relu()
        return found

    return logits.detach(), maps


# Occlusion (arXiv:1311.2901, section 4.2): what a class loses when a part of the picture is covered.


DROP_MEASURES = ("logit", "probability")


PATCHES_PER_SIDE = 7  # along the shorter side, where nobody says how large a patch is


@torch.no_grad()
def compute_occlusion(
    model: EfficientNet,
    x: Tensor,
    patch: int | None = None,
    stride: int | None = None,
    drop: str = "logit",
    batch_size: int = 16,
) -> LogitsAndMaps:
    """Of one picture (1, C, H, W), normalised, with ``model`` in evaluation mode: logits, and maps of its own size.

    A square of ``patch`` pixels a side in the mean colour is slid over the picture in steps of ``stride`` pixels, up to
    its last row and column; a pixel of a map is the mean ``drop`` of the class over all squares that cover it: of its
    "logit" (of values, the value), or of its "probability". Without ``patch`` it is a seventh of the shorter side, and
    without ``stride`` half the patch. ``batch`` squares are computed at once. One pass of the network a square.
    Raises ``ValueError`` for a patch or a stride that does not fit, and for the probability of a value.
    """
    assert len(x) == 1
    height, width = x.shape[2:]
    side = min(height, width)
    patch = max(1, side // PATCHES_PER_SIDE) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    check_int("patch", patch, 1)
    check_int("stride", stride, 1)
    check_int("batch", batch_size, 1)
    check_choice("drop", drop, DROP_MEASURES)
    if patch > side:
        raise ValueError(f"the network sees {height}×{width} pixels: a patch of {patch} does not fit into them")
    if stride > patch:
        raise ValueError(f"a stride of {stride} would leave gaps between patches of {patch}: at most {patch}")
    if drop == "probability" and not task_of(model.labels.task).has_probabilities:
        raise ValueError("values have no probability: measure the drop of the logit, which is the value")
    task = task_of(model.labels.task if drop == "probability" else "regression")
    require_classifier(model)
    logits: Tensor = model(x)

    def answered(given: Tensor) -> NDArray[np.float64]:
        return task.activate(given.float().cpu().numpy())

    @torch.no_grad()
    def maps(classes: Sequence[int]) -> Tensor:
        before = answered(logits)[:, list(classes)]  # (1, classes)
        total, times = np.zeros((len(classes), height, width)), np.zeros((height, width))
        corners = product(_patch_starts(height, patch, stride), _patch_starts(width, patch, stride))
        while chunk := list(islice(corners, batch_size)):
            covered = x.repeat(len(chunk), 1, 1, 1)
            for one, (top, left) in zip(covered, chunk, strict=True):
                one[:, top : top + patch, left : left + patch] = 0  # what the mean colour is after normalisation
            lost = before - answered(model(covered))[:, list(classes)]  # (squares, classes)
            for (top, left), row in zip(chunk, lost, strict=True):
                total[:, top : top + patch, left : left + patch] += row[:, None, None]
                times[top : top + patch, left : left + patch] += 1
        return torch.from_numpy(total / times)[None]

    return logits, maps


def _patch_starts(length: int, patch: int, stride: int) -> list[int]:
    """Where patches begin along a side: every ``stride`` pixels, and the last one at the edge."""
    last = length - patch
    return sorted({*range(0, last, stride), last})
