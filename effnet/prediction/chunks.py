"""What is to be predicted, as chunks: the same whenever the same is listed, and few at a time in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path

from effnet.arch.record import number
from effnet.data import video
from effnet.data.ahead import ahead
from effnet.data.folders import files_below
from effnet.data.gather import STANDARD_INPUT, Named, matches
from effnet.data.pixels import PictureError
from effnet.data.storage import remote
from effnet.prediction import shards

# Names are cut into chunks of about this many after those whose own hash says so: a file that is added or removed
# changes the chunk that it is in, and no other (as in content-defined chunking: Muthitacharoen et al., LBFS, 2001).
NAMES = 256
_NAMES_MOST = 4 * NAMES
_FETCHES = 16  # at once: a store answers slowly, and many at a time
_HEAD = 4096


@dataclass(frozen=True)
class Chunk:
    """Some pictures that are listed together: names of files and addresses, or one shard or video.

    ``key`` is of the names, and of a shard's or video's size and date, so that another content has another key.
    """

    key: str  # 32 hexadecimal digits
    names: tuple[str, ...]
    every: float = 1.0  # seconds between two frames of a video

    def pictures(self, start: int = 0) -> Iterator[Named]:
        """(name, picture) from number ``start`` on, or the error in the picture's place; read as they are asked for.

        Raises `remote.StoreError` where a store is out of reach.
        """
        first = self.names[0]
        if shards.is_shard(first):
            return shards.pictures(first, start)
        if _is_video(first):
            return islice(_frames(first, self.every), start, None)
        if any(map(remote.is_remote, self.names)):
            return ahead(_fetched, self.names[start:], _FETCHES)
        return ((name, Path(name)) for name in self.names[start:])


def chunks(sources: Iterable[str | Path], every: float = 1.0) -> Iterator[Chunk]:
    """The chunks of everything that ``sources`` mean, in order, each source and each chunk once.

    - a file, a folder or a pattern, as `effnet.data.gather.gather` takes them, and tar shards among them;
    - ``shard-{000..146}.tar``, wherever they lie: so many shards;
    - an address: a picture or shard over ``http(s)://``; in a store (``s3://``, ``gs://``, whatever fsspec knows) also
      a folder or a pattern;
    - ``-``: a list of files, folders and addresses on standard input, one a line.

    What the sources are is looked up now, what lies in them as it is asked for. Raises ``FileNotFoundError`` for a file
    that does not exist, ``ValueError`` for a source with nothing in it, ``ImportError`` for a store whose package is
    missing, `remote.StoreError` for one out of reach.
    """
    number("every", every, 0, above=True)
    meant = [name for source in sources for name in shards.spelled_out(str(source))]
    names = chain.from_iterable([_begun(_names(source), source) for source in dict.fromkeys(meant)])
    return _once(_cut(names, every))


def _once(found: Iterator[Chunk]) -> Iterator[Chunk]:
    seen: set[str] = set()
    for chunk in found:
        if chunk.key not in seen:
            seen.add(chunk.key)
            yield chunk


def _cut(names: Iterable[str], every: float) -> Iterator[Chunk]:
    """The names in chunks; a shard and a video are one each."""
    run: list[str] = []
    for name in names:
        film = _is_video(name)
        if film or shards.is_shard(name):
            if run:
                yield Chunk(_hash(*run), tuple(run))
            run = []
            yield Chunk(_hash(name, _version(name), str(every) if film else ""), (name,), every)
            continue
        run.append(name)
        if len(run) == _NAMES_MOST or int(_hash(name)[:8], 16) % NAMES == 0:
            yield Chunk(_hash(*run), tuple(run))
            run = []
    if run:
        yield Chunk(_hash(*run), tuple(run))


def _is_video(name: str) -> bool:
    """Whether it can be taken apart here; an address's cannot. Asked of every name: a Path would take its time."""
    return os.path.splitext(name)[1].lower() in video.SUFFIXES and not remote.is_remote(name)


def _hash(*texts: str) -> str:
    return blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _version(name: str) -> str:
    """What tells one content of a shard or a video from another."""
    if remote.is_remote(name):
        return remote.version(name)
    try:
        here = os.stat(name)
    except OSError:
        return ""
    return f"{here.st_size} {here.st_mtime_ns}"


def _begun(names: Iterator[str], source: str) -> Iterator[str]:
    """The same names, of which the first has been found."""
    first = next(names, None)
    if first is None:
        lacking = "nothing matches" if any(sign in source for sign in "*?[") else "there are no pictures in"
        raise ValueError(f"{lacking} {STANDARD_INPUT if source == '-' else source}")
    return chain([first], names)


def _names(source: str) -> Iterator[str]:
    if source == "-":
        return _listed(sys.stdin.buffer)  # type: ignore[arg-type]
    if remote.is_remote(source):
        return remote.listed(source)
    path = Path(source)
    if path.is_dir():
        return map(str, files_below(path))
    if path.exists():
        return iter([str(path)])
    if any(sign in source for sign in "*?["):
        return map(str, matches(source))
    raise FileNotFoundError(f"{source} does not exist")


def _listed(stream: BufferedReader) -> Iterator[str]:
    """The names that a list means; a file that does not exist is found out when it is read."""
    if b"\0" in stream.peek(_HEAD):
        raise ValueError(f"{STANDARD_INPUT} is no list of names: a single picture needs no --out")
    for line in stream:
        name = os.fsdecode(line).strip("\r\n")
        if not name.strip():
            continue
        if remote.is_remote(name):
            yield from remote.listed(name)
        elif os.path.isdir(name):
            yield from map(str, files_below(Path(name)))
        else:
            yield str(Path(name))


def _frames(path: str, every: float) -> Iterator[Named]:
    try:
        for seconds, frame in video.frames(Path(path), every):
            yield f"{path}@{seconds:.1f}s", frame
    except (PictureError, ImportError) as error:
        yield path, error if isinstance(error, PictureError) else PictureError(str(error))


def _fetched(name: str) -> Named:
    if not remote.is_remote(name):
        return name, Path(name)
    if video.is_video(name):
        return name, PictureError(f"{name} is a video: download it first")
    return name, remote.fetched(name)
