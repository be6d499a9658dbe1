"""Tar archives of pictures, as WebDataset keeps them: read as a stream, to the last member that is whole."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BufferedReader
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any

from effnet.arch.serde import check_float
from effnet.data import inputs
from effnet.data.folders import list_image_files
from effnet.data.image_io import MAX_IMAGE_BYTES, ImageError, too_large_error
from effnet.data.inputs import STANDARD_INPUT, NamedImage, glob_image_files
from effnet.data.prefetch import prefetch_map
from effnet.data.storage import remote
from effnet.data.storage.errors import RetryPolicy
from effnet.data.storage.remote import ResumingReader, is_remote
from effnet.data.webdataset_reader import StrictTarInfo, is_image_member, truncated_shard_error
from effnet.data.webdataset_reader import TruncatedShardError as TruncatedShardError
from effnet.data.webdataset_reader import expand_braces as expand_braces
from effnet.data.webdataset_reader import is_shard as is_shard
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.predictor import Prediction, Predictor

_BUFFER_BYTES = 2**20


def read_shard_images(shard: str, start: int = 0, patience: RetryPolicy | None = None) -> Iterator[NamedImage]:
    """(``shard.tar/member.jpg``, its bytes) of every member whose ending is a picture's, from number ``start`` on.

    A shard that is cut, damaged or out of reach ends with (its name, `BrokenOff`); one without any picture is an error
    as well. Compressed or not, it is read once, forwards, and never held.
    """
    number = 0
    try:
        with closing(_open_shard(shard, patience)) as file, _open_tar(file) as members:
            while (member := members.next()) is not None:
                members.members = []  # type: ignore[attr-defined]  # or they would pile up
                if not is_image_member(member):
                    continue
                number += 1
                if number > start:
                    yield f"{shard}/{member.name}", _read_member(members, member, shard)
    except Exception as error:  # tarfile and the decompressors stumble in many ways
        if isinstance(error, MemoryError):
            raise
        yield shard, truncated_shard_error(shard, number, error)
        return
    if not number:
        yield shard, ImageError(f"{shard} has no pictures in it")


def _open_shard(shard: str, patience: RetryPolicy | None) -> IO[bytes]:
    if is_remote(shard):
        return io.BufferedReader(ResumingReader(shard, patience), _BUFFER_BYTES)
    return open(shard, "rb")


def _open_tar(file: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r|*", bufsize=_BUFFER_BYTES, tarinfo=StrictTarInfo)


def _read_member(members: tarfile.TarFile, member: tarfile.TarInfo, shard: str) -> bytes | ImageError:
    if member.size > MAX_IMAGE_BYTES:
        return too_large_error(f"{shard}/{member.name}")
    content = members.extractfile(member)
    assert content is not None, member.name
    return content.read()


# What is to be predicted, as chunks: the same whenever the same is listed, and few at a time in memory.


# Names are cut into chunks of about this many after those whose own hash says so: a file that is added or removed
# changes the chunk that it is in, and no other (as in content-defined chunking: Muthitacharoen et al., LBFS, 2001).
NAMES_PER_CHUNK = 256


_MAX_NAMES_PER_CHUNK = 4 * NAMES_PER_CHUNK


_CONCURRENT_FETCHES = 16  # at once: a store answers slowly, and many at a time


_PEEK_BYTES = 4096


@dataclass(frozen=True)
class Chunk:
    """Some pictures that are listed together: names of files and addresses, or one shard or video.

    ``key`` is of the names, and of a shard's or video's size and date, so that another content has another key.
    """

    key: str  # 32 hexadecimal digits
    names: tuple[str, ...]
    frame_interval: float = 1.0  # seconds between two frames of a video

    def images(self, start: int = 0) -> Iterator[NamedImage]:
        """(name, picture) from number ``start`` on, or the error in the picture's place; read as they are asked for.

        Raises `remote.StoreError` where a store is out of reach.
        """
        first = self.names[0]
        if is_shard(first):
            return read_shard_images(first, start)
        if _is_video(first):
            return islice(_video_frames(first, self.frame_interval), start, None)
        if any(map(remote.is_remote, self.names)):
            return prefetch_map(_fetch, self.names[start:], _CONCURRENT_FETCHES)
        return ((name, Path(name)) for name in self.names[start:])


def list_chunks(sources: Iterable[str | Path], frame_interval: float = 1.0) -> Iterator[Chunk]:
    """The chunks of everything that ``sources`` mean, in order, each source and each chunk once.

    - a file, a folder or a pattern, as `effnet.data.inputs.gather` takes them, and tar shards among them;
    - ``shard-{000..146}.tar``, wherever they lie: so many shards;
    - an address: a picture or shard over ``http(s)://``; in a store (``s3://``, ``gs://``, whatever fsspec knows) also
      a folder or a pattern;
    - ``-``: a list of files, folders and addresses on standard input, one a line.

    What the sources are is looked up now, what lies in them as it is asked for. Raises ``FileNotFoundError`` for a file
    that does not exist, ``ValueError`` for a source with nothing in it, ``ImportError`` for a store whose package is
    missing, `remote.StoreError` for one out of reach.
    """
    check_float("every", frame_interval, 0, exclusive=True)
    meant = [name for source in sources for name in expand_braces(str(source))]
    names = chain.from_iterable([_require_first(_list_names(source), source) for source in dict.fromkeys(meant)])
    return _drop_duplicates(_cut_into_chunks(names, frame_interval))


def _drop_duplicates(found: Iterator[Chunk]) -> Iterator[Chunk]:
    seen: set[str] = set()
    for chunk in found:
        if chunk.key not in seen:
            seen.add(chunk.key)
            yield chunk


def _cut_into_chunks(names: Iterable[str], frame_interval: float) -> Iterator[Chunk]:
    """The names in chunks; a shard and a video are one each."""
    run: list[str] = []
    for name in names:
        film = _is_video(name)
        if film or is_shard(name):
            if run:
                yield Chunk(_hash(*run), tuple(run))
            run = []
            yield Chunk(
                _hash(name, _content_version(name), str(frame_interval) if film else ""), (name,), frame_interval
            )
            continue
        run.append(name)
        if len(run) == _MAX_NAMES_PER_CHUNK or int(_hash(name)[:8], 16) % NAMES_PER_CHUNK == 0:
            yield Chunk(_hash(*run), tuple(run))
            run = []
    if run:
        yield Chunk(_hash(*run), tuple(run))


def _is_video(name: str) -> bool:
    """Whether it can be taken apart here; an address's cannot. Asked of every name: a Path would take its time."""
    return os.path.splitext(name)[1].lower() in inputs.VIDEO_SUFFIXES and not remote.is_remote(name)


