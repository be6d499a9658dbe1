"""What published weights of each architecture expect where their files do not say: numerics and preprocessing.

One function an ecosystem, since the same numbers were measured with unlike pictures: see docs/preprocessing.md.

Sources: tensorflow/tpu efficientnet (``preprocessing.py`` before commit 22d5cab: crop r/(r+32); ``main.py``: bilinear
for Lite and EdgeTPU; ``eval_ckpt_main.py``: AdvProp) and its lite and edgetpu builders; google/automl efficientnetv2
``preprocessing.py`` (S–XL: squash at 320 pixels and above) and ``preprocess_legacy.py`` (V2-B0–B3).
"""

from __future__ import annotations

from dataclasses import replace

from effnet.arch import Arch
from effnet.metadata import Numerics, Preprocess, default_crop_fraction

# Mean and standard deviation for values in [0, 1]
_MEAN_STD_127 = ((127 / 255,) * 3, (128 / 255,) * 3)  # (x − 127) / 128
_MEAN_STD_128 = ((128 / 255,) * 3, (128 / 255,) * 3)  # (x − 128) / 128
_MEAN_STD_HALF = ((0.5,) * 3, (0.5,) * 3)  # x · 2/255 − 1
_MEAN_STD_IMAGENET = (Preprocess.mean, Preprocess.std)

# arch → (mean and std, interpolation, resize); whatever is not here was trained in V1's way
_V1_DEFAULT = (_MEAN_STD_IMAGENET, "bicubic", "crop")
_OFFICIAL = {
    "b8": (_MEAN_STD_HALF, "bicubic", "crop"),
    **dict.fromkeys(("lite0", "lite1", "lite2", "lite3", "lite4"), (_MEAN_STD_127, "bilinear", "crop")),
    **dict.fromkeys(("edge_s", "edge_m", "edge_l"), (_MEAN_STD_127, "bilinear", "crop")),
    **dict.fromkeys(("v2_s", "v2_m", "v2_l", "v2_xl"), (_MEAN_STD_128, "bilinear", "squash")),
}

# torchvision ``models/efficientnet.py``, the weights of each network by default:
# arch → (side that is resized to, side that is cut out, interpolation, mean and std)
_TORCHVISION = {
    "b0": (256, 224, "bicubic", _MEAN_STD_IMAGENET),
    "b1": (255, 240, "bilinear", _MEAN_STD_IMAGENET),  # IMAGENET1K_V2; V1 is 256, 240, bicubic
    "b2": (288, 288, "bicubic", _MEAN_STD_IMAGENET),
    "b3": (320, 300, "bicubic", _MEAN_STD_IMAGENET),
    "b4": (384, 380, "bicubic", _MEAN_STD_IMAGENET),
    "b5": (456, 456, "bicubic", _MEAN_STD_IMAGENET),
    "b6": (528, 528, "bicubic", _MEAN_STD_IMAGENET),
    "b7": (600, 600, "bicubic", _MEAN_STD_IMAGENET),
    "v2_s": (384, 384, "bilinear", _MEAN_STD_IMAGENET),
    "v2_m": (480, 480, "bilinear", _MEAN_STD_IMAGENET),
    "v2_l": (480, 480, "bicubic", _MEAN_STD_HALF),
}


def default_numerics(arch: Arch) -> Numerics:
    """Padding and batch-norm ε of the official weights: TensorFlow's for the whole family."""
    return Numerics()


def default_preprocess(arch: Arch) -> Preprocess:
    """Preprocessing of the official weights at the architecture's own resolution, resized by PIL as timm does.

    Lite3 and Lite4 are 280 and 300 pixels, as the official builder has them; timm evaluates them at 300 and 380.
    """
    (mean, std), interpolation, resize = _OFFICIAL.get(arch.name, _V1_DEFAULT)
    crop = default_crop_fraction(arch.resolution) if resize == "crop" else 1.0
    return Preprocess((arch.resolution,) * 2, crop, resize, interpolation, mean, std)


def tensorflow_preprocess(arch: Arch) -> Preprocess:
    """The same, resized by TensorFlow: as the published accuracies were taken. For its own, Keras' and TFLite's files.

    V1, Lite, EdgeTPU and V2-B0–B3 with the resize of TensorFlow 1, V2-S–XL with that of TensorFlow 2.
    """
    official = default_preprocess(arch)
    return replace(official, resampling="tensorflow" if official.resize == "squash" else "tensorflow1")


def torchvision_preprocess(arch: Arch) -> Preprocess:
    """What torchvision evaluates its own weights with; the official way for a network that it does not have."""
    if arch.name not in _TORCHVISION:
        return default_preprocess(arch)
    resized, size, interpolation, (mean, std) = _TORCHVISION[arch.name]
    return Preprocess((size, size), size / resized, "crop", interpolation, mean, std)


def lukemelas_preprocess(arch: Arch) -> Preprocess:
    """What EfficientNet-PyTorch evaluates with (``examples/imagenet/main.py``): the official way, uncut."""
    return replace(default_preprocess(arch), crop_fraction=1.0)


def huggingface_preprocess(arch: Arch) -> Preprocess:
    """What transformers' processor does with Google's files: squashed, every pixel the nearest one.

    Its ``image_std`` are the roots of these, applied twice (``include_top``). A ``preprocessor_config.json`` beside the
    weights says more.
    """
    return replace(default_preprocess(arch), crop_fraction=1.0, resize="squash", interpolation="nearest")
