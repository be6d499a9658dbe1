"""``submission.csv``: a model's answers to the pictures of a test table, in the shape that a competition wants."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effnet.arch.serde import did_you_mean
from effnet.data.image_io import ImageError
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.table import LabelTable, open_unlabeled_table, read_table
from effnet.metadata import Labels
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.predictor import Predictor
from effnet.tasks import MULTI_LABEL_THRESHOLD

SAMPLE_FILES = ("sample_submission.csv", "sampleSubmission.csv", "SampleSubmission.csv")

RowFormatter = Callable[[NDArray[np.float32]], list[str]]  # (classes,) -> what stands beside the id


@dataclass(frozen=True)
class SubmissionFormat:
    """How a submission looks: its headings, the ids from top to bottom, and what an answer becomes."""

    columns: tuple[str, ...]
    ids: tuple[str, ...]
    format_row: RowFormatter
    sample: Path | None = None


@dataclass(frozen=True)
class SubmissionResult:
    """What was written: ``unread`` names the pictures that could not be read, and why."""

    rows: int
    columns: tuple[str, ...]
    sample: Path | None
    unreadable: tuple[str, ...]


def write_submission(
    table: str | Path,
    predictor: Predictor | Ensemble,
    out: str | Path,
    *,
    probabilities: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SubmissionResult:
    """Predicts the pictures of ``table`` (see `open_unlabelled`) into the CSV ``out``, a row each.

    The first column is called as the table's, then comes ``label`` (several have spaces between them; values are by
    their names), or with ``probabilities`` a column a class. Where a ``sample_submission.csv`` lies beside the table,
    or is the table, its columns and the order of its rows decide (see `shape`). A picture that cannot be read gets the
    mean answer of all others, since a submission must not lack a row; it is named in what is returned. ``out`` is
    written whole, at the end. Raises ``FileExistsError`` where it is there, unless ``force`` is given, and
    ``ValueError`` for a sample that does not fit, and where no picture can be read.
    """
    out = Path(out)
    check_output_path(out, force)
    given = read_table(table)
    pairs = open_unlabeled_table(table)
    wanted = submission_format(given, predictor.labels, predictor.classes, probabilities)
    found: dict[str, NDArray[np.float32]] = {}
    unread: dict[str, str] = {}
    for done, (name, row) in enumerate(predictor.predict_scores(pairs), start=1):
        if isinstance(row, ImageError):
            unread[name] = str(row)
        else:
            found[name] = row.astype(np.float32)
        if progress:
            progress(done, len(pairs))
    if not found:
        raise ValueError(f"none of the {len(pairs)} pictures could be read; the first: {next(iter(unread.values()))}")
    mean = np.asarray(np.stack(list(found.values())).mean(0, dtype=np.float64), np.float32)
    with atomic_write(out) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(wanted.columns)
        for name, shown in zip(
            _match_ids(wanted.ids, [name for name, _ in pairs], wanted.sample), wanted.ids, strict=True
        ):
            write((shown, *wanted.format_row(found.get(name, mean))))
    return SubmissionResult(len(wanted.ids), wanted.columns, wanted.sample, tuple(unread.values()))


def check_output_path(out: Path, force: bool) -> None:
    """Raises ``ValueError`` for what is no ``.csv``, ``FileExistsError`` for what is there, unless with ``force``."""
    if out.suffix.lower() != ".csv":
        raise ValueError(f"a submission ends in .csv, not in {out.suffix or 'nothing'}")
    if out.exists() and not force:
        raise FileExistsError(f"{out} is there already: --force replaces it, another --out leaves it as it is")


def submission_format(table: LabelTable, labels: Labels, classes: int, probabilities: bool = False) -> SubmissionFormat:
    """The shape of a submission for ``table`` by a model of these labels.

    A sample's first column has the ids. The others, where they are named as the model's classes are, hold their
    probabilities (or values) in the sample's order. A single column of another name holds the label; of two classes the
    probability of the second, where ``probabilities`` are asked for or the sample has a fraction in it; of a single
    value that value. Raises ``ValueError`` for columns that mean none of this.
    """
    names = tuple(labels.name(index) for index in range(classes))
    sample = _find_sample(table)
    if sample is None:
        if probabilities or labels.task == "regression":
            return SubmissionFormat(
                (table.image_column, *names), tuple(table.column(table.image_column)), _format_numbers(range(classes))
            )
        return SubmissionFormat(
            (table.image_column, "label"), tuple(table.column(table.image_column)), _format_label(labels, names)
        )
    key, *columns = sample.columns
    ids = tuple(sample.column(key))
    if columns and set(columns) <= set(names):
        places = [names.index(column) for column in columns]
        return SubmissionFormat(sample.columns, ids, _format_numbers(places), sample.path)
    if len(columns) == 1:
        if labels.task == "regression" and classes == 1:
            return SubmissionFormat(sample.columns, ids, _format_numbers([0]), sample.path)
        fraction = any(map(_is_fraction, sample.column(columns[0])))
        if labels.task == "classification" and classes == 2 and (probabilities or fraction):
            return SubmissionFormat(sample.columns, ids, _format_numbers([1]), sample.path)
        if labels.task != "regression" and not probabilities:
            return SubmissionFormat(sample.columns, ids, _format_label(labels, names), sample.path)
    odd = [column for column in columns if column not in names]
    raise ValueError(
        f"{sample.path} has {', '.join(columns) or 'no columns beside the id'}, which the model's answers "
        f"({', '.join(names[:5])}{', …' if len(names) > 5 else ''}) do not fill"
        + (did_you_mean(odd[0], list(names)) if odd else "")
        + ": rename the columns, or move the sample away"
    )


def _find_sample(table: LabelTable) -> LabelTable | None:
    """The sample beside the table, or the table itself where it is called so."""
    if table.path.name in SAMPLE_FILES:
        return table
    return next((read_table(path) for name in SAMPLE_FILES if (path := table.path.with_name(name)).is_file()), None)


def _match_ids(ids: Sequence[str], names: Sequence[str], sample: Path | None) -> list[str]:
    """The table's name for each id of the submission; a sample may leave endings out, or have them.

    Raises ``ValueError`` for ids that the table has not.
    """
    known = set(names)
    by_stem = {Path(name).stem: name for name in names}
    found = [name if name in known else by_stem.get(Path(name).stem, "") for name in ids]
    lost = [name for name, there in zip(ids, found, strict=True) if not there]
    if lost:
        raise ValueError(
            f"{len(lost)} of the {len(ids)} rows of {sample} are not in the table of pictures, such as {lost[0]}: "
            "give the sample itself as the table, or move it away"
        )
    return found


def _format_numbers(places: Sequence[int]) -> RowFormatter:
    return lambda row: [f"{row[place]:.7g}" for place in places]


def _format_label(labels: Labels, names: Sequence[str]) -> RowFormatter:
    if labels.task == "multilabel":
        return lambda row: [
            " ".join(name for name, share in zip(names, row, strict=True) if share >= MULTI_LABEL_THRESHOLD)
        ]
    return lambda row: [names[int(row.argmax())]]


def _is_fraction(cell: str) -> bool:
    try:
        return not float(cell).is_integer()
    except ValueError:
        return False
