"""Predictions as a table in a file, a row a picture: ``.parquet``, ``.csv`` or ``.jsonl``, written as they come."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b, file_digest
from importlib.metadata import version
from itertools import chain, count, islice
from os.path import abspath
from pathlib import Path
from types import MappingProxyType
from typing import Any

from effnet.arch.serde import check_int
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.errors import describe_error
from effnet.data.storage.remote import is_remote
from effnet.prediction.bulk_chunks import (
    BROKEN_SUFFIX,
    LAST_SUFFIX,
    MIDDLE_SUFFIX,
    Chunk,
    PartialResult,
    list_chunks,
    predict_parts,
)
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.predictor import Prediction, Predictor
from effnet.prediction.ray import predict_on_cluster
from effnet.weights.resolve import resolve_weights

TABLE_COLUMNS = ("path", "label", "probability", "labels", "probabilities", "error")


_ROWS_PER_GROUP = 2**16  # of a row group: what is held at once


def table_columns(value_names: Iterable[str] = ()) -> tuple[str, ...]:
    """A table's columns: `COLUMNS`, or for a model of values a column for each, called as it is, in the labels' place.

    A value that is called as another column is becomes "error (value)".
    """
    names = tuple(f"{name} (value)" if name in ("path", "error") else name for name in value_names)
    return ("path", *names, "error") if names else TABLE_COLUMNS


def table_writer(suffix: str) -> Callable[[Path, Iterable[Prediction]], None]:
    """What writes such a file. Raises ``ValueError`` for any other, ``ImportError`` for parquet without pyarrow."""
    if suffix not in TABLE_WRITERS:
        raise ValueError(f"a result ends in {', '.join(TABLE_WRITERS)}, not in {suffix or 'nothing'}")
    if suffix == ".parquet":
        _import_pyarrow()
    return TABLE_WRITERS[suffix]


def _write_csv(path: Path, rows: Iterable[Prediction]) -> None:
    """Comma-separated, UTF-8; the two lists as JSON, for labels have commas in them."""
    names, rows = _peek_value_names(rows)
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        write = csv.writer(file, lineterminator="\n").writerow
        write(table_columns(names))
        for row in rows:
            if names:
                write(_row_cells(row, names))  # None is written as nothing, a float in as few digits as mean it
                continue
            share = f"{row.probability:.7g}" if row.labels else ""
            lists = (json.dumps(list(row.labels), ensure_ascii=False), json.dumps(row.probabilities))
            write((row.image, row.label, share, *(("", "") if row.error else lists), row.error))


def _write_jsonl(path: Path, rows: Iterable[Prediction]) -> None:
    """An object a line."""
    names, rows = _peek_value_names(rows)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(table_columns(names), _row_cells(row, names), strict=True))) + "\n")


def _write_parquet(path: Path, rows: Iterable[Prediction]) -> None:
    """float32 probabilities, float64 values; lists are lists."""
    pa, parquet = _import_pyarrow()
    names, rows = _peek_value_names(rows)
    text, one, several = pa.string(), pa.float32(), pa.list_(pa.string())
    kinds = (text, text, one, several, pa.list_(one), text)
    if names:
        kinds = (text, *(pa.float64() for _ in names), text)
    schema = pa.schema(list(zip(table_columns(names), kinds, strict=True)))
    coming = iter(rows)
    with parquet.ParquetWriter(path, schema) as file:
        while group := [_with_printable_text(row) for row in islice(coming, _ROWS_PER_GROUP)]:
            cells = zip(*(_row_cells(row, names) for row in group), strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(cells, kinds, strict=True)]
            file.write_batch(pa.record_batch(arrays, schema=schema))


TABLE_WRITERS = MappingProxyType({".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl})


def _peek_value_names(rows: Iterable[Prediction]) -> tuple[tuple[str, ...], Iterable[Prediction]]:
    """The names of the model's values, none where it has labels; and all the rows again."""
    coming, unread = iter(rows), list[Prediction]()
    for row in coming:
        unread.append(row)
        if not row.error:
            break
    names = tuple(unread[-1].values) if unread else ()
    return names, chain(unread, coming)


