"""Weights of torchvision, and of lukemelas/EfficientNet-PyTorch.

torchvision (0.28, ``models/efficientnet.py``): B0–B4 are timm's, B5–B7 lukemelas'; B1's second version, V2-S and V2-M
are its own. Its networks pad symmetrically, with PyTorch's ε 1e-5 up to B4 and 1e-3 beyond; B5–B7 and V2-L were trained
by Google with 'same' padding, but are published and evaluated like this. Its README states no license for weights.

lukemelas (efficientnet_pytorch 0.7.1): Google's AutoAugment and AdvProp checkpoints, from ``utils.py`` (``url_map``,
``url_map_advprop``) and ``examples/imagenet/main.py`` (evaluation: the short side becomes the size, uncropped).
The README's accuracies are those of the paper's first version, measured with neither these weights nor this evaluation;
it has none for AdvProp.

The digits in a file's name begin its sha256 (torchvision checks them; lukemelas has ``rename.sh``).
"""

from dataclasses import replace

from effnet.arch import ARCHS
from effnet.metadata import Numerics, Preprocess
from effnet.weights import defaults
from effnet.weights.catalog.entry import HALF_MEAN_STD, IMAGENET_MEAN_STD, CatalogEntry

_TRAINED_BY_GOOGLE = ("b5", "b6", "b7", "v2_l")


def _entry(
    arch: str, version: int, stem: str, digits: str, resized: int, size: int, interpolation: str, top1: float
) -> CatalogEntry:
    mean_std = HALF_MEAN_STD if arch == "v2_l" else IMAGENET_MEAN_STD
    return CatalogEntry(
        name=f"{arch}/torchvision_v{version}",
        arch=arch,
        layout="torchvision",
        publisher="torchvision",
        numerics=defaults.torchvision_numerics(ARCHS[arch]),
        preprocess=Preprocess((size, size), size / resized, "crop", interpolation, *mean_std),
        citation="torchvision 0.28 models/efficientnet.py",
        top1=top1,
        test_size=size,
        url=f"https://download.pytorch.org/models/{stem}-{digits}.pth",
        hash=f"sha256:{digits}",
        note="trained with 'same' padding, evaluated with symmetric" if arch in _TRAINED_BY_GOOGLE else "",
    )


# fmt: off
ENTRIES = (  # of each network the default first
    #                file                          sha256      resized crop             top-1
    _entry("b0", 1, "efficientnet_b0_rwightman", "7f5810bc", 256, 224, "bicubic", 77.692),
    _entry("b1", 2, "efficientnet_b1", "c27df63c", 255, 240, "bilinear", 79.838),
    _entry("b1", 1, "efficientnet_b1_rwightman", "bac287d4", 256, 240, "bicubic", 78.642),
    _entry("b2", 1, "efficientnet_b2_rwightman", "c35c1473", 288, 288, "bicubic", 80.608),
    _entry("b3", 1, "efficientnet_b3_rwightman", "b3899882", 320, 300, "bicubic", 82.008),
    _entry("b4", 1, "efficientnet_b4_rwightman", "23ab8bcd", 384, 380, "bicubic", 83.384),
    _entry("b5", 1, "efficientnet_b5_lukemelas", "1a07897c", 456, 456, "bicubic", 83.444),
    _entry("b6", 1, "efficientnet_b6_lukemelas", "24a108a5", 528, 528, "bicubic", 84.008),
    _entry("b7", 1, "efficientnet_b7_lukemelas", "c5b4e57e", 600, 600, "bicubic", 84.122),
    _entry("v2_s", 1, "efficientnet_v2_s", "dd5fe13b", 384, 384, "bilinear", 84.228),
    _entry("v2_m", 1, "efficientnet_v2_m", "dc08266a", 480, 480, "bilinear", 85.112),
    _entry("v2_l", 1, "efficientnet_v2_l", "59c71312", 480, 480, "bicubic", 85.808),
)
# fmt: on

# lukemelas' EfficientNet-PyTorch ----------------------------------------------------------------------------------

_LUKEMELAS_URL = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/"
_LUKEMELAS_CITATION = (
    "efficientnet_pytorch 0.7.1 utils.py; lukemelas/EfficientNet-PyTorch README.md, examples/imagenet/main.py"
)
_ACCURACY_NOTE = "the accuracy is the paper's first version's, not these weights' own"

# fmt: off
#       sha256      README
_LUKEMELAS_AUTOAUGMENT = {
    "b0": ("355c32eb", 76.3), "b1": ("f1951068", 78.8), "b2": ("8bb594d6", 79.8), "b3": ("5fb5a3c3", 81.1),
    "b4": ("6ed6700e", 82.6), "b5": ("b6417697", 83.3), "b6": ("c76e70fd", 84.0), "b7": ("dcc49843", 84.4),
}
_LUKEMELAS_ADVPROP = {
    "b0": "b64d5a18", "b1": "0f3ce85a", "b2": "6e9d97e5", "b3": "cdd7c0f4", "b4": "44fb3a87",
    "b5": "86493f6b", "b6": "ac80338e", "b7": "4652b6dd", "b8": "22a8fe65",
}
# fmt: on


def _lukemelas_entry(arch: str, digits: str, top1: float | None, *, advprop: bool) -> CatalogEntry:
    mean, std = HALF_MEAN_STD if advprop else IMAGENET_MEAN_STD
    return CatalogEntry(
        name=f"{arch}/lukemelas{'_advprop' * advprop}",
        arch=arch,
        layout="lukemelas",
        publisher="lukemelas",
        numerics=Numerics(),
        preprocess=replace(defaults.lukemelas_preprocess(ARCHS[arch]), mean=mean, std=std),
        citation=_LUKEMELAS_CITATION,
        top1=top1,
        license="apache-2.0",
        url=f"{_LUKEMELAS_URL}{'adv-' * advprop}efficientnet-{arch}-{digits}.pth",
        hash=f"sha256:{digits}",
        note=_ACCURACY_NOTE if top1 else "",
    )


LUKEMELAS_ENTRIES = (
    *(_lukemelas_entry(arch, digits, top1, advprop=False) for arch, (digits, top1) in _LUKEMELAS_AUTOAUGMENT.items()),
    *(_lukemelas_entry(arch, digits, None, advprop=True) for arch, digits in _LUKEMELAS_ADVPROP.items()),
)
