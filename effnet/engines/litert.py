"""TensorFlow Lite's files through LiteRT and its XNNPACK kernels. Imports no torch."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.engines.engine import Floats, Pictures, granted, missing, settled
from effnet.engines.filed import as_asked, as_logits, no_embedding, shape, there, unreadable
from effnet.engines.interface import CONTRACT, INTERFACE, Interface, said

OFFERED = ("float32",)  # XNNPACK's float16 is for Arm, and is not to be had from Python
# Of a file that `effnet.save` wrote: a network rather than an export, whose size may be changed
SAVED = Interface("floats", "logits", embedding=False, size=None)

_STANDARD_ERROR = 2
_QUIET = Lock()


class Litert:
    """A ``.tflite`` that effnet wrote, exported or saved, float or quantised. Calls from several threads wait.

    Memory is laid out anew when batch or size changes, and kept while they do not.
    Raises ``ImportError`` without ai-edge-litert, ``FileNotFoundError``, and ``ValueError`` for a file that is damaged
    or not ours, less than one thread, or another precision than float32.
    """

    kind = "litert"

    def __init__(self, path: str | Path, precision: str = "float32", threads: int | None = None) -> None:
        self.threads = granted(threads)
        self.path = there(path)
        texts = metadata(self.path)
        if CONTRACT in texts:
            texts.setdefault(INTERFACE, SAVED.to_json())
        self.contract, self._interface = said(texts, path)
        self._interpreter = self._open()
        quantised = any(each["dtype"] == np.int8 for each in self._interpreter.get_tensor_details())
        self.precision = settled(self.kind, precision, OFFERED, quantised)
        self._input = self._interpreter.get_input_details()[0]
        outputs = {_named(each["name"]): each for each in self._interpreter.get_output_details()}
        self._embedding = outputs.pop("embedding", None)
        self._answer = next(iter(outputs.values()), self._embedding)
        self.classes = int(self._answer["shape"][-1]) if outputs else 0
        self._shape: tuple[int, ...] = ()  # for which memory is laid out
        self._lock = Lock()

    def _open(self) -> Any:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise missing(self.kind) from None
        try:
            return Interpreter(str(self.path), num_threads=self.threads)
        except (ValueError, RuntimeError) as error:
            raise unreadable(self.path, self.kind, error) from None

    def run(self, pictures: Pictures) -> Floats:
        """As `Engine.run`."""
        out = self._run(self._answer, pictures)
        return as_logits(out, self._interface, self.contract.labels.kind) if self.classes else out

    def embed(self, pictures: Pictures) -> Floats:
        """As `Engine.embed`."""
        if self._embedding is None:
            raise no_embedding(self.path)
        return self._run(self._embedding, pictures)

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: memory is laid out for them."""
        with self._lock:
            self._lay_out(shape(batch, size, self.contract, self._interface, self.path))

    def _run(self, output: Any, pictures: Pictures) -> Floats:
        x = _stored(as_asked(pictures, self.contract, self._interface, self.path), self._input)
        with self._lock:
            self._lay_out(x.shape)
            self._interpreter.set_tensor(self._input["index"], x)
            self._interpreter.invoke()
            out: NDArray[Any] = self._interpreter.get_tensor(output["index"])
        return _meant(out.reshape(len(x), -1), output)

    def _lay_out(self, shape: tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        self._shape = ()
        try:
            with without_notices():
                self._interpreter.resize_tensor_input(self._input["index"], shape)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            _, high, wide, _ = shape
            why = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{self.path} cannot take {shape[0]} pictures of {high}×{wide} ({why})") from None
        self._shape = shape


def metadata(path: Path) -> dict[str, str]:
    """The texts among the file's metadata that are ours. Raises ``ValueError`` for a file that is none, or damaged."""
    from effnet.weights.formats.tflite.schema import notes

    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            found = notes(content)  # type: ignore[arg-type]  # it serves where bytes do
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return {key: found[key].decode(errors="replace") for key in (CONTRACT, INTERFACE) if key in found}


def _named(name: str) -> str:
    """An output's name as ours; converters put more around it."""
    return "embedding" if "embedding" in name else name


def _stored(values: NDArray[Any], tensor: Any) -> NDArray[Any]:
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


def _meant(stored: NDArray[Any], tensor: Any) -> Floats:
    """What the numbers in the tensor mean."""
    scale, zero = tensor["quantization"]
    floats = stored.astype(np.float32, copy=False)
    return (floats - np.float32(zero)) * np.float32(scale) if scale and stored.dtype.kind in "iu" else floats


@contextmanager
def without_notices() -> Iterator[None]:
    """Keeps XNNPACK's notice that it was created, which Python cannot turn off, from the user's terminal."""
    with _QUIET:
        try:
            kept = os.dup(_STANDARD_ERROR)
        except OSError:  # closed: nobody sees it
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STANDARD_ERROR)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