def _row_cells(row: Prediction, names: tuple[str, ...]) -> tuple[Any, ...]:
    """What stands in a row's columns; None where nothing does."""
    if names:
        return (row.image, *(row.values.get(name) for name in names), row.error)
    share = row.probability if row.labels else None
    return (row.image, row.label, share, row.labels, row.probabilities, row.error)


def _with_printable_text(row: Prediction) -> Prediction:
    picture, error = _escape_undecodable(row.image), _escape_undecodable(row.error)
    return row if (picture, error) == (row.image, row.error) else replace(row, image=picture, error=error)


def _escape_undecodable(text: str) -> str:
    """A file's name that is no text, of bytes that are not UTF-8, with these as ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ImportError(
            'parquet is written by pyarrow, which is not here: pip install "effnet[tables]", or ask for .csv or .jsonl'
        ) from None
    return pa, parquet


# Whole folders into one file of results: a kill costs seconds of work, no picture comes twice and none is missing.


PredictorFactory = Callable[[], Predictor | Ensemble]


Progress = Callable[[int], None]  # pictures done so far by this process


@dataclass(frozen=True)
class BulkResult:
    """What is in a result: ``broken`` shards could not be read to their end, which another run tries again."""

    images: int
    unreadable: int
    broken_shards: int = 0
    already_done: bool = False  # it was there already, and nothing has been done


def predict_to_file(
    out: str | Path,
    sources: Iterable[str | Path],
    make_predictor: PredictorFactory,
    config: Mapping[str, Any],
    *,
    top: int = 5,
    frame_interval: float = 1.0,
    ray_address: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> BulkResult:
    """Predicts all that ``sources`` mean (see `chunks`) into the table ``out``: .parquet, .csv or .jsonl.

    ``make`` makes the predictor (``functools.partial(Predictor, "model.safetensors")``), called where there is
    something to do; ``asked`` is what tells its predictions from another's (see `described`), as JSON. A row a picture,
    in the order of the listing: path, label, probability, the ``top`` labels and probabilities, and the error of a
    picture that could not be read. Until all is there, parts of it lie in ``.NAME.parts`` beside ``out``, from which
    the same call goes on; ``NAME.json`` then says what made the result. With ``cluster`` the work is done by Ray there
    ("local": a cluster of this machine).

    Raises ``ValueError`` where ``out`` is finished with other inputs or another model or is no result of this function,
    unless ``force`` is given, and where another process writes it; ``OSError`` with what to do where the disk is full
    or a store out of reach; and whatever `chunks` and `make` raise.
    """
    check_int("top", top, 1)
    target = Path(out)
    write = table_writer(target.suffix.lower())
    given = [str(source) for source in sources]
    waiting = list_chunks(given, frame_interval)
    config = {
        "effnet": version("effnet"),
        "inputs": [source if is_remote(source) or source == "-" else abspath(source) for source in given],
        "every": frame_interval,
        "top": top,
        **config,
    }
    parts = PartialResults(target)
    record = target.with_name(f"{target.name}.json")
    with parts.lock():
        if force:
            parts.clear()
        else:
            _require_same_config(parts.manifest, config, target, "was begun")
            if finished := _read_finished(record, config, target, parts):
                if finished["listing"] != _hash_keys(chunk.key for chunk in waiting):
                    raise ValueError(
                        f"{target} is finished, and what is in {', '.join(given)} has changed since: --force predicts "
                        "all of it again, another --out leaves this one as it is"
                    )
                parts.clear()  # a kill may have come before
                return BulkResult(finished["pictures"], finished["unread"], already_done=True)
        parts.begin(config)
        record.unlink(missing_ok=True)
        keys = _predict_missing(parts, waiting, make_predictor, top, ray_address, progress)
        return _merge_parts(parts, keys, write, record, config)


def describe_predictor(model: str | Path, **options: str) -> dict[str, Any]:
    """What tells one predictor's answers from another's: the model file's sha256, and ``options`` such as decode."""
    path = resolve_weights(model).path
    with path.open("rb") as file:
        return {"model": str(model), "sha256": file_digest(file, "sha256").hexdigest(), **options}


