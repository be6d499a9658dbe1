"""Exported files: inputs and outputs, their metadata, and the base class of engines that run them. Without torch."""

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import Record, check_choice, check_size
from effnet.data.storage import embedded_digest
from effnet.metadata import Labels, ModelMetadata, Preprocess
from effnet.runtime import base
from effnet.tasks import task_of

INPUTS = ("pixels", "floats", "normalized")
OUTPUTS = ("probabilities", "logits", "values")
METADATA_KEY, IO_SPEC_KEY = "effnet", "effnet.interface"  # keys in a file's metadata; the values are JSON
MAX_SIDE = 8192  # pixels: larger feature maps do not fit into memory
MAX_ROUNDING_ERROR = 0.01  # in pixel values: float32 error after mean and std were applied and removed again


@dataclass(frozen=True)
class IOSpec(Record):
    """Inputs and outputs of an exported file, whose tensors are called so. Raises ``ValueError`` for other values."""

    input: str = "pixels"  # uint8 (N, H, W, C), 0 … 255; "floats", the same as float32; "normalized", (N, C, H, W)
    output: str = "probabilities"  # float32 (N, classes), softmax or sigmoid; "logits"; or "values" for regression
    embedding: bool = False  # as a second output, float32 (N, head channels); the only one without a classifier
    size: tuple[int, int] | None = None  # (height, width), an int for a square, or None for any size

    def __post_init__(self) -> None:
        if self.input == "normalised":  # as older files spell it; words: allow
            object.__setattr__(self, "input", "normalized")
        check_choice("input", self.input, INPUTS)
        check_choice("output", self.output, OUTPUTS)
        if self.size is None:
            return
        object.__setattr__(self, "size", check_size(self.size))
        if max(self.size) > MAX_SIDE:
            raise ValueError(f"size must be at most {MAX_SIDE} pixels per side, got {max(self.size)}")

    def check_labels(self, labels: Labels) -> None:
        """Raise ``ValueError`` if a network with these labels has no such output."""
        expected = task_of(labels.task).output
        if self.output not in ("logits", expected):
            raise ValueError(f"this network outputs {expected}, not {self.output}: use output={expected!r} or 'logits'")

    def input_tensor(self, channels: int = 3) -> tuple[str, tuple[int | str, ...]]:
        """Return dtype and shape of the input; open dimensions are names."""
        height, width = self.size or ("height", "width")
        if self.input == "normalized":
            return "float32", ("batch", channels, height, width)
        return "uint8" if self.input == "pixels" else "float32", ("batch", height, width, channels)

    def describe(self, channels: int = 3, has_classifier: bool = True) -> str:
        """Return one line such as "uint8 pixels (batch, 224, 224, 3) → probabilities"."""
        dtype, shape = self.input_tensor(channels)
        outputs = [self.output] * has_classifier + ["embedding"] * (self.embedding or not has_classifier)
        return f"{dtype} {self.input} ({', '.join(map(str, shape))}) → {' and '.join(outputs)}"

    def to_file_metadata(self, metadata: ModelMetadata) -> dict[str, str]:
        """Return the JSON texts stored in a file: ONNX metadata, ``rt_info`` of IR, ``extra_files`` of a ``.pt2``."""
        return {METADATA_KEY: metadata.to_json(), IO_SPEC_KEY: self.to_json()}


def default_input(preprocess: Preprocess) -> str:
    """Return "pixels", or "floats" for images resized as by TensorFlow, which has fractions and overshoots."""
    return "pixels" if preprocess.resampling == "pil" else "floats"


def read_metadata(texts: Mapping[str, str], path: object) -> tuple[ModelMetadata, IOSpec]:
    """Parse a file's metadata. Raises ``ValueError`` if the file was not exported by this package."""
    if METADATA_KEY not in texts or IO_SPEC_KEY not in texts:
        raise ValueError(f"{path} has no effnet metadata: only files exported by effnet can be run")
    try:
        return ModelMetadata.from_json(texts[METADATA_KEY]), IOSpec.from_json(texts[IO_SPEC_KEY])
    except ValueError as error:
        raise ValueError(f"{path} was exported by another version of effnet: export it again ({error})") from None


def is_exported(path: Path) -> bool:
    """Return whether ``path`` is an exported file; an ``.onnx`` or ``.tflite`` of others holds weights to load."""
    if path.suffix not in base.ENGINES_BY_SUFFIX or not path.is_file():
        return path.suffix in (".onnx", ".xml")  # opening a missing one says so
    if path.suffix == ".onnx":
        if not path.stat().st_size:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.rfind(IO_SPEC_KEY.encode()) >= 0  # beside the graph, uncompressed
    if path.suffix != ".tflite":
        return True
    from effnet.runtime.litert import read_tflite_metadata

    try:
        return IO_SPEC_KEY in read_tflite_metadata(path)
    except ValueError:  # loading its weights will report what is wrong
        return False


