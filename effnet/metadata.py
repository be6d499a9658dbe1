"""What a model carries beside its numbers, so that everyone who runs it runs it as it was meant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from types import MappingProxyType
from typing import Any

from effnet.arch import Arch
from effnet.arch.serde import Record, check_choice, check_float, check_int

PADDINGS = ("same", "symmetric")
RESIZE_MODES = ("crop", "squash")
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "box", "nearest")
RESAMPLING_LIBRARIES = ("pil", "tensorflow", "tensorflow1")
DECODE_MODES = ("exact", "reduced")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Numerics(Record):
    """What the weights expect of the arithmetic: facts about weights, not about an architecture.

    ``padding``: "same" as TensorFlow pads (what is odd goes to the bottom and the right), or "symmetric" as PyTorch
    does. ``bn_eps``: batch norm's ε. The defaults are the official networks'. ``fused_padding``: that of the fused
    convolutions where it is another than ``padding``, as in the official EdgeTPU networks; "" where it is not.
    """

    padding: str = "same"
    bn_eps: float = 1e-3
    fused_padding: str = ""

    def __post_init__(self) -> None:
        check_choice("padding", self.padding, PADDINGS)
        check_choice("fused_padding", self.fused_padding, ("", *PADDINGS))
        check_float("bn_eps", self.bn_eps, 0, 1, exclusive=True)

    def describe(self) -> str:
        """One line for a person: "same padding, batch-norm ε 0.001"."""
        other = self.fused_padding not in ("", self.padding)
        fused = f" ({self.fused_padding} where fused)" if other else ""
        return f"{self.padding} padding{fused}, batch-norm ε {self.bn_eps:g}"


@dataclass(frozen=True)
class Preprocess(Record):
    """How a picture becomes the network's input: the one contract of training, evaluation, prediction and export.

    ``resize="crop"``: the short side becomes ``floor(size / crop)``, then the middle is cut out; "squash": both sides
    become that, whatever the picture's shape, before the middle is cut out (all of it with a ``crop`` of 1).
    ``mean`` and ``std`` are for values in [0, 1].

    ``resampling``: whose arithmetic resizes. They differ by far more than rounding, since TensorFlow does not average
    when it makes a picture smaller: it takes two or four pixels a side, wherever they fall, and cuts before it resizes.

    - "pil": PIL with antialiasing, as torchvision, timm and transformers do;
    - "tensorflow": TensorFlow 2's ``tf.image.resize``, which Keras calls too, as google/automl efficientnetv2 does for
      S–XL: pixels are at their centres, the cubic is Keys' (a = −0.5);
    - "tensorflow1": ``tf.compat.v1.image``, as tensorflow/tpu efficientnet does for V1, Lite and EdgeTPU, and automl
      for V2-B0–B3: pixels are at their upper left corners, and a = −0.75.

    ``decode="reduced"`` lets a JPEG be decoded at 1/2, 1/4 or 1/8 while it stays at least twice the size needed:
    faster, and a little off. Under TensorFlow's resampling it never is: averaging beforehand would be far off.
    Raises ``ValueError`` for any value out of its range, and for an interpolation that TensorFlow's has not.
    """

    size: tuple[int, int] = (224, 224)  # height, width
    crop_fraction: float = 0.875
    resize: str = "crop"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    decode: str = "exact"
    resampling: str = "pil"

    def __post_init__(self) -> None:
        if not isinstance(self.size, tuple) or len(self.size) != 2:
            raise ValueError(f"size must be (height, width), got {self.size!r}")
        for side in self.size:
            check_int("size", side, 1)
        check_float("crop", self.crop_fraction, 0.01, 1)
        check_choice("resize", self.resize, RESIZE_MODES)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("decode", self.decode, DECODE_MODES)
        check_choice("resampling", self.resampling, RESAMPLING_LIBRARIES)
        if self.resampling != "pil" and self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f'{self.interpolation} is PIL\'s only: use bicubic or bilinear, or resampling="pil"')
        if (
            not isinstance(self.mean, tuple)
            or not isinstance(self.std, tuple)
            or not 0 < len(self.mean) == len(self.std)
        ):
            raise ValueError("mean and std must be one number a channel each")
        for mean, std in zip(self.mean, self.std, strict=True):
            check_float("mean", mean, -1000, 1000)  # far beyond 1 where values were divided by 255 twice in training
            check_float("std", std, 0, 1000, exclusive=True)

    @property
    def resize_size(self) -> tuple[int, int]:
        """Height and width before the crop: what the picture must cover, or with "squash" what it becomes."""
        high, wide = (floor(side / self.crop_fraction + 1e-6) for side in self.size)  # 83 / (83 / 115) is 114.999…
        return high, wide

    def with_channels(self, channels: int, average: bool = True) -> Preprocess:
        """The same for pictures of ``channels`` channels: mean and std are averaged, or else repeated in turn."""

        def spread(values: tuple[float, ...]) -> tuple[float, ...]:
            if average:
                return (sum(values) / len(values),) * channels
            return tuple(values[index % len(values)] for index in range(channels))

        return replace(self, mean=spread(self.mean), std=spread(self.std))

    def describe(self) -> str:
        """One line for a person: "224×224, crop 0.875, bicubic, mean 0.485/0.456/0.406, std 0.229/0.224/0.225"."""
        high, wide = self.size
        squashed = ["squashed"] if self.resize == "squash" else []
        cropped = [f"crop {self.crop_fraction:.3g}"] if self.crop_fraction < 1 or not squashed else []
        resized = f"{self.interpolation}{'' if self.resampling == 'pil' else f' as {self.resampling} does'}"
        mean, std = ("/".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return ", ".join([f"{high}×{wide}", *squashed, *cropped, resized, f"mean {mean}", f"std {std}"])


def default_crop_fraction(resolution: int) -> float:
    """r / (r + 32), the crop that the published V1 accuracies were taken with (tensorflow/tpu until November 2021).

    Below 96 pixels it is 1: our choice, since the rule would cut a 32-pixel picture to a quarter of its area.
    """
    return resolution / (resolution + 32) if resolution >= 96 else 1.0


TASKS = ("classification", "multilabel", "regression")
_OLD_KINDS = {"one": "classification", "any": "multilabel", "value": "regression"}


@dataclass(frozen=True)
class Labels(Record):
    """What the classifier's outputs mean, in order. Empty: not known.

    ``task``: "classification", exactly one class per image (softmax); "multilabel", any number of labels per image
    (sigmoid); "regression", numeric values (no activation). See `effnet.tasks`.
    """

    names: tuple[str, ...] = ()
    task: str = "classification"

    @classmethod
    def from_dict(cls, data: Any) -> Labels:
        """As of any record; also reads the headers of the first model files, which spell it ``"kind": "any"``."""
        if isinstance(data, dict) and "kind" in data:
            kind = data["kind"]
            data = {key: value for key, value in data.items() if key != "kind"} | {"task": _OLD_KINDS.get(kind, kind)}
        return super().from_dict(data)

    def __post_init__(self) -> None:
        check_choice("task", self.task, TASKS)
        if not isinstance(self.names, tuple) or not all(isinstance(name, str) for name in self.names):
            raise ValueError("labels must be texts, one a class")
        if len(set(self.names)) != len(self.names):
            raise ValueError("labels must differ from each other")

    def name(self, index: int) -> str:
        """The label of class ``index``, or ``class 7`` where it is not known."""
        return self.names[index] if index < len(self.names) else f"class {index}"

    def describe(self, outputs: int) -> str:
        """Of a network of so many ``outputs``, for a person: "1,000 classes", "3 labels, any of them", "2 values"."""
        thing = {"classification": "class", "multilabel": "label", "regression": "value"}[self.task]
        many = {"class": "classes"}.get(thing, f"{thing}s")
        return f"{outputs:,} {thing if outputs == 1 else many}{', any of them' if self.task == 'any' else ''}"


@dataclass(frozen=True)
class Provenance(Record):
    """Where the numbers come from: the file or card, its layout, and what was done since, oldest first."""

    source: str = ""
    layout: str = ""
    license: str = ""
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.history, tuple):
            raise ValueError(f"history must be a tuple of texts, got {self.history!r}")
        if not all(isinstance(text, str) for text in (self.source, self.layout, self.license, *self.history)):
            raise ValueError("provenance must be texts")

    def with_event(self, event: str) -> Provenance:
        """The same, with ``event`` added to the history."""
        return Provenance(self.source, self.layout, self.license, (*self.history, event))


@dataclass(frozen=True)
class ModelMetadata(Record):
    """All that a file of weights, or an exported one, says of itself beside its numbers."""

    RECORDS = MappingProxyType(
        {
            "arch": Arch,
            "numerics": Numerics,
            "preprocess": Preprocess,
            "labels": Labels,
            "provenance": Provenance,
        }
    )

    arch: Arch
    numerics: Numerics
    preprocess: Preprocess
    labels: Labels
    provenance: Provenance
