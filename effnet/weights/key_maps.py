"""Key maps: what each ecosystem calls the tensors of the family, as tables that are read in both directions.

A table has one row per operation: our name within the layer, and the ecosystem's names of the convolution and of the
batch norm. `LAYOUTS` adds to each table what else a layout is: axes, architectures, defaults and file suffixes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from effnet.arch import Arch, Layer, layers, operations, tensor_shapes
from effnet.metadata import Numerics, Preprocess
from effnet.weights import defaults

KeyRows = Mapping[str, tuple[str, str]]  # our operation within its layer → their convolution, their batch norm
BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")  # ours


@dataclass(frozen=True)
class TensorNames:
    """What an ecosystem calls the tensors of one operation."""

    conv: str = "weight"
    depthwise: str = "weight"
    bias: str = "bias"
    norm: tuple[str, str, str, str] = BATCH_NORM_TENSORS
    separator: str = "."


_TENSORFLOW_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
TENSORFLOW_NAMES = TensorNames("kernel", "depthwise_kernel", norm=_TENSORFLOW_NORM, separator="/")


@dataclass(frozen=True)
class KeyTable:
    """An ecosystem's names.

    ``rows`` are for each kind of layer; "mbconv 1" and "fused 1" are blocks that do not expand, where they differ.
    ``prefix`` gives what precedes a layer's names from the layer and the number of blocks before it.
    """

    rows: Mapping[str, KeyRows]
    prefix: Callable[[Layer, int], str]
    tensors: TensorNames = TensorNames()  # PyTorch's

    def rows_of(self, layer: Layer) -> KeyRows:
        """Return the rows for the operations of ``layer``."""
        unexpanded = f"{layer.kind} 1"
        return self.rows[unexpanded if unexpanded in self.rows and not layer.expanded else layer.kind]

    def key_map(self, arch: Arch, classes: int = 1000) -> dict[str, str]:
        """Return our tensor name → theirs, for every tensor of the network."""
        found, blocks, names = {}, 0, self.tensors
        for layer in layers(arch, classes):
            rows, prefix = self.rows_of(layer), self.prefix(layer, blocks)
            blocks += layer.kind in ("mbconv", "fused")
            for operation in operations(layer):
                conv, norm = rows[operation.name.removeprefix(layer.name).lstrip(".")]
                kernel = f"{prefix}{conv}{names.separator}{names.depthwise if operation.groups > 1 else names.conv}"
                if operation.norm:
                    found[f"{operation.name}.conv.weight"] = kernel
                    for ours, theirs in zip(BATCH_NORM_TENSORS, names.norm, strict=True):
                        found[f"{operation.name}.norm.{ours}"] = f"{prefix}{norm}{names.separator}{theirs}"
                else:
                    found[f"{operation.name}.weight"] = kernel
                    found[f"{operation.name}.bias"] = f"{prefix}{conv}{names.separator}{names.bias}"
        return found


def _block_index(layer: Layer) -> int:
    return int(layer.name.split(".")[1])  # in its stage, from 0


def _squeeze_excite(reduce: str, expand: str) -> dict[str, tuple[str, str]]:
    return {"squeeze_excite.reduce": (reduce, ""), "squeeze_excite.expand": (expand, "")}


_B0_B7 = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7")

# timm, native and ``tf_`` models alike -------------------------------------------------------------------------------

_TIMM_SE = _squeeze_excite("se.conv_reduce", "se.conv_expand")
TIMM = KeyTable(
    {
        "stem": {"": ("conv_stem", "bn1")},
        "mbconv": {
            "expand": ("conv_pw", "bn1"),
            "depthwise": ("conv_dw", "bn2"),
            "project": ("conv_pwl", "bn3"),
            **_TIMM_SE,
        },
        # Its DepthwiseSeparableConv, EdgeResidual and ConvBnAct
        "mbconv 1": {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2"), **_TIMM_SE},
        "fused": {"fused": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2"), **_TIMM_SE},
        "fused 1": {"fused": ("conv", "bn1"), **_TIMM_SE},
        "head": {"": ("conv_head", "bn2")},
        "classifier": {"": ("classifier", "")},
    },
    lambda layer, _: f"blocks.{layer.stage - 1}.{_block_index(layer)}." if "." in layer.name else "",
)

# torchvision ---------------------------------------------------------------------------------------------------------

# Source: pytorch/vision ``models/efficientnet.py``. Its modules are numbered: a block's convolutions are ``block.0``,
# ``block.1`` …, each a pair of convolution (0) and batch norm (1), with squeeze-excite counted among them; the stem is
# ``features.0``, the head the last one.


def _torchvision_prefix(layer: Layer, _: int) -> str:
    if layer.kind == "classifier":
        return ""
    block = f"{_block_index(layer)}.block." if "." in layer.name else ""
    return f"features.{layer.stage}.{block}"


TORCHVISION = KeyTable(
    {
        "stem": {"": ("0", "1")},
        "mbconv": {
            "expand": ("0.0", "0.1"),
            "depthwise": ("1.0", "1.1"),
            **_squeeze_excite("2.fc1", "2.fc2"),
            "project": ("3.0", "3.1"),
        },
        "mbconv 1": {"depthwise": ("0.0", "0.1"), **_squeeze_excite("1.fc1", "1.fc2"), "project": ("2.0", "2.1")},
        "fused": {"fused": ("0.0", "0.1"), "project": ("1.0", "1.1")},
        "head": {"": ("0", "1")},
        "classifier": {"": ("classifier.1", "")},  # 0 is the dropout
    },
    _torchvision_prefix,
)

# lukemelas' EfficientNet-PyTorch -------------------------------------------------------------------------------------

# Source: ``model.py`` of 0.7.1. Blocks are counted through the whole network. Weights trained with AutoAugment and with
# AdvProp, whose images are scaled to −1 … 1, have the same names: no file says which it is. Lite is that of its fork
# ``efficientnet_lite_pytorch``.

LUKEMELAS_ARCHS = (*_B0_B7, "b8", "l2", "lite0", "lite1", "lite2", "lite3", "lite4")
LUKEMELAS = KeyTable(
    {
        "stem": {"": ("_conv_stem", "_bn0")},
        "mbconv": {
            "expand": ("_expand_conv", "_bn0"),
            "depthwise": ("_depthwise_conv", "_bn1"),
            **_squeeze_excite("_se_reduce", "_se_expand"),
            "project": ("_project_conv", "_bn2"),
        },
        "head": {"": ("_conv_head", "_bn1")},
        "classifier": {"": ("_fc", "")},
    },
    lambda layer, block: f"_blocks.{block}." if "." in layer.name else "",
)

# Hugging Face transformers -------------------------------------------------------------------------------------------

# Source: ``models/efficientnet/modeling_efficientnet.py``.

HUGGINGFACE_ARCHS = (*_B0_B7, "b8", "l2")  # what its configuration can describe
HUGGINGFACE = KeyTable(
    {
        "stem": {"": ("embeddings.convolution", "embeddings.batchnorm")},
        "mbconv": {
            "expand": ("expansion.expand_conv", "expansion.expand_bn"),
            "depthwise": ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
            **_squeeze_excite("squeeze_excite.reduce", "squeeze_excite.expand"),
            "project": ("projection.project_conv", "projection.project_bn"),
        },
        "head": {"": ("encoder.top_conv", "encoder.top_bn")},
        "classifier": {"": ("classifier", "")},
    },
    lambda layer, block: {"stem": "efficientnet.", "head": "efficientnet.", "classifier": ""}.get(
        layer.kind, f"efficientnet.encoder.blocks.{block}."
    ),
)

# Official TensorFlow checkpoints -------------------------------------------------------------------------------------

# Of tensorflow/tpu efficientnet (V1, Lite, EdgeTPU) and google/automl efficientnetv2. A variable is named by the
# network, the part and the layer: ``efficientnet-b0/blocks_0/se/conv2d/kernel``. Blocks are counted through; within
# one, equal layers are counted in the order of use, so that one name means the expansion in one block and the
# projection in the next. The table leaves out the network's name, which can be anything.
#
# Sources: tensorflow/tpu ``models/official/efficientnet/efficientnet_model.py`` and ``utils.py`` (the first
# ``BatchNormalization`` is called ``tpu_…``); google/automl ``efficientnetv2/effnetv2_model.py``; tensorflow/tpu#460
# for EdgeTPU. The names agree with what lukemelas' ``convert_tf_to_pt`` and mmpretrain's
# ``efficientnet_to_mmpretrain.py`` expect of the published files.

_TF_NORMS = tuple(f"tpu_batch_normalization{count}" for count in ("", "_1", "_2"))
_TF_SE = _squeeze_excite("se/conv2d", "se/conv2d_1")
TENSORFLOW = KeyTable(
    {
        "stem": {"": ("conv2d", _TF_NORMS[0])},
        "mbconv": {
            "expand": ("conv2d", _TF_NORMS[0]),
            "depthwise": ("depthwise_conv2d", _TF_NORMS[1]),
            "project": ("conv2d_1", _TF_NORMS[2]),
            **_TF_SE,
        },
        "mbconv 1": {"depthwise": ("depthwise_conv2d", _TF_NORMS[0]), "project": ("conv2d", _TF_NORMS[1]), **_TF_SE},
        # Also the unexpanded one, which has no projection
        "fused": {"fused": ("conv2d", _TF_NORMS[0]), "project": ("conv2d_1", _TF_NORMS[1]), **_TF_SE},
        "head": {"": ("conv2d", _TF_NORMS[0])},
        "classifier": {"": ("dense", "")},
    },
    lambda layer, block: {"stem": "stem/", "head": "head/", "classifier": "head/"}.get(layer.kind, f"blocks_{block}/"),
    TENSORFLOW_NAMES,
)
_EMA_SUFFIX = "/ExponentialMovingAverage"
_COUNTERS = {"global_step", "beta1_power", "beta2_power"}
_NETWORK_PART = re.compile(r"(?:^|/)(?=(?:stem|head|blocks_\d+)/)")  # where the network's own name ends
_PLAIN_NORM = re.compile(r"/batch_normalization(?=(_\d+)?/)")

# keras.applications --------------------------------------------------------------------------------------------------

# "block1a_dwconv/kernel" is a layer and its tensor, as Keras 3 calls them; Keras 2 adds ":0" and "depthwise_" to
# kernels. Stages count from 1, blocks from "a". V2 calls its depthwise convolution "dwconv2".
#
# V1 pads by hand before every stride, for the input size that it was built with: then it is TensorFlow's 'same' at any
# size. Built for no size (``input_shape=(None, None, 3)``) it pads as for even maps, and is 'same' only where every map
# that is halved is even. Sources: keras-team/keras ``applications/efficientnet.py``, ``efficientnet_v2.py``.

KERAS_ARCHS = (*_B0_B7, "v2_b0", "v2_b1", "v2_b2", "v2_b3", "v2_s", "v2_m", "v2_l")
_KERAS_PROJECT = ("project_conv", "project_bn")
_KERAS_SE = _squeeze_excite("se_reduce", "se_expand")
KERAS_V1 = KeyTable(
    {
        "stem": {"": ("stem_conv", "stem_bn")},
        "mbconv": {
            "expand": ("expand_conv", "expand_bn"),
            "depthwise": ("dwconv", "bn"),
            "project": _KERAS_PROJECT,
            **_KERAS_SE,
        },
        "fused": {"fused": ("expand_conv", "expand_bn"), "project": _KERAS_PROJECT, **_KERAS_SE},
        "fused 1": {"fused": _KERAS_PROJECT, **_KERAS_SE},
        "head": {"": ("top_conv", "top_bn")},
        "classifier": {"": ("predictions", "")},
    },
    lambda layer, _: f"block{layer.stage}{chr(ord('a') + _block_index(layer))}_" if "." in layer.name else "",
    replace(TENSORFLOW_NAMES, depthwise="kernel"),
)
_KERAS_V2_MBCONV = {**KERAS_V1.rows["mbconv"], "depthwise": ("dwconv2", "bn")}
KERAS_V2 = replace(KERAS_V1, rows={**KERAS_V1.rows, "mbconv": _KERAS_V2_MBCONV})


def is_v2(arch: Arch) -> bool:
    """Return whether ``arch`` is of EfficientNetV2: whether it has fused blocks."""
    return any(stage.block == "fused" for stage in arch.stages)


def keras_table(arch: Arch) -> KeyTable:
    """Return the table of Keras' V1 or V2."""
    return KERAS_V2 if is_v2(arch) else KERAS_V1


