"""What a layout is, and how its rows are read: one row an operation, from left to right and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from effnet.arch import Arch, Layer, layers, operations, tensor_shapes
from effnet.metadata import Numerics, Preprocess
from effnet.weights import default_preprocessing

if TYPE_CHECKING:
    from torch import Tensor

KeyRows = Mapping[str, tuple[str, str]]  # our operation within its layer → their convolution, their batch norm


@dataclass(frozen=True)
class TensorNames:
    """What an ecosystem calls the tensors of one operation."""

    conv: str = "weight"
    depthwise: str = "weight"
    bias: str = "bias"
    norm: tuple[str, str, str, str] = ("weight", "bias", "running_mean", "running_var")
    separator: str = "."


TORCH_NAMES = TensorNames()


TENSORFLOW_NAMES = TensorNames(
    "kernel", "depthwise_kernel", "bias", ("gamma", "beta", "moving_mean", "moving_variance"), "/"
)


BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")  # ours


@dataclass(frozen=True)
class Axes:
    """Which of our axes, (out, in, height, width) or (out, in), each axis of an ecosystem's kernels is."""

    conv: tuple[int, ...] = (0, 1, 2, 3)
    depthwise: tuple[int, ...] = (0, 1, 2, 3)
    linear: tuple[int, ...] = (0, 1)

    def order(self, name: str, axes: int) -> tuple[int, ...]:
        """The axes of *our* tensor ``name`` in their order; vectors have but one."""
        if axes == 4:
            return self.depthwise if name.endswith("depthwise.conv.weight") else self.conv
        return self.linear if axes == 2 else tuple(range(axes))


OIHW = Axes()


HWIO = Axes((2, 3, 1, 0), (2, 3, 0, 1), (1, 0))  # TensorFlow and Keras; (height, width, channels, 1) where depthwise


OHWI = Axes((0, 2, 3, 1), (1, 2, 3, 0))  # TFLite; (1, height, width, channels) where depthwise


