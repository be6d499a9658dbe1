"""What a card of the catalogue says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from effnet.arch.record import Record, choice, whole
from effnet.contract import IMAGENET_MEAN, IMAGENET_STD, Numerics, Preprocess

# What the classifier's outputs mean: ImageNet's classes, those with a "background" before them, the larger sets
CLASS_LISTS = ("imagenet-1k", "imagenet-1k+background", "imagenet-12k", "imagenet-21k", "")

# Mean and standard deviation for values in [0, 1]
Normal = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET: Normal = (IMAGENET_MEAN, IMAGENET_STD)
HALF: Normal = ((0.5,) * 3, (0.5,) * 3)  # x · 2/255 − 1: Inception's and AdvProp's


@dataclass(frozen=True)
class Card(Record):
    """One published file of weights. Every fact is its publisher's; what the publisher does not state is empty or None.

    ``preprocess`` is what the publisher evaluates with, at the size of the accuracy. ``top1`` is ImageNet-1k accuracy
    in percent as published, taken at ``tested_at`` pixels. ``hash`` is "sha256:HEX" or "md5:HEX"; a publisher who
    states only the first digits is taken at those. ``licence`` is what the weights' page states, or the repository
    that publishes them.
    """

    RECORDS: ClassVar[Mapping[str, type[Record]]] = MappingProxyType({"numerics": Numerics, "preprocess": Preprocess})

    name: str  # "b0/ra_in1k": the arch, and what its publisher calls the weights
    arch: str
    layout: str
    publisher: str  # "timm", "torchvision", "lukemelas", "keras", "google"
    numerics: Numerics
    preprocess: Preprocess
    cites: str  # the page or file that these facts were read from
    classes: int = 1000  # 0: the file has no classifier
    labels: str = "imagenet-1k"
    top1: float | None = None
    tested_at: int | None = None
    licence: str = ""
    hub: str = ""  # a Hugging Face repository; "" where there is only a url
    file: str = ""  # the file in that repository or in the archive at the url; "" in an archive: its one checkpoint
    url: str = ""
    hash: str | None = None
    default: bool = False  # what the arch's bare name means
    note: str = ""

    def __post_init__(self) -> None:
        whole("classes", self.classes, 0)
        choice("labels", self.labels, CLASS_LISTS)
