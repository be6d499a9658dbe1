"""What an exported file takes and gives, and how it says so in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import Record, check_choice, check_int
from effnet.metadata import Labels, ModelMetadata
from effnet.runtime.base import ENGINES_BY_SUFFIX, FloatArray, ImageBatch, to_normalized, to_pixels
from effnet.tasks import task_of

INPUTS = ("pixels", "floats", "normalised")


OUTPUTS = ("probabilities", "logits", "values")


METADATA_KEY, IO_SPEC_KEY = "effnet", "effnet.interface"  # the keys of a file's metadata; both values are JSON


MAX_SIDE = 8192  # pixels: maps of more would fill any memory


@dataclass(frozen=True)
class IOSpec(Record):
    """What an exported file takes and gives.

    ``input``: "pixels", uint8 (N, H, W, 3) of 0 … 255, as pictures come; "floats", the same as float32; "normalised",
    float32 (N, 3, H, W) that has been through mean and std. ``size``: (height, width), None for any.
    ``output``: float32 (N, classes): "probabilities", by a softmax where exactly one label is right and by a sigmoid
    each where any may be; "logits", of which they are made; or "values", for labels that are such: logits as they are.
    ``embedding``: whether a second output "embedding", float32 (N, head channels), is given. A network without a
    classifier gives the embedding alone.
    Input and outputs are named as these values, in every format. Raises ``ValueError`` for any other value.
    """

    input: str = "pixels"
    output: str = "probabilities"
    embedding: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_choice("input", self.input, INPUTS)
        check_choice("output", self.output, OUTPUTS)
        if self.size is None:
            return
        if not isinstance(self.size, tuple) or len(self.size) != 2:
            raise ValueError(f"size must be (height, width), or None for any, got {self.size!r}")
        for side in self.size:
            check_int("size", side, 1)
            if side > MAX_SIDE:
                raise ValueError(f"size must be at most {MAX_SIDE} pixels a side, got {side}")

    def check_labels(self, labels: Labels) -> None:
        """Raises ``ValueError`` where labels of that kind have no such output."""
        expected = task_of(labels.task).output
        if self.output not in ("logits", expected):
            raise ValueError(f"this network gives {expected}, no {self.output}: ask for {expected} or logits")

    def input_tensor(self, channels: int = 3) -> tuple[str, tuple[int | str, ...]]:
        """Type and shape of the input; what is open has a name in place of a number."""
        height, width = self.size or ("height", "width")
        if self.input == "normalised":
            return "float32", ("pictures", channels, height, width)
        return "uint8" if self.input == "pixels" else "float32", ("pictures", height, width, channels)

    def in_words(self, channels: int = 3, has_classifier: bool = True) -> str:
        """One line for a person: "uint8 pixels (pictures, 224, 224, 3) → probabilities"."""
        kind, shape = self.input_tensor(channels)
        outputs = [self.output] * has_classifier + ["embedding"] * (self.embedding or not has_classifier)
        return f"{kind} {self.input} ({', '.join(map(str, shape))}) → {' and '.join(outputs)}"

    def to_file_metadata(self, metadata: ModelMetadata) -> dict[str, str]:
        """The texts that go into an exported file: ONNX's metadata, an IR's ``rt_info``, ``extra_files`` of a ``.pt2``.

        In a ``.tflite`` they are files in the archive behind the flatbuffer, and entries of its own metadata as well.
        """
        return {METADATA_KEY: metadata.to_json(), IO_SPEC_KEY: self.to_json()}


def read_metadata(texts: Mapping[str, str], path: object) -> tuple[ModelMetadata, IOSpec]:
    """Contract and interface from a file's metadata. Raises ``ValueError`` where ``where`` is not a file of ours."""
    if METADATA_KEY not in texts or IO_SPEC_KEY not in texts:
        raise ValueError(f"{path} does not say how it is to be used: only files that effnet exported can be run")
    try:
        return ModelMetadata.from_json(texts[METADATA_KEY]), IOSpec.from_json(texts[IO_SPEC_KEY])
    except ValueError as error:
        raise ValueError(f"{path} was exported by another version of effnet: export it again ({error})") from None


