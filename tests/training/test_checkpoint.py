from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from effnet.training.checkpoint import Checkpoints


def test_newest_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.latest() is None
    for epoch in range(4):
        checkpoints.save({"weights": torch.full((3,), float(epoch)), "epoch": epoch}, epoch)
    checkpoints.save({"epoch": 3, "batch": 7}, 3, 7)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert checkpoints.latest() == {"epoch": 3, "batch": 7}


def test_damaged_newest_falls_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 1}, 1)
    checkpoints.save({"epoch": 2}, 2)
    newest = sorted(tmp_path.glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    assert checkpoints.latest() == {"epoch": 1}


def test_full_disk_keeps_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 1}, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="the disk is full"):
        checkpoints.save({"epoch": 2}, 2)
    assert checkpoints.latest() == {"epoch": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_a_killed_process_are_deleted(tmp_path: Path) -> None:
    (tmp_path / ".00001-0000000.pt.123.part").write_bytes(b"half")
    Checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyError(246), IndexError("pop from an empty list"), AttributeError("append")])
def test_whatever_a_damaged_pickle_raises_falls_back(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = Checkpoints(tmp_path), torch.load
    for epoch in (1, 2):
        store.save({"epoch": epoch}, epoch)

    def stumble(path: Path, **options: object) -> object:
        if path.name.startswith("00002"):
            raise error
        return read(path, **options)

    monkeypatch.setattr(torch, "load", stumble)
    assert store.latest() == {"epoch": 1}