@dataclass(frozen=True)
class CleanedTensors:
    """Tensors under a layout's own names, and what was done to find them, in words."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def _keep_names(tensors: Mapping[str, Tensor]) -> CleanedTensors:
    return CleanedTensors(dict(tensors))


@dataclass(frozen=True)
class Layout:
    """How one ecosystem keeps the weights of the family.

    ``numerics`` and ``preprocess`` are what its files are assumed to expect where neither they nor a card say it;
    with ``fixed`` its own networks compute with no other numerics. ``tidy`` turns what its files really hold (prefixes,
    averages beside the weights, an optimiser's slots) into the names of the table.
    """

    key_map: Callable[[Arch, int], dict[str, str]]  # (arch, classes) → our tensor name → theirs
    axes: Axes = OIHW
    archs: tuple[str, ...] = ()  # what it has networks for; (): whatever the rows can spell
    numerics: Callable[[Arch], Numerics] = default_preprocessing.default_numerics
    preprocess: Callable[[Arch], Preprocess] = default_preprocessing.default_preprocess
    fixed_numerics: bool = False
    folds_batch_norm: bool = False  # batch norm lies in weights and biases
    clean: Callable[[Mapping[str, Tensor]], CleanedTensors] = _keep_names
    suffixes: tuple[str, ...] = (".safetensors", ".pth", ".pt")  # what its files are written to

    def supports(self, arch: Arch) -> bool:
        """Whether the ecosystem has such a network."""
        return not self.archs or arch.name in self.archs


def expand_rows(
    arch: Arch, classes: int, table: Callable[[Layer, int], tuple[KeyRows, str]], parts: TensorNames = TORCH_NAMES
) -> dict[str, str]:
    """Our tensor name → theirs, for every tensor of the network.

    ``table`` gives the rows for a layer, and what stands before its names; it is told the number of blocks before it.
    """
    found, blocks = {}, 0
    for layer in layers(arch, classes):
        rows, prefix = table(layer, blocks)
        blocks += layer.kind in ("mbconv", "fused")
        for operation in operations(layer):
            convolution, norm = rows[operation.name.removeprefix(layer.name).lstrip(".")]
            weight = f"{prefix}{convolution}{parts.separator}{parts.depthwise if operation.groups > 1 else parts.conv}"
            if operation.norm:
                found[f"{operation.name}.conv.weight"] = weight
                for ours, theirs in zip(BATCH_NORM_TENSORS, parts.norm, strict=True):
                    found[f"{operation.name}.norm.{ours}"] = f"{prefix}{norm}{parts.separator}{theirs}"
            else:
                found[f"{operation.name}.weight"] = weight
                found[f"{operation.name}.bias"] = f"{prefix}{convolution}{parts.separator}{parts.bias}"
    return found


# timm's names (native and ``tf_`` models alike): one row an operation, read from left to right and back.
#
# timm keeps the batch norm beside its convolution where we keep it inside: hence two names of theirs to one of ours.


# ours                     theirs: convolution, batch norm
TIMM_STEM = {"": ("conv_stem", "bn1")}


TIMM_HEAD = {"": ("conv_head", "bn2")}


TIMM_CLASSIFIER = {"": ("classifier", "")}


TIMM_SQUEEZE_EXCITE = {
    "squeeze_excite.reduce": ("se.conv_reduce", ""),
    "squeeze_excite.expand": ("se.conv_expand", ""),
}


TIMM_MBCONV = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
    **TIMM_SQUEEZE_EXCITE,
}


TIMM_MBCONV_UNEXPANDED = {  # timm's DepthwiseSeparableConv
    "depthwise": ("conv_dw", "bn1"),
    "project": ("conv_pw", "bn2"),
    **TIMM_SQUEEZE_EXCITE,
}


TIMM_FUSED = {  # timm's EdgeResidual
    "fused": ("conv_exp", "bn1"),
    "project": ("conv_pwl", "bn2"),
    **TIMM_SQUEEZE_EXCITE,
}


TIMM_FUSED_UNEXPANDED = {  # timm's ConvBnAct
    "fused": ("conv", "bn1"),
    **TIMM_SQUEEZE_EXCITE,
}


def timm_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → timm's, for every tensor of the network."""
    return expand_rows(arch, classes, _timm_rows)


def _timm_rows(layer: Layer, _: int) -> tuple[KeyRows, str]:
    """The rows for ``layer``, and what timm puts before its names: blocks are counted from 0."""
    match layer.kind:
        case "stem":
            return TIMM_STEM, ""
        case "head":
            return TIMM_HEAD, ""
        case "classifier":
            return TIMM_CLASSIFIER, ""
    prefix = f"blocks.{layer.stage - 1}.{layer.name.split('.')[1]}."
    if layer.kind == "mbconv":
        return (TIMM_MBCONV if layer.expanded else TIMM_MBCONV_UNEXPANDED), prefix
    return (TIMM_FUSED if layer.expanded else TIMM_FUSED_UNEXPANDED), prefix


# torchvision's names: one row an operation, read from left to right and back.
#
# Its modules are numbered, not named: a block's convolutions are ``block.0``, ``block.1`` …, each a pair of convolution
# (0) and batch norm (1), with squeeze-excite counted among them. Source: pytorch/vision ``models/efficientnet.py``.


TORCHVISION_V1_ARCHS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7")


TORCHVISION_ARCHS = (*TORCHVISION_V1_ARCHS, "v2_s", "v2_m", "v2_l")


TORCHVISION_SMALL_EPS_ARCHS = (
    "b0",
    "b1",
    "b2",
    "b3",
    "b4",
)  # 1e-5, batch norm's own default; for the others it is given as 1e-3


# ours              theirs: convolution, batch norm
TORCHVISION_STEM_HEAD = {"": ("0", "1")}


TORCHVISION_CLASSIFIER = {"": ("classifier.1", "")}  # 0 is the dropout


TORCHVISION_MBCONV = {
    "expand": ("0.0", "0.1"),
    "depthwise": ("1.0", "1.1"),
    "squeeze_excite.reduce": ("2.fc1", ""),
    "squeeze_excite.expand": ("2.fc2", ""),
    "project": ("3.0", "3.1"),
}


TORCHVISION_MBCONV_UNEXPANDED = {
    "depthwise": ("0.0", "0.1"),
    "squeeze_excite.reduce": ("1.fc1", ""),
    "squeeze_excite.expand": ("1.fc2", ""),
    "project": ("2.0", "2.1"),
}


TORCHVISION_FUSED = {
    "fused": ("0.0", "0.1"),
    "project": ("1.0", "1.1"),
}


def torchvision_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → torchvision's, for every tensor of the network."""
    return expand_rows(arch, classes, _torchvision_rows)


def torchvision_numerics(arch: Arch) -> Numerics:
    """What torchvision builds the network with: PyTorch's padding, and an ε that depends on the size."""
    return Numerics("symmetric", 1e-5 if arch.name in TORCHVISION_SMALL_EPS_ARCHS else 1e-3)


def _torchvision_rows(layer: Layer, _: int) -> tuple[KeyRows, str]:
    """The rows for ``layer``, and what torchvision puts before its names: the stem is stage 0, the head the last."""
    if layer.kind == "classifier":
        return TORCHVISION_CLASSIFIER, ""
    if layer.kind in ("stem", "head"):
        return TORCHVISION_STEM_HEAD, f"features.{layer.stage}."
    prefix = f"features.{layer.stage}.{layer.name.split('.')[1]}.block."
    if layer.kind == "mbconv":
        return (TORCHVISION_MBCONV if layer.expanded else TORCHVISION_MBCONV_UNEXPANDED), prefix
    return TORCHVISION_FUSED, prefix


# The names of lukemelas' EfficientNet-PyTorch (``efficientnet_pytorch``): one row an operation, read both ways.
#
# Its blocks are counted through the whole network. Two families of its weights have the same names: those trained with
# AutoAugment, and AdvProp's, whose pictures are scaled to −1 … 1 instead of normalised. No file says which it is.
# Source: lukemelas/EfficientNet-PyTorch 0.7.1, ``model.py``.


LUKEMELAS_ARCHS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")


# ours             theirs: convolution, batch norm
LUKEMELAS_STEM = {"": ("_conv_stem", "_bn0")}


LUKEMELAS_HEAD = {"": ("_conv_head", "_bn1")}


LUKEMELAS_CLASSIFIER = {"": ("_fc", "")}


LUKEMELAS_MBCONV = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "squeeze_excite.reduce": ("_se_reduce", ""),
    "squeeze_excite.expand": ("_se_expand", ""),
    "project": ("_project_conv", "_bn2"),
}


