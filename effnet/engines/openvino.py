"""OpenVINO's own files and ONNX files through OpenVINO. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from effnet.engines.engine import Floats, Pictures, granted, missing, settled
from effnet.engines.filed import as_asked, as_logits, no_embedding, shape, there, unreadable
from effnet.engines.interface import CONTRACT, INTERFACE, OUTPUTS, said

SUFFIXES = (".xml", ".onnx")
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}  # as its devices call them
TELEMETRY = "openvino_telemetry"
ANY: tuple[int, ...] = ()
KEPT = 3  # shapes compiled for, ANY among them: each holds the weights once more
PLACES = ((), ("framework",))  # of the metadata: in an IR, and in what is read from ONNX


def the_core() -> Any:
    """OpenVINO's ``Core``, one for the whole process. Raises ``ImportError`` without openvino.

    Its CPU plugin sets the stack on which signals are handled, and when it goes puts back the one before it. Of two
    that overlap, the second puts back the first's, which is gone by then; the next signal, as of a data loader's worker
    that ends, then kills the process. One that stays does not.
    """
    try:
        with _unreported():
            import openvino
    except ImportError:
        raise missing("openvino") from None
    return _made(openvino.Core)


@contextmanager
def _unreported() -> Iterator[None]:
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
def _made(core: Any) -> Any:
    return core()


class Openvino:
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
        self.threads = granted(threads)
        self.path = there(path)
        if self.path.suffix not in SUFFIXES:  # its other readers would try theirs, and complain on the terminal
            raise ValueError(f"openvino does not open {path}: its files end in {' or '.join(SUFFIXES)}")
        core = the_core()
        try:
            model = core.read_model(self.path)
        except Exception as error:  # RuntimeError mostly, but nothing says so
            raise unreadable(self.path, self.kind, error) from None
        self.contract, self._interface = said(_metadata(model), path)
        quantised = any(each.get_type_name() == "FakeQuantize" for each in model.get_ops())
        here = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        offered = tuple(name for name, capability in CAPABILITIES.items() if capability in here)
        self.precision = settled(self.kind, precision, offered, quantised)
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": HINTS.get(precision, "f32"),
        }
        self._model, self._cache = model, cache
        self._requests: dict[tuple[int, ...], Any] = {}  # by the shape that they take, ANY for those that take any
        self._lock = Lock()
        names = [_name(output) for output in model.outputs]
        self._places = {name: place for place, name in enumerate(names)}
        self._answer = next((name for name in names if name != "embedding"), "embedding")
        answered = model.outputs[self._places[self._answer]].partial_shape
        self.classes = 0 if self._answer == "embedding" else answered[1].get_length()

    def run(self, pictures: Pictures) -> Floats:
        """As `Engine.run`."""
        out = self._run(self._answer, pictures)
        return as_logits(out, self._interface, self.contract.labels.kind) if self.classes else out

    def embed(self, pictures: Pictures) -> Floats:
        """As `Engine.embed`."""
        if "embedding" not in self._places:
            raise no_embedding(self.path)
        return self._run("embedding", pictures)

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: compiles for this shape, a second or less. The last few shapes are kept."""
        with self._lock:
            asked = shape(batch, size, self.contract, self._interface, self.path)
            made = self._requests.pop(asked, None) or self._compiled(asked)
            while len(self._requests) >= KEPT:
                del self._requests[next(iter(self._requests))]
            self._requests[asked] = made

    def _run(self, output: str, pictures: Pictures) -> Floats:
        x = as_asked(pictures, self.contract, self._interface, self.path)
        with self._lock:
            request = self._requests.get(x.shape) or self._for_any()
            request.infer([x], share_inputs=True)
            out: Floats = request.get_output_tensor(self._places[output]).data.copy()
        return out

    def _for_any(self) -> Any:
        if ANY not in self._requests:
            self._requests[ANY] = self._compiled(ANY)
        return self._requests[ANY]

    def _compiled(self, asked: tuple[int, ...]) -> Any:
        core, model = the_core(), self._model
        if asked != ANY:
            model = model.clone()
            model.reshape(list(asked))
        elif self._cache:
            with suppress(RuntimeError):  # the folder cannot be written, or what lies in it is damaged: costs time only
                settings = {**self._settings, "CACHE_DIR": str(self._cache)}
                return core.compile_model(model, "CPU", settings).create_infer_request()
        return core.compile_model(model, "CPU", self._settings).create_infer_request()


def _name(output: Any) -> str:
    """The output's name among ours; an output may have several."""
    names: set[str] = output.get_names()
    return next((name for name in (*OUTPUTS, "embedding") if name in names), min(names, default=""))


def _metadata(model: Any) -> dict[str, str]:
    """What the file says of itself, wherever its format lets it."""
    found: dict[str, str] = {}
    for key in (CONTRACT, INTERFACE):
        for place in PLACES:
            if model.has_rt_info([*place, key]):
                found[key] = model.get_rt_info([*place, key]).astype(str)
    return found
