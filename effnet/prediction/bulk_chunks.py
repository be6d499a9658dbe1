"""Units of bulk prediction: chunks, always the same for the same inputs, and the parts of their predictions."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, count, islice
from pathlib import Path

from effnet.arch.serde import check_float
from effnet.data import prediction_inputs, prefetch, webdataset_reader
from effnet.data.storage import remote
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.predictor import Prediction, Predictor

# Chunks end after names whose own hash says so, on average this many: adding or removing a file changes only the chunk
# that it is in (content-defined chunking: Muthitacharoen et al., LBFS, 2001).
NAMES_PER_CHUNK = 256
_MAX_NAMES_PER_CHUNK = 4 * NAMES_PER_CHUNK
_CONCURRENT_FETCHES = 16  # stores answer slowly, but many requests at a time

IMAGES_PER_PART = 256  # at most; what a kill can cost
# Of a part's file: more parts of the chunk follow; it is the last; the rest of the shard could not be read
MIDDLE_SUFFIX, LAST_SUFFIX, BROKEN_SUFFIX = "", ".last", ".broken"

PredictorFactory = Callable[[], Predictor | Ensemble]


@dataclass(frozen=True)
class Chunk:
    """Images that are listed together: names of files and URLs, or one shard or video."""

    key: str  # 32 hexadecimal digits: a hash of the names, and of the size and date of a shard or video
    names: tuple[str, ...]
    frame_interval: float = 1.0  # seconds between two frames of a video

    def images(self, start: int = 0) -> Iterator[prediction_inputs.NamedImage]:
        """Yield (name, image), or the error instead of an image, from number ``start`` on; read lazily."""
        first = self.names[0]
        if webdataset_reader.is_shard(first):
            return webdataset_reader.read_shard_images(first, start)
        if _is_local_video(first):
            return islice(prediction_inputs.open_named(first, self.frame_interval), start, None)
        if any(map(remote.is_remote, self.names)):
            return prefetch.prefetch_map(_fetch, self.names[start:], _CONCURRENT_FETCHES)
        return ((name, Path(name)) for name in self.names[start:])


def list_chunks(sources: Iterable[str | Path], frame_interval: float = 1.0) -> Iterator[Chunk]:
    """Yield the chunks of ``sources`` in order, each source and each chunk once.

    - a file, a folder or a pattern, as `effnet.data.prediction_inputs.open_inputs`; shards too;
    - ``shard-{000..146}.tar``, local or remote: that many shards;
    - a URL: an image or shard over ``http(s)://``; in a store (``s3://``, ``gs://``, any that fsspec knows) also a
      folder or a pattern;
    - ``-``: a list of files, folders and URLs on standard input, one per line.

    The sources are looked up now, their contents lazily. Raises ``FileNotFoundError``, ``ValueError`` for a source
    without images, and ``RemoteStoreError`` if a store is unreachable.
    """
    check_float("frame_interval", frame_interval, 0, exclusive=True)
    expanded = [name for source in sources for name in webdataset_reader.expand_braces(str(source))]
    names = chain.from_iterable([prediction_inputs.list_names(source) for source in dict.fromkeys(expanded)])
    return _drop_duplicates(_cut_into_chunks(names, frame_interval))


def _drop_duplicates(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    keys: set[str] = set()
    for chunk in chunks:
        if chunk.key not in keys:
            keys.add(chunk.key)
            yield chunk


def _cut_into_chunks(names: Iterable[str], frame_interval: float) -> Iterator[Chunk]:
    """Yield the names in chunks; a shard and a video are one each."""
    run: list[str] = []
    for name in names:
        is_video = _is_local_video(name)
        if is_video or webdataset_reader.is_shard(name):
            if run:
                yield Chunk(_hash(*run), tuple(run))
            run = []
            key = _hash(name, remote.content_version(name), str(frame_interval) if is_video else "")
            yield Chunk(key, (name,), frame_interval)
            continue
        run.append(name)
        if len(run) == _MAX_NAMES_PER_CHUNK or int(_hash(name)[:8], 16) % NAMES_PER_CHUNK == 0:
            yield Chunk(_hash(*run), tuple(run))
            run = []
    if run:
        yield Chunk(_hash(*run), tuple(run))


def _is_local_video(name: str) -> bool:
    return prediction_inputs.is_video(name) and not remote.is_remote(name)


def _hash(*texts: str) -> str:
    return blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _fetch(name: str) -> prediction_inputs.NamedImage:
    return name, prediction_inputs.download_image(name) if remote.is_remote(name) else Path(name)


@dataclass
class PartialResult:
    """A part: the predictions of images ``number * IMAGES_PER_PART`` and following of a chunk, always the same ones."""

    key: str
    number: int
    suffix: str = MIDDLE_SUFFIX
    rows: list[Prediction] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """Name of the part's file."""
        return f"{self.key}-{self.number:06}{self.suffix}.jsonl"

    @property
    def text(self) -> str:
        """Content of the part's file: ``[image, labels, probabilities, error]`` per line, for regression values too."""
        lines = []
        for row in self.rows:
            probabilities = [float(f"{share:.7g}") for share in row.probabilities]
            values = [row.values] if row.values else []
            lines.append(json.dumps([row.image, row.labels, probabilities, row.error, *values]) + "\n")
        return "".join(lines)


def predict_parts(
    predictor: Predictor | Ensemble, pending: Iterable[tuple[Chunk, int]], top: int
) -> Iterator[PartialResult]:
    """Yield the missing parts of ``pending``, pairs (chunk, number of its finished parts), in order."""
    parts_in_flight: deque[PartialResult] = deque()  # one entry per image

    def list_images() -> Iterator[prediction_inputs.NamedImage]:
        for chunk, done in pending:
            for part, named_image in _assign_parts(chunk, done):
                parts_in_flight.append(part)
                yield named_image

    current = None
    for row in predictor.stream(list_images(), top):
        part = parts_in_flight.popleft()
        if current is not None and part is not current:
            yield current
        current = part
        current.rows.append(row)
    if current is not None:
        yield current


def _assign_parts(chunk: Chunk, done: int) -> Iterator[tuple[PartialResult, prediction_inputs.NamedImage]]:
    """Yield the images after the first ``done`` parts with their part, whose suffix is set with its last image."""
    images = chunk.images(done * IMAGES_PER_PART)
    following = next(images, None)
    for number in count(done):
        part = PartialResult(chunk.key, number)
        for _ in range(IMAGES_PER_PART):
            if following is None:
                return
            current, following = following, next(images, None)
            if following is None:
                broken = isinstance(current[1], webdataset_reader.TruncatedShardError)
                part.suffix = BROKEN_SUFFIX if broken else LAST_SUFFIX
            yield part, current
