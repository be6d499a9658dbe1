"""What each ecosystem's networks compute with and expect, if their files do not state it: numerics and preprocessing.

| networks | padding | ε | momentum |
|---|---|---|---|
| Google's in TensorFlow, Keras | same | 1e-3 | 0.01, V2 0.1 |
| lukemelas | same | 1e-3 | 0.01 |
| transformers | same | 1e-3 | 0.99 (TensorFlow's number, which means the opposite in PyTorch) |
| timm, ported (``tf_…``), pruned B1–B3 | same | 1e-3 | 0.1 |
| timm, native | symmetric | 1e-5 | 0.1 |
| torchvision B0–B4 | symmetric | 1e-5 | 0.1 |
| torchvision B5–B7, V2 | symmetric | 1e-3 | 0.01, V2 0.1 |

Momentum is in PyTorch's sense: TensorFlow's 0.99 is 0.01. It only matters in training, where this package uses 0.01
(`effnet.net.layers.BATCH_NORM_MOMENTUM`) unless the recipe states another. Padding and ε belong to the weights: each
model carries them as `effnet.Numerics`, and what its file does not state is taken from here.

Preprocessing has one function per ecosystem, since the same weights were evaluated with different preprocessing:
docs/preprocessing.md.

Sources: tensorflow/tpu efficientnet (``preprocessing.py`` before commit 22d5cab: crop r/(r+32); ``main.py``: bilinear
for Lite and EdgeTPU; ``eval_ckpt_main.py``: AdvProp) and its lite and edgetpu builders; google/automl efficientnetv2
``preprocessing.py`` (S–XL: squash at 320 pixels and above) and ``preprocess_legacy.py`` (V2-B0–B3).
"""

from dataclasses import replace

from effnet.arch import Arch, canonical_name
from effnet.arch.variants import RELATED_ARCHS
from effnet.metadata import Numerics, Preprocess, default_crop_fraction

TENSORFLOW = Numerics("same", 1e-3)
TIMM_NATIVE = Numerics("symmetric", 1e-5)
KERAS_MOMENTUM = {"v1": 0.99, "v2": 0.9}  # in TensorFlow's sense

# Mean and standard deviation for values in [0, 1]
_MEAN_STD_127 = ((127 / 255,) * 3, (128 / 255,) * 3)  # (x − 127) / 128
_MEAN_STD_128 = ((128 / 255,) * 3, (128 / 255,) * 3)  # (x − 128) / 128
_MEAN_STD_HALF = ((0.5,) * 3, (0.5,) * 3)  # x · 2/255 − 1

_RELATED = {arch.name for arch in RELATED_ARCHS}

# arch → (mean and std, interpolation, resize); all others are like V1
_V1_DEFAULT = ((Preprocess.mean, Preprocess.std), "bicubic", "crop")
_OFFICIAL = {
    "b8": (_MEAN_STD_HALF, "bicubic", "crop"),
    **dict.fromkeys(("lite0", "lite1", "lite2", "lite3", "lite4"), (_MEAN_STD_127, "bilinear", "crop")),
    **dict.fromkeys(("edge_s", "edge_m", "edge_l"), (_MEAN_STD_127, "bilinear", "crop")),
    **dict.fromkeys(("v2_s", "v2_m", "v2_l", "v2_xl"), (_MEAN_STD_128, "bilinear", "squash")),
}


def default_preprocess(arch: Arch) -> Preprocess:
    """Return the official preprocessing at the architecture's own resolution, resized by PIL as timm does.

    Lite3 and Lite4 have 280 and 300 pixels, as in the official builder; timm evaluates them at 300 and 380. Of the
    family's relatives it is what timm evaluates its default weights with.
    """
    if arch.name in _RELATED:
        from effnet.weights.catalog import timm  # which may import this module

        stated = (entry.preprocess for entry in timm.ENTRIES if entry.arch == arch.name)
        untrained = Preprocess((arch.resolution,) * 2)  # as timm's configuration of it
        return replace(next(stated, untrained), size=(arch.resolution,) * 2)
    (mean, std), interpolation, resize = _OFFICIAL.get(arch.name, _V1_DEFAULT)
    crop = default_crop_fraction(arch.resolution) if resize == "crop" else 1.0
    return Preprocess((arch.resolution,) * 2, crop, resize, interpolation, mean, std)


def tensorflow_preprocess(arch: Arch) -> Preprocess:
    """Return the same, resized by TensorFlow, as the published accuracies were measured.

    For TensorFlow's, Keras' and TFLite's files: V2-S–XL use the resize of TensorFlow 2, all others of TensorFlow 1.
    """
    official = default_preprocess(arch)
    return replace(official, resampling="tensorflow" if official.resize == "squash" else "tensorflow1")


def torchvision_preprocess(arch: Arch) -> Preprocess:
    """Return what torchvision evaluates its default weights with; the default if it does not have the network."""
    from effnet.weights.catalog import torchvision  # which imports this module

    stated = (entry.preprocess for entry in torchvision.ENTRIES if entry.arch == arch.name)
    return next(stated, default_preprocess(arch))


def lukemelas_preprocess(arch: Arch) -> Preprocess:
    """Return what EfficientNet-PyTorch evaluates with (``examples/imagenet/main.py``): the default without cropping.

    Lite's weights, of its fork, are Google's: without cropping they lose 2.6 points, with ImageNet's mean and std 11.
    """
    official = default_preprocess(arch)
    return official if arch.name.startswith("lite") else replace(official, crop_fraction=1.0)


def huggingface_preprocess(arch: Arch) -> Preprocess:
    """Return what transformers' processor does with Google's files: squash, with nearest-neighbor interpolation.

    Its ``image_std`` are the square roots of these, applied twice (``include_top``). A ``preprocessor_config.json``
    beside the weights takes precedence.
    """
    return replace(default_preprocess(arch), crop_fraction=1.0, resize="squash", interpolation="nearest")


def timm_model_numerics(model: str) -> Numerics:
    """Return what timm's network of this name computes with. Raises ``ValueError`` if the name is of no such network.

    Example:
        >>> timm_model_numerics("efficientnet_b0").padding, timm_model_numerics("tf_efficientnet_b0").padding
        ('symmetric', 'same')
    """
    name = canonical_name(model)
    ported = model.lower().rpartition("/")[2].startswith("tf_") or (name.startswith("b") and name.endswith("_pruned"))
    return TENSORFLOW if ported else TIMM_NATIVE


def timm_numerics(arch: Arch) -> Numerics:
    """Return what is assumed of a file in timm's layout: its only network's, or the official numerics.

    Of the relatives there is one network each; of the family a native and a ported one, with the same tensors.
    """
    return timm_model_numerics(arch.name) if arch.name in _RELATED else TENSORFLOW


def torchvision_numerics(arch: Arch) -> Numerics:
    """Return what torchvision's network of this name computes with."""
    default_eps = arch.name in ("b0", "b1", "b2", "b3", "b4")  # torch's own; the others state 1e-3
    return Numerics("symmetric", 1e-5 if default_eps else 1e-3)


def tensorflow_numerics(arch: Arch) -> Numerics:
    """Return the official numerics; EdgeTPU's networks stride in the projection *after* a fused convolution.

    With the stride moved into the fused convolution, its padding is symmetric (``MBConvBlockWithoutDepthwise``;
    tensorflow/tpu#660 takes the two for equal, which 'same' padding does not make them).
    """
    return replace(TENSORFLOW, fused_padding="symmetric") if arch.name.startswith("edge_") else TENSORFLOW
