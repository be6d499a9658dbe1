"""TensorFlow Lite's files through LiteRT and its XNNPACK kernels. Imports no torch."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.base import FloatArray, ImageBatch, not_installed_error, resolve_precision, resolve_threads
from effnet.runtime.io_spec import (
    IO_SPEC_KEY,
    METADATA_KEY,
    IOSpec,
    check_file_exists,
    input_shape,
    no_embedding_error,
    read_metadata,
    to_file_input,
    to_logits,
    unreadable_file_error,
)
from effnet.weights.formats.tflite_writer import TfliteIO, write_tflite_export
from effnet.weights.key_maps import tflite_key_map

SUPPORTED_PRECISIONS = ("float32",)  # XNNPACK's float16 is for Arm, and is not to be had from Python


# Of a file that `effnet.save` wrote: a network rather than an export, whose size may be changed
SAVED_IO_SPEC = IOSpec("floats", "logits", embedding=False, size=None)


_STDERR = 2


_STDERR_LOCK = Lock()


class LiteRTEngine:
    """A ``.tflite`` that effnet wrote, exported or saved, float or quantised. Calls from several threads wait.

    Memory is laid out anew when batch or size changes, and kept while they do not.
    Raises ``ImportError`` without ai-edge-litert, ``FileNotFoundError``, and ``ValueError`` for a file that is damaged
    or not ours, less than one thread, or another precision than float32.
    """

    kind = "litert"

    def __init__(self, path: str | Path, precision: str = "float32", threads: int | None = None) -> None:
        self.threads = resolve_threads(threads)
        self.path = check_file_exists(path)
        texts = read_tflite_metadata(self.path)
        if METADATA_KEY in texts:
            texts.setdefault(IO_SPEC_KEY, SAVED_IO_SPEC.to_json())
        self.metadata, self._io_spec = read_metadata(texts, path)
        self._interpreter = self._open_interpreter()
        quantised = any(each["dtype"] == np.int8 for each in self._interpreter.get_tensor_details())
        self.precision = resolve_precision(self.kind, precision, SUPPORTED_PRECISIONS, quantised)
        self._input = self._interpreter.get_input_details()[0]
        outputs = {_output_name(each["name"]): each for each in self._interpreter.get_output_details()}
        self._embedding = outputs.pop("embedding", None)
        self._output = next(iter(outputs.values()), self._embedding)
        self.classes = int(self._output["shape"][-1]) if outputs else 0
        self._shape: tuple[int, ...] = ()  # for which memory is laid out
        self._lock = Lock()

    def _open_interpreter(self) -> Any:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise not_installed_error(self.kind) from None
        try:
            return Interpreter(str(self.path), num_threads=self.threads)
        except (ValueError, RuntimeError) as error:
            raise unreadable_file_error(self.path, self.kind, error) from None

    def run(self, images: ImageBatch) -> FloatArray:
        """As `Engine.run`."""
        out = self._run(self._output, images)
        return to_logits(out, self._io_spec, self.metadata.labels.task) if self.classes else out

    def embed(self, images: ImageBatch) -> FloatArray:
        """As `Engine.embed`."""
        if self._embedding is None:
            raise no_embedding_error(self.path)
        return self._run(self._embedding, images)

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: memory is laid out for them."""
        with self._lock:
            self._allocate(input_shape(batch_size, size, self.metadata, self._io_spec, self.path))

    def _run(self, output: Any, images: ImageBatch) -> FloatArray:
        x = _quantize(to_file_input(images, self.metadata, self._io_spec, self.path), self._input)
        with self._lock:
            self._allocate(x.shape)
            self._interpreter.set_tensor(self._input["index"], x)
            self._interpreter.invoke()
            out: NDArray[Any] = self._interpreter.get_tensor(output["index"])
        return _dequantize(out.reshape(len(x), -1), output)

    def _allocate(self, shape: tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        self._shape = ()
        try:
            with silence_xnnpack():
                self._interpreter.resize_tensor_input(self._input["index"], shape)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            _, high, wide, _ = shape
            why = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{self.path} cannot take {shape[0]} pictures of {high}×{wide} ({why})") from None
        self._shape = shape


def read_tflite_metadata(path: Path) -> dict[str, str]:
    """The texts among the file's metadata that are ours. Raises ``ValueError`` for a file that is none, or damaged."""
    from effnet.weights.formats.tflite_schema import read_metadata_buffers

    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            found = read_metadata_buffers(content)  # type: ignore[arg-type]  # it serves where bytes do
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return {key: found[key].decode(errors="replace") for key in (METADATA_KEY, IO_SPEC_KEY) if key in found}


def _output_name(name: str) -> str:
    """An output's name as ours; converters put more around it."""
    return "embedding" if "embedding" in name else name


def _quantize(values: NDArray[Any], tensor: Any) -> NDArray[Any]:
    """``values`` as the tensor holds them: as they are, or quantised."""
    scale, zero = tensor["quantization"]
    kind = tensor["dtype"]
    if values.dtype == kind and (scale, zero) in ((0, 0), (1, 0)):
        return values
    if not scale:
        return values.astype(kind)
    range_ = np.iinfo(kind)
    quantised: NDArray[Any] = np.rint(values.astype(np.float32) / scale + zero).clip(range_.min, range_.max)
    return quantised.astype(kind)


def _dequantize(stored: NDArray[Any], tensor: Any) -> FloatArray:
    """What the numbers in the tensor mean."""
    scale, zero = tensor["quantization"]
    floats = stored.astype(np.float32, copy=False)
    return (floats - np.float32(zero)) * np.float32(scale) if scale and stored.dtype.kind in "iu" else floats


@contextmanager
def silence_xnnpack() -> Iterator[None]:
    """Keeps XNNPACK's notice that it was created, which Python cannot turn off, from the user's terminal."""
    with _STDERR_LOCK:
        try:
            kept = os.dup(_STDERR)
        except OSError:  # closed: nobody sees it
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDERR)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)