def lukemelas_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → lukemelas', for every tensor of the network."""
    return expand_rows(arch, classes, _lukemelas_rows)


def _lukemelas_rows(layer: Layer, block: int) -> tuple[KeyRows, str]:
    """The rows for ``layer``, and what stands before its names: ``block`` is the number of blocks before it."""
    match layer.kind:
        case "stem":
            return LUKEMELAS_STEM, ""
        case "head":
            return LUKEMELAS_HEAD, ""
        case "classifier":
            return LUKEMELAS_CLASSIFIER, ""
    return LUKEMELAS_MBCONV, f"_blocks.{block}."


# The names of Hugging Face's transformers (``EfficientNetForImageClassification``): one row an operation, both ways.
#
# Its blocks are counted through the whole network. Source: huggingface/transformers
# ``models/efficientnet/modeling_efficientnet.py``.


HUGGINGFACE_ARCHS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2")  # what its configuration can say


HUGGINGFACE_PREFIX = (
    "efficientnet."  # before every name but the classifier's; EfficientNetModel, which has none, leaves it out
)


# ours             theirs: convolution, batch norm
HUGGINGFACE_STEM = {"": ("embeddings.convolution", "embeddings.batchnorm")}


HUGGINGFACE_HEAD = {"": ("encoder.top_conv", "encoder.top_bn")}


HUGGINGFACE_CLASSIFIER = {"": ("classifier", "")}


HUGGINGFACE_MBCONV = {
    "expand": ("expansion.expand_conv", "expansion.expand_bn"),
    "depthwise": ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
    "squeeze_excite.reduce": ("squeeze_excite.reduce", ""),
    "squeeze_excite.expand": ("squeeze_excite.expand", ""),
    "project": ("projection.project_conv", "projection.project_bn"),
}


def huggingface_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → transformers', for every tensor of the network."""
    return expand_rows(arch, classes, _huggingface_rows)


