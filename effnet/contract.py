"""What a model carries beside its numbers, so that everyone who runs it runs it as it was meant."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from effnet.arch.record import Record, choice, number, whole

PADDINGS = ("same", "symmetric")
RESIZES = ("crop", "squash")
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "box", "nearest")
DECODES = ("exact", "reduced")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Numerics(Record):
    """What the weights expect of the arithmetic: facts about weights, not about an architecture.

    ``padding``: "same" as TensorFlow pads (what is odd goes to the bottom and the right), or "symmetric" as PyTorch
    does. ``bn_eps``: batch norm's ε. The defaults are the official networks'.
    """

    padding: str = "same"
    bn_eps: float = 1e-3

    def __post_init__(self) -> None:
        choice("padding", self.padding, PADDINGS)
        number("bn_eps", self.bn_eps, 0, 1, above=True)


@dataclass(frozen=True)
class Preprocess(Record):
    """How a picture becomes the network's input: the one contract of training, evaluation, prediction and export.

    ``resize="crop"``: the short side becomes ``floor(size / crop)``, then the middle is cut out; "squash": both sides
    become ``size``, whatever the picture's shape. ``mean`` and ``std`` are for values in [0, 1].
    ``decode="reduced"`` lets a JPEG be decoded at 1/2, 1/4 or 1/8 while it stays at least twice the size needed:
    faster, and a little off.
    """

    size: tuple[int, int] = (224, 224)  # height, width
    crop: float = 0.875
    resize: str = "crop"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    decode: str = "exact"

    def __post_init__(self) -> None:
        if not isinstance(self.size, tuple) or len(self.size) != 2:
            raise ValueError(f"size must be (height, width), got {self.size!r}")
        for side in self.size:
            whole("size", side, 1)
        number("crop", self.crop, 0.01, 1)
        choice("resize", self.resize, RESIZES)
        choice("interpolation", self.interpolation, INTERPOLATIONS)
        choice("decode", self.decode, DECODES)
        if (
            not isinstance(self.mean, tuple)
            or not isinstance(self.std, tuple)
            or not 0 < len(self.mean) == len(self.std)
        ):
            raise ValueError("mean and std must be one number a channel each")
        for mean, std in zip(self.mean, self.std, strict=True):
            number("mean", mean, -10, 10)
            number("std", std, 0, 10, above=True)

    @property
    def resized(self) -> tuple[int, int]:
        """Height and width that the short side is resized to before the crop; the size itself with "squash"."""
        if self.resize == "squash":
            return self.size
        high, wide = (floor(side / self.crop + 1e-6) for side in self.size)  # 83 / (83 / 115) is 114.999…
        return high, wide


def crop_fraction(resolution: int) -> float:
    """r / (r + 32), the crop that the published V1 accuracies were taken with (tensorflow/tpu until November 2021).

    Below 96 pixels it is 1: our choice, since the rule would cut a 32-pixel picture to a quarter of its area.
    """
    return resolution / (resolution + 32) if resolution >= 96 else 1.0


@dataclass(frozen=True)
class Labels(Record):
    """What the classifier's outputs mean, in order. Empty: not known."""

    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.names, tuple) or not all(isinstance(name, str) for name in self.names):
            raise ValueError("labels must be texts, one a class")
        if len(set(self.names)) != len(self.names):
            raise ValueError("labels must differ from each other")

    def name(self, index: int) -> str:
        """The label of class ``index``, or ``class 7`` where labels are not known."""
        return self.names[index] if self.names else f"class {index}"


@dataclass(frozen=True)
class Provenance(Record):
    """Where the numbers come from: the file or card, its layout, and what was done since, oldest first."""

    source: str = ""
    layout: str = ""
    licence: str = ""
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.history, tuple):
            raise ValueError(f"history must be a tuple of texts, got {self.history!r}")
        if not all(isinstance(text, str) for text in (self.source, self.layout, self.licence, *self.history)):
            raise ValueError("provenance must be texts")

    def then(self, event: str) -> Provenance:
        """The same, with ``event`` added to the history."""
        return Provenance(self.source, self.layout, self.licence, (*self.history, event))
