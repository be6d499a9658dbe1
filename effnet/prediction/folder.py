"""Whole folders into one file of results: a kill costs seconds of work, no picture comes twice and none is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from importlib.metadata import version
from itertools import chain
from os.path import abspath
from pathlib import Path
from typing import Any

from effnet.arch.record import whole
from effnet.data.storage.remote import is_remote
from effnet.prediction import results
from effnet.prediction.chunks import Chunk, chunks
from effnet.prediction.cluster import predicted_by
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.parts import Parts, predicted
from effnet.prediction.prediction import Prediction
from effnet.prediction.predictor import Predictor
from effnet.weights.atomic import replacing
from effnet.weights.find import find

Make = Callable[[], Predictor | Ensemble]
Progress = Callable[[int], None]  # pictures done so far by this process


@dataclass(frozen=True)
class Summary:
    """What is in a result: ``broken`` shards could not be read to their end, which another run tries again."""

    pictures: int
    unread: int
    broken: int = 0
    before: bool = False  # it was there already, and nothing has been done


def predict_into(
    out: str | Path,
    sources: Iterable[str | Path],
    make: Make,
    asked: Mapping[str, Any],
    *,
    top: int = 5,
    every: float = 1.0,
    cluster: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Summary:
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
    whole("top", top, 1)
    target = Path(out)
    write = results.writer(target.suffix.lower())
    given = [str(source) for source in sources]
    waiting = chunks(given, every)
    asked = {
        "effnet": version("effnet"),
        "inputs": [source if is_remote(source) or source == "-" else abspath(source) for source in given],
        "every": every,
        "top": top,
        **asked,
    }
    parts = Parts(target)
    record = target.with_name(f"{target.name}.json")
    with parts.alone():
        if force:
            parts.clear()
        else:
            _same(parts.manifest, asked, target, "was begun")
            if finished := _finished(record, asked, target, parts):
                if finished["listing"] != _listing(chunk.key for chunk in waiting):
                    raise ValueError(
                        f"{target} is finished, and what is in {', '.join(given)} has changed since: --force predicts "
                        "all of it again, another --out leaves this one as it is"
                    )
                parts.clear()  # a kill may have come before
                return Summary(finished["pictures"], finished["unread"], before=True)
        parts.begin(asked)
        record.unlink(missing_ok=True)
        keys = _work(parts, waiting, make, top, cluster, progress)
        return _merged(parts, keys, write, record, asked)


def described(model: str | Path, **options: str) -> dict[str, Any]:
    """What tells one predictor's answers from another's: the model file's sha256, and ``options`` such as decode."""
    path = find(model).path
    with path.open("rb") as file:
        return {"model": str(model), "sha256": file_digest(file, "sha256").hexdigest(), **options}


def _work(
    parts: Parts, waiting: Iterable[Chunk], make: Make, top: int, cluster: str | None, progress: Progress | None
) -> list[str]:
    """Writes every part that is not there yet; the keys of all chunks, in order."""
    keys: list[str] = []

    def missing() -> Iterator[tuple[Chunk, int]]:
        for chunk in waiting:
            keys.append(chunk.key)
            done, all_of_it = parts.there(chunk)
            if not all_of_it:
                yield chunk, done

    todo = missing()
    first = next(todo, None)
    if first is None:
        return keys
    following = chain([first], todo)
    made = predicted(make(), following, top) if cluster is None else predicted_by(cluster, make, following, top)
    done = 0
    for part in made:
        parts.write(part.name, part.text)
        done += len(part.rows)
        if progress:
            progress(done)
    return keys


def _merged(
    parts: Parts,
    keys: list[str],
    write: Callable[[Path, Iterable[Prediction]], None],
    record: Path,
    asked: Mapping[str, Any],
) -> Summary:
    """Puts the result in its place whole; then what made it beside it, and then the parts away."""
    pictures = unread = 0

    def counted() -> Iterator[Prediction]:
        nonlocal pictures, unread
        for row in parts.rows(keys):
            pictures, unread = pictures + 1, unread + bool(row.error)
            yield row

    broken = parts.broken(keys)
    merged = parts.folder / f"merged{parts.target.suffix}"
    try:
        with replacing(merged) as beside:
            write(beside, counted())
        size = merged.stat().st_size
        merged.replace(parts.target)
        said = {"pictures": pictures, "unread": unread, "broken": broken, "bytes": size, "listing": _listing(keys)}
        parts.write(record.name, json.dumps({**asked, **said}, indent=2) + "\n")
        (parts.folder / record.name).replace(record)
    except OSError as error:
        raise parts.stopped(error) from error
    if not broken:
        parts.clear()
    return Summary(pictures, unread, broken)


def _finished(record: Path, asked: Mapping[str, Any], target: Path, parts: Parts) -> dict[str, Any] | None:
    """What was noted of a result that is there and as it was left; None where there is work to do."""
    if not target.exists():
        return None
    if not record.exists() and parts.manifest.exists():
        return None  # killed between the two
    said = _same(record, asked, target, "was made")
    if said is None or said.get("bytes") != target.stat().st_size:
        raise ValueError(
            f"{target} is there already, and is not what this command has left there: --force replaces it, another "
            "--out leaves it as it is"
        )
    return None if said["broken"] else said


def _same(path: Path, asked: Mapping[str, Any], target: Path, what: str) -> dict[str, Any] | None:
    """What ``path`` notes; None where there is none. Raises ``ValueError`` where something else was asked."""
    if not path.exists():
        return None
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
        other = sorted(key for key in asked if key != "model" and said.get(key) != asked[key])
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is damaged: --force starts {target} anew") from None
    if other:
        what = f"{what} with {' and '.join(_WORDS.get(key, f'another {key}') for key in other)}"
        raise ValueError(f"{target} {what}: --force starts it anew, another --out leaves it as it is")
    return said


_WORDS = {
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


def _listing(keys: Iterable[str]) -> str:
    return blake2b("".join(keys).encode(), digest_size=16).hexdigest()