# TFLite: folded convolutions in the order in which they run ----------------------------------------------------------

# Names of tensors in a ``.tflite`` are not reliable; its operators are. So the reader names every convolution by what
# the graph does with it, ``7_depthwise_stride2_relu6``: a network of the same shapes that strides or activates
# differently has other names.


def tflite_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Return our tensor name → that of the convolution in the same place, for every tensor that folding leaves."""
    found: dict[str, str] = {}
    order = ((layer.kind, operation) for layer in layers(arch, classes) for operation in operations(layer))
    for index, (layer, operation) in enumerate(order):
        kind = "linear" if layer == "classifier" else "depthwise" if operation.groups > 1 else "conv"
        activation = arch.activation if operation.activation == "act" else operation.activation
        theirs = tflite_name(index, kind, operation.stride, activation)
        found[f"{operation.name}.conv.weight" if operation.norm else f"{operation.name}.weight"] = f"{theirs}/weight"
        found[f"{operation.name}.norm.bias" if operation.norm else f"{operation.name}.bias"] = f"{theirs}/bias"
    return found


def tflite_name(index: int, kind: str, stride: int = 1, activation: str = "") -> str:
    """Return the name of the ``index``-th convolution: ``7_depthwise_stride2_relu6``, ``48_linear``."""
    return "_".join(filter(None, (str(index), kind, f"stride{stride}" if stride > 1 else "", activation)))


# From what files contain to the names of the tables ------------------------------------------------------------------


@dataclass(frozen=True)
class CleanedTensors:
    """Tensors under a layout's own names, and notes for the user on how they were found."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def clean_tensorflow(variables: Mapping[str, Tensor]) -> CleanedTensors:
    """Name variables as in the table, without optimizer slots and counters; moving averages take precedence."""
    if not any(_NETWORK_PART.search(name) for name in variables):
        return CleanedTensors(dict(variables))
    averages, weights = {}, {}
    for name, value in variables.items():
        before, _, last = name.rpartition("/")
        if name.endswith(_EMA_SUFFIX):
            averages[before] = value
        elif before not in variables and last not in _COUNTERS:  # a variable's variable is an optimizer slot
            weights[name] = value
    weights |= averages
    prefixes = {name[: found.end()] for name in weights if (found := _NETWORK_PART.search(name))}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    tensors = {
        _PLAIN_NORM.sub("/tpu_batch_normalization", name.removeprefix(prefix)): value for name, value in weights.items()
    }
    note = f"using the moving averages of {len(averages)} of its {len(tensors)} variables"
    return CleanedTensors(tensors, (note,) if averages else ())


