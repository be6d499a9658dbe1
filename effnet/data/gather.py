"""What people point at to have it predicted: files, folders, patterns, addresses, standard input, videos."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from glob import glob
from http.client import HTTPException
from io import BufferedReader
from itertools import chain
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from effnet.arch.record import number
from effnet.data import video
from effnet.data.folders import COMPANIONS, files_below
from effnet.data.pixels import PictureError, Source

Named = tuple[str, Source | PictureError]

BYTES_MOST = 256 * 2**20  # of a picture that comes from elsewhere
SECONDS_MOST = 20.0  # without a byte from a server
STANDARD_INPUT = "standard input"
_HEAD = 4096


def gather(sources: Iterable[str | Path], every: float = 1.0) -> Iterator[Named]:
    """(name, picture) of everything that ``sources`` mean, in order, or the error in the picture's place.

    - a file: itself; a video: one frame in every ``every`` seconds, named ``clip.mp4@3.0s``;
    - a folder: every picture and video in it to the bottom, sorted; hidden files, texts and tables are passed over;
    - a pattern (``"photos/**/*.jpg"``): what matches, sorted, likewise;
    - ``http://`` or ``https://``: what lies there;
    - ``-``: standard input, which is a picture's bytes, or else a list of files and addresses, one a line.

    Pictures are found and fetched as they are asked for. Raises at once ``FileNotFoundError`` for a file that does not
    exist, ``ValueError`` for a pattern, folder or standard input with nothing in it, and ``ImportError`` for a video
    without PyAV.
    """
    number("every", every, 0, above=True)
    return chain.from_iterable([_meant(str(source), every) for source in sources])


def _meant(source: str, every: float) -> Iterator[Named]:
    """The pictures of one source, which is looked at now and read later."""
    if source == "-":
        return _standard_input(every)
    if _is_address(source):
        return map(_fetched, (source,))
    path = Path(source)
    if path.is_dir():
        return _found(files_below(path), f"{source} has no pictures in it", every)
    if path.exists():
        return _file(path, every)
    if any(sign in source for sign in "*?["):
        return _found(matches(source), f"nothing matches {source}", every)
    raise FileNotFoundError(f"{source} does not exist")


def _found(paths: Iterator[Path], nothing: str, every: float) -> Iterator[Named]:
    first = next(paths, None)
    if first is None:
        raise ValueError(nothing)
    return chain.from_iterable(_later(path, every) for path in chain([first], paths))


def matches(pattern: str) -> Iterator[Path]:
    """The files that match, and what lies in folders that do (with ``**`` the files in them match themselves)."""
    for match in sorted(glob(pattern, recursive=True)):
        if not os.path.isdir(match):
            if os.path.splitext(match)[1].lower() not in COMPANIONS:
                yield Path(match)
        elif "**" not in pattern:
            yield from files_below(Path(match))


def _file(path: Path, every: float) -> Iterator[Named]:
    if not video.is_video(path.name) or not path.exists():
        return iter([(str(path), path)])
    return _frames(path, video.frames(path, every))


def _later(path: Path, every: float) -> Iterator[Named]:
    """As `_file`, for one of many, where a video without PyAV must not end it all."""
    try:
        return _file(path, every)
    except ImportError as error:
        return iter([(str(path), PictureError(str(error)))])


def _frames(path: Path, frames: Iterator[tuple[float, Source]]) -> Iterator[Named]:
    try:
        for seconds, frame in frames:
            yield f"{path}@{seconds:.1f}s", frame
    except PictureError as error:
        yield str(path), error


def _standard_input(every: float) -> Iterator[Named]:
    stream: BufferedReader = sys.stdin.buffer  # type: ignore[assignment]
    head = stream.peek(_HEAD)
    if not head.strip():
        raise ValueError(f"nothing came in on {STANDARD_INPUT}: a picture's bytes, or files' names one a line")
    # A list has no zero bytes; pictures do, but for the formats of Netpbm, which say P1 … P7.
    if b"\0" in head or (head[:1] == b"P" and head[1:2].isdigit() and head[2:3].isspace()):
        return map(_read_whole, (stream,))
    return chain.from_iterable(_listed(os.fsdecode(line).strip("\r\n"), every) for line in stream if line.strip())


def _read_whole(stream: BufferedReader) -> Named:
    content = stream.read(BYTES_MOST + 1)
    return STANDARD_INPUT, _too_large(STANDARD_INPUT) if len(content) > BYTES_MOST else content


def _listed(source: str, every: float) -> Iterator[Named]:
    """A line of a list, which is taken by its letters; one that does not exist is found out when it is read."""
    if _is_address(source):
        return map(_fetched, (source,))
    path = Path(source)
    return chain.from_iterable(_later(file, every) for file in (files_below(path) if path.is_dir() else (path,)))


def _is_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _fetched(address: str) -> Named:
    if video.is_video(urlsplit(address).path):
        return address, PictureError(f"{address} is a video: download it first")
    request = Request(quote(address, safe="%/:=&?~#+!$,;'@()*[]"), headers={"User-Agent": "effnet"})
    try:
        with urlopen(request, timeout=SECONDS_MOST) as answer:
            content: bytes = answer.read(BYTES_MOST + 1)
    except HTTPError as error:
        error.close()
        return address, PictureError(f"{address} cannot be fetched: the server says {error.code} {error.reason}")
    except TimeoutError:
        return address, PictureError(f"{address} cannot be fetched: no answer within {SECONDS_MOST:g} seconds")
    except URLError as error:
        return address, PictureError(f"{address} cannot be fetched: {_reason(error.reason)}")
    except (OSError, HTTPException, ValueError) as error:
        return address, PictureError(f"{address} cannot be fetched: {_reason(error)}")
    return address, _too_large(address) if len(content) > BYTES_MOST else content


def _reason(error: object) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _too_large(name: str) -> PictureError:
    return PictureError(f"{name} is larger than {BYTES_MOST // 2**20} MiB: no picture is expected to be")