def _predict_missing(
    parts: PartialResults,
    chunks: Iterable[Chunk],
    make_predictor: PredictorFactory,
    top: int,
    ray_address: str | None,
    progress: Progress | None,
) -> list[str]:
    """Writes every part that is not there yet; the keys of all chunks, in order."""
    keys: list[str] = []

    def missing() -> Iterator[tuple[Chunk, int]]:
        for chunk in chunks:
            keys.append(chunk.key)
            done, all_of_it = parts.count_complete(chunk)
            if not all_of_it:
                yield chunk, done

    todo = missing()
    first = next(todo, None)
    if first is None:
        return keys
    following = chain([first], todo)
    made = (
        predict_parts(make_predictor(), following, top)
        if ray_address is None
        else predict_on_cluster(ray_address, make_predictor, following, top)
    )
    done = 0
    for part in made:
        parts.write(part.file_name, part.text)
        done += len(part.rows)
        if progress:
            progress(done)
    return keys


def _merge_parts(
    parts: PartialResults,
    keys: list[str],
    write: Callable[[Path, Iterable[Prediction]], None],
    record: Path,
    config: Mapping[str, Any],
) -> BulkResult:
    """Puts the result in its place whole; then what made it beside it, and then the parts away."""
    pictures = unread = 0

    def counted() -> Iterator[Prediction]:
        nonlocal pictures, unread
        for row in parts.read_rows(keys):
            pictures, unread = pictures + 1, unread + bool(row.error)
            yield row

    broken = parts.count_broken(keys)
    merged = parts.folder / f"merged{parts.target.suffix}"
    try:
        with atomic_write(merged) as beside:
            write(beside, counted())
        size = merged.stat().st_size
        merged.replace(parts.target)
        said = {"pictures": pictures, "unread": unread, "broken": broken, "bytes": size, "listing": _hash_keys(keys)}
        parts.write(record.name, json.dumps({**config, **said}, indent=2) + "\n")
        (parts.folder / record.name).replace(record)
    except OSError as error:
        raise parts.write_error(error) from error
    if not broken:
        parts.clear()
    return BulkResult(pictures, unread, broken)


def _read_finished(
    record: Path, config: Mapping[str, Any], target: Path, parts: PartialResults
) -> dict[str, Any] | None:
    """What was noted of a result that is there and as it was left; None where there is work to do."""
    if not target.exists():
        return None
    if not record.exists() and parts.manifest.exists():
        return None  # killed between the two
    said = _require_same_config(record, config, target, "was made")
    if said is None or said.get("bytes") != target.stat().st_size:
        raise ValueError(
            f"{target} is there already, and is not what this command has left there: --force replaces it, another "
            "--out leaves it as it is"
        )
    return None if said["broken"] else said


def _require_same_config(path: Path, config: Mapping[str, Any], target: Path, what: str) -> dict[str, Any] | None:
    """What ``path`` notes; None where there is none. Raises ``ValueError`` where something else was asked."""
    if not path.exists():
        return None
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
        other = sorted(key for key in config if key != "model" and said.get(key) != config[key])
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is damaged: --force starts {target} anew") from None
    if other:
        what = f"{what} with {' and '.join(_CONFIG_WORDS.get(key, f'another {key}') for key in other)}"
        raise ValueError(f"{target} {what}: --force starts it anew, another --out leaves it as it is")
    return said


