"""ONNX files through onnxruntime. Imports no torch."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from effnet.runtime.base import FloatArray, ImageBatch, not_installed_error, resolve_precision, resolve_threads
from effnet.runtime.io_spec import (
    check_file_exists,
    input_shape,
    no_embedding_error,
    read_metadata,
    to_file_input,
    to_logits,
    unreadable_file_error,
)

SUPPORTED_PRECISIONS = (
    "float32",
)  # its CPU kernels know bfloat16 on Arm alone, and float16 converts to float32 and back
LOG_ERRORS_ONLY = 3


class ONNXRuntimeEngine:
    """An exported ``.onnx``, ready to run on the CPU. Several threads may call it at once.

    Raises ``ImportError`` without onnxruntime, ``FileNotFoundError``, and ``ValueError`` for a file that is damaged or
    not ours, less than one thread, or another precision than float32.
    """

    kind = "onnxruntime"

    def __init__(self, path: str | Path, precision: str = "float32", threads: int | None = None) -> None:
        self.threads = resolve_threads(threads)
        self.path = check_file_exists(path)
        self.precision = resolve_precision(self.kind, precision, SUPPORTED_PRECISIONS, _is_quantized(self.path))
        self._session = self._open_session()
        self._prepared: tuple[tuple[int, ...], Any] = (), None  # a shape, and the session for it alone
        self.metadata, self._io_spec = read_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        self._input = self._session.get_inputs()[0].name
        shapes = {each.name: each.shape for each in self._session.get_outputs()}
        self._output = next((name for name in shapes if name != "embedding"), "embedding")
        self._has_embedding = "embedding" in shapes
        self.classes = 0 if self._output == "embedding" else int(shapes[self._output][1])

    def _open_session(self, fixed_axes: dict[str, int] | None = None) -> Any:
        """A session; ``fixed``: the lengths of axes that the file leaves open."""
        try:
            import onnxruntime
        except ImportError:
            raise not_installed_error(self.kind) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = LOG_ERRORS_ONLY
        # Threads that wait actively make one picture faster; between two runs they would take the cores from others.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        for axis, length in (fixed_axes or {}).items():
            options.add_free_dimension_override_by_name(axis, length)
        try:
            return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes have nothing but this in common
            raise unreadable_file_error(self.path, self.kind, error) from None

    def run(self, images: ImageBatch) -> FloatArray:
        """As `Engine.run`."""
        out = self._run(self._output, images)
        return to_logits(out, self._io_spec, self.metadata.labels.task) if self.classes else out

    def embed(self, images: ImageBatch) -> FloatArray:
        """As `Engine.embed`."""
        if not self._has_embedding:
            raise no_embedding_error(self.path)
        return self._run("embedding", images)

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: opens the file once more, for this shape alone."""
        asked = input_shape(batch_size, size, self.metadata, self._io_spec, self.path)
        if asked == self._prepared[0]:
            return
        axes = self._session.get_inputs()[0].shape
        fixed = {axis: length for axis, length in zip(axes, asked, strict=True) if isinstance(axis, str)}
        self._prepared = asked, self._open_session(fixed)

    def _run(self, output: str, images: ImageBatch) -> FloatArray:
        x = to_file_input(images, self.metadata, self._io_spec, self.path)
        prepared, session = self._prepared
        session = session if x.shape == prepared else self._session
        out: FloatArray = session.run([output], {self._input: x})[0]
        return out


def _is_quantized(path: Path) -> bool:
    """Whether an operator in the file is called so: onnxruntime does not show a model's operators."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DequantizeLinear") >= 0 or content.find(b"QLinearConv") >= 0
