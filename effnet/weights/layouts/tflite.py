"""TFLite's layout: folded convolutions in the order in which they run.

Names of tensors say nothing reliable in a ``.tflite``; its operators do. So the reader names every convolution by what
the graph does with it, ``7_depthwise_stride2_relu6``, and these are the names of the rows: a network that is shaped
like ours but strides or activates otherwise is another one.
"""

from __future__ import annotations

from effnet.arch import Arch, layers, operations


def names(arch: Arch, classes: int = 1000) -> dict[str, str]:
    """Our tensor name → that of the convolution with the same place, for every tensor that folding leaves."""
    found: dict[str, str] = {}
    order = ((layer.kind, operation) for layer in layers(arch, classes) for operation in operations(layer))
    for index, (layer, operation) in enumerate(order):
        kind = "linear" if layer == "classifier" else "depthwise" if operation.groups > 1 else "conv"
        activation = arch.activation if operation.activation == "act" else operation.activation
        theirs = called(index, kind, operation.stride, activation)
        found[f"{operation.name}.conv.weight" if operation.norm else f"{operation.name}.weight"] = f"{theirs}/weight"
        found[f"{operation.name}.norm.bias" if operation.norm else f"{operation.name}.bias"] = f"{theirs}/bias"
    return found


def called(index: int, kind: str, stride: int = 1, activation: str = "") -> str:
    """The name of the ``index``-th convolution: ``7_depthwise_stride2_relu6``, ``48_linear``."""
    return "_".join(filter(None, (str(index), kind, f"stride{stride}" if stride > 1 else "", activation)))