# Layouts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axes:
    """Which of our axes, (out, in, height, width) or (out, in), each axis of an ecosystem's kernels is."""

    conv: tuple[int, ...] = (0, 1, 2, 3)
    depthwise: tuple[int, ...] = (0, 1, 2, 3)
    linear: tuple[int, ...] = (0, 1)

    def order(self, name: str, ndim: int) -> tuple[int, ...]:
        """Return the axes of *our* tensor ``name`` of ``ndim`` dimensions in their order."""
        if ndim == 4:
            return self.depthwise if name.endswith("depthwise.conv.weight") else self.conv
        return self.linear if ndim == 2 else tuple(range(ndim))


HWIO = Axes((2, 3, 1, 0), (2, 3, 0, 1), (1, 0))  # TensorFlow and Keras; depthwise: (height, width, channels, 1)
OHWI = Axes((0, 2, 3, 1), (1, 2, 3, 0))  # TFLite; depthwise: (1, height, width, channels)


@dataclass(frozen=True)
class Layout:
    """How one ecosystem stores the weights of the family.

    ``numerics`` and ``preprocess`` are assumed if neither the file nor the catalog states them; with ``fixed_numerics``
    the ecosystem's networks can compute with no others. ``clean`` turns what its files contain (averages beside the
    weights, optimizer slots) into the names of the table.

    Files may contain the network under any prefix. ``root`` is what the table's names of the backbone begin with and
    other code may leave out or call otherwise; ``backbone`` matches the names of the backbone without it, also those
    of relatives that have more or other tensors than any network here.
    """

    key_map: Callable[[Arch, int], dict[str, str]]  # (arch, classes) → our tensor name → theirs
    axes: Axes = Axes()
    archs: tuple[str, ...] = ()  # what it has networks for; (): every network that the table can name
    numerics: Callable[[Arch], Numerics] = lambda _: defaults.TENSORFLOW
    preprocess: Callable[[Arch], Preprocess] = defaults.default_preprocess
    fixed_numerics: bool = False
    folds_batch_norm: bool = False  # batch norm is folded into weights and biases
    clean: Callable[[Mapping[str, Tensor]], CleanedTensors] = lambda tensors: CleanedTensors(dict(tensors))
    root: str = ""
    backbone: str = ""  # a regular expression
    tensors: TensorNames = TensorNames()
    suffixes: tuple[str, ...] = (".safetensors", ".pth", ".pt")  # of the files that are written

    def supports(self, arch: Arch) -> bool:
        """Return whether the ecosystem has a network of this name."""
        return not self.archs or arch.name in self.archs