def clean_huggingface(tensors: Mapping[str, Tensor]) -> CleanedTensors:
    """The names of a bare ``EfficientNetModel`` as they are called inside the classifying network."""
    if tensors and all(name.startswith(("embeddings.", "encoder.")) for name in tensors):
        return CleanedTensors({HUGGINGFACE_PREFIX + name: tensor for name, tensor in tensors.items()})
    return CleanedTensors(dict(tensors))


def _huggingface_rows(layer: Layer, block: int) -> tuple[KeyRows, str]:
    """The rows for ``layer``, and what stands before its names: ``block`` is the number of blocks before it."""
    match layer.kind:
        case "stem":
            return HUGGINGFACE_STEM, HUGGINGFACE_PREFIX
        case "head":
            return HUGGINGFACE_HEAD, HUGGINGFACE_PREFIX
        case "classifier":
            return HUGGINGFACE_CLASSIFIER, ""
    return HUGGINGFACE_MBCONV, f"{HUGGINGFACE_PREFIX}encoder.blocks.{block}."


# The official checkpoints' names: tensorflow/tpu efficientnet (V1, Lite, EdgeTPU) and google/automl efficientnetv2.
#
# A variable is called by the network, the part and the layer: ``efficientnet-b0/blocks_0/se/conv2d/kernel``. Blocks are
# counted through; within one, equal layers are counted in the order of their use, so that one name means the expansion
# in one block and the projection in the next. The table leaves the network's own name out: files give it any.
#
# Sources: tensorflow/tpu ``models/official/efficientnet/efficientnet_model.py`` and ``utils.py`` (the first
# ``BatchNormalization`` is called as the TPU's); google/automl ``efficientnetv2/effnetv2_model.py``; tensorflow/tpu#460
# for EdgeTPU's. The numbers agree with what lukemelas' ``convert_tf_to_pt`` and mmpretrain's
# ``efficientnet_to_mmpretrain.py`` expect of the published files.


TENSORFLOW_NORMS = tuple(f"tpu_batch_normalization{count}" for count in ("", "_1", "_2"))


# ours              theirs: convolution, batch norm
TENSORFLOW_STEM_HEAD = {"": ("conv2d", TENSORFLOW_NORMS[0])}  # stem and head


TENSORFLOW_CLASSIFIER = {"": ("dense", "")}


TENSORFLOW_SQUEEZE_EXCITE = {
    "squeeze_excite.reduce": ("se/conv2d", ""),
    "squeeze_excite.expand": ("se/conv2d_1", ""),
}


TENSORFLOW_MBCONV = {
    "expand": ("conv2d", TENSORFLOW_NORMS[0]),
    "depthwise": ("depthwise_conv2d", TENSORFLOW_NORMS[1]),
    "project": ("conv2d_1", TENSORFLOW_NORMS[2]),
    **TENSORFLOW_SQUEEZE_EXCITE,
}


TENSORFLOW_MBCONV_UNEXPANDED = {
    "depthwise": ("depthwise_conv2d", TENSORFLOW_NORMS[0]),
    "project": ("conv2d", TENSORFLOW_NORMS[1]),
    **TENSORFLOW_SQUEEZE_EXCITE,
}


TENSORFLOW_FUSED = {  # also the unexpanded one, which has no projection
    "fused": ("conv2d", TENSORFLOW_NORMS[0]),
    "project": ("conv2d_1", TENSORFLOW_NORMS[1]),
    **TENSORFLOW_SQUEEZE_EXCITE,
}


EMA_SUFFIX = "/ExponentialMovingAverage"


COUNTER_NAMES = {"global_step", "beta1_power", "beta2_power"}


_NETWORK_PART = re.compile(r"(?:^|/)(?=(?:stem|head|blocks_\d+)/)")  # where the network's own name ends


_PLAIN_NORM = re.compile(r"/batch_normalization(?=(_\d+)?/)")


