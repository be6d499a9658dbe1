"""Videos as pictures: frames at even distances in time, through PyAV (the extra ``effnet[video]``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from effnet.data.image_io import ImageError, Pixels

VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts",
))  # fmt: skip


def is_video(name: str) -> bool:
    """Whether ``name`` ends as a video's does."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def read_frames(path: Path, interval: float) -> Iterator[tuple[float, Pixels]]:
    """(seconds since the start, uint8 (H, W, 3), upright) of one frame in every ``every`` seconds, the first included.

    Raises ``ImportError`` at once where PyAV is not installed; while it is read, ``PictureError`` where the file is no
    video or is damaged.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise ImportError(f"{path} is a video, for which PyAV is missing: pip install 'effnet[video]'") from None
    return _sample_frames(path, interval)


def _sample_frames(path: Path, interval: float) -> Iterator[tuple[float, Pixels]]:
    import av

    start, taken = None, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} has no pictures in it: it is sound only")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                start = frame.time if start is None else start
                seconds = frame.time - start
                if seconds + 1e-6 >= taken * interval:
                    taken = int((seconds + 1e-6) / interval) + 1
                    # PyAV gives the turn that a phone notes beside the frames; it does not make it.
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                    yield seconds, np.ascontiguousarray(upright)  # (H, W, 3)
    except av.FFmpegError as error:
        raise ImageError(f"{path} is not a video, or is damaged: {error.strerror}") from None
    if not taken:
        raise ImageError(f"{path} has no frames")