class FileEngine(base.Engine):
    """Base class of the engines that run an exported file. A subclass sets the attributes and implements `_infer`."""

    path: Path
    metadata: ModelMetadata
    _io_spec: IOSpec
    _opened_by_parent: dict[str, Any]
    _outputs: Mapping[str, Any]  # name -> the runtime's handle; the classifier's output comes first

    def __init__(self, path: str | Path, threads: int | None) -> None:
        self.threads, self.path = base.resolve_threads(threads), Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self._digest = embedded_digest.verify(self.path)
        self._process = os.getpid()

    def run(self, images: base.ImageBatch) -> base.FloatArray:
        """See `Engine.run`."""
        out = self._run_file(next(iter(self._outputs)), images)
        return to_logits(out, self._io_spec, self.metadata.labels.task) if self.classes else out

    def embed(self, images: base.ImageBatch) -> base.FloatArray:
        """See `Engine.embed`."""
        if "embedding" not in self._outputs:
            raise ValueError(f"{self.path} has no embedding output: export the network with embedding=True")
        return self._run_file("embedding", images)

    def _run_file(self, output: str, images: base.ImageBatch) -> base.FloatArray:
        x = to_file_input(images, self.metadata, self._io_spec, self.path)
        self._reopen_after_fork()
        try:
            return self._infer(output, x)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # the runtimes' exceptions have no common class
            if isinstance(error, ValueError) and str(self.path) in str(error):  # ours
                raise
            raise unreadable_file_error(self.path, self.kind, error, "run") from None

    def _reopen_after_fork(self) -> None:
        """Open the file again in a process that was forked: it does not have the threads of its parent's runtime.

        What the parent has opened is kept: closing it would wait for those threads.
        """
        if self._process == os.getpid():
            return
        self._opened_by_parent = dict(vars(self))
        precision = "float32" if self.precision == "int8" else self.precision
        self.__init__(self.path, precision, self.threads)  # type: ignore[misc]

    def _infer(self, output: str, x: np.ndarray) -> base.FloatArray:
        """Run the file on ``x``, which has the form of its input, and return the output of that name."""
        raise NotImplementedError

    def _input_shape(self, batch_size: int, size: tuple[int, int] | None) -> tuple[int, ...]:
        self._reopen_after_fork()
        size = size or self._io_spec.size or self.metadata.preprocess.size
        _check_size(size, self._io_spec, self.path)
        channels = len(self.metadata.preprocess.mean)
        return (batch_size, channels, *size) if self._io_spec.input == "normalized" else (batch_size, *size, channels)


def classifier_first(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``outputs`` with "embedding" last."""
    return dict(sorted(outputs.items(), key=lambda item: item[0] == "embedding"))


def unreadable_file_error(path: Path, kind: str, error: Exception, verb: str = "open") -> ValueError:
    """Return the error to raise if engine ``kind`` cannot open or run the file."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ValueError(f"{kind} cannot {verb} {path}: the file is damaged, or of another version ({reason})")


def to_file_input(images: base.ImageBatch, metadata: ModelMetadata, io_spec: IOSpec, path: Path) -> np.ndarray:
    """Convert ``images`` to the form of the file's input. Raises ``ValueError`` if it does not accept them."""
    x: np.ndarray
    if io_spec.input == "normalized":
        x = base.to_normalized(images, metadata.preprocess)
        _check_size(x.shape[2:], io_spec, path)
    else:
        x = base.to_pixels(images, metadata.preprocess)
        _check_size(x.shape[1:3], io_spec, path)
        if io_spec.input == "pixels":
            x = round_to_uint8(x) if metadata.preprocess.resampling != "pil" else _to_uint8(x, path)
        else:
            x = x.astype(np.float32, copy=False)
    return np.ascontiguousarray(x)


def _check_size(size: tuple[int, ...], io_spec: IOSpec, path: Path) -> None:
    if io_spec.size not in (None, size):
        (height, width), (image_height, image_width) = io_spec.size or size, size
        raise ValueError(
            f"{path} accepts images of {height}×{width} only, got {image_height}×{image_width}: "
            "resize the images, or export the network with this size or size='any'"
        )


def round_to_uint8(pixels: base.ImageBatch) -> NDArray[np.uint8]:
    """Round pixels, half to even, and clip them to 0 … 255: TensorFlow's resampling gives fractions, and overshoots."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels).clip(0, 255).astype(np.uint8)  # type: ignore[return-value]


def _to_uint8(pixels: base.ImageBatch, path: Path) -> NDArray[np.uint8]:
    """Convert pixels that are integers but for the error of float32. Raises ``ValueError`` for others."""
    rounded = round_to_uint8(pixels)
    if pixels.dtype != np.uint8 and np.abs(pixels - rounded).max() > MAX_ROUNDING_ERROR:
        raise ValueError(
            f"{path} accepts integer pixels 0 … 255 only: round the images, or export the network with input='floats'"
        )
    return rounded


def to_logits(outputs: np.ndarray, io_spec: IOSpec, task: str) -> base.FloatArray:
    """Convert a file's outputs to logits; logits and regression values are returned unchanged."""
    floats: base.FloatArray = outputs.astype(np.float32, copy=False)
    return task_of(task).invert(floats) if io_spec.output == "probabilities" else floats
