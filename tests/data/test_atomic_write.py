"""Errors of writing name the path that the user gave, never the hidden one beside it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

import effnet
from effnet.data.storage.atomic_write import atomic_write, write_text
from effnet.data.storage.process_lock import lock_output
from effnet.explanation.gallery import Gallery


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "permission denied"), (errno.EACCES, "permission denied")],
)
@pytest.mark.parametrize("method", ["touch", "write_text", "replace", "unlink"])
def test_a_full_or_read_only_disk(
    number: int, reason: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    (tmp_path / "x.json").write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(Path, method, fail)
        if method != "unlink":
            with pytest.raises(OSError, match=reason) as raised:
                write_text(tmp_path / "x.json", "after")
            assert f"{tmp_path / 'x.json'} could not be written" in str(raised.value)
            assert ".part" not in str(raised.value)
            assert (tmp_path / "x.json").read_text() == "before"
        else:
            write_text(tmp_path / "x.json", "after")  # nothing is left to be removed


@pytest.mark.parametrize("name", ["file/x.json", "file/a/x.json", "n" * 300, "folder"])
def test_a_path_that_cannot_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="could not be written") as raised, atomic_write(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert str(raised.value).startswith(str(tmp_path / name))
    assert ".part" not in str(raised.value)


def test_a_gallery_on_a_full_disk_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    explanation = effnet.explain(effnet.create("nano", classes=2), np.zeros((32, 32, 3), np.uint8))

    def draw(place: str, folder: Path) -> None:
        with Gallery(folder, "title", "cam", "head") as gallery, monkeypatch.context() as patch:
            patch.setattr(place, full)
            gallery.add(explanation)
            if place == "pathlib.Path.write_text":
                gallery.__exit__(None, None, None)

    for place in ("PIL.Image.Image.save", "effnet.explanation.gallery.csv_writer", "pathlib.Path.write_text"):
        with pytest.raises(OSError, match=f"{tmp_path / place} could not be written: the disk is full$"):
            draw(place, tmp_path / place)


def test_a_lock_on_a_full_disk_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with lock_output(tmp_path), pytest.raises(ValueError, match="by another process"), lock_output(tmp_path):
        pass
