"""OpenVINO's own files and ONNX files through OpenVINO. Imports no torch."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from shutil import disk_usage
from threading import Lock
from typing import Any

from effnet.net import EfficientNet
from effnet.runtime import onnx
from effnet.runtime.base import FloatArray, ImageBatch, not_installed_error, resolve_precision, resolve_threads
from effnet.runtime.io_spec import (
    IO_SPEC_KEY,
    METADATA_KEY,
    OUTPUTS,
    IOSpec,
    check_file_exists,
    input_shape,
    no_embedding_error,
    read_metadata,
    to_file_input,
    to_logits,
    unreadable_file_error,
)

OPENVINO_SUFFIXES = (".xml", ".onnx")


PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


PRECISION_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}  # as its devices call them


TELEMETRY = "openvino_telemetry"


ANY_SHAPE: tuple[int, ...] = ()


MAX_COMPILED_SHAPES = 3  # shapes compiled for, ANY among them: each holds the weights once more


METADATA_PATHS = ((), ("framework",))  # of the metadata: in an IR, and in what is read from ONNX


def get_core() -> Any:
    """OpenVINO's ``Core``, one for the whole process. Raises ``ImportError`` without openvino.

    Its CPU plugin sets the stack on which signals are handled, and when it goes puts back the one before it. Of two
    that overlap, the second puts back the first's, which is gone by then; the next signal, as of a data loader's worker
    that ends, then kills the process. One that stays does not.
    """
    try:
        with _without_telemetry():
            import openvino
    except ImportError:
        raise not_installed_error("openvino") from None
    return _make_core(openvino.Core)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """In this block openvino is imported without its telemetry, which it does not need.

    With it the import sends a report to a service for statistics, unless the user has once said no, from a process
    that it forks while threads run. Where new processes are spawned, that one imports the program once more: for its
    first second it takes one of the cores from the network.
    """
    if TELEMETRY in sys.modules:
        yield
        return
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # whoever imports it hears that it is not installed
    try:
        yield
    finally:
        sys.modules.pop(TELEMETRY, None)  # another thread may have been here too


@cache
def _make_core(core_class: Any) -> Any:
    return core_class()


class OpenVINOEngine:
    """An exported ``.xml`` or ``.onnx``, ready to run on the CPU. Calls from several threads wait for each other.

    What is compiled for one shape of pictures alone is a tenth to a fifth faster than what takes any (`prepare`).
    ``cache``: a folder in which OpenVINO keeps what it compiled for any shape, and finds it again the next time.
    Raises ``ImportError`` without openvino, ``FileNotFoundError``, and ``ValueError`` for a file that is damaged or not
    ours, less than one thread, or a precision that this CPU has not.
    """

    kind = "openvino"

    def __init__(
        self, path: str | Path, precision: str = "float32", threads: int | None = None, cache: Path | None = None
    ) -> None:
        self.threads = resolve_threads(threads)
        self.path = check_file_exists(path)
        if (
            self.path.suffix not in OPENVINO_SUFFIXES
        ):  # its other readers would try theirs, and complain on the terminal
            raise ValueError(f"openvino does not open {path}: its files end in {' or '.join(OPENVINO_SUFFIXES)}")
        core = get_core()
        try:
            model = core.read_model(self.path)
        except Exception as error:  # RuntimeError mostly, but nothing says so
            raise unreadable_file_error(self.path, self.kind, error) from None
        self.metadata, self._io_spec = read_metadata(_read_rt_info(model), path)
        quantised = any(each.get_type_name() == "FakeQuantize" for each in model.get_ops())
        here = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        offered = tuple(name for name, capability in PRECISION_CAPABILITIES.items() if capability in here)
        self.precision = resolve_precision(self.kind, precision, offered, quantised)
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS.get(precision, "f32"),
        }
        self._model, self._cache = model, cache
        self._requests: dict[tuple[int, ...], Any] = {}  # by the shape that they take, ANY for those that take any
        self._lock = Lock()
        names = [_output_name(output) for output in model.outputs]
        self._output_indices = {name: place for place, name in enumerate(names)}
        self._output = next((name for name in names if name != "embedding"), "embedding")
        answered = model.outputs[self._output_indices[self._output]].partial_shape
        self.classes = 0 if self._output == "embedding" else answered[1].get_length()

    def run(self, images: ImageBatch) -> FloatArray:
        """As `Engine.run`."""
        out = self._run(self._output, images)
        return to_logits(out, self._io_spec, self.metadata.labels.task) if self.classes else out

    def embed(self, images: ImageBatch) -> FloatArray:
        """As `Engine.embed`."""
        if "embedding" not in self._output_indices:
            raise no_embedding_error(self.path)
        return self._run("embedding", images)

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: compiles for this shape, a second or less. The last few shapes are kept."""
        with self._lock:
            asked = input_shape(batch_size, size, self.metadata, self._io_spec, self.path)
            made = self._requests.pop(asked, None) or self._compile(asked)
            while len(self._requests) >= MAX_COMPILED_SHAPES:
                del self._requests[next(iter(self._requests))]
            self._requests[asked] = made

    def _run(self, output: str, images: ImageBatch) -> FloatArray:
        x = to_file_input(images, self.metadata, self._io_spec, self.path)
        with self._lock:
            request = self._requests.get(x.shape) or self._any_shape_request()
            request.infer([x], share_inputs=True)
            out: FloatArray = request.get_output_tensor(self._output_indices[output]).data.copy()
        return out

    def _any_shape_request(self) -> Any:
        if ANY_SHAPE not in self._requests:
            self._requests[ANY_SHAPE] = self._compile(ANY_SHAPE)
        return self._requests[ANY_SHAPE]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        core, model = get_core(), self._model
        if shape != ANY_SHAPE:
            model = model.clone()
            model.reshape(list(shape))
        elif self._cache:
            with suppress(RuntimeError):  # the folder cannot be written, or what lies in it is damaged: costs time only
                settings = {**self._settings, "CACHE_DIR": str(self._cache)}
                return core.compile_model(model, "CPU", settings).create_infer_request()
        return core.compile_model(model, "CPU", self._settings).create_infer_request()


