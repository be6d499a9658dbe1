"""Attribution methods: class activation maps, Grad-CAM and occlusion."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, product

import numpy as np
import torch
from numpy.typing import NDArray

from effnet.arch.serde import check_choice, check_int, did_you_mean
from effnet.data import class_names, image_io, preprocessing
from effnet.net import EfficientNet
from effnet.runtime import base
from effnet.tasks import Float64Array, task_of

# Result of every method: logits (N, all classes), and a function from class indices to their maps (N, classes, h, w)
LogitsAndMaps = tuple[torch.Tensor, Callable[[Sequence[int]], torch.Tensor]]


@torch.no_grad()
def class_activation_maps(
    model: EfficientNet, images: image_io.InputImage, classes: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Compute class activation maps (arXiv:1512.04150) of the head, by default of all ``classes``.

    The family ends in a mean over the head's feature map and one linear layer. Weighting the channels before the mean
    instead of after it gives the same sum, map_c = Σ_k w_ck A_k / pixels: without gradients and without approximation a
    map sums to the class's logit, except for the bias (for regression, to the value).

    ``images`` are (N, H, W, 3) of any size, as `effnet.data.load_input` returns them, or a single one (H, W, 3); the
    maps are (N, classes, height, width), or (classes, height, width).
    """
    require_classifier(model)
    indices = class_indices(model, range(model.classes) if classes is None else classes)
    with evaluation_mode(model):
        _, maps = compute_cam(model, to_input(model, images if images.ndim == 4 else images[None]))
    result: NDArray[np.float32] = maps(indices).float().cpu().numpy()
    return result if images.ndim == 4 else result[0]


@torch.no_grad()
def compute_cam(model: EfficientNet, x: torch.Tensor) -> LogitsAndMaps:
    """Return logits and class activation maps of normalized images (N, C, H, W); ``model`` is in evaluation mode."""
    classifier = require_classifier(model)
    features = model.features(x)["head"]  # (N, K, h, w)

    @torch.no_grad()
    def maps(classes: Sequence[int]) -> torch.Tensor:
        return torch.einsum("ck,nkhw->nchw", classifier.weight[list(classes)], features) / features[0, 0].numel()

    return classifier(features.mean((2, 3))), maps


def compute_gradcam(model: EfficientNet, x: torch.Tensor, layer: str = "head") -> LogitsAndMaps:
    """Return logits and Grad-CAM maps (arXiv:1610.02391) of normalized images; ``model`` is in evaluation mode.

    A map is ReLU(Σ_k α_k A_k), with α_k the mean over pixels of the logit's derivative by channel A_k: to first order,
    what the logit would gain from stronger features. Its sum has no meaning. At the head it is the positive part of the
    class activation map.
    """
    classifier, layers = require_classifier(model), model.feature_names()
    if layer not in layers:
        raise ValueError(f"there is no layer {layer!r}: {model.arch.name} has {', '.join(layers)}")
    split = layers.index(layer) + 1
    with torch.no_grad():
        for name in layers[:split]:
            x = model.get_submodule(name)(x)
    features = x.requires_grad_()  # (N, K, h, w)
    with torch.enable_grad():
        for name in layers[split:]:
            x = model.get_submodule(name)(x)
        logits: torch.Tensor = classifier(x.mean((2, 3)))

    def maps(classes: Sequence[int]) -> torch.Tensor:
        result = features.new_zeros((len(features), len(classes), *features.shape[2:]))
        for row, index in enumerate(classes):
            (gradient,) = torch.autograd.grad(logits[:, index].sum(), features, retain_graph=True)
            weights = gradient.mean((2, 3), keepdim=True)  # (N, K, 1, 1)
            result[:, row] = (weights * features.detach()).sum(1).relu()
        return result

    return logits.detach(), maps


