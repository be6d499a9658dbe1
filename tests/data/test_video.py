from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from effnet.data import ImageError
from effnet.data.prediction_inputs import is_video, open_inputs, read_frames

av = pytest.importorskip("av")

RATE = 10


def write_video(path: Path, seconds: float = 3, turn: int = 0) -> Path:
    """A video whose left half becomes brighter by 20 every half second; its right half is black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        if turn:
            stream.set_display_rotation(turn)
        for index in range(round(seconds * RATE)):
            image = np.zeros((48, 64, 3), np.uint8)
            image[:, :32] = 40 + 20 * (2 * index // RATE)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv"])
def test_frames(tmp_path: Path, suffix: str) -> None:
    found = list(read_frames(write_video(tmp_path / f"clip{suffix}"), 0.5))
    assert [seconds for seconds, _ in found] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5], abs=0.01)
    for index, (_, image) in enumerate(found):
        assert image.shape == (48, 64, 3)
        assert image.dtype == np.uint8
        assert image[:, 4:28].mean() == pytest.approx(40 + 20 * index, abs=6)
        assert image[:, 36:].mean() < 10


@pytest.mark.parametrize(("every", "count"), [(0.01, 30), (1, 3), (0.35, 9), (60, 1)])
def test_frame_interval(tmp_path: Path, every: float, count: int) -> None:
    assert len(list(read_frames(write_video(tmp_path / "clip.mp4"), every))) == count


def test_upright(tmp_path: Path) -> None:
    # A quarter against the clock: left goes to the bottom
    path = write_video(tmp_path / "phone.mp4", seconds=0.2, turn=90)
    ((_, image),) = read_frames(path, 1)
    assert image.shape == (64, 48, 3)
    assert image[40:].mean() > 30
    assert image[:28].mean() < 10


def test_videos_as_inputs(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "b.MP4", seconds=1.5)
    (tmp_path / "clips" / "a.jpg").touch()
    found = list(open_inputs([tmp_path / "clips", tmp_path / "clips" / "b.MP4"], frame_interval=1))
    clip = str(tmp_path / "clips" / "b.MP4")
    frames = [f"{clip}@0.0s", f"{clip}@1.0s"]
    assert [name for name, _ in found] == [str(tmp_path / "clips" / "a.jpg"), *frames, *frames]


def test_damaged(tmp_path: Path) -> None:
    path = tmp_path / "no.mp4"
    for content in (b"", b"not a video" * 100):
        path.write_bytes(content)
        ((name, error),) = open_inputs([path])
        assert name == str(path)
        assert isinstance(error, ImageError)
        assert "is not a video, or is damaged" in str(error)


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    ((_, error),) = open_inputs([path])
    assert "contains sound" in str(error)


def test_without_av(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", seconds=0.2)
    (tmp_path / "x.jpg").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install "effnet\[video\]"'):
        open_inputs([path])
    (_, error), (_, image) = open_inputs([tmp_path])
    assert isinstance(error, ImageError)
    assert image == tmp_path / "x.jpg"


def test_is_video() -> None:
    assert is_video("a/b.MOV")
    assert not is_video("a/b.jpg")
    assert not is_video("mp4")