def tensorflow_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → TensorFlow's, for every tensor of the network; without the network's own name before it."""
    return expand_rows(arch, classes, _tensorflow_rows, TENSORFLOW_NAMES)


def tensorflow_scope(name: str) -> str:
    """What the official networks put before all their variables: "efficientnet-b0" for the arch called "b0"."""
    family, _, size = name.partition("_")
    called = {"v2": f"v2-{size}", "edge": f"-edgetpu-{size.upper()}"}.get(family, f"-{name}")
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"efficientnet{called}")


def tensorflow_numerics(arch: Arch) -> Numerics:
    """The official ones. EdgeTPU's networks stride in the projection *behind* a fused convolution.

    What that leaves of the fused one is symmetric padding (``MBConvBlockWithoutDepthwise``; tensorflow/tpu#660 takes
    the two for equal, which 'same' padding does not make them).
    """
    expected = default_preprocessing.default_numerics(arch)
    return replace(expected, fused_padding="symmetric") if arch.name.startswith("edge_") else expected


def clean_tensorflow(tensors_by_name: Mapping[str, Tensor]) -> CleanedTensors:
    """Variables under the names of the table, each its moving average where there is one.

    The network's own name, the optimiser's slots and counters are left out; batch norm that was not a TPU's is called
    as if it were.
    """
    if not any(_NETWORK_PART.search(name) for name in tensors_by_name):
        return CleanedTensors(dict(tensors_by_name))
    averages = {
        name.removesuffix(EMA_SUFFIX): tensor for name, tensor in tensors_by_name.items() if name.endswith(EMA_SUFFIX)
    }
    kept = {
        name: tensor
        for name, tensor in tensors_by_name.items()
        if not (
            name.endswith(EMA_SUFFIX)
            or name.rpartition("/")[0] in tensors_by_name  # a variable's variable: an optimiser's
            or name.rpartition("/")[2] in COUNTER_NAMES
        )
    } | averages
    before = {name[: found.end()] for name in kept if (found := _NETWORK_PART.search(name))}
    network = before.pop() if len(before) == 1 else ""
    tensors = {
        _PLAIN_NORM.sub("/tpu_batch_normalization", name.removeprefix(network)): tensor for name, tensor in kept.items()
    }
    taken = f"the moving averages of {len(averages)} of its {len(tensors)} variables are taken in place of these"
    return CleanedTensors(tensors, (taken,) if averages else ())


def _tensorflow_rows(layer: Layer, blocks: int) -> tuple[KeyRows, str]:
    match layer.kind:
        case "stem" | "head":
            return TENSORFLOW_STEM_HEAD, f"{layer.kind}/"
        case "classifier":
            return TENSORFLOW_CLASSIFIER, "head/"
        case "fused":
            return TENSORFLOW_FUSED, f"blocks_{blocks}/"
    return (TENSORFLOW_MBCONV if layer.expanded else TENSORFLOW_MBCONV_UNEXPANDED), f"blocks_{blocks}/"


# The names of keras.applications' EfficientNets: one row an operation, read from left to right and back.
#
# A layer and its tensor, as Keras 3 calls them: "block1a_dwconv/kernel"; Keras 2 adds ":0" to every name and calls the
# depthwise kernel "depthwise_kernel". Stages count from 1, blocks from "a". V2 has "dwconv2".
#
# V1 pads by hand before every stride, for the input size that it was built with: then it is TensorFlow's 'same' at any
# size. Built for no size (``input_shape=(None, None, 3)``) it pads as for even maps, and is 'same' only where every map
# that a stride halves is even. Sources: keras-team/keras ``applications/efficientnet.py``, ``efficientnet_v2.py``.


KERAS_ARCHS = (
    *("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"),
    *("v2_b0", "v2_b1", "v2_b2", "v2_b3", "v2_s", "v2_m", "v2_l"),
)


KERAS_NAMES = replace(TENSORFLOW_NAMES, depthwise="kernel")


# ours      theirs: convolution, batch norm
KERAS_STEM = {"": ("stem_conv", "stem_bn")}


KERAS_HEAD = {"": ("top_conv", "top_bn")}


KERAS_CLASSIFIER = {"": ("predictions", "")}


KERAS_EXPAND = ("expand_conv", "expand_bn")


KERAS_PROJECT = ("project_conv", "project_bn")


KERAS_SQUEEZE_EXCITE = {
    "squeeze_excite.reduce": ("se_reduce", ""),
    "squeeze_excite.expand": ("se_expand", ""),
}


KERAS_MBCONV = {"expand": KERAS_EXPAND, "depthwise": ("dwconv", "bn"), "project": KERAS_PROJECT, **KERAS_SQUEEZE_EXCITE}


KERAS_MBCONV_V2 = {**KERAS_MBCONV, "depthwise": ("dwconv2", "bn")}


KERAS_FUSED = {"fused": KERAS_EXPAND, "project": KERAS_PROJECT, **KERAS_SQUEEZE_EXCITE}


KERAS_FUSED_UNEXPANDED = {"fused": KERAS_PROJECT, **KERAS_SQUEEZE_EXCITE}


def keras_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → Keras', for every tensor of the network."""
    second = is_v2(arch)
    return expand_rows(arch, classes, lambda layer, _: keras_rows(layer, second), KERAS_NAMES)


