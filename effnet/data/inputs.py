"""Inputs of prediction: files, folders, patterns, URLs, videos and standard input, as named images."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from glob import glob
from io import BufferedReader
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from effnet.arch.serde import check_float
from effnet.data.folders import NON_IMAGE_SUFFIXES, list_image_files
from effnet.data.image_io import MAX_IMAGE_BYTES, ImageError, ImageSource, Pixels, too_large_error
from effnet.data.storage.errors import RetryPolicy
from effnet.data.storage.remote import RemoteStoreError, is_remote, list_remote_files, read_remote_file

NamedImage = tuple[str, ImageSource | ImageError]

STANDARD_INPUT = "standard input"
RETRY = RetryPolicy(attempts=2)  # of a URL: somebody is waiting
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts",
))  # fmt: skip
_PEEK_BYTES = 4096


def open_inputs(sources: Iterable[str | Path], frame_interval: float = 1.0) -> Iterator[NamedImage]:
    """Yield (name, image) for everything that ``sources`` stand for, in order; an error takes its image's place.

    Each source is one of

    - a file; a video gives one frame every ``frame_interval`` seconds, named ``clip.mp4@3.0s``;
    - a folder: all images and videos below it, sorted, without hidden files, texts and tables;
    - a pattern (``"photos/**/*.jpg"``): the files that match, sorted, likewise;
    - a URL: ``https://…``, or ``s3://…`` and whatever else fsspec reads, also a folder or a pattern there;
    - ``-``: standard input, which is an image file, or else a list of files and URLs, one per line.

    Images are found and downloaded as they are asked for.

    Raises:
        FileNotFoundError: at once, for a file that does not exist.
        ValueError: at once, for a pattern, folder or standard input with nothing in it.
        ImportError: at once, for a video without PyAV.

    Example:
        >>> for name, image in open_inputs(["photos/", "clip.mp4"], frame_interval=2):
        ...     ...
    """
    check_float("frame_interval", frame_interval, 0, exclusive=True)
    return chain.from_iterable([_open_input(str(source), frame_interval) for source in sources])


def _open_input(source: str, interval: float) -> Iterator[NamedImage]:
    """Look at one source now; its images are read later."""
    if source == "-":
        return _read_standard_input(interval)
    if is_remote(source):
        return _open_url(source)
    path = Path(source)
    if path.is_dir():
        return _open_paths(list_image_files(path), f"{source} contains no images", interval)
    if path.exists():
        return _open_file(path, interval)
    if any(sign in source for sign in "*?["):
        return _open_paths(glob_image_files(source), f"nothing matches {source}", interval)
    raise FileNotFoundError(f"{source} does not exist")


def _open_paths(paths: Iterator[Path], empty_message: str, interval: float) -> Iterator[NamedImage]:
    first = next(paths, None)
    if first is None:
        raise ValueError(empty_message)
    return chain.from_iterable(_open_file_or_error(path, interval) for path in chain([first], paths))


def glob_image_files(pattern: str) -> Iterator[Path]:
    """Yield the files that match, and those in folders that match (with ``**`` they match themselves)."""
    for match in sorted(glob(pattern, recursive=True)):
        if not os.path.isdir(match):
            if os.path.splitext(match)[1].lower() not in NON_IMAGE_SUFFIXES:
                yield Path(match)
        elif "**" not in pattern:
            yield from list_image_files(Path(match))


def _open_file(path: Path, interval: float) -> Iterator[NamedImage]:
    if not is_video(path.name) or not path.exists():
        return iter([(str(path), path)])
    return _name_frames(path, read_frames(path, interval))


def _open_file_or_error(path: Path, interval: float) -> Iterator[NamedImage]:
    """Like `_open_file`, for one of many files, among which a video without PyAV must not end everything."""
    try:
        return _open_file(path, interval)
    except ImportError as error:
        return iter([(str(path), ImageError(str(error)))])


def _name_frames(path: Path, frames: Iterator[tuple[float, ImageSource]]) -> Iterator[NamedImage]:
    try:
        for seconds, frame in frames:
            yield f"{path}@{seconds:.1f}s", frame
    except ImageError as error:
        yield str(path), error


# Standard input and URLs


def _read_standard_input(interval: float) -> Iterator[NamedImage]:
    stream: BufferedReader = sys.stdin.buffer  # type: ignore[assignment]
    head = stream.peek(_PEEK_BYTES)
    if not head.strip():
        raise ValueError(f"{STANDARD_INPUT} is empty: pipe in an image file, or a list of files, one per line")
    # A list has no zero bytes. Images do, but for the formats of Netpbm, which begin with P1 … P7.
    if b"\0" in head or (head[:1] == b"P" and head[1:2].isdigit() and head[2:3].isspace()):
        return map(_read_image_bytes, (stream,))
    return chain.from_iterable(_open_list_line(os.fsdecode(line).strip("\r\n"), interval) for line in stream)


def _read_image_bytes(stream: BufferedReader) -> NamedImage:
    content = stream.read(MAX_IMAGE_BYTES + 1)
    return STANDARD_INPUT, too_large_error(STANDARD_INPUT) if len(content) > MAX_IMAGE_BYTES else content


def _open_list_line(source: str, interval: float) -> Iterator[NamedImage]:
    """A line of a list is no pattern; that a file does not exist shows when it is read."""
    if not source.strip():
        return iter(())
    if is_remote(source):
        return _open_url(source)
    path = Path(source)
    files = list_image_files(path) if path.is_dir() else (path,)
    return chain.from_iterable(_open_file_or_error(file, interval) for file in files)


def _open_url(url: str) -> Iterator[NamedImage]:
    try:
        for one in list_remote_files(url):
            yield one, download_image(one)
    except (OSError, ValueError) as error:
        yield url, ImageError(str(error))


def download_image(url: str, retry: RetryPolicy | None = None) -> bytes | ImageError:
    """Return the content of an image's URL, or the error that explains why there is none."""
    if is_video(urlsplit(url).path):
        return ImageError(f"{url} is a video: download it first")
    try:
        return read_remote_file(url, retry or RETRY)
    except RemoteStoreError as error:
        return ImageError(str(error))


# Videos, through PyAV


def is_video(name: str) -> bool:
    """Return whether ``name`` ends as a video file does."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def read_frames(path: Path, interval: float) -> Iterator[tuple[float, Pixels]]:
    """Yield (seconds since the start, upright uint8 (H, W, 3)) every ``interval`` seconds, the first frame included.

    Raises ``ImportError`` at once if PyAV is not installed; while reading, ``ImageError`` if the file is not a video or
    is damaged.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise ImportError(f'{path}: videos require PyAV: pip install "effnet[video]"') from None
    return _sample_frames(path, interval)


def _sample_frames(path: Path, interval: float) -> Iterator[tuple[float, Pixels]]:
    import av

    start, taken = None, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} contains sound but no images")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                start = frame.time if start is None else start
                seconds = frame.time - start
                if seconds + 1e-6 >= taken * interval:
                    taken = int((seconds + 1e-6) / interval) + 1
                    # PyAV reports the rotation that phones store beside the frames, but does not apply it.
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                    yield seconds, np.ascontiguousarray(upright)  # (H, W, 3)
    except av.FFmpegError as error:
        raise ImageError(f"{path} is not a video, or is damaged: {error.strerror}") from None
    if not taken:
        raise ImageError(f"{path} has no frames")
