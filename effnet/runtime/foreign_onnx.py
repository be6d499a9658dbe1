"""ONNX files of other programs, run as they stand: their input, their output, and how images become that input.

Such a file is any image classifier: an EfficientNet exported by timm or tf2onnx, a quantized one, another network. What
it does not say itself (mean, std, size, the classes' names) comes from a ``config.json`` beside it, from what is known
of the weights if they are an EfficientNet's, or from the caller. Nothing about its input is guessed beyond that.

Sources: https://onnx.ai/onnx/operators, ONNX's ``metadata_props``.
"""

import logging
from ast import literal_eval
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch import Arch
from effnet.arch.serde import check_choice
from effnet.data import class_names
from effnet.metadata import TASKS, Labels, Preprocess
from effnet.runtime import base, io_spec
from effnet.tasks import task_of

LOG = logging.getLogger("effnet")
KINDS = ("onnxruntime", "openvino")
# What leaves the order of outputs as it is, and stands between the last layer and the output of a graph
PASSED = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear")
POOLS = ("GlobalAveragePool", "AveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "QLinearGlobalAveragePool")
ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "QLinearSigmoid": "sigmoid", "QLinearSoftmax": "softmax"}
NAME_KEYS = ("names", "labels", "classes", "class_names")  # of metadata_props
REMEDY = "--preprocess size=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225 (mean=0,std=1 for 0 … 1)"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file of another program, with what its user says of it.

    Args:
        path: the file.
        preprocess: fields of `effnet.Preprocess`, instead of what the file states: ``{"mean": (0.5,) * 3, …}``.
        task: what its outputs are; None for what they look like.

    Example:
        >>> file = OnnxFile(Path("resnet18.onnx"), {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
        >>> effnet.Predictor(file)("cat.jpg")[0].label
        'tabby'
    """

    path: Path
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None


@dataclass(frozen=True)
class FileMetadata:
    """What is known of such a file: `effnet.ModelMetadata` without weights. ``arch``: None if it is none known here."""

    preprocess: Preprocess
    labels: Labels
    arch: Arch | None = None


@dataclass(frozen=True)
class GraphIO:
    """Input and output of a graph. ``size``, ``batch`` and ``channels`` are None where any will do."""

    dtype: str  # of its images, as NumPy calls it
    channels: int
    channels_last: bool
    batch: int | None
    size: tuple[int, int] | None
    output: str  # name of the output with the classes
    outputs: int
    activation: str  # "softmax", "sigmoid" or "" of that output
    pooled: bool  # it is no layer's output but pooled features
    input_range: tuple[float, float] | None  # of values that the graph itself normalizes: (0, 255); else None


class ForeignEngine(base.Engine):
    """Such a file, ready to run on the CPU. Thread-safe.

    Raises:
        ValueError: as `describe` does, and for a damaged file or an unsupported precision.
        ImportError: the engine is not installed.
    """

    metadata: FileMetadata

    def __init__(self, file: OnnxFile, kind: str, precision: str = "float32", threads: int | None = None) -> None:
        self.kind, self.threads, self.path = kind, base.resolve_threads(threads), file.path
        self.metadata, self._io = describe(file)
        two_classes = self._io.outputs == 1 and self.metadata.labels.task == "classification"
        self.classes = 2 if two_classes else self._io.outputs
        open_run = _open_openvino if kind == "openvino" else _open_onnxruntime
        self.precision, self._run = open_run(self.path, self._io.output, precision, self.threads)

    def run(self, images: base.ImageBatch) -> base.FloatArray:
        """See `Engine.run`."""
        x, count = self._to_input(images), self._io.batch
        if count is None:
            return self._to_logits(self._run(x))
        parts = []
        for start in range(0, len(x), count):  # exported for one number of images; the last ones are filled up
            part = x[start : start + count]
            filled = np.concatenate([part, np.repeat(part[-1:], count - len(part), 0)])
            parts.append(self._to_logits(self._run(filled))[: len(part)])
        return np.concatenate(parts)

    def embed(self, images: base.ImageBatch) -> base.FloatArray:
        """Raise ``ValueError``: only weights that are read have an embedding."""
        raise ValueError(f"{self.path} is run as it stands and has no embedding: use effnet.load({str(self.path)!r})")

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """See `Engine.prepare`. Only checks the size."""
        self._check_size(size or self.metadata.preprocess.size)

    def _to_input(self, images: base.ImageBatch) -> NDArray[Any]:
        preprocess, last = self.metadata.preprocess, self._io.channels_last
        x: NDArray[Any]
        if self._io.dtype == "uint8":
            x = io_spec.round_to_uint8(base.to_pixels(images, preprocess))  # (N, H, W, C)
            self._check_size(x.shape[1:3])
            return np.ascontiguousarray(x if last else x.transpose(0, 3, 1, 2))
        x = base.to_normalized(images, preprocess)  # (N, C, H, W)
        self._check_size(x.shape[2:])
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if last else x, self._io.dtype)

    def _to_logits(self, outputs: NDArray[Any]) -> base.FloatArray:
        """Return (N, classes); one output of a classifier is the log-odds of the second of two classes."""
        rows: base.FloatArray = outputs.reshape(len(outputs), -1).astype(np.float32)
        task = self.metadata.labels.task
        if self._io.activation and task != "regression":
            rows = task_of("classification" if self._io.activation == "softmax" else "multilabel").invert(rows)
        return rows if rows.shape[1] == self.classes else np.concatenate([np.zeros_like(rows), rows], 1)

    def _check_size(self, size: tuple[int, ...]) -> None:
        if self._io.size not in (None, tuple(size)):
            expected, got = (f"{height}×{width}" for height, width in (self._io.size or size, size))
            raise ValueError(f"{self.path} accepts images of {expected} only, got {got}: resize the images")


RunFunction = Callable[[NDArray[Any]], NDArray[Any]]


def _open_onnxruntime(path: Path, output: str, precision: str, threads: int) -> tuple[str, RunFunction]:
    from effnet.runtime import onnxruntime

    precision = base.resolve_precision("onnxruntime", precision, onnxruntime.SUPPORTED_PRECISIONS)
    session = onnxruntime.open_session(path, threads)
    name = session.get_inputs()[0].name
    return precision, lambda x: np.asarray(session.run([output], {name: x})[0])


def _open_openvino(path: Path, output: str, precision: str, threads: int) -> tuple[str, RunFunction]:
    from effnet.runtime import openvino

    supported = openvino.supported_precisions()
    precision = base.resolve_precision("openvino", precision, supported)
    try:
        model = openvino.get_core().compile_model(str(path), "CPU", openvino.compile_settings(precision, threads))
    except Exception as error:  # mostly RuntimeError, but that is not documented
        raise io_spec.unreadable_file_error(path, "openvino", error) from None
    request, lock = model.create_infer_request(), Lock()

    def run(x: NDArray[Any]) -> NDArray[Any]:
        with lock:
            request.infer([x], share_inputs=True)
            return np.array(request.get_tensor(output).data)

    return precision, run


def is_foreign(path: Path) -> bool:
    """Return whether ``path`` is an ONNX file that this package did not write."""
    return path.suffix == ".onnx" and path.is_file() and not io_spec.is_exported(path)


def find_runnable(source: object, kind: str = "auto", device: str | None = None) -> OnnxFile | None:
    """Return ``source`` as a file that engine ``kind`` runs as it stands; None if its weights are to be read.

    That is what other engines and devices need, and a file whose outputs are no classes; anything but a file is None.

    Raises:
        ValueError: it is a damaged ONNX file, or an `OnnxFile` for another engine or device.
    """
    runs = kind in ("auto", *KINDS) and device in (None, "cpu")
    if isinstance(source, OnnxFile):
        if not runs:
            raise ValueError(f"{source.path} is run as it stands by {' and '.join(KINDS)}, on the CPU: use one of them")
        return source
    if not runs or not isinstance(source, (str, Path)) or not is_foreign(Path(source)):
        return None
    found = read_graph(Path(source))
    return OnnxFile(Path(source)) if found is not None and not found.pooled else None


def open_foreign(file: OnnxFile, kind: str, precision: str, threads: int | None) -> ForeignEngine:
    """Open ``file`` with engine ``kind``, or "auto": the first one that is installed and has the precision."""
    if kind != "auto":
        return ForeignEngine(file, kind, precision, threads)
    if not (installed := [each for each in KINDS if each in base.installed_engines()]):
        raise base.not_installed_error(KINDS[0])
    return ForeignEngine(file, installed[0 if precision == "float32" else -1], precision, threads)


def read_graph(path: Path) -> GraphIO | None:
    """Return the input and output of an ONNX classifier; None if it has no image as input or no row of numbers out."""
    from effnet.weights.formats import graph_facts, onnx_reader

    onnx, model, constants = onnx_reader.load_onnx(path)
    graph = model.graph
    images = [each for each in graph.input if each.name not in constants]
    kind, shape = _read_tensor(images[0]) if len(images) == 1 else (0, ())
    if len(shape) != 4 or kind not in (1, 2, 10, 11):  # float32, uint8, float16, float64
        return None
    channels_last = shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)
    channels, sides = (shape[3], shape[1:3]) if channels_last else (shape[1], shape[2:4])
    rows = [(each.name, *_read_tensor(each)) for each in graph.output]
    rows = [row for row in rows if row[1] in (1, 10, 11) and sum(side != 1 for side in row[2][1:]) <= 1]
    rows = [row for row in rows if len(row[2]) >= 2 and all(side > 0 for side in row[2][1:])]
    if len(rows) != 1 or not channels:
        return None
    name, _, output_shape = rows[0]
    last = _find_last(graph, name)
    activation = ACTIVATIONS.get(last.op_type, "") if last else ""
    transform = onnx_reader.read_input_transform(onnx, model, constants)
    pair = graph_facts.find_input_range("UINT8" if kind == 2 else "FLOAT", transform)
    return GraphIO(
        dtype={1: "float32", 2: "uint8", 10: "float16", 11: "float64"}[kind],
        channels=channels,
        channels_last=channels_last,
        batch=shape[0] if shape[0] > 0 else None,
        size=(sides[0], sides[1]) if min(sides) > 0 else None,
        output=name,
        outputs=int(np.prod(output_shape[1:])),
        activation=activation,
        pooled=last is not None and last.op_type in POOLS,
        input_range=pair,
    )


def _read_tensor(value: Any) -> tuple[int, tuple[int, ...]]:
    """Return type and shape of a graph's input or output, with 0 for open sides."""
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(each.dim_value for each in tensor.shape.dim)


def _find_last(graph: Any, output: str) -> Any:
    """Return the last operator before ``output`` that is no mere change of shape or type; None without one."""
    producers = {name: node for node in graph.node for name in node.output}
    node = producers.get(output)
    while node is not None and node.op_type in PASSED:
        node = producers.get(node.input[0])
    return node


def describe(file: OnnxFile) -> tuple[FileMetadata, GraphIO]:
    """Return what is known of ``file``, and how it is fed and read.

    Raises:
        ValueError: it has no image as input or no row of numbers as output, or does not say how images become its
            input: with the option that does.
    """
    if file.task is not None:
        check_choice("task", file.task, TASKS)
    graph = read_graph(file.path)
    if graph is None:
        raise ValueError(f"{file.path}: not one image as input and one row of numbers as output, as a classifier has")
    known, stated = _read_weights(file.path), _read_beside(file.path)
    preprocess = _settle_preprocess(file, graph, known, stated[0])
    labels = _settle_labels(file, graph, known, stated[1])
    is_assumed = not graph.input_range and "mean" not in {**stated[0], **file.preprocess}
    note = "; mean and std are assumed: state others with --preprocess" if is_assumed else ""
    LOG.warning("%s: run as it stands; images %s%s", file.path.name, preprocess.describe(), note)
    return FileMetadata(preprocess, labels, known.arch if known else None), graph


def _read_weights(path: Path) -> FileMetadata | None:
    """Return what is known of the weights if they are an EfficientNet's."""
    from effnet.weights.loading import read_weights

    try:
        found = read_weights(path).metadata
    except ValueError:
        return None
    return FileMetadata(found.preprocess, found.labels, found.arch)


def _read_beside(path: Path) -> tuple[dict[str, Any], Labels]:
    """Return preprocessing and labels that a ``config.json`` beside the file states, or the file's own metadata."""
    from effnet.weights.formats import huggingface, onnx_reader

    preprocess, labels = huggingface.read_image_config(path)
    if labels.names:
        return preprocess, labels
    _, model, _ = onnx_reader.load_onnx(path)
    stated = {each.key: each.value for each in model.metadata_props}
    return preprocess, replace(labels, names=_parse_names(stated))


def _parse_names(stated: Mapping[str, str]) -> tuple[str, ...]:
    """Return the classes' names in a file's metadata: a list, or names by number, as Python or JSON writes them."""
    for key in NAME_KEYS:
        try:
            value = literal_eval(stated.get(key, ""))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict):
            numbers = {int(index): name for index, name in value.items() if str(index).isdecimal()}
            value = [numbers.get(index) for index in range(len(value))]
        if isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value):
            return tuple(value)
    return ()


