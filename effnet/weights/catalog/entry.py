"""An entry of the catalog: one published file of weights, and the names of its classes."""

from dataclasses import dataclass
from types import MappingProxyType

from effnet.arch.serde import Record, check_choice, check_int
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, Labels, Numerics, Preprocess

# What the classifier's outputs stand for: ImageNet's classes, those after a "background" class, or the larger sets
LABEL_SETS = ("imagenet-1k", "imagenet-1k+background", "imagenet-12k", "imagenet-21k", "")

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]  # for values in [0, 1]
IMAGENET_MEAN_STD: MeanStd = (IMAGENET_MEAN, IMAGENET_STD)
HALF_MEAN_STD: MeanStd = ((0.5,) * 3, (0.5,) * 3)  # x · 2/255 − 1: Inception's and AdvProp's


@dataclass(frozen=True)
class CatalogEntry(Record):
    """One published file of weights. Facts are the publisher's own; what it does not state is empty or None.

    ``preprocess`` is what the publisher evaluates with. ``top1`` is the published ImageNet-1k accuracy in percent,
    measured at ``test_size`` pixels. ``hash`` is "sha256:HEX" or "md5:HEX", or a prefix where the publisher states no
    more. ``license`` is stated on the weights' page or by the repository that publishes them.
    """

    RECORDS = MappingProxyType({"numerics": Numerics, "preprocess": Preprocess})

    name: str  # "b0/ra_in1k": the arch, and what its publisher calls the weights
    arch: str
    layout: str
    publisher: str  # "timm", "torchvision", "lukemelas", "keras", "google", "ml-illustrated"
    numerics: Numerics
    preprocess: Preprocess
    citation: str  # the page or file that states these facts
    classes: int = 1000  # 0: no classifier
    label_set: str = "imagenet-1k"
    top1: float | None = None
    test_size: int | None = None
    license: str = ""
    hub: str = ""  # a Hugging Face repository; "" if there is only a URL
    package: str = ""  # of the package index, which holds the weights
    file: str = ""  # in that repository or package, or in the archive at the URL; "" in an archive: its only checkpoint
    url: str = ""
    hash: str | None = None
    default: bool = False  # whether the arch's name alone stands for this entry
    note: str = ""

    def __post_init__(self) -> None:
        check_int("classes", self.classes, 0)
        check_choice("label_set", self.label_set, LABEL_SETS)


def class_labels(entry: CatalogEntry) -> Labels:
    """Return the class names of ``entry``: ImageNet-1k's, "background" first if it has one; empty for larger sets."""
    if not entry.label_set.startswith("imagenet-1k"):
        return Labels()
    from effnet.data import class_names  # whose room imports more than listing the catalog needs

    return class_names.imagenet_labels(class_names.IMAGENET_CLASSES + entry.label_set.endswith("+background"))
