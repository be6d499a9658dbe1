"""What every way of running a network offers, and which of them this machine has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import choice, whole
from effnet.clock.machine import cores
from effnet.contract import Contract, Preprocess

KINDS = ("eager", "compiled", "onnxruntime", "openvino", "litert")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}

Floats = NDArray[np.float32]
Pictures = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.uint8 | np.float32]


class Engine(Protocol):
    """A network ready to run. Several threads may call it.

    ``precision`` is what it computes in ("int8" where its weights are quantised), ``threads`` how many it uses;
    ``classes`` is 0 where the network has no classifier.
    """

    kind: str
    precision: str
    threads: int
    contract: Contract
    classes: int

    def run(self, pictures: Pictures) -> Floats:
        """Pictures already cropped -> float32 (N, classes) logits; the embedding where there is no classifier.

        ``pictures``: 0 … 255 as (N, H, W, C), uint8 or float32; or float32 (N, C, H, W) that have been through mean and
        std. Where the file gives probabilities only, those that they are made of: their logarithms where exactly one
        label is right, or else the log of their odds. Values are given as they are.
        Raises ``ValueError`` for another shape, and for a size that the file cannot take.
        """

    def embed(self, pictures: Pictures) -> Floats:
        """The same pictures -> float32 (N, head channels), the pooled features.

        Raises ``ValueError`` as `run` does, and where the file does not give them.
        """

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        """Makes ready for so many pictures at once of that (height, width), None being the network's own.

        Others still run, in some engines a little slower. Raises ``ValueError`` for a size that the file cannot take.
        """


def installed() -> tuple[str, ...]:
    """The kinds of engine whose packages are here."""
    return tuple(kind for kind in KINDS if kind not in PACKAGES or find_spec(PACKAGES[kind]))


def missing(kind: str) -> ImportError:
    """What is said where the package of ``kind`` is not here."""
    package = PACKAGES[kind].replace("_", "-")
    return ImportError(f"the engine {kind} is not installed here: pip install {package}; eager works without")


def granted(threads: int | None) -> int:
    """How many threads an engine gets: as many as asked for, with None one for each core this process may use.

    Raises ``ValueError`` for less than one.
    """
    if threads is not None:
        whole("threads", threads, 1)
    return threads or cores()


def settled(kind: str, precision: str, offered: tuple[str, ...], quantised: bool = False) -> str:
    """What an engine that was asked for ``precision`` computes in, where it offers ``offered`` on this machine.

    Quantised weights stay so, whatever is asked. Raises ``ValueError``, which says what there is, for another.
    """
    choice("precision", precision, PRECISIONS)
    if quantised:
        return "int8"
    if precision == "int8":
        raise ValueError("int8 is a property of a file, and this network is not quantised: export it as int8 first")
    if precision not in offered:
        raise ValueError(f"{kind} does not compute in {precision} on this machine: it has {' and '.join(offered)}")
    return precision


def normalised(pictures: Pictures, channels: int) -> bool:
    """Whether ``pictures`` are (N, C, H, W) that have been through mean and std, or else (N, H, W, C) of 0 … 255.

    Raises ``ValueError`` where they are neither, or none at all.
    """
    if pictures.ndim != 4 or channels not in (pictures.shape[1], pictures.shape[3]):
        raise ValueError(
            f"pictures must be (N, H, W, {channels}) of 0 … 255 or normalised (N, {channels}, H, W), "
            f"got the shape {pictures.shape}"
        )
    if not pictures.size:
        raise ValueError(f"there are no pictures in the shape {pictures.shape}")
    if pictures.shape[3] == channels:
        return False
    if pictures.dtype == np.uint8:
        raise ValueError(f"uint8 pictures must be (N, H, W, {channels}), got the shape {pictures.shape}")
    return True


def as_pixels(pictures: Pictures, preprocess: Preprocess) -> Pictures:
    """``pictures`` as 0 … 255 (N, H, W, C), whichever of the two forms of `Engine.run` they came in."""
    if not normalised(pictures, len(preprocess.mean)):
        return pictures if pictures.dtype == np.uint8 else np.asarray(pictures, np.float32)
    mean, std = (np.array(values, np.float32) * 255 for values in (preprocess.mean, preprocess.std))
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1) * std + mean, np.float32)  # (N, C, H, W) -> (N, H, W, C)


def as_normalised(pictures: Pictures, preprocess: Preprocess) -> Floats:
    """``pictures`` as float32 (N, C, H, W) through mean and std, whichever of the two forms they came in."""
    if normalised(pictures, len(preprocess.mean)):
        return np.ascontiguousarray(pictures, np.float32)
    mean, std = (np.array(values, np.float32) for values in (preprocess.mean, preprocess.std))
    scaled = (np.asarray(pictures, np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))  # (N, H, W, C) -> (N, C, H, W)
