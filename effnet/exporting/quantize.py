"""`effnet.quantize`: an int8 file, calibrated on images and scored in its own runtime, within an allowed loss.

Its own code rather than NNCF or ai-edge-quantizer: one calibration serves three formats, and on B0 it loses least
(see docs/quantizing.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from effnet.arch.serde import check_choice, check_float, check_int
from effnet.data import dataset_sources, folders, image_io, prefetch, preprocessing
from effnet.data.dataset import ImageDataset, Item
from effnet.data.storage.atomic_write import atomic_write_with_companions
from effnet.exporting import calibration, quantize_graphs, sensitivity
from effnet.metadata import Labels, Preprocess
from effnet.net import EfficientNet, surgery
from effnet.runtime.base import FloatArray, open_exported, require_classes
from effnet.runtime.io_spec import IOSpec, default_input
from effnet.tasks import task_of
from effnet.weights import load

BATCH_SIZE = 16
MAX_EVALUATION_BYTES = 2**29  # of images held in memory
SENSITIVITY_IMAGES = 32  # enough to rank layers
MAX_FLOAT_FRACTION = 0.5  # of the layers: with more it is no longer an int8 file


@dataclass(frozen=True)
class QuantizedFile:
    """A written int8 file, the layers that stay in float, and the loss on the evaluation images."""

    path: Path
    format: str  # "onnx", "openvino" or "litert"
    float_layers: tuple[str, ...]  # names of operations, see `effnet.arch.operations`
    layers: int  # in total
    metric: str  # the task's, against labels; or "agreement", the same against the network's own predictions
    float_score: float  # the network's
    int8_score: float  # the file's, in its own runtime
    images: int  # that were evaluated
    bytes: int  # of all its files
    sensitivities: tuple[sensitivity.LayerSensitivity, ...] = ()  # empty if no layer had to stay in float
    unreadable: int = 0  # images that were skipped
    task: str = "classification"

    @property
    def drop(self) -> float:
        """Percentage points lost; negative if the file is better."""
        return 100 * (self.float_score - self.int8_score)

    def describe(self) -> str:
        """Return the result in one line."""
        floats = f"{len(self.float_layers)} of {self.layers} layers in float"
        skipped = f"; skipped {self.unreadable:,} unreadable" if self.unreadable else ""
        return (
            f"{floats if self.float_layers else 'every layer in int8'}; "
            f"{self.metric} {100 * self.int8_score:.2f} % (float {100 * self.float_score:.2f} %) "
            f"on {self.images:,} images{skipped}"
        )


def quantize(
    model: EfficientNet | str | Path,
    path: str | Path,
    images: str | Path,
    io_spec: IOSpec | None = None,
    max_drop: float | None = None,
    calibration_images: int = calibration.DEFAULT_IMAGES,
    keep_float: tuple[str, ...] = (),
    threads: int | None = None,
    step_done: Callable[[int, int], None] = lambda done, total: None,
) -> QuantizedFile:
    """Write ``model`` to ``path`` in int8.

    The file is run in its own runtime and scored: against labels if the data has the network's classes, otherwise by
    agreement with the network. Squeeze-excite always stays in float.

    Args:
        model: a network, or anything `effnet.load` accepts.
        path: ``.onnx`` (QDQ), ``.xml`` (OpenVINO) or ``.tflite`` (LiteRT).
        images: folder of images, or a file that `effnet.train` accepts. With train and val splits, the first
            is for calibration and the second for scoring.
        io_spec: input and output of the file, by default pixels (floats if resized as by TensorFlow) in, probabilities
            (or values) out.
        max_drop: percentage points of the metric that may be lost. As many of the most sensitive layers as necessary
            stay in float. By default every layer is quantized.
        calibration_images: how many to calibrate on, spread over the classes.
        keep_float: names of layers that stay in float.
        threads: by default one per core.
        step_done: called with (done, total) while sensitivities are measured.

    Raises:
        ValueError: ``max_drop`` cannot be met (no file is left), too few images, unknown layer, or no classifier.
        ImportError: the format's packages are not installed.

    Example:
        >>> effnet.quantize("model.safetensors", "model.onnx", "photos", max_drop=0.5).describe()
    """
    path = Path(path)
    model = model if isinstance(model, EfficientNet) else load(model)
    task = task_of(model.labels.task)
    io_spec = io_spec or IOSpec(default_input(model.preprocess), task.output, size=model.preprocess.size)
    io_spec.check_labels(model.labels)
    if path.suffix not in quantize_graphs.QUANTIZED_FORMATS:
        raise ValueError(f"{path}: int8 files end in {', '.join(quantize_graphs.QUANTIZED_FORMATS)}")
    check_int("calibration_images", calibration_images, 1)
    if max_drop is not None:
        check_float("max_drop", max_drop, 0, 100)
    require_classes(model.classes, "the scoring of int8 files")
    folded = surgery.fold_batch_norm(model).float().cpu()
    folded.preprocess = model.preprocess
    names = [operation.name for operation in calibration.all_operations(folded)]
    for name in keep_float:
        check_choice("keep_float", name, tuple(names))
    data = load_quantization_data(images, model, calibration_images)
    calibrated = calibration.calibrate(folded, _normalized_batches(data.calibration, folded))
    logits = _float_logits(folded, data.evaluation)
    targets = task.predict(logits) if data.targets is None else data.targets
    float_score = int8_score = task.score(logits, targets)
    always_float = {name for name in names if "squeeze_excite" in name.split(".") or name in keep_float}
    table: tuple[sensitivity.LayerSensitivity, ...] = ()
    with atomic_write_with_companions(path) as written:

        def measure_drop(float_layers: frozenset[str]) -> float:
            nonlocal int8_score
            int8_operations = [name for name in names if name not in always_float and name not in float_layers]
            quantize_graphs.write_quantized(written, folded, io_spec, calibrated, int8_operations)
            engine = open_exported(written, threads=threads)
            outputs = np.concatenate([engine.run(batch) for batch in _split_batches(data.evaluation)])
            int8_score = task.score(outputs, targets)
            return 100 * (float_score - int8_score)

        def rank_layers() -> list[str]:
            nonlocal table
            table = _sensitivity_table(folded, calibrated, data, always_float, step_done)
            return [row.layer for row in sensitivity.rank_by_divergence(table)]

        allowed = float("inf") if max_drop is None else max_drop
        float_layers = find_float_layers(allowed, measure_drop, rank_layers, len(names) - len(always_float))
        size_in_bytes = sum(file.stat().st_size for file in written.parent.iterdir())
    return QuantizedFile(
        path=path,
        format=quantize_graphs.QUANTIZED_FORMATS[path.suffix],
        float_layers=tuple(name for name in names if name in always_float or name in float_layers),
        layers=len(names),
        metric="agreement" if data.targets is None else task.metric,
        float_score=float_score,
        int8_score=int8_score,
        images=len(data.evaluation),
        bytes=size_in_bytes,
        sensitivities=table,
        unreadable=data.unreadable,
        task=task.name,
    )


def find_float_layers(
    max_drop: float,
    measure_drop: Callable[[frozenset[str]], float],
    rank_layers: Callable[[], Sequence[str]],
    layers: int,
) -> frozenset[str]:
    """Return the layers to leave in float: as few of the most sensitive ones as keep the drop within ``max_drop``.

    ``measure_drop`` writes and scores a file with those layers in float; its last call is for the returned ones.
    ``rank_layers`` returns the most sensitive first, and is called only if some must stay in float. Their number is
    doubled until the drop is small enough, then bisected. Raises ``ValueError`` if half of all ``layers`` are too few.
    """
    first = measure_drop(frozenset())
    if first <= max_drop:
        return frozenset()
    ranked = list(rank_layers())
    most = min(int(layers * MAX_FLOAT_FRACTION), len(ranked))
    too_few, count, drop = 0, 1, first
    while too_few < most:
        count = min(count, most)
        drop = measure_drop(frozenset(ranked[:count]))
        if drop <= max_drop:
            break
        too_few, count = count, count * 2
    else:
        raise ValueError(
            f"int8 loses {first:.2f} percentage points, and {drop:.2f} with the {most} most sensitive of {layers} "
            f"layers in float, but max_drop is {max_drop:g}: raise it, or give more images"
        )
    measured = count  # in the latest call
    while count - too_few > 1:
        measured = (too_few + count) // 2
        if measure_drop(frozenset(ranked[:measured])) <= max_drop:
            count = measured
        else:
            too_few = measured
    if measured != count:
        measure_drop(frozenset(ranked[:count]))
    return frozenset(ranked[:count])


def measure_sensitivity(
    model: EfficientNet, images: str | Path, count: int = SENSITIVITY_IMAGES
) -> tuple[sensitivity.LayerSensitivity, ...]:
    """Return what each layer of ``model`` loses if it alone is in int8, on ``count`` images of a folder."""
    folded = surgery.fold_batch_norm(model).float().cpu()
    data = load_quantization_data(images, model, count)
    calibrated = calibration.calibrate(folded, _normalized_batches(data.calibration, folded))
    return _sensitivity_table(folded, calibrated, data, set(), lambda done, total: None, count)


def _sensitivity_table(
    model: EfficientNet,
    calibrated: calibration.Calibration,
    data: "QuantizationData",
    always_float: set[str],
    step_done: Callable[[int, int], None],
    count: int = SENSITIVITY_IMAGES,
) -> tuple[sensitivity.LayerSensitivity, ...]:
    total = len(data.evaluation)
    chosen = np.linspace(0, total - 1, min(count, total)).astype(int)  # they are sorted by class
    targets = None
    if data.targets is not None:
        targets = [torch.from_numpy(batch) for batch in _split_batches(data.targets[chosen])]
    names = [each.name for each in calibration.all_operations(model) if each.name not in always_float]
    batches = _normalized_batches(data.evaluation[chosen], model)
    return sensitivity.layer_sensitivities(model, calibrated, batches, targets, names, step_done)


def _split_batches(array: np.ndarray) -> list[np.ndarray]:
    return [array[start : start + BATCH_SIZE] for start in range(0, len(array), BATCH_SIZE)]


def _normalized_batches(images: image_io.InputImage, model: EfficientNet) -> list[torch.Tensor]:
    return [preprocessing.normalize(torch.from_numpy(batch), model.preprocess) for batch in _split_batches(images)]


@torch.inference_mode()
def _float_logits(model: EfficientNet, images: image_io.InputImage) -> FloatArray:
    logits: FloatArray = torch.cat([model(batch) for batch in _normalized_batches(images, model)]).numpy()
    return logits


@dataclass(frozen=True, eq=False)
class QuantizationData:
    """Images with values 0 … 255, (N, H, W, C), and `effnet.tasks.Task` targets of the evaluation images, if known."""

    calibration: image_io.InputImage
    evaluation: image_io.InputImage
    targets: np.ndarray | None
    unreadable: int  # images that were skipped


def load_quantization_data(source: str | Path, model: EfficientNet, count: int) -> QuantizationData:
    """Load ``count`` calibration images, spread over the classes, and as many evaluation images as fit into memory."""
    root = Path(source)
    if not root.exists():
        raise ValueError(f"{root} does not exist: int8 requires a folder of images like those it will be used on")
    train, evaluation, columns = _find_items(root, model)
    to_calibrate, _, unreadable = _load_items(sample_by_class(train, count), model.preprocess)
    if len(to_calibrate) < calibration.MIN_IMAGES:
        raise ValueError(
            f"{root} has {len(to_calibrate)} readable images, but calibration requires {calibration.MIN_IMAGES}"
        )
    limit = max(MAX_EVALUATION_BYTES // to_calibrate[0].nbytes, 1)
    images, items, also_unreadable = _load_items(sample_by_class(list(evaluation.items), limit), model.preprocess)
    targets: np.ndarray | None = None
    if columns is not None:
        loaded, task = ImageDataset(items, evaluation.labels), evaluation.labels.task
        if task == "classification":
            targets = np.array(columns)[loaded.targets]
        else:
            matrix = loaded.target_matrix[:, np.argsort(columns)]
            targets = matrix > 0 if task == "multilabel" else matrix
    return QuantizationData(to_calibrate, images, targets, len(unreadable | also_unreadable))


def _find_items(root: Path, model: EfficientNet) -> tuple[list[Item], ImageDataset, list[int] | None]:
    """Return items to calibrate on, images to evaluate on, and the network's output for each of their classes."""
    try:
        splits = dataset_sources.open_data(root)
    except ValueError:  # no class folders
        if not root.is_dir():
            raise
        items = tuple(Item(path, 0, path.name) for path in folders.list_image_files(root))
        return list(items), ImageDataset(items, Labels()), None
    train = splits.train or splits.val or splits.test
    assert train is not None
    evaluation = splits.val or splits.test or train
    return list(train.items), evaluation, _match_labels(evaluation.labels, model.labels, model.classes)


