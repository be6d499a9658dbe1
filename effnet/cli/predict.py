"""``effnet predict``: what pictures show."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import MODEL, Device, Engine, Every, Json, Offline, Precision, Strict, Threads

if TYPE_CHECKING:
    from effnet.data.gather import Named
    from effnet.prediction import Prediction, Predictor


class Views(StrEnum):
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
        typer.Option("--model", "-m", metavar="MODEL", help=MODEL),
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
        Views, typer.Option(help="Test-time augmentation: the mean over views of a picture, for twice or 5 × the time.")
    ] = Views.none,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many labels a picture gets.")] = 5,
    as_json: Json = False,
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
    every: Every = 1.0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Decode JPEGs at full scale: slower, and a little nearer to training.")
    ] = False,
    strict: Strict = False,
    device: Device = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
    threads: Threads = None,
    offline: Offline = False,
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
    from effnet.data.columns import is_table

    of_table = len(pictures) == 1 and is_table(pictures[0])
    submission = out is not None and of_table and out.suffix.lower() == ".csv"
    if probabilities and not submission:
        raise typer.BadParameter("goes with a table of pictures and --out FILE.csv", param_hint="--probabilities")
    decode = "exact" if exact else "reduced"
    members = ensemble or [str(model)]
    if out:
        from effnet.cli.bulk import asked_of, makes, predict_into, submit_into

        if submission and ray:
            raise typer.BadParameter("does not go with a table of pictures", param_hint="--ray")
        one = _one(engine, device, decode, batch, precision, threads, tta)
        make = makes(members, one, weighting == Weighting.fitted)
        if submission:
            submit_into(out, pictures[0], make, probabilities, force, strict)
            return
        sources = [str(path) for _, path in _listed(pictures[0])] if of_table else pictures
        asked = asked_of(members, make, decode=decode, precision=precision, tta=tta)
        predict_into(out, sources, make, asked, top, every, ray, force, strict)
        return
    from effnet.cli.predictions import print_csv, print_json, print_table
    from effnet.cli.printing import progress
    from effnet.cli.tally import Tally
    from effnet.data.gather import gather

    # Before torch is imported: a file that is not there is told at once
    named: Iterable[Named] = _listed(pictures[0]) if of_table else gather(pictures, every)
    from effnet.cli.bulk import makes
    from effnet.prediction import Predictor

    one = _one(engine, device, decode, batch, precision, threads, tta)
    predictor = makes(members, one, weighting == Weighting.fitted)()
    rows: list[Prediction] = []
    on_screen = (as_json or as_csv) and not embeddings and sys.stdout.isatty()
    with progress("predicting", hidden=on_screen) as step:
        tally = Tally(step)
        if embeddings:
            from effnet.cli.embeddings import write

            assert isinstance(predictor, Predictor)
            write(embeddings, (pair for pair in predictor.embeddings(named) if tally.read_one(*pair)))
        else:
            found = (one for one in predictor.stream(named, top) if tally.read_one(one.picture, one.error) or as_json)
            if as_json:
                print_json(found)
            elif as_csv:
                print_csv(found, predictor.labels, predictor.classes)
            else:
                rows = list(found)
    if rows:
        print_table(rows, predictor.labels)
    predictor.keep()
    tally.end(f"{tally.read} embeddings are written to {embeddings}" if embeddings else "", strict)


def _one(
    engine: str, device: str | None, decode: str, batch: int | None, precision: str, threads: int | None, views: str
) -> Callable[[str | Path], Predictor]:
    """What makes the predictor of one model."""
    from effnet.prediction import Predictor

    return partial(
        Predictor,
        engine=engine,
        device=device,
        decode=decode,
        batch=batch,
        precision=precision,
        threads=threads,
        views=str(views),
    )


def _listed(table: str) -> list[tuple[str, Path]]:
    """The pictures of a table, by what it calls them."""
    from effnet.data.table import open_unlabelled

    return open_unlabelled(table)