_CONFIG_WORDS = {
    "tta": "another --tta",
    "weights": "other weights",
    "sha256": "another model",
    "inputs": "other inputs",
    "effnet": "another version of effnet",
    "top": "another --top",
    "every": "another --every",
    "decode": "another way of decoding (--exact)",
    "precision": "another --precision",
}


def _hash_keys(keys: Iterable[str]) -> str:
    return blake2b("".join(keys).encode(), digest_size=16).hexdigest()


class PartialResults:
    """The parts of the result ``target``: ``.NAME.parts`` beside it, with the manifest of what was asked."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.parts")
        self.manifest = self.folder / "manifest.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """No other process works on the same result meanwhile. Raises ``ValueError`` where one does already."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{self.target} is being written by another process: wait for it, or give another file"
            ) from None
        except OSError as error:
            raise OSError(f"{self.target} cannot be written: {describe_error(error)}") from error
        try:
            yield
        finally:
            lock.release()
            if not (self.manifest.exists() and any(self.folder.glob("*.jsonl"))):  # nothing of worth is left
                shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Notes what was asked, and clears away what a kill has left half written."""
        for half in self.folder.glob(".*.part"):
            half.unlink()
        if not self.manifest.exists():
            self.clear()
            self.write(self.manifest.name, json.dumps(config, indent=2) + "\n")

    def clear(self) -> None:
        """Removes all of it, the manifest first: without it the others mean nothing."""
        self.manifest.unlink(missing_ok=True)
        for path in self.folder.glob("*.jsonl"):
            path.unlink(missing_ok=True)

    def count_complete(self, chunk: Chunk) -> tuple[int, bool]:
        """How many whole parts of ``chunk`` there are from its start on, and whether these are all."""
        for number in count():
            if self._path(chunk.key, number, LAST_SUFFIX).exists():
                return number + 1, True
            if not self._path(chunk.key, number, MIDDLE_SUFFIX).exists():
                return number, False
        raise AssertionError("counting has no end")

    def write(self, name: str, text: str) -> None:
        """A file here, whole or not at all; one of the same name makes way.

        Raises ``OSError`` with one sentence where the disk is full.
        """
        try:
            with atomic_write(self.folder / name) as beside:
                beside.write_text(text, encoding="utf-8")
        except OSError as error:
            raise self.write_error(error) from error

    def write_error(self, error: OSError) -> OSError:
        """``error`` as the sentence of a result that could not be finished for it."""
        return OSError(
            f"{self.target} cannot be written on: {describe_error(error)}; what is predicted so far is kept in {self.folder}: "
            "start the same command again to go on"
        )

    def read_rows(self, keys: Iterable[str]) -> Iterator[Prediction]:
        """Every prediction of these chunks, in order."""
        for key in keys:
            for path in self._files_of(key):
                with path.open(encoding="utf-8") as lines:
                    for line in lines:
                        picture, labels, shares, error, *values = json.loads(line)
                        yield Prediction(picture, tuple(labels), tuple(shares), error, *values)

    def count_broken(self, keys: Iterable[str]) -> int:
        """How many of these chunks could not be read to their end."""
        return sum(self._files_of(key)[-1].name.endswith(f"{BROKEN_SUFFIX}.jsonl") for key in keys)

    def _files_of(self, key: str) -> list[Path]:
        """The files of a chunk, whose last was chosen over what an earlier, worse try has left."""
        found: list[Path] = []
        for number in count():
            endings = [self._path(key, number, ending) for ending in (LAST_SUFFIX, MIDDLE_SUFFIX, BROKEN_SUFFIX)]
            path = next((path for path in endings if path.exists()), None)
            if path is None:
                raise ValueError(f"{self.target}: a shard has changed while it was read: start again with --force")
            found.append(path)
            if path != endings[1]:
                return found
        raise AssertionError("counting has no end")

    def _path(self, key: str, number: int, ending: str) -> Path:
        return self.folder / PartialResult(key, number, ending).file_name
