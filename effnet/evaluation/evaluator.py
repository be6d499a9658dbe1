"""A model asked about labelled pictures, and its answers judged by the kind of their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import check_choice, check_int
from effnet.data import ImageDataset, ImageError, Splits, open_data
from effnet.evaluation.metrics import (
    Evaluation,
    MultiLabelEvaluation,
    RegressionEvaluation,
    score_classes,
    score_multilabel,
    score_regression,
)
from effnet.metadata import TASKS, Labels
from effnet.net import EfficientNet
from effnet.prediction.pipeline import DEFAULT_BATCH_SIZE, require_rgb, run_batches
from effnet.runtime import autotune
from effnet.runtime.base import Engine
from effnet.runtime.io_spec import is_exported
from effnet.runtime.torch import EagerEngine
from effnet.tasks import task_of
from effnet.weights import load

# By the labels' kind: "classification", "multilabel", "regression". All have ``pictures``, ``headline``, ``in_words()``, ``to_dict()``,
# ``mistakes``, ``left_out``, ``split`` and ``kind``.
AnyEvaluation = Evaluation | MultiLabelEvaluation | RegressionEvaluation


def read_evaluation(data: Any) -> AnyEvaluation:
    """The evaluation that its ``to_dict()`` described. Raises ``ValueError`` where it is none."""
    task = data.get("task", "classification") if isinstance(data, dict) else "classification"
    check_choice("task", task, TASKS)
    records: dict[str, type[AnyEvaluation]] = {
        "classification": Evaluation,
        "multilabel": MultiLabelEvaluation,
        "regression": RegressionEvaluation,
    }
    return records[task].from_dict(data)


def evaluate(
    model: EfficientNet | Engine | str | Path,
    data: ImageDataset | str | Path,
    split: str | None = None,
    decode: str = "exact",
    device: str | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> AnyEvaluation:
    """How good ``model`` is on ``data``: labelled pictures, or a source of them as ``open_data`` understands it.

    ``model``: a network, an engine, a file or name of weights, or a file that `export` wrote, which runs in its own
    runtime. Of a source with several splits the test set is taken, else the validation set, else all, unless ``split``
    says which. Pictures that cannot be read are left out and listed, or with ``strict`` raise ``PictureError``.
    ``progress`` is called after each picture with how many are done, and how many there are. What comes back is by the
    kind of the labels: an `Evaluation` where exactly one class is right. Raises ``ValueError`` where the model does not
    know the pictures' classes, or its labels are of another kind.
    """
    check_int("batch", batch_size, 1)
    engine = _open_engine(model, device)
    contract = engine.metadata
    require_rgb(len(contract.preprocess.mean))
    if isinstance(data, ImageDataset):
        pictures = data
    else:
        split, pictures = pick_split(open_data(data), split)
    columns = class_columns(contract.labels, engine.classes, pictures.labels)
    rows, read, left_out = [], [], []
    named = ((item.name, item.image) for item in pictures.items)
    found = run_batches(engine.run, named, replace(contract.preprocess, decode=decode), batch_size)
    for done, (item, (_, row)) in enumerate(zip(pictures.items, found, strict=True), start=1):
        if progress:
            progress(done, len(pictures))
        if isinstance(row, ImageError):
            if strict:
                raise row
            left_out.append(str(row))
        else:
            rows.append(row)
            read.append(item)
    if not rows:
        raise ValueError("none of the pictures could be read")
    logits = np.stack(rows).astype(np.float64)
    result = _score_logits(logits, ImageDataset(tuple(read), pictures.labels), columns, contract.labels)
    return replace(result, skipped=tuple(left_out), split=split or "")


def _score_logits(
    logits: NDArray[np.float64], dataset: ImageDataset, columns: list[int], labels: Labels
) -> AnyEvaluation:
    """The evaluation of a model's logits (N, classes) for ``pictures``, whose classes are its outputs ``columns``."""
    names = [item.name for item in dataset.items]
    match dataset.labels.task:
        case "multilabel":
            return score_multilabel(logits[:, columns], dataset.target_matrix > 0, dataset.labels.names, names)
        case "regression":
            wanted = dataset.target_matrix.astype(np.float64)
            return score_regression(logits[:, columns], wanted, dataset.labels.names, names)
    classes = [labels.name(index) for index in range(logits.shape[1])]
    return score_classes(logits, np.array(columns)[dataset.targets], classes, names)


def _open_engine(model: EfficientNet | Engine | str | Path, device: str | None) -> Engine:
    """What answers: PyTorch itself unless the file is for another runtime."""
    if isinstance(model, (str, Path)):
        if is_exported(Path(model)):
            return autotune.engine(model)
        model = load(model)
    return EagerEngine(model, device) if isinstance(model, EfficientNet) else model


def pick_split(splits: Splits, wanted: str | None = None) -> tuple[str, ImageDataset]:
    """The split to judge by, and its name. Raises ``ValueError`` where ``wanted`` is not there."""
    there = {name: found for name in ("test", "val", "train") if (found := getattr(splits, name)) is not None}
    if wanted is None:
        return next(iter(there.items()))
    if wanted not in there:
        raise ValueError(f"there is no split {wanted!r} in the data: it has {', '.join(there)}")
    return wanted, there[wanted]


def class_columns(known: Labels, classes: int, given: Labels) -> list[int]:
    """For each class of the pictures, the model's output for it.

    Raises ``ValueError`` where it has none, or means its outputs otherwise.
    """
    if known.task != given.task:
        raise ValueError(
            f"the pictures' labels are of the kind {given.task!r} ({task_of(given.task).description}), the model's of the kind "
            f"{known.task!r} ({task_of(known.task).description}): evaluate it on pictures that are labelled as it answers"
        )
    if not known.names:
        if len(given.names) != classes:
            raise ValueError(f"the model has {classes} classes without names, the pictures have {len(given.names)}")
        return list(range(classes))
    missing = [name for name in given.names if name not in known.names]
    if missing:
        raise ValueError(
            f"the model does not know the class {missing[0]!r} of the pictures; it knows {', '.join(known.names[:20])}"
        )
    return [known.names.index(name) for name in given.names]