def _hash(*texts: str) -> str:
    return blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _content_version(name: str) -> str:
    """What tells one content of a shard or a video from another."""
    if remote.is_remote(name):
        return remote.remote_version(name)
    try:
        here = os.stat(name)
    except OSError:
        return ""
    return f"{here.st_size} {here.st_mtime_ns}"


def _require_first(names: Iterator[str], source: str) -> Iterator[str]:
    """The same names, of which the first has been found."""
    first = next(names, None)
    if first is None:
        lacking = "nothing matches" if any(sign in source for sign in "*?[") else "there are no pictures in"
        raise ValueError(f"{lacking} {STANDARD_INPUT if source == '-' else source}")
    return chain([first], names)


def _list_names(source: str) -> Iterator[str]:
    if source == "-":
        return _read_name_list(sys.stdin.buffer)  # type: ignore[arg-type]
    if remote.is_remote(source):
        return remote.list_remote_files(source)
    path = Path(source)
    if path.is_dir():
        return map(str, list_image_files(path))
    if path.exists():
        return iter([str(path)])
    if any(sign in source for sign in "*?["):
        return map(str, glob_image_files(source))
    raise FileNotFoundError(f"{source} does not exist")


def _read_name_list(stream: BufferedReader) -> Iterator[str]:
    """The names that a list means; a file that does not exist is found out when it is read."""
    if b"\0" in stream.peek(_PEEK_BYTES):
        raise ValueError(f"{STANDARD_INPUT} is no list of names: a single picture needs no --out")
    for line in stream:
        name = os.fsdecode(line).strip("\r\n")
        if not name.strip():
            continue
        if remote.is_remote(name):
            yield from remote.list_remote_files(name)
        elif os.path.isdir(name):
            yield from map(str, list_image_files(Path(name)))
        else:
            yield str(Path(name))


def _video_frames(path: str, frame_interval: float) -> Iterator[NamedImage]:
    try:
        for seconds, frame in inputs.read_frames(Path(path), frame_interval):
            yield f"{path}@{seconds:.1f}s", frame
    except (ImageError, ImportError) as error:
        yield path, error if isinstance(error, ImageError) else ImageError(str(error))


def _fetch(name: str) -> NamedImage:
    if not remote.is_remote(name):
        return name, Path(name)
    if inputs.is_video(name):
        return name, ImageError(f"{name} is a video: download it first")
    return name, remote.read_remote_image(name)


# The folder beside a result in which it grows, part by part, so that a kill costs no more than the last of them.


IMAGES_PER_PART = 256  # of a part, at the most: what a kill can cost


MIDDLE_SUFFIX, LAST_SUFFIX, BROKEN_SUFFIX = (
    "",
    ".last",
    ".broken",
)  # of a chunk: more parts follow; none does; none could be read


@dataclass
class PartialResult:
    """The predictions of pictures ``number * PICTURES`` onwards of a chunk; always the same pictures."""

    key: str
    number: int
    suffix: str = MIDDLE_SUFFIX
    rows: list[Prediction] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """The file's."""
        return f"{self.key}-{self.number:06}{self.suffix}.jsonl"

    @property
    def text(self) -> str:
        """The file's content: ``[picture, labels, probabilities, error]`` a line, and values where there are some."""
        return "".join(json.dumps(_to_json_row(row)) + "\n" for row in self.rows)


def _to_json_row(row: Prediction) -> list[Any]:
    line = [row.image, row.labels, [float(f"{share:.7g}") for share in row.probabilities], row.error]
    return [*line, row.values] if row.values else line


def predict_parts(
    predictor: Predictor | Ensemble, pending: Iterable[tuple[Chunk, int]], top: int
) -> Iterator[PartialResult]:
    """The parts of all ``waiting`` (chunk, parts of it that are there already), in order, through one pipeline."""
    owners: deque[PartialResult] = deque()  # of the pictures that are on their way

    def named() -> Iterator[NamedImage]:
        for chunk, done in pending:
            for part, one in _assign_parts(chunk, done):
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


def _assign_parts(chunk: Chunk, done: int) -> Iterator[tuple[PartialResult, NamedImage]]:
    """The pictures after the first ``done`` parts, each with its part, whose ending is known with its last one."""
    pictures = chunk.images(done * IMAGES_PER_PART)
    following = next(pictures, None)
    for number in count(done):
        part = PartialResult(chunk.key, number)
        for _ in range(IMAGES_PER_PART):
            if following is None:
                return
            one, following = following, next(pictures, None)
            if following is None:
                part.suffix = BROKEN_SUFFIX if isinstance(one[1], TruncatedShardError) else LAST_SUFFIX
            yield part, one
