"""The engine cache."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effnet.contract import Contract, Labels
from effnet.exporting import kept
from tests.exporting.networks import network

OLD = 100.0  # seconds


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    kept._say_once.cache_clear()
    return tmp_path / "home"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    age(path)
    return path


def age(path: Path, seconds: float = OLD) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def write(content: bytes = b"graph"):  # type: ignore[no-untyped-def]
    return lambda path: path.write_bytes(content)


def test_a_key_is_of_what_decides_how_a_file_is_read(weights: Path, tmp_path: Path) -> None:
    first = kept.key(weights)
    assert len(first) == 64
    other = tmp_path / "copy.safetensors"
    other.write_bytes(b"weights")
    assert kept.key(other) == first
    assert kept.key(weights, "b0/ra_in1k") != first
    (tmp_path / "config.json").write_text("{}")
    assert kept.key(weights) != first
    (tmp_path / "config.json").unlink()
    weights.write_bytes(b"changed")
    assert kept.key(weights) != first
    with pytest.raises(FileNotFoundError):
        kept.key(tmp_path / "nothing")


def test_another_version_keeps_apart(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept.key(weights)
    monkeypatch.setattr(kept, "VERSION", kept.VERSION + 1)
    assert kept.key(weights) != first


def test_a_file_is_hashed_once(weights: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept.key(weights)
    with monkeypatch.context() as patched:
        patched.setattr(kept, "file_digest", None)
        assert kept.key(weights) == first
        weights.write_bytes(b"longer weights")
        age(weights)
        with pytest.raises(TypeError):
            kept.key(weights)
    second = kept.key(weights)
    assert second != first
    weights.write_bytes(b"LONGER WEIGHTS")  # the same size, inode and second: the hash of this is not remembered
    assert kept.key(weights) != second
    assert len(json.loads((home / "engines" / "hashes.json").read_text())) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}', '{"PATH": [1, 2]}', '{"PATH": [1, 2, 3, "wrong"]}'])
def test_a_damaged_note_of_hashes(damage: str, weights: Path, home: Path) -> None:
    first = kept.key(weights)
    (home / "engines" / "hashes.json").write_text(damage.replace("PATH", str(weights)))
    assert kept.key(weights) == first


def test_hashes_are_bounded(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HASHES_MOST", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
        age(tmp_path / name)
        kept.key(tmp_path / name)
    assert [Path(path).name for path in json.loads((home / "engines" / "hashes.json").read_text())] == ["b", "c"]


def test_a_network_in_memory() -> None:
    model = network("nano")

    def key(contract: Contract = model.contract, **changed: np.ndarray) -> str:
        state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        return kept.key_of({**state, **changed}, contract)

    first = key()
    assert key() == first
    assert key(replace(model.contract, labels=Labels(tuple("abcde")))) != first
    bias = model.state_dict()["classifier.bias"].numpy()
    assert key(**{"classifier.bias": bias + 1}) != first
    assert key(**{"stem.norm.num_batches_tracked": np.array(7)}) == first


def test_what_is_kept_is_found(home: Path) -> None:
    assert kept.find("k", "network.onnx") is None
    path = kept.keep("k", "network.onnx", write())
    assert path == home / "engines" / "k" / "network.onnx" == kept.find("k", "network.onnx")
    assert path.read_bytes() == b"graph"
    kept.drop("k", "network.onnx")
    assert kept.find("k", "network.onnx") is None
    kept.drop("k", "network.onnx")


def test_a_file_is_whole_or_not_there(home: Path) -> None:
    kept.keep("k", "network.onnx", write(b"before"))

    def broken(path: Path) -> None:
        path.write_bytes(b"hal")
        raise ValueError("a network that cannot be written")

    with pytest.raises(ValueError, match="cannot be written"):
        kept.keep("k", "network.onnx", broken)
    assert [each.read_bytes() for each in (home / "engines" / "k").iterdir()] == [b"before"]


def test_a_full_disk_is_said_once(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with caplog.at_level(logging.WARNING, "effnet"):
        for _ in range(3):
            assert kept.keep("k", "network.onnx", full) is None
    (said,) = caplog.messages
    assert said.startswith("engines cannot be kept for the next time:")
    assert "the disk is full" in said
    assert not list((home / "engines" / "k").iterdir())


def test_no_place_for_a_cache(weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def nowhere() -> Path:
        raise OSError("it cannot be written to: set EFFNET_HOME to a folder that can")

    expected = kept.key(weights)
    monkeypatch.setattr(kept, "store", nowhere)
    assert kept.key(weights) == expected
    assert kept.find("k", "network.onnx") is None
    with caplog.at_level(logging.WARNING, "effnet"):
        assert kept.keep("k", "network.onnx", write()) is None
    assert "set EFFNET_HOME" in caplog.text
    kept.drop("k", "network.onnx")


def test_what_was_not_used_for_longest_goes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "BYTES_MOST", 250)
    for index, name in enumerate("abc"):
        kept.keep(name, "network.onnx", write(bytes(80)))
        age(home / "engines" / name, OLD - index)
    assert kept.find("a", "network.onnx")  # now the newest
    kept.keep("d", "network.onnx", write(bytes(80)))
    assert sorted(each.name for each in (home / "engines").iterdir()) == ["a", "c", "d"]
    kept.keep("e", "network.onnx", write(bytes(1000)))  # more than all of it: stays alone
    assert sorted(each.name for each in (home / "engines").iterdir()) == ["e"]


def test_no_torch(weights: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from effnet.exporting import choice, choose, kept; "
        "key = kept.key(Path(sys.argv[1])); choice.remembered(key); choose.at_hand(key); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, weights], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]
