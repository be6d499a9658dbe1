"""OpenVINO: writing a network as IR (``NAME.xml`` and ``NAME.bin``), and running IR and ONNX files without torch."""

import errno
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from shutil import disk_usage
from threading import Lock
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from effnet.data.storage import embedded_digest
from effnet.runtime import base, io_spec
from effnet.telemetry import hide_openvino_telemetry

if TYPE_CHECKING:
    from effnet.net import EfficientNet

OPENVINO_SUFFIXES = (".xml", ".onnx")
PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
PRECISION_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}  # as OpenVINO's devices name them
METADATA_PATHS = ((), ("framework",))  # where rt_info holds metadata: in an IR, and in a model read from ONNX
ANY_SHAPE: tuple[int, ...] = ()
MAX_COMPILED_SHAPES = 3  # including ANY_SHAPE; each holds its own copy of the weights


class OpenVINOEngine(io_spec.FileEngine):
    """An exported ``.xml`` or ``.onnx``, ready to run on the CPU. Calls from several threads are serialized.

    A model compiled for one input shape (`prepare`) is 10 to 20 % faster than one for any shape.
    ``cache``: folder in which OpenVINO keeps the model compiled for any shape, to start faster the next time.
    Raises as `base.open_exported` does.
    """

    kind = "openvino"

    def __init__(
        self, path: str | Path, precision: str = "float32", threads: int | None = None, cache: Path | None = None
    ) -> None:
        super().__init__(path, threads)
        if self.path.suffix not in OPENVINO_SUFFIXES:  # OpenVINO's other readers would print errors to the terminal
            raise ValueError(f"openvino does not open {path}: expected {' or '.join(OPENVINO_SUFFIXES)}")
        core = get_core()
        try:
            # Read, not mapped: a mapped file that becomes shorter while it is served ends the process
            with base.silence_stderr():  # a damaged IR is tried as a text of TensorFlow, which complains in many lines
                self._model = core.read_model(self.path, config={"ENABLE_MMAP": False})
        except Exception as error:  # mostly RuntimeError, but that is not documented
            raise io_spec.unreadable_file_error(self.path, self.kind, error) from None
        self.metadata, self._io_spec = io_spec.read_metadata(_read_rt_info(self._model), path)
        quantized = any(operation.get_type_name() == "FakeQuantize" for operation in self._model.get_ops())
        self.precision = base.resolve_precision(self.kind, precision, supported_precisions(), quantized)
        self._settings = compile_settings(precision, self.threads)
        self._cache = cache
        self._requests: dict[tuple[int, ...], Any] = {}  # by input shape
        self._lock = Lock()
        indices = {_output_name(output): index for index, output in enumerate(self._model.outputs)}
        self._outputs = io_spec.classifier_first(indices)
        name, index = next(iter(self._outputs.items()))
        self.classes = 0 if name == "embedding" else self._model.outputs[index].partial_shape[1].get_length()

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """See `Engine.prepare`. Compiles for this shape in about a second; the last few shapes are kept."""
        with self._lock:
            shape = self._input_shape(batch_size, size)
            request = self._requests.pop(shape, None) or self._compile(shape)
            while len(self._requests) >= MAX_COMPILED_SHAPES:
                del self._requests[next(iter(self._requests))]
            self._requests[shape] = request

    def _infer(self, output: str, x: NDArray[Any]) -> base.FloatArray:
        with self._lock:
            request = self._requests.get(x.shape) or self._requests.get(ANY_SHAPE)
            if request is None:
                request = self._requests[ANY_SHAPE] = self._compile(ANY_SHAPE)
            request.infer([x], share_inputs=True)
            out: base.FloatArray = request.get_output_tensor(self._outputs[output]).data.copy()
        return out

    def _compile(self, shape: tuple[int, ...]) -> Any:
        core, model = get_core(), self._model
        if shape != ANY_SHAPE:
            model = model.clone()
            model.reshape(list(shape))
        elif self._cache:
            with suppress(RuntimeError):  # the folder is not writable, or its content damaged: compile without it
                settings = {**self._settings, "CACHE_DIR": str(self._cache)}
                return core.compile_model(model, "CPU", settings).create_infer_request()
        return core.compile_model(model, "CPU", self._settings).create_infer_request()


def supported_precisions() -> tuple[str, ...]:
    """Return the precisions that OpenVINO computes in on this CPU."""
    capabilities = get_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, capability in PRECISION_CAPABILITIES.items() if capability in capabilities)


def compile_settings(precision: str, threads: int) -> dict[str, Any]:
    """Return the settings with which models are compiled for the CPU."""
    hint = PRECISION_HINTS.get(precision, "f32")
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}


def write_openvino(path: Path, model: "EfficientNet", spec: io_spec.IOSpec, half_precision: bool = False) -> None:
    """Write ``model`` as ``.xml`` and ``.bin``, from its ONNX graph; ``half_precision``: weights stored in 16 bits."""
    from effnet.runtime.onnx_writer import build_onnx_model

    save_ir(build_onnx_model(model, spec), path, spec.to_file_metadata(model.metadata), half_precision)


def save_ir(onnx_model: Any, path: Path, texts: dict[str, str], half_precision: bool = False) -> None:
    """Convert an ``onnx.ModelProto`` to IR and write it, with ``texts`` as its ``rt_info``. Raises ``OSError``."""
    core = get_core()
    import openvino

    content = onnx_model.SerializeToString()
    graph = core.read_model(model=content)
    for name, text in (texts | embedded_digest.DIGEST_TEXTS).items():
        graph.set_rt_info(text, [name])
    try:
        openvino.save_model(graph, path, compress_to_fp16=half_precision)
    except RuntimeError as error:  # does not name the cause
        if disk_usage(path.parent).free < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise OSError(f"OpenVINO could not write {path.name}: {str(error).strip().splitlines()[-1]}") from error
    embedded_digest.seal(path)


def get_core() -> Any:
    """Return OpenVINO's ``Core``, one for the whole process. Raises ``ImportError`` without openvino.

    Its CPU plugin sets the stack on which signals are handled, and restores the previous one when it is destroyed. If
    two cores overlap, the second restores the stack of the first, which no longer exists, and the next signal (such as
    the end of a data loader's worker) kills the process. A core that is never destroyed avoids this.
    """
    try:
        with hide_openvino_telemetry():
            import openvino
    except ImportError:
        raise base.not_installed_error("openvino") from None
    return _make_core(openvino.Core, os.getpid())


@cache
def _make_core(core_class: Any, process: int) -> Any:
    return core_class()


def _output_name(output: Any) -> str:
    names: set[str] = output.get_names()
    return next((name for name in (*io_spec.OUTPUTS, "embedding") if name in names), min(names, default=""))


def _read_rt_info(model: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for key in (io_spec.METADATA_KEY, io_spec.IO_SPEC_KEY):
        for place in METADATA_PATHS:
            if model.has_rt_info([*place, key]):
                found[key] = model.get_rt_info([*place, key]).astype(str)
    return found
