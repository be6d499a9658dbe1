"""What travels with a model beside its weights: numerics, preprocessing, labels and provenance."""

from dataclasses import dataclass, replace
from math import floor
from types import MappingProxyType
from typing import Any

from effnet.arch import Arch, serde

PADDINGS = ("same", "symmetric")
RESIZE_MODES = ("crop", "squash")
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "box", "nearest")
RESAMPLING_LIBRARIES = ("pil", "tensorflow", "tensorflow1")
DECODE_MODES = ("exact", "reduced")
# PIL's modes that an image can be read in, with their number of channels; the first of a number is its default
COLOR_CHANNELS = MappingProxyType({"L": 1, "LA": 2, "RGB": 3, "HSV": 3, "YCbCr": 3, "RGBA": 4, "CMYK": 4})
TASKS = ("classification", "multilabel", "regression")
_FORMER_TASKS = {"one": "classification", "any": "multilabel", "value": "regression"}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Numerics(serde.Record):
    """The arithmetic that weights were trained with: a property of the weights, not of the architecture.

    Args:
        padding: "same" as in TensorFlow (an odd pixel goes to the bottom and right), or "symmetric" as in PyTorch.
        bn_eps: Batch norm's ε. The defaults are those of the official networks.
        fused_padding: Padding of the fused convolutions if it differs, as in the official EdgeTPU networks, else "".

    Raises:
        ValueError: A value is out of range.
    """

    padding: str = "same"
    bn_eps: float = 1e-3
    fused_padding: str = ""

    def __post_init__(self) -> None:
        serde.check_choice("padding", self.padding, PADDINGS)
        serde.check_choice("fused_padding", self.fused_padding, ("", *PADDINGS))
        serde.check_float("bn_eps", self.bn_eps, 0, 1, exclusive=True)

    def describe(self) -> str:
        """Return one line such as "same padding, batch-norm ε 0.001"."""
        differs = self.fused_padding not in ("", self.padding)
        fused = f" ({self.fused_padding} in fused convolutions)" if differs else ""
        return f"{self.padding} padding{fused}, batch-norm ε {self.bn_eps:g}"


