"""The weights of EfficientNet-PyTorch: Google's AutoAugment and AdvProp checkpoints.

Facts: efficientnet_pytorch 0.7.1 ``utils.py`` (``url_map``, ``url_map_advprop``) and lukemelas/EfficientNet-PyTorch
``examples/imagenet/main.py`` (evaluation: the short side becomes the size, nothing is cut off it). The digits in a
file's name begin its sha256 (``rename.sh`` there). The README's accuracies are those of the paper's first version: they
were neither taken with these weights nor with this evaluation, and it has none for AdvProp.
"""

from __future__ import annotations

from dataclasses import replace

from effnet.arch import ARCHS
from effnet.metadata import Numerics
from effnet.weights import default_preprocessing
from effnet.weights.catalog.entry import HALF_MEAN_STD, IMAGENET_MEAN_STD, CatalogEntry

_BASE_URL = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/"
_CITATION = "efficientnet_pytorch 0.7.1 utils.py; lukemelas/EfficientNet-PyTorch README.md, examples/imagenet/main.py"
_ACCURACY_NOTE = "the accuracy is the paper's first version's, not these weights' own"

# fmt: off
#       sha256      README
_AUTOAUGMENT = {
    "b0": ("355c32eb", 76.3), "b1": ("f1951068", 78.8), "b2": ("8bb594d6", 79.8), "b3": ("5fb5a3c3", 81.1),
    "b4": ("6ed6700e", 82.6), "b5": ("b6417697", 83.3), "b6": ("c76e70fd", 84.0), "b7": ("dcc49843", 84.4),
}
_ADVPROP = {
    "b0": "b64d5a18", "b1": "0f3ce85a", "b2": "6e9d97e5", "b3": "cdd7c0f4", "b4": "44fb3a87",
    "b5": "86493f6b", "b6": "ac80338e", "b7": "4652b6dd", "b8": "22a8fe65",
}
# fmt: on


def _entry(arch: str, digits: str, top1: float | None, *, advprop: bool) -> CatalogEntry:
    mean, std = HALF_MEAN_STD if advprop else IMAGENET_MEAN_STD
    return CatalogEntry(
        name=f"{arch}/lukemelas{'_advprop' * advprop}",
        arch=arch,
        layout="lukemelas",
        publisher="lukemelas",
        numerics=Numerics(),
        preprocess=replace(default_preprocessing.lukemelas_preprocess(ARCHS[arch]), mean=mean, std=std),
        citation=_CITATION,
        top1=top1,
        license="apache-2.0",
        url=f"{_BASE_URL}{'adv-' * advprop}efficientnet-{arch}-{digits}.pth",
        hash=f"sha256:{digits}",
        note=_ACCURACY_NOTE if top1 else "",
    )


ENTRIES = (
    *(_entry(arch, digits, top1, advprop=False) for arch, (digits, top1) in _AUTOAUGMENT.items()),
    *(_entry(arch, digits, None, advprop=True) for arch, digits in _ADVPROP.items()),
)
