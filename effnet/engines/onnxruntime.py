"""ONNX files through onnxruntime. Imports no torch."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from effnet.engines.engine import Floats, Pictures, granted, missing, settled
from effnet.engines.filed import as_asked, as_logits, no_embedding, shape, there, unreadable
from effnet.engines.interface import said

OFFERED = ("float32",)  # its CPU kernels know bfloat16 on Arm alone, and float16 converts to float32 and back
ERRORS_ONLY = 3


class Onnxruntime:
    """An exported ``.onnx``, ready to run on the CPU. Several threads may call it at once.

    Raises ``ImportError`` without onnxruntime, ``FileNotFoundError``, and ``ValueError`` for a file that is damaged or
    not ours, less than one thread, or another precision than float32.
    """

    kind = "onnxruntime"

    def __init__(self, path: str | Path, precision: str = "float32", threads: int | None = None) -> None:
        self.threads = granted(threads)
        self.path = there(path)
        self.precision = settled(self.kind, precision, OFFERED, _quantised(self.path))
        self._session = self._open()
        self._prepared: tuple[tuple[int, ...], Any] = (), None  # a shape, and the session for it alone
        self.contract, self._interface = said(self._session.get_modelmeta().custom_metadata_map, path)
        self._input = self._session.get_inputs()[0].name
        shapes = {each.name: each.shape for each in self._session.get_outputs()}
        self._answer = next((name for name in shapes if name != "embedding"), "embedding")
        self._embeds = "embedding" in shapes
        self.classes = 0 if self._answer == "embedding" else int(shapes[self._answer][1])

    def _open(self, fixed: dict[str, int] | None = None) -> Any:
        """A session; ``fixed``: the lengths of axes that the file leaves open."""
        try:
            import onnxruntime
        except ImportError:
            raise missing(self.kind) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # Threads that wait actively make one picture faster; between two runs they would take the cores from others.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        for axis, length in (fixed or {}).items():
            options.add_free_dimension_override_by_name(axis, length)
        try:
            return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes have nothing but this in common
            raise unreadable(self.path, self.kind, error) from None

    def run(self, pictures: Pictures) -> Floats:
        """As `Engine.run`."""
        out = self._run(self._answer, pictures)
        return as_logits(out, self._interface, self.contract.labels.kind) if self.classes else out

    def embed(self, pictures: Pictures) -> Floats:
        """As `Engine.embed`."""
        if not self._embeds:
            raise no_embedding(self.path)
        return self._run("embedding", pictures)

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: opens the file once more, for this shape alone."""
        asked = shape(batch, size, self.contract, self._interface, self.path)
        if asked == self._prepared[0]:
            return
        axes = self._session.get_inputs()[0].shape
        fixed = {axis: length for axis, length in zip(axes, asked, strict=True) if isinstance(axis, str)}
        self._prepared = asked, self._open(fixed)

    def _run(self, output: str, pictures: Pictures) -> Floats:
        x = as_asked(pictures, self.contract, self._interface, self.path)
        prepared, session = self._prepared
        session = session if x.shape == prepared else self._session
        out: Floats = session.run([output], {self._input: x})[0]
        return out


def _quantised(path: Path) -> bool:
    """Whether an operator in the file is called so: onnxruntime does not show a model's operators."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DequantizeLinear") >= 0 or content.find(b"QLinearConv") >= 0
