"""OpenVINO's own files and ONNX files through OpenVINO. Imports no torch."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from effnet.engines.engine import Floats, Pictures, granted, missing, settled
from effnet.engines.filed import as_asked, as_logits, no_embedding, there, unreadable
from effnet.engines.interface import CONTRACT, INTERFACE, said

SUFFIXES = (".xml", ".onnx")
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}  # as its devices call them
PLACES = ((), ("framework",))  # of the metadata: in an IR, and in what is read from ONNX


def the_core() -> Any:
    """OpenVINO's ``Core``, one for the whole process. Raises ``ImportError`` without openvino.

    Its CPU plugin sets the stack on which signals are handled, and when it goes puts back the one before it. Of two
    that overlap, the second puts back the first's, which is gone by then; the next signal, as of a data loader's worker
    that ends, then kills the process. One that stays does not.
    """
    try:
        import openvino
    except ImportError:
        raise missing("openvino") from None
    return _made(openvino.Core)


@cache
def _made(core: Any) -> Any:
    return core()


class Openvino:
    """An exported ``.xml`` or ``.onnx``, ready to run on the CPU. Calls from several threads wait for each other.

    ``cache``: a folder in which OpenVINO keeps what it compiled, and finds it again the next time.
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
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": HINTS.get(precision, "f32"),
        }
        compiled = _compiled(core, model, settings, cache)
        self._request = compiled.create_infer_request()
        self._lock = Lock()
        names = [_name(output) for output in compiled.outputs]
        self._places = {name: place for place, name in enumerate(names)}
        self._answer = next((name for name in names if name != "embedding"), "embedding")
        shape = compiled.outputs[self._places[self._answer]].partial_shape
        self.classes = 0 if self._answer == "embedding" else shape[1].get_length()

    def run(self, pictures: Pictures) -> Floats:
        """As `Engine.run`."""
        out = self._run(self._answer, pictures)
        return as_logits(out, self._interface) if self.classes else out

    def embed(self, pictures: Pictures) -> Floats:
        """As `Engine.embed`."""
        if "embedding" not in self._places:
            raise no_embedding(self.path)
        return self._run("embedding", pictures)

    def _run(self, output: str, pictures: Pictures) -> Floats:
        x = as_asked(pictures, self.contract, self._interface, self.path)
        with self._lock:
            self._request.infer([x], share_inputs=True)
            out: Floats = self._request.get_output_tensor(self._places[output]).data.copy()
        return out


def _compiled(core: Any, model: Any, settings: dict[str, Any], cache: Path | None) -> Any:
    if cache:
        with suppress(RuntimeError):  # the folder cannot be written, or what lies in it is damaged: a matter of time
            return core.compile_model(model, "CPU", {**settings, "CACHE_DIR": str(cache)})
    return core.compile_model(model, "CPU", settings)


def _name(output: Any) -> str:
    """The output's name among ours; an output may have several."""
    names: set[str] = output.get_names()
    return next((name for name in ("probabilities", "logits", "embedding") if name in names), min(names, default=""))


def _metadata(model: Any) -> dict[str, str]:
    """What the file says of itself, wherever its format lets it."""
    found: dict[str, str] = {}
    for key in (CONTRACT, INTERFACE):
        for place in PLACES:
            if model.has_rt_info([*place, key]):
                found[key] = model.get_rt_info([*place, key]).astype(str)
    return found