def is_v2(arch: Arch) -> bool:
    """Whether ``arch`` is of the second version: whatever has fused blocks."""
    return any(stage.block == "fused" for stage in arch.stages)


def keras_rows(layer: Layer, v2: bool) -> tuple[KeyRows, str]:
    """The rows for ``layer`` of the first or the ``second`` version, and what stands before its names."""
    match layer.kind:
        case "stem":
            return KERAS_STEM, ""
        case "head":
            return KERAS_HEAD, ""
        case "classifier":
            return KERAS_CLASSIFIER, ""
    prefix = f"block{layer.stage}{chr(ord('a') + int(layer.name.split('.')[1]))}_"
    if layer.kind == "mbconv":
        return (KERAS_MBCONV_V2 if v2 else KERAS_MBCONV), prefix
    return (KERAS_FUSED if layer.expanded else KERAS_FUSED_UNEXPANDED), prefix


# TFLite's layout: folded convolutions in the order in which they run.
#
# Names of tensors say nothing reliable in a ``.tflite``; its operators do. So the reader names a convolution by what
# the graph does with it, ``7_depthwise_stride2_relu6``, and these are the names of the rows: a network that is shaped
# like ours but strides or activates otherwise is another one.


def tflite_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → that of the convolution with the same place, for every tensor that folding leaves."""
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
    """The name of the ``index``-th convolution: ``7_depthwise_stride2_relu6``, ``48_linear``."""
    return "_".join(filter(None, (str(index), kind, f"stride{stride}" if stride > 1 else "", activation)))


# One file an ecosystem: how its tensors are called, and what its networks compute with.


def _effnet_key_map(arch: Arch, classes: int = 1000) -> dict[str, str]:
    return {name: name for name in tensor_shapes(arch, classes)}


LAYOUTS: dict[str, Layout] = {
    "effnet": Layout(_effnet_key_map, suffixes=(".safetensors",)),
    "timm": Layout(timm_key_map),
    "torchvision": Layout(
        torchvision_key_map,
        archs=TORCHVISION_ARCHS,
        numerics=torchvision_numerics,
        preprocess=default_preprocessing.torchvision_preprocess,
        fixed_numerics=True,
    ),
    "lukemelas": Layout(
        lukemelas_key_map,
        archs=LUKEMELAS_ARCHS,
        preprocess=default_preprocessing.lukemelas_preprocess,
        fixed_numerics=True,
    ),
    "huggingface": Layout(
        huggingface_key_map,
        archs=HUGGINGFACE_ARCHS,
        preprocess=default_preprocessing.huggingface_preprocess,
        fixed_numerics=True,
        clean=clean_huggingface,
        suffixes=(".safetensors", ".bin"),
    ),
    "tensorflow": Layout(
        tensorflow_key_map,
        axes=HWIO,
        numerics=tensorflow_numerics,
        preprocess=default_preprocessing.tensorflow_preprocess,
        clean=clean_tensorflow,
        suffixes=(".index",),
    ),
    "keras": Layout(
        keras_key_map,
        axes=HWIO,
        archs=KERAS_ARCHS,
        preprocess=default_preprocessing.tensorflow_preprocess,
        fixed_numerics=True,
        suffixes=(".h5", ".weights.h5", ".keras"),
    ),
    "tflite": Layout(
        tflite_key_map,
        axes=OHWI,
        preprocess=default_preprocessing.tensorflow_preprocess,
        folds_batch_norm=True,
        suffixes=(".tflite",),
    ),
}
