"""A model asked about labelled pictures, and its answers judged by the kind of their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import choice, whole
from effnet.contract import KINDS, Labels
from effnet.data import PictureError, Pictures, Splits, open_data
from effnet.engines.eager import Eager
from effnet.engines.engine import Engine
from effnet.engines.opening import is_exported
from effnet.evaluation.one import Evaluation, score
from effnet.evaluation.several import LabelsEvaluation, score_labels
from effnet.evaluation.values import ValuesEvaluation, score_values
from effnet.exporting import choose
from effnet.net import EfficientNet
from effnet.prediction.pipeline import BATCH, for_rgb, outputs
from effnet.weights import load

# By the labels' kind: "one", "any", "value". All have ``pictures``, ``headline``, ``in_words()``, ``to_dict()``,
# ``mistakes``, ``left_out``, ``split`` and ``kind``.
Judged = Evaluation | LabelsEvaluation | ValuesEvaluation

MEANINGS = {"one": "exactly one is right", "any": "any of them may be right", "value": "each is a number"}


def read(data: Any) -> Judged:
    """The evaluation that its ``to_dict()`` described. Raises ``ValueError`` where it is none."""
    kind = data.get("kind", "one") if isinstance(data, dict) else "one"
    choice("kind", kind, KINDS)
    records: dict[str, type[Judged]] = {"one": Evaluation, "any": LabelsEvaluation, "value": ValuesEvaluation}
    return records[kind].from_dict(data)


def evaluate(
    model: EfficientNet | Engine | str | Path,
    data: Pictures | str | Path,
    split: str | None = None,
    decode: str = "exact",
    device: str | None = None,
    batch: int = BATCH,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Judged:
    """How good ``model`` is on ``data``: labelled pictures, or a source of them as ``open_data`` understands it.

    ``model``: a network, an engine, a file or name of weights, or a file that `export` wrote, which runs in its own
    runtime. Of a source with several splits the test set is taken, else the validation set, else all, unless ``split``
    says which. Pictures that cannot be read are left out and listed, or with ``strict`` raise ``PictureError``.
    ``progress`` is called after each picture with how many are done, and how many there are. What comes back is by the
    kind of the labels: an `Evaluation` where exactly one class is right. Raises ``ValueError`` where the model does not
    know the pictures' classes, or its labels are of another kind.
    """
    whole("batch", batch, 1)
    engine = _engine(model, device)
    contract = engine.contract
    for_rgb(len(contract.preprocess.mean))
    if isinstance(data, Pictures):
        pictures = data
    else:
        split, pictures = pick_split(open_data(data), split)
    columns = class_columns(contract.labels, engine.classes, pictures.labels)
    rows, read, left_out = [], [], []
    named = ((item.name, item.picture) for item in pictures.items)
    found = outputs(engine.run, named, replace(contract.preprocess, decode=decode), batch)
    for done, (item, (_, row)) in enumerate(zip(pictures.items, found, strict=True), start=1):
        if progress:
            progress(done, len(pictures))
        if isinstance(row, PictureError):
            if strict:
                raise row
            left_out.append(str(row))
        else:
            rows.append(row)
            read.append(item)
    if not rows:
        raise ValueError("none of the pictures could be read")
    logits = np.stack(rows).astype(np.float64)
    result = _judged(logits, Pictures(tuple(read), pictures.labels), columns, contract.labels)
    return replace(result, left_out=tuple(left_out), split=split or "")


def _judged(logits: NDArray[np.float64], pictures: Pictures, columns: list[int], labels: Labels) -> Judged:
    """The evaluation of a model's logits (N, classes) for ``pictures``, whose classes are its outputs ``columns``."""
    names = [item.name for item in pictures.items]
    match pictures.labels.kind:
        case "any":
            return score_labels(logits[:, columns], pictures.wanted > 0, pictures.labels.names, names)
        case "value":
            wanted = pictures.wanted.astype(np.float64)
            return score_values(logits[:, columns], wanted, pictures.labels.names, names)
    classes = [labels.name(index) for index in range(logits.shape[1])]
    return score(logits, np.array(columns)[pictures.targets], classes, names)


def _engine(model: EfficientNet | Engine | str | Path, device: str | None) -> Engine:
    """What answers: PyTorch itself unless the file is for another runtime."""
    if isinstance(model, (str, Path)):
        if is_exported(Path(model)):
            return choose.engine(model)
        model = load(model)
    return Eager(model, device) if isinstance(model, EfficientNet) else model


def pick_split(splits: Splits, wanted: str | None = None) -> tuple[str, Pictures]:
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
    if known.kind != given.kind:
        raise ValueError(
            f"the pictures' labels are of the kind {given.kind!r} ({MEANINGS[given.kind]}), the model's of the kind "
            f"{known.kind!r} ({MEANINGS[known.kind]}): evaluate it on pictures that are labelled as it answers"
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
