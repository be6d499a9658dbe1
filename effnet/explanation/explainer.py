"""`explain` and its result: maps of one image, with the prediction that they explain."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from effnet.arch.serde import check_choice, check_int
from effnet.data import image_io, preprocessing
from effnet.explanation import attribution, heatmap
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.prediction import predictor
from effnet.runtime.io_spec import is_exported
from effnet.tasks import task_of
from effnet.weights import load

UPSCALE_BELOW = 256  # each pixel of a smaller image becomes several


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which parts of an image support some of the classes.

    With the method "cam", ``maps[i].sum() + biases[i]`` is ``logits[i]``.
    """

    prediction: predictor.Prediction
    labels: Labels
    classes: tuple[int, ...]  # the explained ones
    scores: tuple[float, ...]  # their probabilities, or for regression the values
    logits: tuple[float, ...]
    biases: tuple[float, ...]  # in the classifier
    maps: NDArray[np.float32]  # (classes, height, width)
    input_image: image_io.InputImage  # as the network sees it, (H, W, C) of 0 to 255
    photo: Image.Image  # as it was given, upright
    box: preprocessing.Box  # of `input_image` in `photo`, in pixels: left, top, right, bottom; the rest was cropped
    method: str
    layer: str  # that the maps are of: "head", "stage3"; "input" for occlusion

    @property
    def image(self) -> str:
        """Name of the image."""
        return self.prediction.image

    @property
    def names(self) -> tuple[str, ...]:
        """Names of ``classes``."""
        return tuple(map(self.labels.name, self.classes))

    def format_score(self, index: int = 0) -> str:
        """Return the score of explained class ``index`` for people: ``97.3%``, or for regression ``41.2``."""
        return task_of(self.labels.task).format_score(self.scores[index])

    def map_maximum(self, index: int = 0) -> float:
        """Return the value of the brightest color: the maximum of all maps, which makes them comparable.

        For regression the map's own maximum, since values have different units.
        """
        comparable = task_of(self.labels.task).has_probabilities
        return float((self.maps if comparable else self.maps[index]).max())

    def overlay(self, index: int = 0, side: int | None = 1024) -> Image.Image:
        """Draw map ``index`` over the photo, the longer side at most ``side`` pixels; what was cropped is darkened."""
        if not 0 <= index < len(self.maps):
            raise ValueError(f"there is no map {index}: {self.image} has {len(self.maps)}, from 0")
        photo = scale_photo(self.photo, side)
        scale_x, scale_y = photo.width / self.photo.width, photo.height / self.photo.height
        left, top, right, bottom = self.box
        box = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
        return heatmap.overlay(np.asarray(photo), self.maps[index], self.map_maximum(index), box)

    def map_on_photo(self, index: int = 0) -> NDArray[np.float32]:
        """Return map ``index`` in the photo's pixels: (H, W), NaN where the photo was cropped."""
        return heatmap.place_map(self.maps[index], (self.photo.height, self.photo.width), self.box)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON: that of the prediction, and what is explained; ``size`` is (height, width)."""
        kind = "probability" if task_of(self.labels.task).has_probabilities else "value"
        rows = zip(self.names, self.classes, self.scores, self.logits, strict=True)
        return {
            **self.prediction.to_dict(),
            "method": self.method,
            "layer": self.layer,
            "explained": [
                {"label": name, "class": index, kind: score, "logit": logit} for name, index, score, logit in rows
            ],
            "size": [self.photo.height, self.photo.width],
            "box": [round(side, 2) for side in self.box],
        }


def scale_photo(photo: Image.Image, side: int | None) -> Image.Image:
    """Return the photo with its longer side at most ``side``; each pixel of a small photo becomes several."""
    longest = max(photo.size)
    if side is not None and longest > side:
        width, height = (max(1, round(length * side / longest)) for length in photo.size)
        return photo.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    times = min(UPSCALE_BELOW, side or UPSCALE_BELOW) // longest
    return photo.resize((photo.width * times, photo.height * times), Image.Resampling.NEAREST) if times > 1 else photo


def explain(
    model: EfficientNet | str | Path,
    image: image_io.ImageSource,
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
    """Explain a prediction by maps of the image.

    - "cam": class activation maps of the head (arXiv:1512.04150). Exact: a map sums to the logit without its bias. One
      forward pass.
    - "gradcam" (arXiv:1610.02391): of any ``layer``. A first-order estimate. One forward pass, and one backward pass
      per class.
    - "occlusion" (arXiv:1311.2901): what the class loses where a patch is covered. About 200 forward passes.

    Args:
        model: A network, which is run in evaluation mode and left as it was, or whatever `effnet.load` takes.
        image: A path, the contents of a file, a PIL image or a uint8 array (H, W, 3); JPEGs are decoded at full scale.
        classes: Names or indices; default: the ``top`` most likely, for regression all values.
        top: Number of classes.
        method: "cam", "gradcam" or "occlusion".
        layer: For "gradcam": "stem", "stage1" … "head".
        patch: For "occlusion": side of the covered square in pixels.
        stride: For "occlusion": step of the square in pixels.
        drop: For "occlusion": "logit" or "probability".
        batch_size: For "occlusion": squares computed at once.

    Raises:
        ValueError: If the network has no classifier or a number of channels that no image has, there is no such class
            or layer, or an option does not go with the method.
        ImageError: If the image cannot be read.

    Example:
        >>> effnet.explain("runs/photos", "cat.jpg").overlay(0).save("why.png")
    """
    check_choice("method", method, ("cam", "gradcam", "occlusion"))
    check_int("top", top, 1)
    if layer != "head" and method != "gradcam":
        raise ValueError(f'layer requires method="gradcam", not {method}')
    if method != "occlusion" and (patch, stride, drop) != (None, None, "logit"):
        raise ValueError(f'patch, stride and drop require method="occlusion", not {method}')
    network = model if isinstance(model, EfficientNet) else load_network(model)
    bias = attribution.require_classifier(network).bias
    indices = None if classes is None else attribution.class_indices(network, classes)
    image_name, task = name or predictor.name_images(image)[0][0], task_of(network.labels.task)
    color, bits = network.preprocess.color_mode, network.preprocess.bits
    photo = image_io.read_image(image, bits=bits)
    seen = photo if color == "RGB" else image_io.read_image(image, color=color, bits=bits)
    input_image = image_io.resize_and_crop(seen, network.preprocess)
    with torch.inference_mode(False), attribution.evaluation_mode(network):
        x = attribution.to_input(network, input_image[None])
        if method == "cam":
            logits, maps = attribution.compute_cam(network, x)
        elif method == "gradcam":
            logits, maps = attribution.compute_gradcam(network, x, layer)
        else:
            logits, maps = attribution.compute_occlusion(network, x, patch, stride, drop, batch_size)
        row = logits.double().cpu().numpy()  # (1, classes)
        if not np.isfinite(row).all():
            raise ValueError("the model's output contains NaN or Inf: its weights are damaged")
        scores = task.activate(row)
        best = task.top_k(scores, top)[0]  # (2, top)
        indices = [int(index) for index in best[0]] if indices is None else indices
        values = maps(indices)[0].float().cpu().numpy()
    return Explanation(
        predictor.to_prediction(image_name, best, network.labels),
        network.labels,
        tuple(indices),
        tuple(scores[0, indices].tolist()),
        tuple(row[0, indices].tolist()),
        tuple(bias.detach().double().cpu()[indices].tolist()),
        values,
        input_image,
        photo,
        preprocessing.visible_region(photo.height, photo.width, network.preprocess),
        method,
        "input" if method == "occlusion" else layer,
    )


def load_network(source: str | Path) -> EfficientNet:
    """Load the network of ``source``. Raises ``ValueError`` for an exported file, and as `effnet.load` does."""
    if is_exported(Path(source)):
        raise ValueError(f"{source} is an exported file, which gives outputs only: use the weights it was made from")
    return load(source)
