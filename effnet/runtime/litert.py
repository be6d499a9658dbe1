"""LiteRT, formerly TensorFlow Lite: writing ``.tflite``, and running such files with XNNPACK, without torch."""

import mmap
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.runtime import base, io_spec

if TYPE_CHECKING:
    from effnet.net import EfficientNet

SUPPORTED_PRECISIONS = ("float32",)  # XNNPACK's float16 needs Arm, and Python cannot enable it
# The operators that are written here and by `effnet.exporting.quantize_graphs`,
# with the number of their inputs
OPERATOR_INPUTS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), 3),
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "MEAN", "PAD", "TRANSPOSE"), 2),
    **dict.fromkeys(("SOFTMAX", "LOGISTIC", "CAST", "QUANTIZE", "DEQUANTIZE"), 1),
}
WINDOW_OPTIONS = ("StrideW", "StrideH", "DilationWFactor", "DilationHFactor")
MAX_DIMENSION = 2**22  # of a tensor: far above the number of any network's classes
SAVED_IO_SPEC = io_spec.IOSpec("floats", "logits")  # of a file written by effnet.save, which has no IOSpec


class LiteRTEngine(io_spec.FileEngine):
    """A ``.tflite`` written by effnet. Calls of several threads are serialized. Raises as `base.open_exported`."""

    kind = "litert"

    def __init__(self, path: str | Path, precision: str = "float32", threads: int | None = None) -> None:
        super().__init__(path, threads)
        texts = read_tflite_metadata(self.path)
        if io_spec.METADATA_KEY in texts:
            texts.setdefault(io_spec.IO_SPEC_KEY, SAVED_IO_SPEC.to_json())
        self.metadata, self._io_spec = io_spec.read_metadata(texts, path)
        # Read, not mapped: a mapped file that becomes shorter while it is served ends the process
        content = self.path.read_bytes()
        check_graph(content, self.path)
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise base.not_installed_error(self.kind) from None
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=self.threads)
        except (ValueError, RuntimeError) as error:
            raise io_spec.unreadable_file_error(self.path, self.kind, error) from None
        quantized = any(tensor["dtype"] == np.int8 for tensor in self._interpreter.get_tensor_details())
        self.precision = base.resolve_precision(self.kind, precision, SUPPORTED_PRECISIONS, quantized)
        self._input = self._interpreter.get_input_details()[0]
        details = self._interpreter.get_output_details()
        # Converters add prefixes and suffixes
        outputs = {"embedding" if "embedding" in each["name"] else each["name"]: each for each in details}
        self._outputs = io_spec.classifier_first(outputs)
        name, output = next(iter(self._outputs.items()))
        self.classes = 0 if name == "embedding" else int(output["shape"][-1])
        self._shape: tuple[int, ...] = ()  # of the input that memory is allocated for
        self._lock = Lock()

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """See `Engine.prepare`. Allocates memory for this shape."""
        with self._lock:
            self._allocate(self._input_shape(batch_size, size))

    def _infer(self, output: str, x: np.ndarray) -> base.FloatArray:
        details = self._outputs[output]
        x = _quantize(x, self._input)
        with self._lock:
            self._allocate(x.shape)
            self._interpreter.set_tensor(self._input["index"], x)
            self._interpreter.invoke()
            out: np.ndarray = self._interpreter.get_tensor(details["index"])
        return _dequantize(out.reshape(len(x), -1), details)

    def _allocate(self, shape: tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        self._shape = ()
        try:
            with base.silence_stderr():  # XNNPACK says that its delegate was created
                self._interpreter.resize_tensor_input(self._input["index"], shape)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{self.path} does not accept input of shape {shape} ({reason})") from None
        self._shape = shape


def check_graph(content: bytes, path: Path) -> None:
    """Raise ``ValueError`` for a file that LiteRT could not run: it trusts what a graph says, and may crash.

    Indices, sizes and buffers are those of the file. Each operator is one that we write, and reads what was computed
    before it; none writes to a constant.
    """
    from effnet.weights.formats import tflite_schema

    try:
        graph = tflite_schema.decode_tflite(content)
        known = {index for index, tensor in enumerate(graph.tensors) if tensor.data is not None} | set(graph.inputs)
        for operator in graph.operators:
            if operator.kind not in OPERATOR_INPUTS:
                raise ValueError(f"damaged: it has an operator {operator.kind}, which effnet does not write")
            counts = len(operator.inputs), len(operator.outputs)
            if counts != (OPERATOR_INPUTS[operator.kind], 1):
                raise ValueError(f"damaged: {operator.kind} with {counts[0]} inputs and {counts[1]} outputs")
            if not known.issuperset(operator.inputs) or not known.isdisjoint(operator.outputs):
                raise ValueError(f"damaged: {operator.kind} reads what was not computed, or writes over what was")
            if min(operator.options.get(name, 1) for name in WINDOW_OPTIONS) < 1:
                raise ValueError(f"damaged: {operator.kind} with a stride of 0")
            known.update(operator.outputs)
        if not known.issuperset(graph.outputs) or len(graph.inputs) != 1 or not graph.outputs:
            raise ValueError("damaged: its outputs are not computed")
        sides = [abs(side) for tensor in graph.tensors for side in tensor.shape]
        if max(sides, default=0) > MAX_DIMENSION:
            raise ValueError(f"damaged: a tensor with a side of {max(sides):,}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_litert(path: Path, model: "EfficientNet", spec: io_spec.IOSpec, half_precision: bool = False) -> None:
    """Write ``model`` as a TFLite file for one image; the interpreter resizes its input to other batches and sizes.

    ``half_precision``: store weights in 16 bits; computation stays in float32. XNNPACK runs all but the cast of uint8
    pixels to float32. The metadata is in the archive appended to the flatbuffer, where ``zipfile`` reads it, with the
    labels as TFLite's own tools expect them. Raises ``ValueError`` for a network above 2 GiB.
    """
    from effnet.net.surgery import fold_batch_norm
    from effnet.weights.key_maps import tflite_key_map

    try:
        from effnet.weights.formats.tflite_writer import TfliteIO, write_tflite_export
    except ImportError as error:
        raise ImportError(f'writing TFLite files requires {error.name}: pip install "effnet[tflite]"') from None

    folded = fold_batch_norm(model).float()
    folded.preprocess = replace(model.preprocess, size=spec.size or model.preprocess.size)
    state, tensors = folded.state_dict(), {}
    for ours, theirs in tflite_key_map(folded.arch, folded.classes).items():
        tensor = state[ours.replace(".norm.bias", ".conv.bias")].detach().cpu()
        if tensor.ndim == 4:  # (out, in, height, width) -> (out, height, width, in), depthwise (1, height, width, out)
            tensor = tensor.permute((1, 2, 3, 0) if ours.endswith("depthwise.conv.weight") else (0, 2, 3, 1))
        tensors[theirs] = tensor.contiguous()
    tflite_io = TfliteIO(spec.input, spec.output, spec.embedding, half_precision)
    write_tflite_export(path, tensors, folded, tflite_io, spec.to_file_metadata(model.metadata))


def read_tflite_metadata(path: Path) -> dict[str, str]:
    """Return our texts in the file's metadata. Raises ``ValueError`` if it is damaged or not a TFLite file."""
    from effnet.weights.formats.tflite_schema import read_metadata_buffers

    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            found = read_metadata_buffers(content)  # type: ignore[arg-type]  # a mmap serves as bytes
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    keys = (io_spec.METADATA_KEY, io_spec.IO_SPEC_KEY)
    return {key: found[key].decode(errors="replace") for key in keys if key in found}


def _quantize(values: np.ndarray, tensor: Any) -> np.ndarray:
    scale, zero_point = tensor["quantization"]
    dtype = tensor["dtype"]
    if values.dtype == dtype and (scale, zero_point) in ((0, 0), (1, 0)):
        return values
    if not scale:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    steps: np.ndarray = np.rint(values.astype(np.float32) / scale + zero_point).clip(limits.min, limits.max)
    return steps.astype(dtype)


def _dequantize(stored: np.ndarray, tensor: Any) -> base.FloatArray:
    scale, zero_point = tensor["quantization"]
    floats = stored.astype(np.float32, copy=False)
    if not scale or stored.dtype.kind not in "iu":
        return floats
    return (floats - np.float32(zero_point)) * np.float32(scale)
