"""What the official weights of each architecture expect: numerics and preprocessing, for files that do not say.

Sources: tensorflow/tpu efficientnet (``preprocessing.py`` before commit 22d5cab: crop r/(r+32)) and its lite and
edgetpu folders; google/automl efficientnetv2 ``preprocessing.py`` (S–XL: squash at 320 pixels and above).
"""

from __future__ import annotations

from effnet.arch import Arch
from effnet.contract import Numerics, Preprocess, crop_fraction

# Mean and standard deviation for values in [0, 1]
_127 = ((127 / 255,) * 3, (128 / 255,) * 3)  # (x − 127) / 128
_128 = ((128 / 255,) * 3, (128 / 255,) * 3)  # (x − 128) / 128
_ADVPROP = ((0.5,) * 3, (0.5,) * 3)  # x · 2/255 − 1
_IMAGENET = (Preprocess.mean, Preprocess.std)

# arch → (mean and std, interpolation, resize); whatever is not here was trained in V1's way
_V1 = (_IMAGENET, "bicubic", "crop")
_EXPECTED = {
    "b8": (_ADVPROP, "bicubic", "crop"),
    **dict.fromkeys(("lite0", "lite1", "lite2", "lite3", "lite4"), (_127, "bilinear", "crop")),
    **dict.fromkeys(("edge_s", "edge_m", "edge_l"), (_127, "bilinear", "crop")),
    **dict.fromkeys(("v2_s", "v2_m", "v2_l", "v2_xl"), (_128, "bilinear", "squash")),
}


def numerics(arch: Arch) -> Numerics:
    """Padding and batch-norm ε of the official weights: TensorFlow's for the whole family."""
    return Numerics()


def preprocess(arch: Arch) -> Preprocess:
    """Preprocessing of the official weights at the architecture's own resolution."""
    (mean, std), interpolation, resize = _EXPECTED.get(arch.name, _V1)
    size = (arch.resolution, arch.resolution)
    return Preprocess(size, crop_fraction(arch.resolution), resize, interpolation, mean, std)