@torch.no_grad()
def compute_occlusion(
    model: EfficientNet,
    x: torch.Tensor,
    patch: int | None = None,
    stride: int | None = None,
    drop: str = "logit",
    batch_size: int = 16,
) -> LogitsAndMaps:
    """Return logits and occlusion maps (arXiv:1311.2901, section 4.2) of one normalized image (1, C, H, W).

    A square in the mean color slides over the image up to its last row and column. A map has the size of the image; a
    pixel is the mean drop of the "logit" (for regression, of the value) or of the "probability" over all squares that
    cover it. One forward pass per square. Default: a seventh of the shorter side, and half the patch.
    """
    assert len(x) == 1
    height, width = x.shape[2:]
    side = min(height, width)
    patch = max(1, side // 7) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    check_int("patch", patch, 1)
    check_int("stride", stride, 1)
    check_int("batch_size", batch_size, 1)
    check_choice("drop", drop, ("logit", "probability"))
    if patch > side:
        raise ValueError(f"the network sees {height}×{width} pixels, which is too small for a patch of {patch}")
    if stride > patch:
        raise ValueError(f"a stride of {stride} would leave gaps between patches of {patch}: at most {patch}")
    if drop == "probability" and not task_of(model.labels.task).has_probabilities:
        raise ValueError('values have no probability: use drop="logit", which is the value')
    task = task_of(model.labels.task if drop == "probability" else "regression")
    require_classifier(model)
    logits: torch.Tensor = model(x)

    def measure(outputs: torch.Tensor) -> Float64Array:
        return task.activate(outputs.float().cpu().numpy())

    @torch.no_grad()
    def maps(classes: Sequence[int]) -> torch.Tensor:
        before = measure(logits)[:, list(classes)]  # (1, classes)
        total, counts = np.zeros((len(classes), height, width)), np.zeros((height, width))
        corners = product(_patch_starts(height, patch, stride), _patch_starts(width, patch, stride))
        while batch := list(islice(corners, batch_size)):
            occluded = x.repeat(len(batch), 1, 1, 1)
            for image, (top, left) in zip(occluded, batch, strict=True):
                image[:, top : top + patch, left : left + patch] = 0  # the mean color, after normalization
            drops = before - measure(model(occluded))[:, list(classes)]  # (squares, classes)
            for (top, left), row in zip(batch, drops, strict=True):
                total[:, top : top + patch, left : left + patch] += row[:, None, None]
                counts[top : top + patch, left : left + patch] += 1
        return torch.from_numpy(total / counts)[None]

    return logits, maps


def _patch_starts(length: int, patch: int, stride: int) -> list[int]:
    """Return where patches begin along a side: every ``stride`` pixels, and the last one at the edge."""
    return [*range(0, length - patch, stride), length - patch]


@contextmanager
def evaluation_mode(model: EfficientNet) -> Iterator[None]:
    """Put the network into evaluation mode, and back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def require_classifier(model: EfficientNet) -> torch.nn.Linear:
    """Return the classifier. Raises ``ValueError`` if there is none."""
    base.require_classes(model.classes, "explanation")
    assert isinstance(model.classifier, torch.nn.Linear)
    return model.classifier


def to_input(model: EfficientNet, images: image_io.InputImage) -> torch.Tensor:
    """Normalize images (N, H, W, 3) of 0 to 255 to (N, 3, H, W), on the network's device and in its dtype."""
    weight = require_classifier(model).weight
    batch = torch.from_numpy(np.array(images)).to(weight.device)
    return preprocessing.normalize(batch, model.preprocess).to(weight.dtype)


def class_indices(model: EfficientNet, classes: Sequence[str | int]) -> list[int]:
    """Return the indices of classes given by name, ImageNet synset or index. ``ValueError`` for an unknown one."""
    known, indices = model.labels.names[: model.classes], []
    for one in classes:
        by_name = known.index(one) if one in known else None
        if by_name is None and isinstance(one, str) and not one.isdecimal():
            by_name = class_names.match_classes([one], known, model.classes)[0][0]
            if by_name is None:
                raise ValueError(f"there is no class {one!r}{did_you_mean(one, list(model.labels.names))}")
        index = int(one) if by_name is None else by_name
        if not 0 <= index < model.classes:
            raise ValueError(f"there is no class {one}: the network has {model.classes}, from 0 to {model.classes - 1}")
        indices.append(index)
    return indices