# From a network to a ``.tflite`` for LiteRT, the interpreter that was TensorFlow Lite's.


def write_litert(path: Path, model: EfficientNet, io_spec: IOSpec, half_precision: bool = False) -> None:
    """``model`` as a TFLite file for one picture; its input may be resized to more, and to any size.

    It is laid out at ``interface.size``, or with None at the network's own. ``half``: weights are stored in 16 bits and
    computed with in float32. XNNPACK takes all of the graph but one operator: the cast of uint8 pixels to floats.
    The texts of `Interface.metadata` lie in the archive behind the flatbuffer, where ``zipfile`` reads them, with the
    labels as TFLite's own tools look for them. Raises ``ValueError`` for a network above 2 GiB.
    """
    folded = fold_batch_norm(model).float()
    folded.preprocess = replace(model.preprocess, size=io_spec.size or model.preprocess.size)
    ends = TfliteIO(io_spec.input, io_spec.output, io_spec.embedding, half_precision)
    write_tflite_export(path, _tflite_weights(folded), folded, ends, io_spec.to_file_metadata(model.metadata))


def _tflite_weights(folded: EfficientNet) -> dict[str, Tensor]:
    """Weights and biases by TFLite's names, in its order of axes."""
    state, found = folded.state_dict(), {}
    for ours, theirs in tflite_key_map(folded.arch, folded.classes).items():
        tensor = state[ours.replace(".norm.bias", ".conv.bias")].detach().cpu()
        if tensor.ndim == 4:  # (out, in, height, width) -> (out, height, width, in), depthwise (1, height, width, out)
            tensor = tensor.permute((1, 2, 3, 0) if ours.endswith("depthwise.conv.weight") else (0, 2, 3, 1))
        found[theirs] = tensor.contiguous()
    return found
