"""The engine interface, the engines installed here, and opening an exported file with one. Imports no torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from effnet.arch import Arch
from effnet.arch.serde import check_choice, check_int
from effnet.metadata import Labels, Preprocess
from effnet.timing import machine

ENGINE_KINDS = ("eager", "compiled", "native", "onnxruntime", "openvino", "litert")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")
# Optional packages: the module to import and the extra that installs it
ENGINE_PACKAGES = {
    "native": "effnet_native",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "litert": "ai_edge_litert",
}
ENGINE_EXTRAS = {"native": "native", "onnxruntime": "export", "openvino": "openvino", "litert": "litert"}
ENGINES_BY_SUFFIX = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".tflite": ("litert",),
    ".effplan": ("native",),
}

_STDERR, _STDERR_LOCK = 2, Lock()

FloatArray = NDArray[np.float32]
ImageBatch = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.uint8 | np.float32]


class EngineMetadata(Protocol):
    """What an engine says of its model."""

    @property
    def arch(self) -> Arch | None:
        """The network; None for a file of another program with a network that is none known here."""

    @property
    def preprocess(self) -> Preprocess:
        """How images become its input."""

    @property
    def labels(self) -> Labels:
        """What its outputs mean."""


class Engine(Protocol):
    """A network ready to run. Thread-safe."""

    kind: str
    precision: str  # that it computes in; "int8" if its weights are quantized
    threads: int
    metadata: EngineMetadata
    classes: int  # 0: no classifier

    def run(self, images: ImageBatch) -> FloatArray:
        """Return logits, float32 (N, classes), or the embedding if there is no classifier.

        ``images``: cropped, 0 … 255, uint8 or float32 (N, H, W, C); or normalized, float32 (N, C, H, W). A file's
        probabilities are converted back: to log-probabilities for single-label models, to log-odds for multi-label
        ones. Raises ``ValueError`` for a shape that the file does not accept.
        """

    def embed(self, images: ImageBatch) -> FloatArray:
        """Return pooled features, float32 (N, head channels). ``ValueError`` also if the file does not have them."""

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """Optimize for a batch size and (height, width), by default the network's; ``ValueError`` if it is refused."""


def installed_engines() -> tuple[str, ...]:
    """Return the kinds of engine whose packages are installed."""
    return tuple(kind for kind in ENGINE_KINDS if kind not in ENGINE_PACKAGES or find_spec(ENGINE_PACKAGES[kind]))


def not_installed_error(kind: str) -> ImportError:
    """Return the error to raise if the package of engine ``kind`` is missing."""
    package = ENGINE_PACKAGES[kind].replace("_", "-")
    return ImportError(
        f'the {kind} engine requires {package}: pip install "effnet[{ENGINE_EXTRAS[kind]}]", or use the eager engine'
    )


def require_classes(classes: int, use: str) -> None:
    """Raise ``ValueError`` that says what can be done if a network without a classifier is asked for ``use``."""
    if not classes:
        raise ValueError(
            f"this network has no classifier, which {use} requires: name a linear layer of its file with --head, train "
            "one (`effnet train DATA --weights FILE`), or use its features (`effnet predict --embeddings FILE`)"
        )


def resolve_threads(threads: int | None) -> int:
    """Return how many threads an engine uses: by default one per core. Raises ``ValueError`` for less than one."""
    if threads is not None:
        check_int("threads", threads, 1)
    return threads or machine.count_cores()


class UnsupportedPrecisionError(ValueError):
    """The engine does not compute in the requested precision on this machine."""


def resolve_precision(kind: str, precision: str, supported: tuple[str, ...], quantized: bool = False) -> str:
    """Return the precision that ``kind`` computes in: int8 if quantized. Raises ``ValueError`` if not ``supported``."""
    check_choice("precision", precision, PRECISIONS)
    if quantized:
        return "int8"
    if precision == "int8":
        raise ValueError("this network is not quantized: export it with effnet.quantize, and open that file")
    if precision not in supported:
        raise UnsupportedPrecisionError(
            f"{kind} does not support {precision} on this machine: use {' or '.join(supported)}"
        )
    return precision