LAYOUTS: dict[str, Layout] = {
    "effnet": Layout(
        lambda arch, classes: {name: name for name in tensor_shapes(arch, classes)},
        backbone=r"(stem|stage\d+|head)\.",
        suffixes=(".safetensors",),
    ),
    "timm": Layout(TIMM.key_map, backbone=r"(conv_stem|bn1|blocks|conv_head|bn2)\.", numerics=defaults.timm_numerics),
    "torchvision": Layout(
        TORCHVISION.key_map,
        archs=(*_B0_B7, "v2_s", "v2_m", "v2_l"),
        numerics=defaults.torchvision_numerics,
        preprocess=defaults.torchvision_preprocess,
        fixed_numerics=True,
        root="features.",
        backbone=r"\d+\.",
    ),
    "lukemelas": Layout(
        LUKEMELAS.key_map,
        archs=LUKEMELAS_ARCHS,
        preprocess=defaults.lukemelas_preprocess,
        fixed_numerics=True,
        backbone=r"(_conv_stem|_bn0|_blocks|_conv_head|_bn1)\.",
    ),
    "huggingface": Layout(
        HUGGINGFACE.key_map,
        archs=HUGGINGFACE_ARCHS,
        preprocess=defaults.huggingface_preprocess,
        fixed_numerics=True,
        root="efficientnet.",
        backbone=r"(embeddings|encoder)\.",
        suffixes=(".safetensors", ".bin"),
    ),
    "tensorflow": Layout(
        TENSORFLOW.key_map,
        axes=HWIO,
        numerics=defaults.tensorflow_numerics,
        preprocess=defaults.tensorflow_preprocess,
        clean=clean_tensorflow,
        backbone=r"(stem|blocks_\d+)/|head/(conv2d|tpu_batch_normalization)/",
        tensors=TENSORFLOW_NAMES,
        suffixes=(".index",),
    ),
    "keras": Layout(
        lambda arch, classes: keras_table(arch).key_map(arch, classes),
        axes=HWIO,
        archs=KERAS_ARCHS,
        preprocess=defaults.tensorflow_preprocess,
        fixed_numerics=True,
        backbone=r"(stem|top)_(conv|bn)/|block\d+[a-z]_",
        tensors=KERAS_V1.tensors,
        suffixes=(".h5", ".weights.h5", ".keras"),
    ),
    "tflite": Layout(
        tflite_key_map,
        axes=OHWI,
        preprocess=defaults.tensorflow_preprocess,
        folds_batch_norm=True,
        backbone=r"\d+_(conv|depthwise)",
        tensors=TensorNames(separator="/"),
        suffixes=(".tflite",),
    ),
}
