"""Prediction of whole folders, shards and stores into one table, resumable after a kill at any moment."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b, file_digest
from importlib.metadata import version
from itertools import chain, islice
from os.path import abspath
from pathlib import Path
from typing import Any

from effnet.arch.serde import check_int, import_extra, read_json_object
from effnet.data.storage import remote
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.csv_files import csv_writer
from effnet.prediction import bulk_chunks, ray
from effnet.prediction.partial_results import PartialResults
from effnet.prediction.predictor import Prediction
from effnet.weights.resolve import resolve_weights

TABLE_COLUMNS = ("path", "label", "probability", "labels", "probabilities", "error")
_ROWS_PER_GROUP = 2**16  # of a Parquet row group: what is held in memory

# How settings are called in messages
_SETTING_NAMES = {
    "tta": "another --tta",
    "weights": "other weights",
    "sha256": "another model",
    "inputs": "other inputs",
    "effnet": "another version of effnet",
    "top": "another --top",
    "frame_interval": "another --every",
    "decode": "another way of decoding (--exact)",
    "precision": "another --precision",
    "bits": "another --bits, or images of another number of bits",
}


@dataclass(frozen=True)
class BulkResult:
    """Counts of a finished result."""

    images: int  # rows of the table
    unreadable: int
    broken_shards: int = 0  # that could not be read to their end; the same call tries them again
    already_done: bool = False  # the result was there already, and nothing was done


def predict_to_file(
    out: str | Path,
    sources: Iterable[str | Path],
    make_predictor: bulk_chunks.PredictorFactory,
    settings: Mapping[str, Any],
    *,
    top: int = 5,
    frame_interval: float = 1.0,
    ray_address: str | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> BulkResult:
    """Predict everything in ``sources`` into the table ``out``, one row per image in the order of the listing.

    Until the table is complete, its parts lie in ``.NAME.parts`` beside it, from which the same call resumes.
    ``NAME.json`` then records how it was made.

    Args:
        out: Path of a .parquet, .csv or .jsonl file.
        sources: Files, folders, patterns, shards, videos and URLs, as `effnet.prediction.bulk_chunks.list_chunks`.
        make_predictor: Called if there is anything to predict.
        settings: What distinguishes this predictor from others (see `describe_predictor`); JSON.
        top: Number of labels per image.
        frame_interval: Seconds between two frames of a video.
        ray_address: As for `effnet.prediction.ray.predict_on_cluster`; default: predict in this process.
        force: Start over, replacing a result.
        progress: Called with the number of images predicted so far by this process.

    Raises:
        ValueError: If ``out`` was made from other inputs or by another model, is no result of this function, or is
            being written by another process.
        OSError: If the disk is full or a store is unreachable.

    Example:
        >>> make = functools.partial(Predictor, "model.safetensors")
        >>> predict_to_file("photos.csv", ["photos"], make, describe_predictor("model.safetensors"))
        BulkResult(images=12000, unreadable=3, broken_shards=0, already_done=False)
    """
    check_int("top", top, 1)
    target = Path(out)
    write_table = table_writer(target.suffix.lower())
    inputs = [str(source) for source in sources]
    chunks = bulk_chunks.list_chunks(inputs, frame_interval)
    settings = {
        "effnet": version("effnet"),
        "inputs": [source if remote.is_remote(source) or source == "-" else abspath(source) for source in inputs],
        "frame_interval": frame_interval,
        "top": top,
        **settings,
    }
    results = PartialResults(target)
    record = target.with_name(f"{target.name}.json")
    with results.lock():
        if force:
            results.clear()
        else:
            _require_same_settings(results.manifest, settings, target, "was begun")
            if finished := _read_finished(record, settings, target, results):
                if finished["listing"] != _hash_keys(chunk.key for chunk in chunks):
                    raise ValueError(
                        f"{target} is finished, and the contents of {', '.join(inputs)} have changed since: predict "
                        "all again with --force, or choose another --out"
                    )
                results.clear()  # a kill may have left some
                return BulkResult(finished["images"], finished["unreadable"], already_done=True)
        results.begin(settings)
        record.unlink(missing_ok=True)
        keys = _predict_missing(results, chunks, make_predictor, top, ray_address, progress)
        return _merge(results, keys, write_table, record, settings)


def describe_predictor(model: str | Path, **options: Any) -> dict[str, Any]:
    """Return what distinguishes a predictor from others: the SHA-256 of its weights file, and ``options``."""
    path = resolve_weights(model).path
    with path.open("rb") as file:
        return {"model": str(model), "sha256": file_digest(file, "sha256").hexdigest(), **options}


def _predict_missing(
    results: PartialResults,
    chunks: Iterable[bulk_chunks.Chunk],
    make_predictor: bulk_chunks.PredictorFactory,
    top: int,
    ray_address: str | None,
    progress: Callable[[int], None] | None,
) -> list[str]:
    """Write every part that is missing; return the keys of all chunks, in order."""
    keys: list[str] = []

    def list_incomplete() -> Iterator[tuple[bulk_chunks.Chunk, int]]:
        for chunk in chunks:
            keys.append(chunk.key)
            done, complete = results.count_parts(chunk)
            if not complete:
                yield chunk, done

    incomplete = list_incomplete()
    if (first := next(incomplete, None)) is None:
        return keys
    pending = chain([first], incomplete)
    if ray_address is None:
        predicted = bulk_chunks.predict_parts(make_predictor(), pending, top)
    else:
        predicted = ray.predict_on_cluster(ray_address, make_predictor, pending, top)
    images = 0
    for part in predicted:
        results.write(part.file_name, part.text)
        images += len(part.rows)
        if progress:
            progress(images)
    return keys


def _merge(
    results: PartialResults,
    keys: list[str],
    write_table: Callable[[Path, Iterable[Prediction]], None],
    record: Path,
    settings: Mapping[str, Any],
) -> BulkResult:
    """Put the complete table in its place, then its record, then remove the parts."""
    images = unreadable = 0

    def count_rows() -> Iterator[Prediction]:
        nonlocal images, unreadable
        for row in results.read_rows(keys):
            images, unreadable = images + 1, unreadable + bool(row.error)
            yield row

    broken = results.count_broken(keys)
    merged = results.folder / f"merged{results.target.suffix}"
    try:
        with atomic_write(merged) as temporary:
            write_table(temporary, count_rows())
        counts = {"images": images, "unreadable": unreadable, "broken_shards": broken}
        summary = {**settings, **counts, "bytes": merged.stat().st_size, "listing": _hash_keys(keys)}
        merged.replace(results.target)
        results.write(record.name, json.dumps(summary, indent=2) + "\n")
        (results.folder / record.name).replace(record)
    except OSError as error:
        raise results.write_error(error) from error
    if not broken:
        results.clear()
    return BulkResult(images, unreadable, broken)


def _read_finished(
    record: Path, settings: Mapping[str, Any], target: Path, results: PartialResults
) -> dict[str, Any] | None:
    """Return the record of a complete, unchanged result; None if there is work to do."""
    if not target.exists() or (not record.exists() and results.manifest.exists()):  # killed between the two
        return None
    recorded = _require_same_settings(record, settings, target, "was made")
    if recorded is None or recorded.get("bytes") != target.stat().st_size:
        raise ValueError(
            f"{target} exists and was not written by this command: replace it with --force, or choose another --out"
        )
    return None if recorded["broken_shards"] else recorded


def _require_same_settings(path: Path, settings: Mapping[str, Any], target: Path, verb: str) -> dict[str, Any] | None:
    """Return the contents of a record, None if there is none; raise ``ValueError`` if its settings are others."""
    if not path.exists():
        return None
    try:
        recorded = read_json_object(path, dict[str, Any])
        different = sorted(key for key in settings if key != "model" and recorded.get(key) != settings[key])
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is damaged: start {target} over with --force") from None
    if different:
        names = " and ".join(_SETTING_NAMES.get(key, f"another {key}") for key in different)
        raise ValueError(f"{target} {verb} with {names}: start it over with --force, or choose another --out")
    return recorded


def _hash_keys(keys: Iterable[str]) -> str:
    return blake2b("".join(keys).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def table_columns(value_names: Iterable[str] = ()) -> tuple[str, ...]:
    """Return `TABLE_COLUMNS`, or for regression "path", the values' names ("path" as "path (value)"), and "error"."""
    names = tuple(f"{name} (value)" if name in ("path", "error") else name for name in value_names)
    return ("path", *names, "error") if names else TABLE_COLUMNS