def _settle_preprocess(
    file: OnnxFile, graph: GraphIO, known: FileMetadata | None, stated: Mapping[str, Any]
) -> Preprocess:
    """Return how images become the input; what the graph does itself is left to it."""
    channels = graph.channels
    fields_known = {each.name: getattr(known.preprocess, each.name) for each in fields(Preprocess)} if known else {}
    found = {**fields_known, **stated}
    if graph.input_range:
        low, high = graph.input_range
        found |= {"mean": (-low / (high - low),) * channels, "std": (1 / (high - low),) * channels}
    found |= {"size": graph.size} if graph.size else {}
    found |= dict(file.preprocess)
    if missing := [name for name in ("size", "mean", "std") if name not in found]:
        network = "" if known else "it is no EfficientNet known here, and "
        raise ValueError(
            f"{file.path}: {network}it does not state {' and '.join(missing)}, by which images become its input: pass "
            f"{REMEDY}"
        )
    for name in ("mean", "std"):
        found[name] = tuple(found[name]) * channels if len(found[name]) == 1 else tuple(found[name])
    if graph.size and tuple(found["size"]) != graph.size:
        raise ValueError(f"{file.path} accepts images of {graph.size[0]}×{graph.size[1]} only: omit size=")
    if len(found["mean"]) != channels:
        raise ValueError(f"{file.path} takes {channels} channels, and mean and std are for {len(found['mean'])}")
    return Preprocess(**found)


def _settle_labels(file: OnnxFile, graph: GraphIO, known: FileMetadata | None, stated: Labels) -> Labels:
    """Return what the outputs mean: stated, known of the weights, ImageNet's by their number, or without names."""
    several = graph.outputs > 1
    task = file.task or ("multilabel" if several and graph.activation == "sigmoid" else stated.task)
    counts = {graph.outputs} if several or task != "classification" else {1, 2}
    for labels in (stated, *([known.labels] if known else [])):
        if len(labels.names) in counts:
            names = labels.names
            return Labels(names if len(names) > 1 or task != "classification" else (f"not {names[0]}", *names), task)
    if graph.outputs in (class_names.IMAGENET_CLASSES, class_names.IMAGENET_CLASSES + 1) and task == "classification":
        LOG.warning(
            "%s: its %s classes are taken for ImageNet's; others are named with --labels FILE",
            *(file.path.name, f"{graph.outputs:,}"),
        )
        return class_names.imagenet_labels(graph.outputs)
    if not several and task == "classification":
        LOG.warning(
            "%s: its one output is taken for the second of two classes; if it is a value, pass --task regression",
            file.path.name,
        )
    return Labels((), task)
