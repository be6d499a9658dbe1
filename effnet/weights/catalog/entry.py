"""What a card of the catalogue says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from effnet.arch.serde import Record, check_choice, check_int
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, Labels, Numerics, Preprocess

# What the classifier's outputs mean: ImageNet's classes, those with a "background" before them, the larger sets
LABEL_SETS = ("imagenet-1k", "imagenet-1k+background", "imagenet-12k", "imagenet-21k", "")


# Mean and standard deviation for values in [0, 1]
MeanStd = tuple[tuple[float, ...], tuple[float, ...]]


IMAGENET_MEAN_STD: MeanStd = (IMAGENET_MEAN, IMAGENET_STD)


HALF_MEAN_STD: MeanStd = ((0.5,) * 3, (0.5,) * 3)  # x · 2/255 − 1: Inception's and AdvProp's


@dataclass(frozen=True)
class CatalogEntry(Record):
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
    citation: str  # the page or file that these facts were read from
    classes: int = 1000  # 0: the file has no classifier
    label_set: str = "imagenet-1k"
    top1: float | None = None
    test_size: int | None = None
    license: str = ""
    hub: str = ""  # a Hugging Face repository; "" where there is only a url
    file: str = ""  # the file in that repository or in the archive at the url; "" in an archive: its one checkpoint
    url: str = ""
    hash: str | None = None
    default: bool = False  # what the arch's bare name means
    note: str = ""

    def __post_init__(self) -> None:
        check_int("classes", self.classes, 0)
        check_choice("label_set", self.label_set, LABEL_SETS)


# What the outputs of a card's classifier are called.


def class_labels(entry: CatalogEntry) -> Labels:
    """The class names of ``card``: those of ImageNet-1k, with "background" before them where it has that class.

    They are the names that torchvision gives with its weights, which differ from each other ("crane", "crane bird";
    "cardigan", and the dog "Cardigan"). The names of the larger sets are not known here: no labels. Raises
    ``ImportError`` where torchvision is not installed.
    """
    if not entry.label_set.startswith("imagenet-1k"):
        return Labels()
    background = ("background",) if entry.label_set.endswith("+background") else ()
    return Labels((*background, *_imagenet_class_names()))


def _imagenet_class_names() -> tuple[str, ...]:
    from effnet.data.torchvision_compat import declare_operators

    declare_operators()
    from torchvision.models import EfficientNet_B0_Weights

    return tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])
