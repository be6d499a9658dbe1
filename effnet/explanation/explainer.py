"""What `explain` hands back of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from effnet.arch.serde import check_choice, check_int
from effnet.data.image_io import ImageSource, InputImage, read_image, resize_and_crop
from effnet.data.preprocessing import Box
from effnet.data.preprocessing import visible_region as part_seen
from effnet.explanation.attribution import (
    class_indices,
    compute_cam,
    compute_gradcam,
    compute_occlusion,
    evaluation_mode,
    require_classifier,
    to_input,
)
from effnet.explanation.heatmap import overlay, place_map
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.prediction import Prediction
from effnet.prediction.pipeline import require_rgb
from effnet.prediction.predictor import name_images, to_prediction
from effnet.runtime.io_spec import is_exported
from effnet.tasks import task_of
from effnet.weights import load

OVERLAY_SIDE = 1024  # most pixels of an overlay's longer side


UPSCALE_BELOW = 256  # of a picture smaller than this, every pixel becomes several


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a network answers to a picture as it does: for some of its classes, which parts of the picture speak for it.

    ``maps`` is float32 (classes, height, width); map ``i`` is of the class ``classes[i]``, whose answer is
    ``answers[i]``: a probability, or of labels whose kind is "regression" the value. ``method`` is "cam", "gradcam" or
    "occlusion", ``at`` the part of the network whose map it is ("head", "stage3"; "input" for occlusion).

    With "cam", ``maps[i].sum() + biases[i]`` is ``logits[i]``. ``seen`` is the picture as the network saw it, (H, W, 3)
    of 0 to 255, and ``photo`` as it was given, upright; ``box`` is where in ``photo`` that lies: left, top, right and
    bottom in its pixels. The rest was cut away.
    """

    prediction: Prediction
    labels: Labels
    classes: tuple[int, ...]
    scores: tuple[float, ...]
    logits: tuple[float, ...]
    biases: tuple[float, ...]
    maps: NDArray[np.float32]
    input_image: InputImage
    photo: Image.Image
    box: Box
    method: str
    layer: str

    @property
    def image(self) -> str:
        """What the picture is called."""
        return self.prediction.image

    @property
    def names(self) -> tuple[str, ...]:
        """The names of ``classes``."""
        return tuple(map(self.labels.name, self.classes))

    def format_score(self, index: int = 0) -> str:
        """The answer of class number ``index`` among these, for a person: ``97.3%``, of a value ``41.2``."""
        answer = self.scores[index]
        return task_of(self.labels.task).format_score(answer)

    def map_maximum(self, index: int = 0) -> float:
        """The value of the brightest colour: the largest of all maps, so that they compare; of a value, of its own.

        Values have units of their own.
        """
        found = self.maps[index] if self.labels.task == "regression" else self.maps
        return float(found.max())

    def overlay(self, index: int = 0, side: int | None = OVERLAY_SIDE) -> Image.Image:
        """Map number ``index`` over the whole photo: what was cut away is darker, and without colour.

        The longer side is at most ``side`` pixels; None for the photo's own size. Of a picture below 256 pixels, each
        becomes several. Raises ``ValueError`` where there is no such map.
        """
        if not 0 <= index < len(self.maps):
            raise ValueError(f"there is no map {index}: {self.image} has {len(self.maps)}, from 0")
        photo = scale_photo(self.photo, side)
        across, down = photo.width / self.photo.width, photo.height / self.photo.height
        left, top, right, bottom = self.box
        box = (left * across, top * down, right * across, bottom * down)
        return overlay(np.asarray(photo), self.maps[index], self.map_maximum(index), box)

    def map_on_photo(self, index: int = 0) -> NDArray[np.float32]:
        """Map number ``index`` in the photo's own pixels: (H, W), NaN where the photo was cut away."""
        return place_map(self.maps[index], (self.photo.height, self.photo.width), self.box)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what `Prediction.to_dict` has, and ``method``, ``at``, ``explained``, ``size``, ``seen``.

        ``size`` is the photo's (height, width), ``seen`` the part of it that the network saw: left, top, right, bottom.
        """
        answer = "value" if self.labels.task == "regression" else "probability"
        rows = zip(self.names, self.classes, self.scores, self.logits, strict=True)
        return {
            **self.prediction.to_dict(),
            "method": self.method,
            "at": self.layer,
            "explained": [
                {"label": name, "class": number, answer: told, "logit": logit} for name, number, told, logit in rows
            ],
            "size": [self.photo.height, self.photo.width],
            "seen": [round(side, 2) for side in self.box],
        }


def scale_photo(photo: Image.Image, side: int | None) -> Image.Image:
    """``photo`` with its longer side at most ``side`` pixels, and where it is small, each pixel as several."""
    longest = max(photo.size)
    if side is not None and longest > side:
        width, height = (max(1, round(length * side / longest)) for length in photo.size)
        return photo.resize((width, height), Resampling.LANCZOS, reducing_gap=3.0)
    times = min(UPSCALE_BELOW, side or UPSCALE_BELOW) // longest
    return photo.resize((photo.width * times, photo.height * times), Resampling.NEAREST) if times > 1 else photo


# Why a network answers to a picture as it does.


METHODS = ("cam", "gradcam", "occlusion")


def explain(
    model: EfficientNet | str | Path,
    image: ImageSource,
    classes: Sequence[str | int] | None = None,
    top: int = 3,
    method: str = "cam",
    layer: str = "head",
    patch: int | None = None,
    stride: int | None = None,
    drop: str = "logit",
    batch_size: int = 16,
    name: str | None = None,
) -> Explanation:
    """Which parts of ``picture`` speak for the ``classes``, by name or number; without, for the ``top`` likeliest.

    ``model`` is a network, or what `load` opens; ``picture`` a path, a file's bytes, a PIL image or a uint8 array
    (H, W, 3), which is read at full scale; ``name`` is what to call it. Of labels whose kind is "regression", every value is
    explained unless ``classes`` are given.

    - ``method="cam"``: the class activation map of the head (arXiv:1512.04150). Exact: it sums to the logit without its
      bias. One pass of the network.
    - "gradcam" (arXiv:1610.02391): of the part ``at``: "stem", "stage1" … "head". A first-order estimate. One pass, and
      one backward from the logit down to that part for each class.
    - "occlusion" (arXiv:1311.2901): the ``drop`` of the "logit" or the "probability" where squares of ``patch`` pixels
      in steps of ``stride`` are covered (see `effnet.explanation.attribution.occlusion`). Some 200 passes, ``batch`` at
      once.

    ``model`` answers as in prediction, whatever mode it is in, and is left as it was.
    Raises ``ValueError`` for a network without a classifier or not for RGB, a class or a part that it does not have,
    and what does not go with the method; ``PictureError``, which is one, where the picture cannot be used; and what
    `load` raises.
    """
    check_choice("method", method, METHODS)
    check_int("top", top, 1)
    if layer != "head" and method != "gradcam":
        remedy = f'use method="gradcam" for {layer}' if method == "cam" else "leave the part out"
        raise ValueError(f"{'class activation' if method == 'cam' else 'occlusion'} has no map of a part: {remedy}")
    if method != "occlusion" and (patch, stride, drop) != (None, None, "logit"):
        raise ValueError(f'patch, stride and drop are of method="occlusion", not of {method}')
    network = model if isinstance(model, EfficientNet) else load_network(model)
    require_rgb(network.channels)
    bias = require_classifier(network).bias
    chosen = None if classes is None else class_indices(network, classes)
    named, task = name or name_images(image)[0][0], task_of(network.labels.task)

    photo = read_image(image)
    shown = resize_and_crop(photo, network.preprocess)
    with torch.inference_mode(False), evaluation_mode(network):
        x = to_input(network, shown[None])
        match method:
            case "cam":
                logits, maps = compute_cam(network, x)
            case "gradcam":
                logits, maps = compute_gradcam(network, x, layer)
            case _:
                logits, maps = compute_occlusion(network, x, patch, stride, drop, batch_size)
        row = logits.double().cpu().numpy()  # (1, classes)
        if not np.isfinite(row).all():
            raise ValueError("the network answers with numbers that are not finite: its weights are damaged")
        answered = task.activate(row)
        best = task.top_k(answered, top)[0]  # (2, top)
        chosen = [int(one) for one in best[0]] if chosen is None else chosen
        found = maps(chosen)[0].float().cpu().numpy()
    return Explanation(
        to_prediction(named, best, network.labels),
        network.labels,
        tuple(chosen),
        tuple(answered[0, chosen].tolist()),
        tuple(row[0, chosen].tolist()),
        tuple(bias.detach().double().cpu()[chosen].tolist()),
        found,
        shown,
        photo,
        part_seen(photo.height, photo.width, network.preprocess),
        method,
        "input" if method == "occlusion" else layer,
    )


def load_network(source: str | Path) -> EfficientNet:
    """The network that ``source`` means. Raises ``ValueError`` for an exported file, and what `load` raises."""
    if is_exported(Path(source)):
        raise ValueError(f"{source} is an exported file, which only answers: explain the weights that it was made from")
    return load(source)
