"""Running ONNX files with onnxruntime. Imports no torch."""

import mmap
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from effnet.data.storage import embedded_digest
from effnet.runtime import base, io_spec
from effnet.telemetry import disable_telemetry

SUPPORTED_PRECISIONS = ("float32",)  # CPU kernels: bfloat16 on Arm only, and float16 is converted to float32 and back
LOG_ERRORS_ONLY = 3


class ONNXRuntimeEngine(io_spec.FileEngine):
    """An exported ``.onnx``, ready to run on the CPU. Thread-safe. Raises as `base.open_exported` does."""

    kind = "onnxruntime"

    def __init__(self, path: str | Path, precision: str = "float32", threads: int | None = None) -> None:
        super().__init__(path, threads)
        self.precision = base.resolve_precision(self.kind, precision, SUPPORTED_PRECISIONS, _is_quantized(self.path))
        self._session = open_session(self.path, self.threads)
        self._prepared: tuple[tuple[int, ...], Any] = (), None  # an input shape, and the session for that shape only
        self.metadata, self._io_spec = io_spec.read_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        self._input = self._session.get_inputs()[0].name
        self._outputs = io_spec.classifier_first({each.name: each.shape for each in self._session.get_outputs()})
        name, shape = next(iter(self._outputs.items()))
        self.classes = 0 if name == "embedding" else int(shape[1])

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """See `Engine.prepare`. Opens a second session for this shape only."""
        shape = self._input_shape(batch_size, size)
        if shape != self._prepared[0]:
            axes = self._session.get_inputs()[0].shape
            fixed = {axis: length for axis, length in zip(axes, shape, strict=True) if isinstance(axis, str)}
            if embedded_digest.verify(self.path) != self._digest:
                raise ValueError(f"{self.path} was replaced while it was open: open it again")
            self._prepared = shape, open_session(self.path, self.threads, fixed)

    def _infer(self, output: str, x: NDArray[Any]) -> base.FloatArray:
        shape, session = self._prepared
        out: base.FloatArray = (session if x.shape == shape else self._session).run([output], {self._input: x})[0]
        return out


def open_session(
    path: Path, threads: int, fixed_axes: dict[str, int] | None = None, profile: Path | None = None
) -> Any:
    """Return an onnxruntime session for the CPU; with ``profile``, it writes a profile of that name."""
    disable_telemetry("onnxruntime")
    try:
        import onnxruntime
    except ImportError:
        raise base.not_installed_error("onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS_ONLY
    # Spinning threads make a single run faster, but between runs they would take the cores from other work
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for axis, length in (fixed_axes or {}).items():
        options.add_free_dimension_override_by_name(axis, length)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    try:  # without the fallback, which prints to standard output and tries the same again
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no other base class
        raise io_spec.unreadable_file_error(path, "onnxruntime", error) from None


def _is_quantized(path: Path) -> bool:
    """Return whether the file names a quantizing operator; onnxruntime does not list a model's operators."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DequantizeLinear") >= 0 or content.find(b"QLinearConv") >= 0
