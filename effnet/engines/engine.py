"""What every way of running a network offers, and which of them this machine has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from effnet.contract import Contract, Preprocess

KINDS = ("eager", "compiled", "onnxruntime", "openvino", "litert")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}

Floats = NDArray[np.float32]
Pictures = NDArray[np.uint8] | Floats


class Engine(Protocol):
    """A network ready to run. ``precision`` is what it computes in, ``threads`` how many it was given."""

    kind: str
    precision: str
    threads: int
    contract: Contract
    classes: int

    def run(self, pictures: Pictures) -> Floats:
        """Pictures already cropped -> float32 (N, classes) logits.

        ``pictures``: 0 … 255 as (N, H, W, 3), uint8 or float32; or float32 (N, 3, H, W) that have been through mean and
        std. Where the file gives probabilities only, their logarithms, whose softmax they are.
        """

    def embed(self, pictures: Pictures) -> Floats:
        """The same pictures -> float32 (N, head channels), the pooled features.

        Raises ``ValueError`` where the file does not give them.
        """


def installed() -> tuple[str, ...]:
    """The kinds of engine whose packages are here."""
    return tuple(kind for kind in KINDS if kind not in PACKAGES or find_spec(PACKAGES[kind]))


def missing(kind: str) -> ImportError:
    """What is said where the package of ``kind`` is not here."""
    return ImportError(f'the engine {kind} is not installed here: pip install "effnet[{kind}]"; eager works without')


def as_pixels(pictures: Pictures, preprocess: Preprocess) -> Pictures:
    """``pictures`` as 0 … 255 (N, H, W, C), whichever of the two forms of `Engine.run` they came in."""
    channels = len(preprocess.mean)
    if pictures.ndim != 4 or channels not in (pictures.shape[1], pictures.shape[3]):
        raise ValueError(
            f"pictures must be (N, H, W, {channels}) of 0 … 255 or normalised (N, {channels}, H, W), "
            f"got the shape {pictures.shape}"
        )
    if pictures.shape[3] == channels:
        return pictures
    if pictures.dtype == np.uint8:
        raise ValueError(f"uint8 pictures must be (N, H, W, {channels}), got the shape {pictures.shape}")
    mean, std = (np.array(values, np.float32) * 255 for values in (preprocess.mean, preprocess.std))
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1) * std + mean)  # (N, C, H, W) -> (N, H, W, C)