@dataclass(frozen=True)
class Preprocess(serde.Record):
    """How an image becomes the network's input, in training, evaluation, prediction and exported files alike.

    Args:
        size: Input size (height, width); an int is a square.
        crop_fraction: Side of the center crop as a fraction of the resized side.
        resize: "crop" resizes the short side to ``floor(size / crop_fraction)``, then crops the center. "squash"
            resizes both sides to that, ignoring the aspect ratio (with a ``crop_fraction`` of 1 nothing is cropped).
        interpolation: The resampling filter.
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel.
        decode: "reduced" lets a JPEG be decoded at 1/2, 1/4 or 1/8 scale as long as it stays at least twice the size
            needed: faster, slightly inexact. It has no effect under TensorFlow's resampling, where it would be far off.
        resampling: The library whose arithmetic resizes. They differ by far more than rounding: TensorFlow does not
            antialias (it reads two or four pixels a side, wherever they fall) and crops before it resizes.

            - "pil": PIL with antialiasing, as in torchvision, timm and transformers.
            - "tensorflow": TensorFlow 2's ``tf.image.resize``, as in Keras, and in google/automl efficientnetv2 for
              S–XL: half-pixel centers, Keys' cubic (a = −0.5).
            - "tensorflow1": ``tf.compat.v1.image``, as in tensorflow/tpu efficientnet for V1, Lite and EdgeTPU, and in
              automl for V2-B0–B3: pixels at their upper left corners, a = −0.75.
        color: What the channels are, a mode of PIL: "L" (grey), "LA" (grey and alpha), "RGB", "HSV", "YCbCr", "RGBA" or
            "CMYK". "" is the first of these with as many channels as there are means.
        bits: How many of their 16 bits image files hold, where they do not state it: 8 to 16, as 12 of many X-rays and
            microscopes; 0 is as the file says.

    Raises:
        ValueError: A value is out of range, or TensorFlow does not have the interpolation.
    """

    FORMER_NAMES = MappingProxyType({"crop": "crop_fraction"})

    size: tuple[int, int] = (224, 224)
    crop_fraction: float = 0.875
    resize: str = "crop"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    decode: str = "exact"
    resampling: str = "pil"
    color: str = ""
    bits: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", serde.check_size(self.size))
        serde.check_float("crop_fraction", self.crop_fraction, 0.01, 1)
        serde.check_choice("resize", self.resize, RESIZE_MODES)
        serde.check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        serde.check_choice("decode", self.decode, DECODE_MODES)
        serde.check_choice("resampling", self.resampling, RESAMPLING_LIBRARIES)
        if self.resampling != "pil" and self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f'only PIL has {self.interpolation}: use bicubic or bilinear, or resampling="pil"')
        are_tuples = isinstance(self.mean, tuple) and isinstance(self.std, tuple)
        if not are_tuples or not 0 < len(self.mean) == len(self.std):
            raise ValueError("mean and std must each have one number per channel")
        for mean, std in zip(self.mean, self.std, strict=True):  # far above 1 if values were divided by 255 twice
            serde.check_float("mean", mean, -1000, 1000)
            serde.check_float("std", std, 0, 1000, exclusive=True)
        serde.check_int("bits", self.bits, 0)
        if self.bits and not 8 <= self.bits <= 16:
            raise ValueError(f"bits must be from 8 to 16, or 0 for what the file says, got {self.bits}")
        serde.check_choice("color", self.color, ("", *COLOR_CHANNELS))
        if self.color and COLOR_CHANNELS[self.color] != len(self.mean):
            channels = COLOR_CHANNELS[self.color]
            raise ValueError(f"{self.color} has {channels} channels, mean and std are for {len(self.mean)}")

    @property
    def color_mode(self) -> str:
        """The mode of PIL that images are read in. Raises ``ValueError`` if none has that many channels."""
        if self.color:
            return self.color
        for mode, channels in COLOR_CHANNELS.items():
            if channels == len(self.mean):
                return mode
        raise ValueError(f"this network takes {len(self.mean)} channels, and no kind of image has as many")

    @property
    def resize_size(self) -> tuple[int, int]:
        """Height and width before the crop: a lower bound for "crop", the exact size for "squash"."""
        height, width = (floor(side / self.crop_fraction + 1e-6) for side in self.size)  # 83 / (83 / 115) is 114.999…
        return height, width

    def with_channels(self, channels: int, average: bool = True) -> "Preprocess":
        """Return a copy for images with ``channels`` channels: mean and std averaged, or else repeated cyclically."""

        def spread(values: tuple[float, ...]) -> tuple[float, ...]:
            if average:
                return (sum(values) / len(values),) * channels
            return tuple(values[index % len(values)] for index in range(channels))

        color = self.color if COLOR_CHANNELS.get(self.color) == channels else ""
        return replace(self, mean=spread(self.mean), std=spread(self.std), color=color)

    def describe(self) -> str:
        """Return a line such as "224×224, crop 0.875, bicubic, mean 0.485/0.456/0.406, std 0.229/0.224/0.225"."""
        height, width = self.size
        parts = [f"{height}×{width}", *(["squashed"] if self.resize == "squash" else [])]
        if self.crop_fraction < 1 or self.resize == "crop":
            parts.append(f"crop {self.crop_fraction:.3g}")
        if len(self.mean) != 3 or self.color:
            parts.append(f"read as {self.color_mode}" if len(self.mean) <= 4 else f"{len(self.mean)} channels")
        parts += [f"{self.bits} of 16 bits"] if self.bits else []
        library = "" if self.resampling == "pil" else f" as in {self.resampling}"
        mean, std = ("/".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return ", ".join([*parts, f"{self.interpolation}{library}", f"mean {mean}", f"std {std}"])


def default_crop_fraction(resolution: int) -> float:
    """Return r / (r + 32), the crop of the published V1 accuracies (tensorflow/tpu until November 2021).

    Below 96 pixels it is 1: our choice, since the rule would crop a 32-pixel image to a quarter of its area.
    """
    return resolution / (resolution + 32) if resolution >= 96 else 1.0


@dataclass(frozen=True)
class Labels(serde.Record):
    """What the classifier's outputs mean, in order.

    Args:
        names: One name per output; empty if unknown.
        task: "classification" (exactly one class is right: softmax), "multilabel" (each label is independent: sigmoid)
            or "regression" (the outputs are the values).

    Raises:
        ValueError: The task is unknown, or the names are not distinct strings.
    """

    names: tuple[str, ...] = ()
    task: str = "classification"

    @classmethod
    def from_dict(cls, data: Any) -> "Labels":
        """Restore labels; files written earlier call the task ``kind``, with the values one, any and value."""
        if isinstance(data, dict) and "kind" in data:
            kind = data["kind"]
            data = {key: value for key, value in data.items() if key != "kind"}
            data["task"] = _FORMER_TASKS.get(kind, kind) if isinstance(kind, str) else kind
        return super().from_dict(data)

    def __post_init__(self) -> None:
        serde.check_choice("task", self.task, TASKS)
        if not isinstance(self.names, tuple) or not all(isinstance(name, str) for name in self.names):
            raise ValueError("labels must be strings, one per class")
        if len(set(self.names)) != len(self.names):
            raise ValueError("labels must be distinct")

    def name(self, index: int) -> str:
        """Return the label of output ``index``, or ``class 7`` if it is unknown."""
        return self.names[index] if index < len(self.names) else f"class {index}"

    def describe(self, outputs: int) -> str:
        """Describe a network with that many outputs: "1,000 classes", "3 labels (multi-label)", "2 values"."""
        noun, plural = {"classification": ("class", "es"), "multilabel": ("label", "s")}.get(self.task, ("value", "s"))
        note = " (multi-label)" if self.task == "multilabel" else ""
        return f"{outputs:,} {noun}{plural if outputs != 1 else ''}{note}"


@dataclass(frozen=True)
class Provenance(serde.Record):
    """Where the weights come from: file or catalog entry, layout, license, and what was done since, oldest first."""

    FORMER_NAMES = MappingProxyType({"licence": "license"})  # words: allow

    source: str = ""
    layout: str = ""
    license: str = ""
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.history, tuple):
            raise ValueError(f"history must be a tuple of strings, got {self.history!r}")
        if not all(isinstance(text, str) for text in (self.source, self.layout, self.license, *self.history)):
            raise ValueError("provenance must consist of strings")

    def with_event(self, event: str) -> "Provenance":
        """Return a copy with ``event`` added to the history."""
        return replace(self, history=(*self.history, event))


@dataclass(frozen=True)
class ModelMetadata(serde.Record):
    """All that a weights file or an exported file says about its model, as JSON in its header."""

    RECORDS = MappingProxyType(
        {"arch": Arch, "numerics": Numerics, "preprocess": Preprocess, "labels": Labels, "provenance": Provenance}
    )

    arch: Arch
    numerics: Numerics
    preprocess: Preprocess
    labels: Labels
    provenance: Provenance
