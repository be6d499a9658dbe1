"""What every way of running a network offers, and which of them this machine has."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import check_choice, check_int
from effnet.metadata import ModelMetadata, Preprocess
from effnet.timing.machine import count_cores

ENGINE_KINDS = ("eager", "compiled", "onnxruntime", "openvino", "litert")


PRECISIONS = ("float32", "bfloat16", "float16", "int8")


ENGINE_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}


FloatArray = NDArray[np.float32]


ImageBatch = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.uint8 | np.float32]


class Engine(Protocol):
    """A network ready to run. Several threads may call it.

    ``precision`` is what it computes in ("int8" where its weights are quantised), ``threads`` how many it uses;
    ``classes`` is 0 where the network has no classifier.
    """

    kind: str
    precision: str
    threads: int
    metadata: ModelMetadata
    classes: int

    def run(self, images: ImageBatch) -> FloatArray:
        """Pictures already cropped -> float32 (N, classes) logits; the embedding where there is no classifier.

        ``pictures``: 0 … 255 as (N, H, W, C), uint8 or float32; or float32 (N, C, H, W) that have been through mean and
        std. Where the file gives probabilities only, those that they are made of: their logarithms where exactly one
        label is right, or else the log of their odds. Values are given as they are.
        Raises ``ValueError`` for another shape, and for a size that the file cannot take.
        """

    def embed(self, images: ImageBatch) -> FloatArray:
        """The same pictures -> float32 (N, head channels), the pooled features.

        Raises ``ValueError`` as `run` does, and where the file does not give them.
        """

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """Makes ready for so many pictures at once of that (height, width), None being the network's own.

        Others still run, in some engines a little slower. Raises ``ValueError`` for a size that the file cannot take.
        """


def installed_engines() -> tuple[str, ...]:
    """The kinds of engine whose packages are here."""
    return tuple(kind for kind in ENGINE_KINDS if kind not in ENGINE_PACKAGES or find_spec(ENGINE_PACKAGES[kind]))


def not_installed_error(kind: str) -> ImportError:
    """What is said where the package of ``kind`` is not here."""
    package = ENGINE_PACKAGES[kind].replace("_", "-")
    return ImportError(f"the engine {kind} is not installed here: pip install {package}; eager works without")


def resolve_threads(threads: int | None) -> int:
    """How many threads an engine gets: as many as asked for, with None one for each core this process may use.

    Raises ``ValueError`` for less than one.
    """
    if threads is not None:
        check_int("threads", threads, 1)
    return threads or count_cores()


def resolve_precision(kind: str, precision: str, supported: tuple[str, ...], quantized: bool = False) -> str:
    """What an engine that was asked for ``precision`` computes in, where it offers ``offered`` on this machine.

    Quantised weights stay so, whatever is asked. Raises ``ValueError``, which says what there is, for another.
    """
    check_choice("precision", precision, PRECISIONS)
    if quantized:
        return "int8"
    if precision == "int8":
        raise ValueError("int8 is a property of a file, and this network is not quantised: export it as int8 first")
    if precision not in supported:
        raise ValueError(f"{kind} does not compute in {precision} on this machine: it has {' and '.join(supported)}")
    return precision


def is_normalized(images: ImageBatch, channels: int) -> bool:
    """Whether ``pictures`` are (N, C, H, W) that have been through mean and std, or else (N, H, W, C) of 0 … 255.

    Raises ``ValueError`` where they are neither, or none at all.
    """
    if images.ndim != 4 or channels not in (images.shape[1], images.shape[3]):
        raise ValueError(
            f"pictures must be (N, H, W, {channels}) of 0 … 255 or normalised (N, {channels}, H, W), "
            f"got the shape {images.shape}"
        )
    if not images.size:
        raise ValueError(f"there are no pictures in the shape {images.shape}")
    if images.shape[3] == channels:
        return False
    if images.dtype == np.uint8:
        raise ValueError(f"uint8 pictures must be (N, H, W, {channels}), got the shape {images.shape}")
    return True


def to_pixels(images: ImageBatch, preprocess: Preprocess) -> ImageBatch:
    """``pictures`` as 0 … 255 (N, H, W, C), whichever of the two forms of `Engine.run` they came in."""
    if not is_normalized(images, len(preprocess.mean)):
        return images if images.dtype == np.uint8 else np.asarray(images, np.float32)
    mean, std = (np.array(values, np.float32) * 255 for values in (preprocess.mean, preprocess.std))
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1) * std + mean, np.float32)  # (N, C, H, W) -> (N, H, W, C)


def to_normalized(images: ImageBatch, preprocess: Preprocess) -> FloatArray:
    """``pictures`` as float32 (N, C, H, W) through mean and std, whichever of the two forms they came in."""
    if is_normalized(images, len(preprocess.mean)):
        return np.ascontiguousarray(images, np.float32)
    mean, std = (np.array(values, np.float32) for values in (preprocess.mean, preprocess.std))
    scaled = (np.asarray(images, np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))  # (N, H, W, C) -> (N, C, H, W)


# From an exported file to the engine that runs it. Imports no torch.


ENGINES_BY_SUFFIX = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",), ".tflite": ("litert",)}


def open_exported(
    path: str | Path, kind: str | None = None, precision: str = "float32", threads: int | None = None
) -> Engine:
    """The engine of an exported file: onnxruntime's or OpenVINO's ``.onnx``, OpenVINO's ``.xml``, LiteRT's ``.tflite``.

    ``kind=None`` takes the first of these whose package is here and which has the precision.
    Raises ``ValueError`` for another suffix, a kind that does not open it, a damaged file, one that is not ours, and a
    precision that is not to be had; ``FileNotFoundError``; ``ImportError`` where the package is not here.
    """
    kinds = ENGINES_BY_SUFFIX.get(Path(path).suffix)
    if kinds is None:
        raise ValueError(f"{path} is no exported file: their names end in {', '.join(ENGINES_BY_SUFFIX)}")
    if kind is not None:
        if kind not in kinds:
            raise ValueError(f"{kind} does not open {Path(path).suffix} files: {' and '.join(kinds)} do")
        return open_engine(kind, Path(path), precision, threads)
    here = [each for each in kinds if each in installed_engines()]
    if not here:
        raise not_installed_error(kinds[0])
    if precision not in ("float32", "int8") and "openvino" in here:  # the only one that may have it
        here = ["openvino"]
    return open_engine(here[0], Path(path), precision, threads)


def open_engine(kind: str, path: Path, precision: str, threads: int | None, cache: Path | None = None) -> Engine:
    """The engine called ``kind`` with the file. ``cache``: where it may keep what it compiled, if it does."""
    match kind:
        case "onnxruntime":
            from effnet.runtime.onnxruntime import ONNXRuntimeEngine

            return ONNXRuntimeEngine(path, precision, threads)
        case "openvino":
            from effnet.runtime.openvino import OpenVINOEngine

            return OpenVINOEngine(path, precision, threads, cache)
    from effnet.runtime.litert import LiteRTEngine

    return LiteRTEngine(path, precision, threads)