def table_writer(suffix: str) -> Callable[[Path, Iterable[Prediction]], None]:
    """Return the function that writes such a file. Raises ``ImportError`` if it is .parquet, without pyarrow."""
    if suffix not in TABLE_WRITERS:
        raise ValueError(f"the output must end in {', '.join(TABLE_WRITERS)}, not in {suffix or 'nothing'}")
    if suffix == ".parquet":
        _import_pyarrow()
    write = TABLE_WRITERS[suffix]
    return lambda path, rows: write(path, *_peek_value_names(rows))


def _write_csv(path: Path, names: tuple[str, ...], rows: Iterable[Prediction]) -> None:
    """UTF-8, separated by commas; the two lists as JSON, since labels may contain commas."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        write_row = csv_writer(file)
        write_row(table_columns(names))
        for row in rows:
            if names:
                write_row(_row_cells(row, names))  # None becomes an empty cell, a float its shortest form
                continue
            probability = f"{row.probability:.7g}" if row.labels else ""
            lists = (json.dumps(list(row.labels), ensure_ascii=False), json.dumps(row.probabilities))
            write_row((row.image, row.label, probability, *(("", "") if row.error else lists), row.error))


def _write_jsonl(path: Path, names: tuple[str, ...], rows: Iterable[Prediction]) -> None:
    """One JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(table_columns(names), _row_cells(row, names), strict=True))) + "\n")


