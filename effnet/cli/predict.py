"""``effnet predict``: what pictures show."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from effnet.cli.options import (
    MODEL_HELP,
    DeviceOption,
    EngineOption,
    FrameIntervalOption,
    JsonOption,
    OfflineOption,
    PrecisionOption,
    StrictOption,
    ThreadsOption,
)
from effnet.data.storage.atomic_write import atomic_write

if TYPE_CHECKING:
    from effnet.data.inputs import NamedImage
    from effnet.metadata import Labels
    from effnet.prediction import Prediction, Predictor
    from effnet.prediction.ensemble import Ensemble


class TTA(StrEnum):
    """The views of a picture that are averaged."""

    none = "none"
    mirror = "mirror"
    crops = "crops"


class Weighting(StrEnum):
    """How much each member of an ensemble counts."""

    equal = "equal"
    fitted = "fitted"


def predict(
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURE",
            help="Files, folders, patterns, addresses, videos, or one table (.csv, .tsv) that names pictures; - is "
            "standard input: a picture, or a list of these.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help=MODEL_HELP),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="In place of --model, once for each: the folder of a run of folds, or a model; their mean answers.",
        ),
    ] = None,
    weighting: Annotated[
        Weighting,
        typer.Option(help="How much each --ensemble counts; fitted: by the out-of-fold predictions, where that helps."),
    ] = Weighting.equal,
    tta: Annotated[
        TTA, typer.Option(help="Test-time augmentation: the mean over views of a picture, for twice or 5 × the time.")
    ] = TTA.none,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many labels a picture gets.")] = 5,
    as_json: JsonOption = False,
    as_csv: Annotated[
        bool,
        typer.Option("--csv", help="Print picture,rank,label,probability: one line a label; of values one a picture."),
    ] = False,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the pictures' embeddings to a .npz or .csv, and predict nothing."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a table of all (.parquet, .csv, .jsonl), killed and started again as often as you like; then "
            "PICTURE may be tar shards and folders of a store (s3://…), too. Of a table (test.csv), a .csv as "
            "competitions want it: its ids and the label, or as sample_submission.csv beside it has it.",
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="With --out, of a table: a column a class in place of the label.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="With --out: start anew, whatever is there.")] = False,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="With --out: on this Ray cluster; local, auto, ray://….")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pictures computed at once; by default the engine's best.")
    ] = None,
    every: FrameIntervalOption = 1.0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Decode JPEGs at full scale: slower, and a little nearer to training.")
    ] = False,
    strict: StrictOption = False,
    device: DeviceOption = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "float32",
    threads: ThreadsOption = None,
    offline: OfflineOption = False,
) -> None:
    """Predict what pictures show.

    Those that cannot be read are named and left out; the status is 1 where none could be read.
    """
    if model is None and not ensemble:
        raise typer.BadParameter("say with which: a file, a run's folder, or a name as b0", param_hint="--model")
    if model is not None and ensemble:
        raise typer.BadParameter("give it without --model", param_hint="--ensemble")
    if ensemble and embeddings:
        raise typer.BadParameter("networks have embeddings of their own: give one --model", param_hint="--ensemble")
    if as_json and as_csv:
        raise typer.BadParameter("give either --json or --csv", param_hint="--csv")
    if embeddings and embeddings.suffix not in (".npz", ".csv"):
        raise typer.BadParameter("the file must end in .npz or .csv", param_hint="--embeddings")
    if out and (as_json or as_csv or embeddings):
        raise typer.BadParameter("give it without --json, --csv and --embeddings", param_hint="--out")
    if not out and (force or ray):
        raise typer.BadParameter("goes with --out", param_hint="--force" if force else "--ray")
    from effnet.data.table import is_table

    of_table = len(pictures) == 1 and is_table(pictures[0])
    submission = out is not None and of_table and out.suffix.lower() == ".csv"
    if probabilities and not submission:
        raise typer.BadParameter("goes with a table of pictures and --out FILE.csv", param_hint="--probabilities")
    decode = "exact" if exact else "reduced"
    members = ensemble or [str(model)]
    if out:
        if submission and ray:
            raise typer.BadParameter("does not go with a table of pictures", param_hint="--ray")
        one = _single_predictor(engine, device, decode, batch, precision, threads, tta)
        make = predictor_factory(members, one, weighting == Weighting.fitted)
        if submission:
            write_submission(out, pictures[0], make, probabilities, force, strict)
            return
        sources = [str(path) for _, path in _read_table(pictures[0])] if of_table else pictures
        asked = describe_request(members, make, decode=decode, precision=precision, tta=tta)
        predict_to_file(out, sources, make, asked, top, every, ray, force, strict)
        return

    from effnet.cli.printing import ReadCounter, progress_bar
    from effnet.data.inputs import open_inputs

    # Before torch is imported: a file that is not there is told at once
    named: Iterable[NamedImage] = _read_table(pictures[0]) if of_table else open_inputs(pictures, every)

    from effnet.prediction import Predictor

    one = _single_predictor(engine, device, decode, batch, precision, threads, tta)
    predictor = predictor_factory(members, one, weighting == Weighting.fitted)()
    rows: list[Prediction] = []
    on_screen = (as_json or as_csv) and not embeddings and sys.stdout.isatty()
    with progress_bar("predicting", hidden=on_screen) as step:
        tally = ReadCounter(step)
        if embeddings:
            assert isinstance(predictor, Predictor)
            write_embeddings(embeddings, (pair for pair in predictor.embeddings(named) if tally.add(*pair)))
        else:
            found = (one for one in predictor.stream(named, top) if tally.add(one.image, one.error) or as_json)
            if as_json:
                print_predictions_json(found)
            elif as_csv:
                print_predictions_csv(found, predictor.labels, predictor.classes)
            else:
                rows = list(found)
    if rows:
        print_predictions_table(rows, predictor.labels)
    predictor.cache_engine_file()
    tally.finish(f"{tally.read} embeddings are written to {embeddings}" if embeddings else "", strict)


def _single_predictor(
    engine: str, device: str | None, decode: str, batch: int | None, precision: str, threads: int | None, views: str
) -> Callable[[str | Path], Predictor]:
    """What makes the predictor of one model."""
    from effnet.prediction import Predictor

    return partial(
        Predictor,
        engine=engine,
        device=device,
        decode=decode,
        batch_size=batch,
        precision=precision,
        threads=threads,
        tta=str(views),
    )


def _read_table(table: str) -> list[tuple[str, Path]]:
    """The pictures of a table, by what it calls them."""
    from effnet.data.table import open_unlabeled_table

    return open_unlabeled_table(table)


# How predictions are printed: as JSON, as CSV, or as a table, by the kind of the model's labels.


def print_predictions_json(found: Iterable[Prediction]) -> None:
    """One array, an element a line, whole even where the work ends before its time."""
    print("[", end="")
    try:
        for index, one in enumerate(found):
            print(",\n " if index else "", json.dumps(one.to_dict()), sep="", end="", flush=True)
    finally:
        print("]")


def print_predictions_csv(found: Iterable[Prediction], labels: Labels, outputs: int) -> None:
    """A line a label; a picture of which none is right has one line without; of values a line a picture."""
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    names = [labels.name(index) for index in range(outputs)]
    write(("picture", *names) if labels.task == "regression" else ("picture", "rank", "label", "probability"))
    for one in found:
        if labels.task == "regression":
            write((one.image, *(one.values[name] for name in names)))
            continue
        for rank, (label, share) in enumerate(zip(one.labels, one.probabilities, strict=True), start=1):
            write((one.image, rank, label, f"{share:.6g}"))
        if not one.labels:
            write((one.image, "", "", ""))


def print_predictions_table(found: list[Prediction], labels: Labels) -> None:
    """A row a picture."""
    from effnet.cli.printing import format_number, format_percent, new_table, print_results

    if labels.task == "regression":
        names = tuple(found[0].values)
        shown = new_table("picture", *names, left=("picture",))
        for one in found:
            shown.add_row(one.image, *(format_number(one.values[name]) for name in names))
    elif labels.task == "multilabel":
        shown = new_table("picture", "labels", left=("picture", "labels"))
        for one in found:
            pairs = zip(one.labels, one.probabilities, strict=True)
            shown.add_row(one.image, ", ".join(f"{label} {format_percent(share)}" for label, share in pairs) or "none")
    else:
        several = len(found[0].labels) > 1
        headings = ("picture", "label", "probability", *(("runners-up",) if several else ()))
        shown = new_table(*headings, left=("picture", "label", "runners-up"))
        for one in found:
            others = zip(one.labels[1:], one.probabilities[1:], strict=True)
            told = ", ".join(f"{label} {format_percent(share)}" for label, share in others)
            shown.add_row(one.image, one.label, format_percent(one.probability), *((told,) if several else ()))
    print_results(shown)


# Embeddings into a file: NumPy's ``.npz`` (``names``, ``embeddings``) or ``.csv`` (a line a picture).


def write_embeddings(path: Path, rows: Iterable[tuple[str, Any]]) -> None:
    """Writes (name, float32 vector) pairs to ``path``, whole or not at all; a ``.csv`` as they come."""
    with atomic_write(path) as beside:
        if path.suffix == ".csv":
            with beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file, lineterminator="\n")
                for index, (name, row) in enumerate(rows):
                    if not index:
                        writer.writerow(("picture", *(f"e{number}" for number in range(len(row)))))
                    writer.writerow((name, *(f"{value:.8g}" for value in row)))
        else:
            pairs = list(rows)
            with beside.open("wb") as binary:  # given a name, NumPy would add a suffix to it
                np.savez(
                    binary,
                    names=np.array([name for name, _ in pairs], dtype=np.str_),
                    embeddings=np.array([row for _, row in pairs], dtype=np.float32),
                )


# ``effnet predict … --out FILE``: whole folders, shards and stores into one table, a test table into a submission.


def predict_to_file(
    out: Path,
    sources: list[str],
    make: Callable[[], Predictor | Ensemble],
    asked: Mapping[str, Any],
    top: int,
    every: float,
    cluster: str | None,
    force: bool,
    strict: bool,
) -> None:
    """Does the work under a bar and says what is in the result.

    The status is 1 where no picture could be read, where a shard could not be read to its end, and, if ``strict``,
    where any picture could not.
    """
    from effnet.cli.printing import note, progress_bar
    from effnet.prediction.bulk import predict_to_file

    with progress_bar("predicting") as step:
        done = predict_to_file(
            out,
            sources,
            make,
            asked,
            top=top,
            frame_interval=every,
            ray_address=cluster,
            force=force,
            progress=lambda pictures: step(pictures, None),
        )
    unread = f"; {done.unreadable} of them could not be read, and their rows say why" if done.unreadable else ""
    if done.already_done:
        note(f"{out} is finished already, with {done.images} pictures{unread}; --force predicts them again")
        return
    note(f"{done.images} pictures are in {out}{unread}")
    if done.broken_shards:
        note(
            f"{done.broken_shards} shards could not be read to their end: the same command tries them, and only them, again"
        )
    if done.broken_shards or done.unreadable == done.images or (strict and done.unreadable):
        raise typer.Exit(1)


def predictor_factory(
    members: Sequence[str], one: Callable[[str | Path], Predictor], fitted: bool
) -> Callable[[], Predictor | Ensemble]:
    """What makes the predictor: of a single model by ``one``, of a run of folds or several members an ensemble.

    ``fitted``: each member counts as its out-of-fold predictions say.
    """
    from effnet.cli.printing import note
    from effnet.prediction.ensemble import Ensemble, fit_ensemble_weights, member_models

    if len(members) == 1 and not fitted and member_models(members[0]) == [members[0]]:
        return partial(one, members[0])
    weights = None
    if fitted:
        weighed = fit_ensemble_weights(members)
        weights = weighed.weights
        note(weighed.summary())
    return partial(Ensemble, list(members), weights, one)


def describe_request(members: Sequence[str], make: Callable[[], Any], **options: str) -> dict[str, Any]:
    """What tells these predictions from others (see `described`): an ensemble by all its files and their weights."""
    from effnet.prediction.bulk import describe_predictor
    from effnet.prediction.ensemble import member_models

    if options.get("tta") == "none":
        del options["tta"]  # as results were noted before there was any
    models = [model for member in members for model in member_models(member)]
    each = [describe_predictor(model, **options) for model in models]
    if len(each) == 1:
        return each[0]
    weights = make.args[1] if isinstance(make, partial) else None
    mixed = sha256("".join(found["sha256"] for found in each).encode()).hexdigest()
    return {
        **each[0],
        "model": " ".join(members),
        "sha256": mixed,
        "weights": weights and [f"{w:.6f}" for w in weights],
    }


def write_submission(
    out: Path, table: str, make: Callable[[], Predictor | Ensemble], probabilities: bool, force: bool, strict: bool
) -> None:
    """Writes the submission for the pictures of ``table`` and says what is in it; ``strict``: as of `predict_into`."""
    from effnet.cli.printing import note, progress_bar
    from effnet.prediction.submission import check_output_path, write_submission

    check_output_path(out, force)  # before models are opened
    with progress_bar("predicting") as step:
        predictor = make()
        done = write_submission(table, predictor, out, probabilities=probabilities, force=force, progress=step)
    predictor.cache_engine_file()
    for why in done.unreadable:
        note(why)
    if done.unreadable:
        note(
            f"{len(done.unreadable)} of {done.rows} pictures could not be read: they have the mean answer of the others"
        )
    columns = ", ".join(done.columns[:4]) + (", …" if len(done.columns) > 4 else "")
    note(f"{done.rows} rows of {columns} are in {out}{f', as {done.sample} has it' if done.sample else ''}")
    if done.unreadable and strict:
        raise typer.Exit(1)