# An exported file on this disk, and pictures and answers on their way into it and out of it.


MAX_ROUNDING_ERROR = (
    0.01  # of a pixel's value: what is left of float32 after mean and std were applied and taken off again
)


def check_file_exists(path: str | Path) -> Path:
    """``path``. Raises ``FileNotFoundError`` where there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such exported file")
    return Path(path)


def unreadable_file_error(path: Path, kind: str, error: Exception) -> ValueError:
    """What is said where ``kind`` does not open the file."""
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ValueError(f"{path} cannot be opened by {kind}: it is damaged, or of another version ({why})")


def to_file_input(images: ImageBatch, metadata: ModelMetadata, io_spec: IOSpec, path: Path) -> NDArray[Any]:
    """``pictures`` in the form that the file takes. Raises ``ValueError`` for those that it cannot take."""
    asked: NDArray[Any]
    if io_spec.input == "normalised":
        asked = to_normalized(images, metadata.preprocess)
        size = asked.shape[2:]
    else:
        asked = to_pixels(images, metadata.preprocess)
        size = asked.shape[1:3]
        asked = _to_uint8(asked, path) if io_spec.input == "pixels" else asked.astype(np.float32, copy=False)
    _check_size(size, io_spec, path)
    return np.ascontiguousarray(asked)


def input_shape(
    batch_size: int, size: tuple[int, int] | None, metadata: ModelMetadata, io_spec: IOSpec, path: Path
) -> tuple[int, ...]:
    """The shape of what the file takes for so many pictures. Raises ``ValueError`` for a size that it cannot take."""
    size = size or io_spec.size or metadata.preprocess.size
    _check_size(size, io_spec, path)
    channels = len(metadata.preprocess.mean)
    return (batch_size, channels, *size) if io_spec.input == "normalised" else (batch_size, *size, channels)


def _check_size(size: tuple[int, ...], io_spec: IOSpec, path: Path) -> None:
    if io_spec.size in (None, size):
        return
    (high, wide), (got_high, got_wide) = io_spec.size or size, size
    raise ValueError(
        f"{path} takes pictures of {high}×{wide} only, these are {got_high}×{got_wide}: "
        "resize them, or export the network at this size or at any"
    )


def _to_uint8(pixels: ImageBatch, path: Path) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    rounded = np.rint(pixels)
    if rounded.min() < 0 or rounded.max() > 255 or np.abs(pixels - rounded).max() > MAX_ROUNDING_ERROR:
        raise ValueError(f"{path} takes whole pixels of 0 … 255, and these are not: round them, or export with floats")
    return rounded.astype(np.uint8)


def to_logits(outputs: NDArray[Any], io_spec: IOSpec, task: str) -> FloatArray:
    """Return the file's outputs as logits. Values are logits already."""
    floats: FloatArray = outputs.astype(np.float32, copy=False)
    if io_spec.output != "probabilities":
        return floats
    return task_of(task).invert(floats)


def no_embedding_error(path: Path) -> ValueError:
    """What is said where the file gives no embedding."""
    return ValueError(f"{path} gives no embedding: export the network with embedding=True")


def is_exported(path: Path) -> bool:
    """Whether the file is one to run as it is: an IR or ONNX, or a ``.tflite`` that says how it is to be used."""
    if path.suffix != ".tflite" or not path.is_file():
        return path.suffix in ENGINES_BY_SUFFIX and path.suffix != ".tflite"
    from effnet.runtime.litert import read_tflite_metadata

    try:
        return IO_SPEC_KEY in read_tflite_metadata(path)
    except ValueError:  # whoever reads its weights says what is wrong with it
        return False
