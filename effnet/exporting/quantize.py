"""Which layers stay in float so that a written file keeps within a loss of accuracy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from effnet.arch.serde import check_choice, check_float, check_int
from effnet.data.image_io import InputImage
from effnet.data.preprocessing import normalize
from effnet.data.storage.atomic_write import atomic_write, move_with_companions
from effnet.exporting import quantize_graphs
from effnet.exporting.calibration import Calibration, all_operations, calibrate, equalize, file_ranges, weight_module
from effnet.exporting.calibration_images import QuantizationData, load_quantization_data
from effnet.exporting.sensitivity import LayerSensitivity, layer_sensitivities, rank_by_divergence
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime import litert as float_litert
from effnet.runtime import onnx as float_onnx
from effnet.runtime.base import FloatArray, open_exported
from effnet.runtime.io_spec import IOSpec
from effnet.runtime.openvino import get_core
from effnet.tasks import task_of

MAX_FLOAT_SHARE = 0.5  # of the layers: a file of more floats than that is no int8 file


def find_float_layers(
    max_drop: float,
    measure_drop: Callable[[frozenset[str]], float],
    rank_layers: Callable[[], Sequence[str]],
    layers: int,
) -> frozenset[str]:
    """The layers that stay in float: as few of the most harmful ones as keep the drop within ``max_drop``.

    ``drop`` writes a file with those layers in float, runs it and answers with what it loses, in percentage points;
    its last call is with what is returned. ``ranked`` gives the layers, most harmful first; it is only asked where
    leaving none in float is too much. Their number is doubled until the budget is kept, then halved back as far as it
    stays kept. Raises ``ValueError`` where half of the ``layers`` in float is not enough.
    """
    first = measure_drop(frozenset())
    if first <= max_drop:
        return frozenset()
    order = list(rank_layers())
    most = min(int(layers * MAX_FLOAT_SHARE), len(order))
    kept, count, lost = 0, 1, first
    while kept < most:
        count = min(count, most)
        lost = measure_drop(frozenset(order[:count]))
        if lost <= max_drop:
            break
        kept, count = count, count * 2
    else:
        raise ValueError(
            f"int8 would lose {first:.2f} percentage points, and still {lost:.2f} with the {most} most harmful of "
            f"{layers} layers in float, where {max_drop:g} are allowed: allow more, or give more pictures"
        )
    last = count  # with which `drop` was called last
    while count - kept > 1:
        middle = (kept + count) // 2
        last = middle
        kept, count = (kept, middle) if measure_drop(frozenset(order[:middle])) <= max_drop else (middle, count)
    if last != count:
        measure_drop(frozenset(order[:count]))
    return frozenset(order[:count])


# An int8 file in each of the formats: our float one, rewritten by the same calibration.


QUANTIZED_FORMATS = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}


def write_quantized(
    path: Path, model: EfficientNet, io_spec: IOSpec, calibration: Calibration, int8_operations: Collection[str]
) -> None:
    """``model``, folded, at ``path`` in the format of its suffix, with the operations ``chosen`` in int8.

    OpenVINO reads the graph that ONNX gets: its own optimiser turns the QDQ pairs into its own form of them.
    Raises ``ImportError`` without the format's packages.
    """
    shifted = equalize(correct_bias(model, calibration, int8_operations), calibration.channel_scales)
    ranges = file_ranges(calibration.ranges, model.preprocess)
    sizes = {name: size.numpy() for name, size in calibration.channel_scales.items()}
    texts = io_spec.to_file_metadata(model.metadata)
    if path.suffix == ".tflite":
        from effnet.weights.formats import tflite_schema
        from effnet.weights.formats.tflite_schema import decode_tflite, encode_tflite

        with TemporaryDirectory() as folder:
            plain = Path(folder) / "float.tflite"
            float_litert.write_litert(plain, shifted, io_spec)
            graph = decode_tflite(plain.read_bytes())
        path.write_bytes(encode_tflite(quantize_graphs.quantize_tflite(graph, ranges, int8_operations, sizes)))
        if model.labels.names:
            tflite_schema.append_labels(model.labels.names, path)
        tflite_schema.append_files(texts, path)
        return
    proto = float_onnx.build_onnx_model(shifted, io_spec)
    quantize_graphs.quantize_onnx(proto, ranges, int8_operations, sizes)
    if path.suffix == ".onnx":
        path.write_bytes(proto.SerializeToString())
        return
    read = get_core().read_model(model=proto.SerializeToString())
    for name, text in texts.items():
        read.set_rt_info(text, [name])
    import openvino

    openvino.save_model(read, path, compress_to_fp16=False)


def correct_bias(model: EfficientNet, calibration: Calibration, int8_operations: Collection[str]) -> EfficientNet:
    """A copy whose biases take back by how much rounding its weights shifts the operations ``chosen``."""
    copy = deepcopy(model)
    with torch.no_grad():
        for name in int8_operations:
            bias = weight_module(copy, name).bias
            assert bias is not None
            bias -= calibration.shifts[name]
    return copy


# A network as an int8 file: calibrated on pictures, judged in its own runtime, within a loss that is allowed.


BATCH_SIZE = 16


SENSITIVITY_IMAGES = 32  # by which layers are compared with each other: enough for an order


@dataclass(frozen=True)
class QuantizedFile:
    """What was written, what of it stays in float, and what that costs on the pictures that it was judged by."""

    path: Path
    format: str  # "onnx", "openvino" or "litert"
    float_layers: tuple[str, ...]  # layers in float, as in `effnet.arch.counting`
    layers: int  # in all
    metric: str  # "top-1", "labels right" or "R²", against labels; or "agreement", the same with the network's own
    float_score: float  # shares: the network's
    int8_score: float  # and the file's, run in its own runtime
    images: int  # judged
    bytes: int  # of all its files
    sensitivities: tuple[LayerSensitivity, ...] = ()  # empty where nothing had to be left in float
    unreadable: int = 0  # pictures that were left out
    task: str = "classification"  # of the labels

    @property
    def drop(self) -> float:
        """Percentage points lost; below 0 where the file is better."""
        return 100 * (self.float_score - self.int8_score)

    def in_words(self) -> str:
        """One line for a person."""
        kept = (
            f"{len(self.float_layers)} of {self.layers} layers in float" if self.float_layers else "every layer in int8"
        )
        left_out = f"; {self.unreadable:,} could not be read" if self.unreadable else ""
        return (
            f"{kept}; {self.metric} {100 * self.int8_score:.2f} % (float {100 * self.float_score:.2f} %) "
            f"on {self.images:,} pictures{left_out}"
        )


def quantize(
    model: EfficientNet,
    path: str | Path,
    images: str | Path,
    io_spec: IOSpec | None = None,
    max_drop: float | None = None,
    calibration_images: int = 128,
    keep_float: tuple[str, ...] = (),
    threads: int | None = None,
    step_done: Callable[[int, int], None] = lambda done, of: None,
) -> QuantizedFile:
    """Writes ``model`` to ``path`` in int8: ``.onnx`` (QDQ), ``.xml`` (OpenVINO) or ``.tflite`` (LiteRT).

    Ranges come from ``count`` pictures of the folder ``pictures``, see `effnet.exporting.calibration_images.read`. The
    file is run in its own runtime and judged by top-1 where the folder's classes are the network's, by agreement with
    the network where not; of labels of which any may be right by the share of them that is, of values by R².
    Squeeze-excite stays in float, and so does ``keep``. With ``max_drop``, in percentage points, so many of the layers
    that harm most stay in float too; a sensitivity table says which those are.
    Raises ``ValueError`` where the budget cannot be kept (no file is left), for too few pictures, an unknown layer, no
    classifier; ``ImportError`` without the format's packages.
    """
    path, task = Path(path), task_of(model.labels.task)
    io_spec = io_spec or IOSpec(output=task.output, size=model.preprocess.size)
    io_spec.check_labels(model.labels)
    if path.suffix not in QUANTIZED_FORMATS:
        raise ValueError(f"{path}: int8 files end in {', '.join(QUANTIZED_FORMATS)}")
    check_int("count", calibration_images, 1)
    if max_drop is not None:
        check_float("max_drop", max_drop, 0, 100)
    if not model.classes:
        raise ValueError("int8 is judged by what a network answers, and this one has no classifier: train a head first")
    folded = fold_batch_norm(model).float().cpu()
    folded.preprocess = model.preprocess
    names = [each.name for _, each in all_operations(folded)]
    for name in keep_float:
        check_choice("keep", name, tuple(names))
    read_ = load_quantization_data(images, model, calibration_images)
    batches = _normalized_batches(read_.calibration, folded)
    calibration = calibrate(folded, batches)
    plain = _float_logits(folded, read_.evaluation)
    wanted = task.predict(plain) if read_.targets is None else read_.targets
    before = task.score(plain, wanted)
    always = {name for name in names if "squeeze_excite" in name.split(".") or name in keep_float}
    table: tuple[LayerSensitivity, ...] = ()
    with atomic_write(path) as beside, TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made, after = Path(folder) / path.name, before

        def drop(floats: frozenset[str]) -> float:
            nonlocal after
            chosen = [name for name in names if name not in always and name not in floats]
            write_quantized(made, folded, io_spec, calibration, chosen)
            engine = open_exported(made, threads=threads)
            after = task.score(np.concatenate([engine.run(part) for part in _split_batches(read_.evaluation)]), wanted)
            return 100 * (before - after)

        def order() -> list[str]:
            nonlocal table
            table = _sensitivity_table(folded, calibration, read_, always, step_done)
            return rank_by_divergence(table)

        if max_drop is None:
            floats = frozenset[str]()
            drop(floats)
        else:
            floats = find_float_layers(max_drop, drop, order, len(names) - len(always))
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
        move_with_companions(made, path, beside)
    kept = tuple(name for name in names if name in always or name in floats)
    measure = "agreement" if read_.targets is None else task.metric
    return QuantizedFile(
        path,
        QUANTIZED_FORMATS[path.suffix],
        kept,
        len(names),
        measure,
        before,
        after,
        len(read_.evaluation),
        written,
        table,
        read_.unreadable,
        task.name,
    )


def measure_sensitivity(
    model: EfficientNet,
    images: str | Path,
    count: int = SENSITIVITY_IMAGES,
    step_done: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[LayerSensitivity, ...]:
    """What each layer of ``model`` loses when it alone is in int8, on ``count`` pictures of the folder ``pictures``."""
    folded = fold_batch_norm(model).float().cpu()
    read_ = load_quantization_data(images, model, count)
    return _sensitivity_table(
        folded, calibrate(folded, _normalized_batches(read_.calibration, folded)), read_, set(), step_done, count
    )


def _sensitivity_table(
    model: EfficientNet,
    calibration: Calibration,
    data: QuantizationData,
    always_float: set[str],
    step_done: Callable[[int, int], None],
    count: int = SENSITIVITY_IMAGES,
) -> tuple[LayerSensitivity, ...]:
    some = np.linspace(0, len(data.evaluation) - 1, min(count, len(data.evaluation))).astype(int)  # they lie by class
    targets = None
    if data.targets is not None:
        targets = [torch.from_numpy(part) for part in _split_batches(data.targets[some])]
    chosen = [each.name for _, each in all_operations(model) if each.name not in always_float]
    return layer_sensitivities(
        model, calibration, _normalized_batches(data.evaluation[some], model), targets, chosen, step_done
    )


def _split_batches(images: InputImage) -> list[InputImage]:
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]


def _normalized_batches(images: InputImage, model: EfficientNet) -> list[Tensor]:
    return [normalize(torch.from_numpy(part), model.preprocess) for part in _split_batches(images)]


def _float_logits(model: EfficientNet, images: InputImage) -> FloatArray:
    with torch.inference_mode():
        parts = [model(normalize(torch.from_numpy(part), model.preprocess)).numpy() for part in _split_batches(images)]
    out: FloatArray = np.concatenate(parts)
    return out
