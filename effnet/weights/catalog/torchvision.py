"""torchvision's weights: B0–B4 after timm's, B5–B7 after lukemelas', B1's second version, V2-S and V2-M its own.

Facts: torchvision 0.28 ``models/efficientnet.py``. Its networks pad symmetrically, with PyTorch's ε 1e-5 up to B4 and
1e-3 beyond; B5–B7 and V2-L were trained by Google with 'same' padding, and are published and measured like this.
The digits in a file's name begin its sha256, which torchvision checks. Its README leaves it open what licence
weights have.
"""

from __future__ import annotations

from effnet.arch import ARCHS
from effnet.metadata import Preprocess
from effnet.weights.catalog.entry import HALF_MEAN_STD, IMAGENET_MEAN_STD, CatalogEntry, MeanStd
from effnet.weights.key_maps import torchvision_numerics

_SAME = "trained with 'same' padding, evaluated with symmetric"


def _entry(
    arch: str,
    version: int,
    stem: str,
    digits: str,
    resized: int,
    size: int,
    interpolation: str,
    top1: float,
    mean_std: MeanStd = IMAGENET_MEAN_STD,
    *,
    note: str = "",
) -> CatalogEntry:
    return CatalogEntry(
        name=f"{arch}/torchvision_v{version}",
        arch=arch,
        layout="torchvision",
        publisher="torchvision",
        numerics=torchvision_numerics(ARCHS[arch]),
        preprocess=Preprocess((size, size), size / resized, "crop", interpolation, *mean_std),
        citation="torchvision 0.28 models/efficientnet.py",
        top1=top1,
        test_size=size,
        url=f"https://download.pytorch.org/models/{stem}-{digits}.pth",
        hash=f"sha256:{digits}",
        note=note,
    )


# fmt: off
ENTRIES = (
    #                file                          sha256      resized crop             top-1
    _entry("b0", 1, "efficientnet_b0_rwightman", "7f5810bc", 256, 224, "bicubic", 77.692),
    _entry("b1", 2, "efficientnet_b1", "c27df63c", 255, 240, "bilinear", 79.838),
    _entry("b1", 1, "efficientnet_b1_rwightman", "bac287d4", 256, 240, "bicubic", 78.642),
    _entry("b2", 1, "efficientnet_b2_rwightman", "c35c1473", 288, 288, "bicubic", 80.608),
    _entry("b3", 1, "efficientnet_b3_rwightman", "b3899882", 320, 300, "bicubic", 82.008),
    _entry("b4", 1, "efficientnet_b4_rwightman", "23ab8bcd", 384, 380, "bicubic", 83.384),
    _entry("b5", 1, "efficientnet_b5_lukemelas", "1a07897c", 456, 456, "bicubic", 83.444, note=_SAME),
    _entry("b6", 1, "efficientnet_b6_lukemelas", "24a108a5", 528, 528, "bicubic", 84.008, note=_SAME),
    _entry("b7", 1, "efficientnet_b7_lukemelas", "c5b4e57e", 600, 600, "bicubic", 84.122, note=_SAME),
    _entry("v2_s", 1, "efficientnet_v2_s", "dd5fe13b", 384, 384, "bilinear", 84.228),
    _entry("v2_m", 1, "efficientnet_v2_m", "dc08266a", 480, 480, "bilinear", 85.112),
    _entry("v2_l", 1, "efficientnet_v2_l", "59c71312", 480, 480, "bicubic", 85.808, HALF_MEAN_STD, note=_SAME),
)
# fmt: on
