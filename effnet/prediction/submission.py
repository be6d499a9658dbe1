"""Submissions: predictions of a test table as ``submission.csv``, in the format that a competition asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effnet.arch.serde import did_you_mean
from effnet.data.image_io import ImageError
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.csv_files import csv_writer
from effnet.data.tables.table import open_unlabeled_table
from effnet.data.tables.table_reader import LabelTable, read_table
from effnet.metadata import Labels
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.predictor import Predictor
from effnet.tasks import MULTI_LABEL_THRESHOLD, task_of

SAMPLE_FILES = ("sample_submission.csv", "sampleSubmission.csv", "SampleSubmission.csv")

RowFormatter = Callable[[np.ndarray], list[str]]  # scores (classes,) -> the cells beside the id


@dataclass(frozen=True)
class SubmissionFormat:
    """Format of a submission."""

    columns: tuple[str, ...]
    ids: tuple[str, ...]  # first column, from top to bottom
    format_row: RowFormatter
    sample: Path | None = None  # the sample submission that it was taken from


@dataclass(frozen=True)
class SubmissionResult:
    """What was written; ``unreadable`` has an error message per image that could not be read."""

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
    """Predict the images of a table into the CSV ``out``, one row each.

    The first column is the table's; it is followed by ``label`` (several labels are separated by spaces; values have
    their names), or with ``probabilities`` by one column per class. If the table is a sample submission, or one lies
    beside it, that decides the columns and the order of the rows (see `submission_format`). An image that cannot be
    read gets the mean scores of all others, since no row may be missing.

    Args:
        table: A CSV of images, as `effnet.data.tables.table.open_unlabeled_table`.
        out: Path of the submission, written at the end, completely or not at all.
        probabilities: Write probabilities instead of the label.
        force: Replace an existing file.
        progress: Called with (images done, all images).

    Raises:
        FileExistsError: If ``out`` exists, unless ``force``.
        ValueError: If the sample submission does not fit the model, or no image can be read.
    """
    out = Path(out)
    check_output_path(out, force)
    images = open_unlabeled_table(table)
    form = submission_format(read_table(table), predictor.labels, predictor.classes, probabilities)
    scores: dict[str, np.ndarray] = {}
    errors: dict[str, str] = {}
    for done, (name, row) in enumerate(predictor.predict_scores(images), start=1):
        if isinstance(row, ImageError):
            errors[name] = str(row)
        else:
            scores[name] = row.astype(np.float32)
        if progress:
            progress(done, len(images))
    if not scores:
        raise ValueError(f"none of the {len(images)} images could be read; the first: {next(iter(errors.values()))}")
    mean = np.asarray(np.stack(list(scores.values())).mean(0, dtype=np.float64), np.float32)
    names = _match_ids(form.ids, [name for name, _ in images], form.sample)
    with (
        atomic_write(out) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        write_row = csv_writer(file, cells="exact")  # its grader is a program
        write_row(form.columns)
        for name, id_ in zip(names, form.ids, strict=True):
            write_row((id_, *form.format_row(scores.get(name, mean))))
    return SubmissionResult(len(form.ids), form.columns, form.sample, tuple(errors.values()))


def check_output_path(out: Path, force: bool) -> None:
    """Raise ``ValueError`` unless ``out`` is a .csv, ``FileExistsError`` if it exists, unless ``force``."""
    if out.suffix.lower() != ".csv":
        raise ValueError(f"a submission must end in .csv, not in {out.suffix or 'nothing'}")
    if out.exists() and not force:
        raise FileExistsError(f"{out} already exists: replace it with --force, or choose another --out")


def submission_format(table: LabelTable, labels: Labels, classes: int, probabilities: bool = False) -> SubmissionFormat:
    """Return the format of a submission for ``table`` by a model with these labels.

    In a sample submission the first column has the ids. If the others are called as classes, they get the probabilities
    (or values) of these. A single column of another name gets the label; with two classes the probability of the
    second, if ``probabilities`` are asked for or the sample contains a fraction; with a single value that value.
    """
    task = task_of(labels.task)
    names = tuple(labels.name(index) for index in range(classes))
    sample = _find_sample(table)
    if sample is None:
        ids = tuple(table.column(table.image_column))
        if probabilities or not task.has_probabilities:
            return SubmissionFormat((table.image_column, *names), ids, _format_scores(range(classes)))
        return SubmissionFormat((table.image_column, "label"), ids, _format_labels(labels, names))
    id_column, *columns = sample.columns
    format_row: RowFormatter | None = None
    if columns and set(columns) <= set(names):
        format_row = _format_scores([names.index(column) for column in columns])
    elif len(columns) == 1:
        has_fraction = any(map(_is_fraction, sample.column(columns[0])))
        if not task.has_probabilities and classes == 1:
            format_row = _format_scores([0])
        elif labels.task == "classification" and classes == 2 and (probabilities or has_fraction):
            format_row = _format_scores([1])
        elif task.has_probabilities and not probabilities:
            format_row = _format_labels(labels, names)
    if format_row:
        return SubmissionFormat(sample.columns, tuple(sample.column(id_column)), format_row, sample.path)
    unknown = [column for column in columns if column not in names]
    raise ValueError(
        f"{sample.path} has {', '.join(columns) or 'no columns beside the id'}, but the model predicts "
        f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        + (did_you_mean(unknown[0], list(names)) if unknown else "")
        + ": rename the columns, or move the sample submission away"
    )


def _find_sample(table: LabelTable) -> LabelTable | None:
    if table.path.name in SAMPLE_FILES:
        return table
    return next((read_table(path) for name in SAMPLE_FILES if (path := table.path.with_name(name)).is_file()), None)


def _match_ids(ids: Sequence[str], names: Sequence[str], sample: Path | None) -> list[str]:
    """Return the table's name for each id of the submission; file extensions may be missing on either side."""
    known = set(names)
    by_stem = {Path(name).stem: name for name in names}
    matches = [id_ if id_ in known else by_stem.get(Path(id_).stem, "") for id_ in ids]
    unmatched = [id_ for id_, match in zip(ids, matches, strict=True) if not match]
    if unmatched:
        raise ValueError(
            f"{len(unmatched)} of the {len(ids)} rows of {sample} are not in the table of images, such as "
            f"{unmatched[0]}: give the sample submission itself as the table, or move it away"
        )
    return matches


def _format_scores(indices: Sequence[int]) -> RowFormatter:
    return lambda row: [f"{row[index]:.7g}" for index in indices]


def _format_labels(labels: Labels, names: Sequence[str]) -> RowFormatter:
    if labels.task == "classification":
        return lambda row: [names[int(row.argmax())]]
    return lambda row: [
        " ".join(name for name, score in zip(names, row, strict=True) if score >= MULTI_LABEL_THRESHOLD)
    ]


def _is_fraction(cell: str) -> bool:
    try:
        return not float(cell).is_integer()
    except ValueError:
        return False