def _write_parquet(path: Path, names: tuple[str, ...], rows: Iterable[Prediction]) -> None:
    """float32 probabilities, float64 values, lists as lists."""
    pa, parquet = _import_pyarrow(), _import_pyarrow("pyarrow.parquet")
    text, probability = pa.string(), pa.float32()
    types = (text, text, probability, pa.list_(text), pa.list_(probability), text)
    if names:
        types = (text, *(pa.float64() for _ in names), text)
    schema = pa.schema(list(zip(table_columns(names), types, strict=True)))
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema) as file:
        while group := [_escape_undecodable(row) for row in islice(remaining, _ROWS_PER_GROUP)]:
            cells = zip(*(_row_cells(row, names) for row in group), strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(cells, types, strict=True)]
            file.write_batch(pa.record_batch(arrays, schema=schema))


TABLE_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}


def _peek_value_names(rows: Iterable[Prediction]) -> tuple[tuple[str, ...], Iterable[Prediction]]:
    """Return the names of a regression model's values, else (), and all the rows."""
    remaining, head = iter(rows), list[Prediction]()
    for row in remaining:
        head.append(row)
        if not row.error:
            break
    names = tuple(head[-1].values) if head else ()
    return names, chain(head, remaining)


def _row_cells(row: Prediction, names: tuple[str, ...]) -> tuple[Any, ...]:
    if names:
        return (row.image, *(row.values.get(name) for name in names), row.error)
    probability = row.probability if row.labels else None
    return (row.image, row.label, probability, row.labels, row.probabilities, row.error)


def _escape_undecodable(row: Prediction) -> Prediction:
    """Write the bytes of file names that are not UTF-8 as ``\\xff``."""
    texts = [
        text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for text in (row.image, row.error)
    ]
    return row if texts == [row.image, row.error] else replace(row, image=texts[0], error=texts[1])


def _import_pyarrow(module: str = "pyarrow") -> Any:
    return import_extra(module, "tables", "Parquet files require", "pyarrow", instead=".csv or .jsonl")
