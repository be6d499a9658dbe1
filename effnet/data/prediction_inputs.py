"""Inputs of prediction: files, folders, patterns, URLs, videos and standard input, as named images."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from glob import glob
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from effnet.arch.serde import check_float, import_extra
from effnet.data import folders, image_io
from effnet.data.storage import errors, remote
from effnet.data.storage.file_names import existing_path

NamedImage = tuple[str, image_io.ImageSource | image_io.ImageError]

STANDARD_INPUT = "standard input"
RETRY = errors.RetryPolicy(attempts=2)  # of a URL: a user is waiting
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts",
))  # fmt: skip


def open_inputs(sources: Iterable[str | Path], frame_interval: float = 1.0) -> Iterator[NamedImage]:
    """Yield (name, image) for everything that ``sources`` stand for, in order; an error takes its image's place.

    Each source is as in `list_names`, or ``-`` with an image file on standard input. A video gives one frame every
    ``frame_interval`` seconds, named ``clip.mp4@3.0s``. Images are found and downloaded as they are needed. Raises at
    once what `list_names` does, and ``ImportError`` for a video without PyAV.
    """
    check_float("frame_interval", frame_interval, 0, exclusive=True)
    return chain.from_iterable([_open_source(str(source), frame_interval) for source in sources])


def _open_source(source: str, interval: float) -> Iterator[NamedImage]:
    if source == "-" and _is_image_on_stdin():
        return _read_stdin_image()
    names = list_names(source)
    if is_video(source) and os.path.exists(source):
        _import_av(source)  # raises at once
    return chain.from_iterable(open_named(name, interval) for name in names)


def list_names(source: str) -> Iterator[str]:
    """Yield the paths and URLs that ``source`` stands for.

    - a file: itself;
    - a folder: all files below it, sorted, without hidden files, texts and tables;
    - a pattern (``"photos/**/*.jpg"``): the files that match, sorted, likewise;
    - a URL: ``https://…``, or ``s3://…`` and whatever else fsspec reads, also a folder or a pattern there;
    - ``-``: a list of files, folders and URLs on standard input, one per line.

    Only one folder's names are held in memory at a time. Raises ``FileNotFoundError`` for a file that does not exist,
    ``ValueError`` for a source with nothing in it, both at once, and else as `list_remote_files`.
    """
    path = existing_path(source)
    if source == "-":
        names, message = _list_stdin_names(), f"{STANDARD_INPUT} is empty: pipe in an image, or files one per line"
    elif remote.is_remote(source):
        names, message = remote.list_remote_files(source), f"{source} contains no images"
    elif path.is_dir():
        names, message = map(str, folders.list_image_files(path)), f"{source} contains no images"
    elif path.exists():
        return iter([str(path)])
    elif any(sign in source for sign in "*?["):
        names, message = _glob_image_files(source), f"nothing matches {source}"
    else:
        raise FileNotFoundError(f"{source} does not exist")
    first = next(names, None)
    if first is None:
        raise ValueError(message)
    return chain([first], names)


def open_named(name: str, interval: float = 1.0) -> Iterator[NamedImage]:
    """Yield (name, image) of a path or URL, or (name, error); of a video its frames."""
    try:
        if remote.is_remote(name):
            yield name, download_image(name, RETRY)
        elif is_video(name) and os.path.exists(name):
            for seconds, frame in read_frames(Path(name), interval):
                yield f"{name}@{seconds:.1f}s", frame
        else:
            yield name, Path(name)
    except (image_io.ImageError, ImportError, remote.RemoteStoreError) as error:
        yield name, error if isinstance(error, image_io.ImageError) else image_io.ImageError(str(error))


def download_image(url: str, retry: errors.RetryPolicy | None = None) -> bytes | image_io.ImageError:
    """Return the content of an image's URL, or an error. Raises `RemoteStoreError` if a store is unreachable."""
    if is_video(urlsplit(url).path):
        return image_io.ImageError(f"{url} is a video: download it first")
    return remote.read_remote_file(url, retry)


def _glob_image_files(pattern: str) -> Iterator[str]:
    """Yield the files that match, and those in folders that match (with ``**`` they match themselves)."""
    parts = Path(pattern).parts
    if "**" in parts:  # glob would follow links without end
        at = parts.index("**")
        roots = map(Path, glob(str(Path(*parts[:at])))) if at else [Path()]
        files = (file for root in roots if root.is_dir() for file in folders.list_image_files(root)
                 if _matches(file.relative_to(root).parts, parts[at:]))  # fmt: skip
        yield from sorted(map(str, files))
        return
    for match in sorted(glob(pattern)):
        if os.path.isdir(match):
            yield from map(str, folders.list_image_files(Path(match)))
        elif folders.may_be_image(match):
            yield str(Path(match))


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a pattern, in which ``**`` is any number of folders."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_matches(path[start:], pattern[1:]) for start in range(len(path) + 1))
    return bool(path) and fnmatch(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _is_image_on_stdin() -> bool:
    """A list has no zero bytes. Images do, but for the formats of Netpbm, which begin with P1 … P7."""
    head = sys.stdin.buffer.peek(4096)  # type: ignore[union-attr]
    return b"\0" in head or (head[:1] == b"P" and head[1:2].isdigit() and head[2:3].isspace())


def _read_stdin_image() -> Iterator[NamedImage]:
    content = sys.stdin.buffer.read(image_io.MAX_IMAGE_BYTES + 1)
    too_large = len(content) > image_io.MAX_IMAGE_BYTES
    yield STANDARD_INPUT, image_io.too_large_error(STANDARD_INPUT) if too_large else content


def _list_stdin_names() -> Iterator[str]:
    """Yield the names in a list; a missing file shows when it is read."""
    if _is_image_on_stdin():
        raise ValueError(f"{STANDARD_INPUT} is an image, where a list of names is expected")
    for line in sys.stdin.buffer:
        name = os.fsdecode(line).strip("\r\n")
        if remote.is_remote(name):
            yield from remote.list_remote_files(name)
        elif os.path.isdir(name):
            yield from map(str, folders.list_image_files(Path(name)))
        elif name.strip():
            yield str(Path(name))


def is_video(name: str) -> bool:
    """Return whether ``name`` ends as a video file does."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def read_frames(path: Path, interval: float) -> Iterator[tuple[float, image_io.Pixels]]:
    """Yield (seconds since the start, upright uint8 (H, W, 3)) every ``interval`` seconds, the first frame included.

    Raises ``ImportError`` if PyAV is not installed, and ``ImageError`` if the file is not a video or is damaged.
    """
    av = _import_av(path)
    start, count = None, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise image_io.ImageError(f"{path} contains sound but no images")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                start = frame.time if start is None else start
                seconds = frame.time - start
                if seconds + 1e-6 >= count * interval:
                    count = int((seconds + 1e-6) / interval) + 1
                    # PyAV reports the rotation that phones store beside the frames, but does not apply it.
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                    yield seconds, np.ascontiguousarray(upright)  # (H, W, 3)
    except av.FFmpegError as error:
        raise image_io.ImageError(f"{path} is not a video, or is damaged: {error.strerror}") from None
    if not count:
        raise image_io.ImageError(f"{path} has no frames")


def _import_av(path: str | Path) -> Any:
    return import_extra("av", "video", f"{path}: videos require", "PyAV")
