"""Batch norm's ε and momentum, and padding, of each ecosystem's networks.

| networks | padding | ε | momentum |
|---|---|---|---|
| Google's in TensorFlow, Keras | same | 1e-3 | 0.01, V2 0.1 |
| lukemelas | same | 1e-3 | 0.01 |
| transformers | same | 1e-3 | 0.99 (TensorFlow's number, which means the opposite in PyTorch) |
| timm, ported (``tf_…``) | same | 1e-3 | 0.1 |
| timm, native | symmetric | 1e-5 | 0.1 |
| torchvision B0–B4 | symmetric | 1e-5 | 0.1 |
| torchvision B5–B7, V2 | symmetric | 1e-3 | 0.01, V2 0.1 |

Momentum is in PyTorch's sense: TensorFlow's 0.99 is 0.01. It only matters in training, where this package uses 0.01
(`effnet.net.layers.BATCH_NORM_MOMENTUM`) unless the recipe states another. Padding and ε belong to the weights: each
model carries them as `effnet.Numerics`, and what its file does not state is taken from here.
"""

from dataclasses import replace

from effnet.arch import Arch
from effnet.metadata import Numerics

TENSORFLOW = Numerics("same", 1e-3)
TIMM_NATIVE = Numerics("symmetric", 1e-5)
KERAS_MOMENTUM = {"v1": 0.99, "v2": 0.9}  # in TensorFlow's sense


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
