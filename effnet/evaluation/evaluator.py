"""Running a model over labeled images and scoring its outputs by the task of the labels."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.serde import check_choice, check_int
from effnet.data import ImageDataset, ImageError, Splits, bit_depth, class_names, duplicates, open_data
from effnet.data.tables.table import is_table
from effnet.evaluation import metrics
from effnet.metadata import TASKS, Labels
from effnet.net import EfficientNet
from effnet.prediction.batched_inference import DEFAULT_BATCH_SIZE, run_batches
from effnet.runtime import autotune, base, foreign_onnx, io_spec, torch
from effnet.tasks import Float64Array, task_of
from effnet.weights import load

# All have ``images``, ``primary_metric``, ``summary()``, ``to_dict()``, ``mistakes``, ``skipped``, ``split``, ``task``
AnyEvaluation = metrics.Evaluation | metrics.MultiLabelEvaluation | metrics.RegressionEvaluation

log = logging.getLogger("effnet")

_EVALUATIONS: dict[str, type[AnyEvaluation]] = {
    "classification": metrics.Evaluation,
    "multilabel": metrics.MultiLabelEvaluation,
    "regression": metrics.RegressionEvaluation,
}


def evaluate(
    model: EfficientNet | base.Engine | foreign_onnx.OnnxFile | str | Path,
    data: ImageDataset | Splits | str | Path,
    split: str | None = None,
    decode: str = "exact",
    device: str | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    labels: Sequence[str] | None = None,
    color: str | None = None,
    bits: int | None = None,
) -> AnyEvaluation:
    """Evaluate a model on labeled images.

    Args:
        model: A network, an engine, a weights file or model name; or a file that runs in its own runtime, written by
            `effnet.export` or any ONNX classifier (`effnet.runtime.foreign_onnx.OnnxFile`).
        data: Labeled images, splits of them, or a source of them as `effnet.data.open_data` takes it.
        split: "train", "val" or "test"; default: the test split, else the validation split, else all.
        decode: "exact", or "reduced" to decode JPEGs at reduced scale.
        device: PyTorch device; default: the GPU if there is one.
        batch_size: Images computed at once.
        strict: Raise the error of an image that cannot be read, instead of listing it in ``skipped``.
        progress: Called with (images done, all images).
        labels: Names of the model's outputs, instead of its own.
        color: What the channels of images are (see `effnet.Preprocess`), instead of what the model states.
        bits: How many bits 16-bit files hold, instead of what the model states (default: as few as hold all of them).

    Returns:
        `Evaluation` for classification, `MultiLabelEvaluation` or `RegressionEvaluation`.

    Raises:
        ValueError: If the model does not know the images' classes, or is for another task.

    Example:
        >>> effnet.evaluate("model.safetensors", "photos").summary()
        'top-1 97.4%, top-5 99.9%'
    """
    check_int("batch_size", batch_size, 1)
    engine = _open_engine(model, device)
    known, preprocess = engine.metadata.labels, engine.metadata.preprocess
    base.require_classes(engine.classes, "evaluation")
    if labels is not None:
        known = class_names.rename_outputs(known, engine.classes, labels)
    preprocess = replace(preprocess, color=color or preprocess.color)
    if isinstance(data, ImageDataset):
        dataset = data
    else:
        splits = data if isinstance(data, Splits) else open_evaluation_data(data, known, engine.classes)
        split, dataset = pick_split(splits, split)
        duplicates.log_label_conflicts({split: dataset})
    preprocess = bit_depth.choose_bits(preprocess, (item.image for item in dataset.items), bits)
    columns = class_columns(known, engine.classes, dataset.labels)
    rows, readable, skipped = [], [], []
    named_images = ((item.name, item.image) for item in dataset.items)
    outputs = run_batches(engine.run, named_images, replace(preprocess, decode=decode), batch_size)
    for done, (item, (_, row)) in enumerate(zip(dataset.items, outputs, strict=True), start=1):
        if progress:
            progress(done, len(dataset))
        if isinstance(row, ImageError):
            if strict:
                raise row
            skipped.append(str(row))
        else:
            rows.append(row)
            readable.append(item)
    if not rows:
        raise ValueError("none of the images could be read")
    logits = np.stack(rows).astype(np.float64)
    result = _score_logits(logits, ImageDataset(tuple(readable), dataset.labels), columns, known)
    return replace(result, skipped=tuple(skipped), split=split or "")


def _score_logits(logits: Float64Array, dataset: ImageDataset, columns: list[int], labels: Labels) -> AnyEvaluation:
    image_names, class_names = [item.name for item in dataset.items], dataset.labels.names
    match dataset.labels.task:
        case "classification":
            output_names = [labels.name(index) for index in range(logits.shape[1])]
            return metrics.score_classes(logits, np.array(columns)[dataset.targets], output_names, image_names)
        case "multilabel":
            present = dataset.target_matrix > 0
            return metrics.score_multilabel(logits[:, columns], present, class_names, image_names)
    values = dataset.target_matrix.astype(np.float64)
    return metrics.score_regression(logits[:, columns], values, class_names, image_names)


def _open_engine(
    model: EfficientNet | base.Engine | foreign_onnx.OnnxFile | str | Path, device: str | None
) -> base.Engine:
    if foreign := foreign_onnx.find_runnable(model, device=device):
        return autotune.engine(foreign)
    if isinstance(model, (str, Path)):
        if io_spec.is_exported(Path(model)):
            return autotune.engine(model)
        model = load(model)
    assert not isinstance(model, foreign_onnx.OnnxFile)
    return torch.EagerEngine(model, device) if isinstance(model, EfficientNet) else model


def open_evaluation_data(source: str | Path, known: Labels, outputs: int) -> Splits:
    """Open labeled images to evaluate a model with these labels: of all of its classes, some, or one."""
    needs_task = known.task != "classification" and is_table(source) and not Path(source).is_dir()
    task = known.task if needs_task else None  # a number or a single word may be anything

    def is_class(name: str) -> bool:
        return bool(known.names) and class_names.match_classes((name,), known.names, outputs)[0] != [None]

    return open_data(source, task, is_class)


def pick_split(splits: Splits, name: str | None = None) -> tuple[str, ImageDataset]:
    """Return the split to evaluate on: its name and the dataset."""
    available = dict(reversed(splits.available.items()))
    if name is None:
        return next(iter(available.items()))
    if name not in available:
        raise ValueError(f"the data has no split {name!r}, only {', '.join(available)}")
    return name, available[name]


def class_columns(known: Labels, outputs: int, of_data: Labels) -> list[int]:
    """Return which of the model's ``outputs`` is for each class of the data; ``known`` are the model's labels.

    Classes are found by name, as ImageNet's synsets, or by number (`effnet.data.class_names.match_classes`); those that
    the data does not have do not matter. Without names, as many classes as outputs are taken in their order. Raises
    ``ValueError`` for another task, and for a class that the model does not know.
    """
    if known.task != of_data.task:
        raise ValueError(
            f"the labels of the data are for {of_data.task} ({task_of(of_data.task).description}), the model is for "
            f"{known.task} ({task_of(known.task).description}): evaluate it on data of its own task"
        )
    if not known.names and len(of_data.names) == outputs:
        return list(range(outputs))
    columns, way = class_names.match_classes(of_data.names, known.names, outputs)
    missing = next((name for name, column in zip(of_data.names, columns, strict=True) if column is None), None)
    if missing is not None and known.names:
        raise ValueError(f"the model does not know the class {missing!r}; it knows {', '.join(known.names[:20])}")
    if missing is not None:
        raise ValueError(
            f"the model has {outputs} classes without names, the data has {len(of_data.names)}: name them with "
            "--labels FILE"
        )
    if way != "name" and of_data.names:
        first = known.name(columns[0] or 0)
        log.info("the classes of the data are matched by %s: %s is %r", way, of_data.names[0], first)
    return [column for column in columns if column is not None]


def read_evaluation(data: Any) -> AnyEvaluation:
    """Return the evaluation that ``to_dict()`` described. Raises ``ValueError`` if it is none."""
    task = data.get("task", "classification") if isinstance(data, dict) else "classification"
    check_choice("task", task, TASKS)
    return _EVALUATIONS[task].from_dict(data)
