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

from effnet.arch.serde import check_float
from effnet.data import video
from effnet.data.folders import NON_IMAGE_SUFFIXES, list_image_files
from effnet.data.image_io import MAX_IMAGE_BYTES, ImageError, ImageSource

NamedImage = tuple[str, ImageSource | ImageError]


HTTP_TIMEOUT_SECONDS = 20.0  # without a byte from a server


STANDARD_INPUT = "standard input"


_PEEK_BYTES = 4096


def open_inputs(sources: Iterable[str | Path], frame_interval: float = 1.0) -> Iterator[NamedImage]:
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
    check_float("every", frame_interval, 0, exclusive=True)
    return chain.from_iterable([_open_input(str(source), frame_interval) for source in sources])


def _open_input(source: str, frame_interval: float) -> Iterator[NamedImage]:
    """The pictures of one source, which is looked at now and read later."""
    if source == "-":
        return _read_standard_input(frame_interval)
    if _is_url(source):
        return map(_download_image, (source,))
    path = Path(source)
    if path.is_dir():
        return _open_paths(list_image_files(path), f"{source} has no pictures in it", frame_interval)
    if path.exists():
        return _open_file(path, frame_interval)
    if any(sign in source for sign in "*?["):
        return _open_paths(glob_image_files(source), f"nothing matches {source}", frame_interval)
    raise FileNotFoundError(f"{source} does not exist")


def _open_paths(paths: Iterator[Path], empty_message: str, frame_interval: float) -> Iterator[NamedImage]:
    first = next(paths, None)
    if first is None:
        raise ValueError(empty_message)
    return chain.from_iterable(_open_file_or_error(path, frame_interval) for path in chain([first], paths))


def glob_image_files(pattern: str) -> Iterator[Path]:
    """The files that match, and what lies in folders that do (with ``**`` the files in them match themselves)."""
    for match in sorted(glob(pattern, recursive=True)):
        if not os.path.isdir(match):
            if os.path.splitext(match)[1].lower() not in NON_IMAGE_SUFFIXES:
                yield Path(match)
        elif "**" not in pattern:
            yield from list_image_files(Path(match))


def _open_file(path: Path, frame_interval: float) -> Iterator[NamedImage]:
    if not video.is_video(path.name) or not path.exists():
        return iter([(str(path), path)])
    return _name_frames(path, video.read_frames(path, frame_interval))


def _open_file_or_error(path: Path, frame_interval: float) -> Iterator[NamedImage]:
    """As `_file`, for one of many, where a video without PyAV must not end it all."""
    try:
        return _open_file(path, frame_interval)
    except ImportError as error:
        return iter([(str(path), ImageError(str(error)))])


def _name_frames(path: Path, frames: Iterator[tuple[float, ImageSource]]) -> Iterator[NamedImage]:
    try:
        for seconds, frame in frames:
            yield f"{path}@{seconds:.1f}s", frame
    except ImageError as error:
        yield str(path), error


def _read_standard_input(frame_interval: float) -> Iterator[NamedImage]:
    stream: BufferedReader = sys.stdin.buffer  # type: ignore[assignment]
    head = stream.peek(_PEEK_BYTES)
    if not head.strip():
        raise ValueError(f"nothing came in on {STANDARD_INPUT}: a picture's bytes, or files' names one a line")
    # A list has no zero bytes; pictures do, but for the formats of Netpbm, which say P1 … P7.
    if b"\0" in head or (head[:1] == b"P" and head[1:2].isdigit() and head[2:3].isspace()):
        return map(_read_image_bytes, (stream,))
    return chain.from_iterable(
        _open_list_line(os.fsdecode(line).strip("\r\n"), frame_interval) for line in stream if line.strip()
    )


def _read_image_bytes(stream: BufferedReader) -> NamedImage:
    content = stream.read(MAX_IMAGE_BYTES + 1)
    return STANDARD_INPUT, _too_large_error(STANDARD_INPUT) if len(content) > MAX_IMAGE_BYTES else content


def _open_list_line(source: str, frame_interval: float) -> Iterator[NamedImage]:
    """A line of a list, which is taken by its letters; one that does not exist is found out when it is read."""
    if _is_url(source):
        return map(_download_image, (source,))
    path = Path(source)
    return chain.from_iterable(
        _open_file_or_error(file, frame_interval) for file in (list_image_files(path) if path.is_dir() else (path,))
    )


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _download_image(url: str) -> NamedImage:
    if video.is_video(urlsplit(url).path):
        return url, ImageError(f"{url} is a video: download it first")
    request = Request(quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers={"User-Agent": "effnet"})
    try:
        with urlopen(request, timeout=HTTP_TIMEOUT_SECONDS) as answer:
            content: bytes = answer.read(MAX_IMAGE_BYTES + 1)
    except HTTPError as error:
        error.close()
        return url, ImageError(f"{url} cannot be fetched: the server says {error.code} {error.reason}")
    except TimeoutError:
        return url, ImageError(f"{url} cannot be fetched: no answer within {HTTP_TIMEOUT_SECONDS:g} seconds")
    except URLError as error:
        return url, ImageError(f"{url} cannot be fetched: {_describe_failure(error.reason)}")
    except (OSError, HTTPException, ValueError) as error:
        return url, ImageError(f"{url} cannot be fetched: {_describe_failure(error)}")
    return url, _too_large_error(url) if len(content) > MAX_IMAGE_BYTES else content


def _describe_failure(error: object) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _too_large_error(name: str) -> ImageError:
    return ImageError(f"{name} is larger than {MAX_IMAGE_BYTES // 2**20} MiB: no picture is expected to be")