def is_normalized(images: ImageBatch, channels: int) -> bool:
    """Return whether ``images`` are normalized (N, C, H, W), not (N, H, W, C). Raises ``ValueError`` if neither."""
    if images.ndim != 4 or channels not in (images.shape[1], images.shape[3]):
        raise ValueError(
            f"images must be (N, H, W, {channels}) with values 0 … 255, or normalized (N, {channels}, H, W): "
            f"got shape {images.shape}"
        )
    if not images.size:
        raise ValueError(f"images must not be empty: got shape {images.shape}")
    if images.shape[3] == channels:
        return False
    if images.dtype == np.uint8:
        raise ValueError(f"uint8 images must be (N, H, W, {channels}): got shape {images.shape}")
    return True


def to_pixels(images: ImageBatch, preprocess: Preprocess) -> ImageBatch:
    """Return ``images`` of either form accepted by `Engine.run` as 0 … 255, (N, H, W, C)."""
    if not is_normalized(images, len(preprocess.mean)):
        return images if images.dtype == np.uint8 else np.asarray(images, np.float32)
    mean, std = (np.array(values, np.float32) * 255 for values in (preprocess.mean, preprocess.std))
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1) * std + mean, np.float32)  # (N, C, H, W) -> (N, H, W, C)


def to_normalized(images: ImageBatch, preprocess: Preprocess) -> FloatArray:
    """Return ``images`` of either form accepted by `Engine.run` normalized, float32 (N, C, H, W)."""
    if is_normalized(images, len(preprocess.mean)):
        return np.ascontiguousarray(images, np.float32)
    mean, std = (np.array(values, np.float32) for values in (preprocess.mean, preprocess.std))
    scaled = (np.asarray(images, np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))  # (N, H, W, C) -> (N, C, H, W)


def open_exported(
    path: str | Path, kind: str | None = None, precision: str = "float32", threads: int | None = None
) -> Engine:
    """Open an exported file, by default with the first installed engine in `ENGINES_BY_SUFFIX` for ``precision``.

    Raises ``ValueError`` for another suffix, an engine that does not open it, an unsupported precision, and a file that
    is damaged or was not exported by effnet; ``FileNotFoundError``; ``ImportError`` if the engine is not installed.
    """
    path = Path(path)
    if (kinds := ENGINES_BY_SUFFIX.get(path.suffix)) is None:
        raise ValueError(f"{path} is not an exported file: expected a name ending in {', '.join(ENGINES_BY_SUFFIX)}")
    if kind is None:
        if not (candidates := [each for each in kinds if each in installed_engines()]):
            raise not_installed_error(kinds[0])
        # Of the engines for .onnx only OpenVINO may support 16 bits
        narrow = precision not in ("float32", "int8") and "openvino" in candidates
        kind = "openvino" if narrow else candidates[0]
    elif kind not in kinds:
        raise ValueError(f"{kind} does not open {path.suffix} files: use {' or '.join(kinds)}")
    return open_engine(kind, path, precision, threads)


def open_engine(kind: str, path: Path, precision: str, threads: int | None, cache: Path | None = None) -> Engine:
    """Open ``path`` with the engine ``kind``. ``cache``: folder for compiled models, used by OpenVINO only."""
    from effnet.runtime import io_spec  # which imports this module

    try:
        match kind:
            case "native":
                from effnet.runtime.native import NativeEngine

                return NativeEngine(path, precision, threads)
            case "onnxruntime":
                from effnet.runtime.onnxruntime import ONNXRuntimeEngine

                return ONNXRuntimeEngine(path, precision, threads)
            case "openvino":
                from effnet.runtime.openvino import OpenVINOEngine

                return OpenVINOEngine(path, precision, threads, cache)
        from effnet.runtime.litert import LiteRTEngine

        return LiteRTEngine(path, precision, threads)
    except (UnicodeError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        # The runtime has opened it, but its names, inputs or outputs are none that a file of ours has
        raise io_spec.unreadable_file_error(path, kind, error) from error


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Hide what a runtime itself prints on standard error, which Python cannot turn off: its exception says more."""
    with _STDERR_LOCK:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # standard error is closed
            yield
            return
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, _STDERR)
            os.close(null)
            yield
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