def _output_name(output: Any) -> str:
    """The output's name among ours; an output may have several."""
    names: set[str] = output.get_names()
    return next((name for name in (*OUTPUTS, "embedding") if name in names), min(names, default=""))


def _read_rt_info(model: Any) -> dict[str, str]:
    """What the file says of itself, wherever its format lets it."""
    found: dict[str, str] = {}
    for key in (METADATA_KEY, IO_SPEC_KEY):
        for place in METADATA_PATHS:
            if model.has_rt_info([*place, key]):
                found[key] = model.get_rt_info([*place, key]).astype(str)
    return found


# From a network to OpenVINO's own files: ``NAME.xml``, the graph, and ``NAME.bin``, its numbers.


def write_openvino(path: Path, model: EfficientNet, io_spec: IOSpec, half_precision: bool = False) -> None:
    """``model`` at ``path``, which ends in ``.xml``, and the ``.bin`` beside it: the graph that `onnx.made` makes.

    ``half``: weights are stored in 16 bits; they are computed with in float32 all the same. Contract and interface lie
    in the model's ``rt_info``. Raises ``ImportError`` without openvino or onnx, ``OSError`` where it cannot be written.
    """
    core = get_core()
    import openvino

    content = onnx.build_onnx_model(model, io_spec).SerializeToString()
    graph = core.read_model(model=content)
    for name, text in io_spec.to_file_metadata(model.metadata).items():
        graph.set_rt_info(text, [name])
    try:
        openvino.save_model(graph, path, compress_to_fp16=half_precision)
    except RuntimeError as error:  # which does not say why
        if disk_usage(path.parent).free < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise OSError(f"OpenVINO could not write {path.name}: {str(error).strip().splitlines()[-1]}") from error