def _match_labels(found: Labels, known: Labels, classes: int) -> list[int] | None:
    """Return the network's output for each class of the data, or None if these are not the network's classes."""
    partial = known.names and known.task == "classification"  # only some of the classes may occur
    if found.task != known.task or (not partial and len(found.names) != (len(known.names) or classes)):
        return None
    if not known.names:
        return list(range(classes))
    return [known.names.index(name) for name in found.names] if set(found.names) <= set(known.names) else None


def sample_by_class(items: list[Item], count: int) -> list[Item]:
    """Return ``count`` items evenly over the classes, and within each. Several labels, or values, are one class."""
    if len(items) <= count:
        return items
    members: dict[int, list[Item]] = {}
    for item in items:
        members.setdefault(item.label if isinstance(item.label, int) else 0, []).append(item)
    quota = dict.fromkeys(members, 0)
    left = count
    while left:  # one for each class in turn, until the smaller ones are used up
        open_classes = [label for label in members if quota[label] < len(members[label])][:left]
        for label in open_classes:
            quota[label] += 1
        left -= len(open_classes)
    return [
        of_class[index * len(of_class) // quota[label]]
        for label, of_class in members.items()
        for index in range(quota[label])
    ]


def _load_items(items: list[Item], preprocess: Preprocess) -> tuple[image_io.InputImage, tuple[Item, ...], set[str]]:
    def load_item(item: Item) -> image_io.InputImage | None:
        try:
            return image_io.load_input(item.image, preprocess)
        except image_io.ImageError:
            return None

    loaded = list(zip(items, prefetch.prefetch_map(load_item, items), strict=True))
    unreadable = {item.name for item, image in loaded if image is None}
    images = [image for _, image in loaded if image is not None]
    readable = tuple(item for item, image in loaded if image is not None)
    return (
        np.stack(images) if images else np.empty((0, *preprocess.size, len(preprocess.mean)), np.uint8),
        readable,
        unreadable,
    )
