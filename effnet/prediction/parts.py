"""The folder beside a result in which it grows, part by part, so that a kill costs no more than the last of them."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from effnet.data.gather import Named
from effnet.data.storage.reasons import reason
from effnet.prediction.chunks import Chunk
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.prediction import Prediction
from effnet.prediction.predictor import Predictor
from effnet.prediction.shards import BrokenOff
from effnet.weights.atomic import replacing

PICTURES = 256  # of a part, at the most: what a kill can cost
MIDDLE, LAST, BROKEN = "", ".last", ".broken"  # of a chunk: more parts follow; none does; none could be read


@dataclass
class Part:
    """The predictions of pictures ``number * PICTURES`` onwards of a chunk; always the same pictures."""

    key: str
    number: int
    ending: str = MIDDLE
    rows: list[Prediction] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's."""
        return f"{self.key}-{self.number:06}{self.ending}.jsonl"

    @property
    def text(self) -> str:
        """The file's content: ``[picture, labels, probabilities, error]`` a line, and values where there are some."""
        return "".join(json.dumps(_line(row)) + "\n" for row in self.rows)


def _line(row: Prediction) -> list[Any]:
    line = [row.picture, row.labels, [float(f"{share:.7g}") for share in row.probabilities], row.error]
    return [*line, row.values] if row.values else line


def predicted(predictor: Predictor | Ensemble, waiting: Iterable[tuple[Chunk, int]], top: int) -> Iterator[Part]:
    """The parts of all ``waiting`` (chunk, parts of it that are there already), in order, through one pipeline."""
    owners: deque[Part] = deque()  # of the pictures that are on their way

    def named() -> Iterator[Named]:
        for chunk, done in waiting:
            for part, one in _shared_out(chunk, done):
                owners.append(part)
                yield one

    part = None
    for row in predictor.stream(named(), top):
        owner = owners.popleft()
        if part is not None and owner is not part:
            yield part
        part = owner
        part.rows.append(row)
    if part is not None:
        yield part


def _shared_out(chunk: Chunk, done: int) -> Iterator[tuple[Part, Named]]:
    """The pictures after the first ``done`` parts, each with its part, whose ending is known with its last one."""
    pictures = chunk.pictures(done * PICTURES)
    following = next(pictures, None)
    for number in count(done):
        part = Part(chunk.key, number)
        for _ in range(PICTURES):
            if following is None:
                return
            one, following = following, next(pictures, None)
            if following is None:
                part.ending = BROKEN if isinstance(one[1], BrokenOff) else LAST
            yield part, one


class Parts:
    """The parts of the result ``target``: ``.NAME.parts`` beside it, with the manifest of what was asked."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.parts")
        self.manifest = self.folder / "manifest.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
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
            raise OSError(f"{self.target} cannot be written: {reason(error)}") from error
        try:
            yield
        finally:
            lock.release()
            if not (self.manifest.exists() and any(self.folder.glob("*.jsonl"))):  # nothing of worth is left
                shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Notes what was asked, and clears away what a kill has left half written."""
        for half in self.folder.glob(".*.part"):
            half.unlink()
        if not self.manifest.exists():
            self.clear()
            self.write(self.manifest.name, json.dumps(asked, indent=2) + "\n")

    def clear(self) -> None:
        """Removes all of it, the manifest first: without it the others mean nothing."""
        self.manifest.unlink(missing_ok=True)
        for path in self.folder.glob("*.jsonl"):
            path.unlink(missing_ok=True)

    def there(self, chunk: Chunk) -> tuple[int, bool]:
        """How many whole parts of ``chunk`` there are from its start on, and whether these are all."""
        for number in count():
            if self._path(chunk.key, number, LAST).exists():
                return number + 1, True
            if not self._path(chunk.key, number, MIDDLE).exists():
                return number, False
        raise AssertionError("counting has no end")

    def write(self, name: str, text: str) -> None:
        """A file here, whole or not at all; one of the same name makes way.

        Raises ``OSError`` with one sentence where the disk is full.
        """
        try:
            with replacing(self.folder / name) as beside:
                beside.write_text(text, encoding="utf-8")
        except OSError as error:
            raise self.stopped(error) from error

    def stopped(self, error: OSError) -> OSError:
        """``error`` as the sentence of a result that could not be finished for it."""
        return OSError(
            f"{self.target} cannot be written on: {reason(error)}; what is predicted so far is kept in {self.folder}: "
            "start the same command again to go on"
        )

    def rows(self, keys: Iterable[str]) -> Iterator[Prediction]:
        """Every prediction of these chunks, in order."""
        for key in keys:
            for path in self._of(key):
                with path.open(encoding="utf-8") as lines:
                    for line in lines:
                        picture, labels, shares, error, *values = json.loads(line)
                        yield Prediction(picture, tuple(labels), tuple(shares), error, *values)

    def broken(self, keys: Iterable[str]) -> int:
        """How many of these chunks could not be read to their end."""
        return sum(self._of(key)[-1].name.endswith(f"{BROKEN}.jsonl") for key in keys)

    def _of(self, key: str) -> list[Path]:
        """The files of a chunk, whose last was chosen over what an earlier, worse try has left."""
        found: list[Path] = []
        for number in count():
            endings = [self._path(key, number, ending) for ending in (LAST, MIDDLE, BROKEN)]
            path = next((path for path in endings if path.exists()), None)
            if path is None:
                raise ValueError(f"{self.target}: a shard has changed while it was read: start again with --force")
            found.append(path)
            if path != endings[1]:
                return found
        raise AssertionError("counting has no end")

    def _path(self, key: str, number: int, ending: str) -> Path:
        return self.folder / Part(key, number, ending).name
