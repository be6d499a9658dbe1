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

from effnet.metadata import Labels, ModelMetadata
from effnet.runtime import engine_cache
from tests.exporting.networks import network

OLD = 100.0  # seconds


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    engine_cache._warn_once.cache_clear()
    return tmp_path / "home"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    set_age(path)
    return path


def set_age(path: Path, seconds: float = OLD) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def writer(content: bytes = b"graph"):  # type: ignore[no-untyped-def]
    return lambda path: path.write_bytes(content)


def test_key_of_weights_beside_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"graph")
    keys = {engine_cache.file_key(path)}
    for content in (b"some weights", b"others"):
        (tmp_path / "m.onnx.data").write_bytes(content)
        keys.add(engine_cache.file_key(path))
    assert len(keys) == 3


def test_file_key(weights: Path, tmp_path: Path) -> None:
    first = engine_cache.file_key(weights)
    assert len(first) == 64
    other = tmp_path / "copy.safetensors"
    other.write_bytes(b"weights")
    assert engine_cache.file_key(other) == first
    assert engine_cache.file_key(weights, "b0/ra_in1k") != first
    named = [tmp_path / name for name in ("efficientnet_b0.pth", "tf_efficientnet_b0.pth", "my_tf_efficientnet_b0.pth")]
    for path in named:
        path.write_bytes(b"weights")
    assert len({first, *map(engine_cache.file_key, named)}) == 4
    (tmp_path / "config.json").write_text("{}")
    assert engine_cache.file_key(weights) != first
    (tmp_path / "config.json").unlink()
    weights.write_bytes(b"changed")
    assert engine_cache.file_key(weights) != first
    with pytest.raises(FileNotFoundError):
        engine_cache.file_key(tmp_path / "nothing")


def test_cache_version_changes_keys(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = engine_cache.file_key(weights)
    monkeypatch.setattr(engine_cache, "CACHE_VERSION", engine_cache.CACHE_VERSION + 1)
    assert engine_cache.file_key(weights) != first


def test_hashes_are_remembered(weights: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = engine_cache.file_key(weights)
    with monkeypatch.context() as patched:
        patched.setattr(engine_cache, "file_digest", None)
        assert engine_cache.file_key(weights) == first
        weights.write_bytes(b"longer weights")
        set_age(weights)
        with pytest.raises(TypeError):
            engine_cache.file_key(weights)
    second = engine_cache.file_key(weights)
    assert second != first
    weights.write_bytes(b"LONGER WEIGHTS")  # the same size, inode and second: the hash of this is not remembered
    assert engine_cache.file_key(weights) != second
    assert len(json.loads((home / "engines" / "hashes.json").read_text())) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"PATH": [1, 2]}', '{"PATH": [1, 2, 3, "wrong"]}'])
def test_damaged_hashes(content: str, weights: Path, home: Path) -> None:
    first = engine_cache.file_key(weights)
    (home / "engines" / "hashes.json").write_text(content.replace("PATH", str(weights)))
    assert engine_cache.file_key(weights) == first


def test_max_hashes(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "MAX_HASHES", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
        set_age(tmp_path / name)
        engine_cache.file_key(tmp_path / name)
    assert [Path(path).name for path in json.loads((home / "engines" / "hashes.json").read_text())] == ["b", "c"]


def test_model_key() -> None:
    model = network("nano")

    def key(metadata: ModelMetadata = model.metadata, **changed: np.ndarray) -> str:
        state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        return engine_cache.model_key({**state, **changed}, metadata)

    first = key()
    assert key() == first
    assert key(replace(model.metadata, labels=Labels(tuple("abcde")))) != first
    bias = model.state_dict()["classifier.bias"].numpy()
    assert key(**{"classifier.bias": bias + 1}) != first
    assert key(**{"stem.norm.num_batches_tracked": np.array(7)}) == first


def test_write_find_remove(home: Path) -> None:
    assert engine_cache.find_cached("k", "network.onnx") is None
    path = engine_cache.write_cached("k", "network.onnx", writer())
    assert path == home / "engines" / "k" / "network.onnx" == engine_cache.find_cached("k", "network.onnx")
    assert path.read_bytes() == b"graph"
    engine_cache.remove_cached("k", "network.onnx")
    assert engine_cache.find_cached("k", "network.onnx") is None
    engine_cache.remove_cached("k", "network.onnx")


def test_writes_are_atomic(home: Path) -> None:
    engine_cache.write_cached("k", "network.onnx", writer(b"before"))

    def broken(path: Path) -> None:
        path.write_bytes(b"hal")
        raise ValueError("a network that cannot be written")

    with pytest.raises(ValueError, match="cannot be written"):
        engine_cache.write_cached("k", "network.onnx", broken)
    assert [each.read_bytes() for each in (home / "engines" / "k").iterdir()] == [b"before"]


def test_full_disk_warns_once(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with caplog.at_level(logging.WARNING, "effnet"):
        for _ in range(3):
            assert engine_cache.write_cached("k", "network.onnx", full) is None
    (message,) = caplog.messages
    assert message.startswith("cannot write to the engine cache:")
    assert "the disk is full" in message
    assert not list((home / "engines" / "k").iterdir())


def test_no_cache_dir(weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def no_cache_dir() -> Path:
        raise OSError("it cannot be written to: set EFFNET_HOME to a folder that can")

    expected = engine_cache.file_key(weights)
    monkeypatch.setattr("effnet.data.storage.cache_dir.writable_cache_dir", no_cache_dir)
    assert engine_cache.file_key(weights) == expected
    assert engine_cache.find_cached("k", "network.onnx") is None
    with caplog.at_level(logging.WARNING, "effnet"):
        assert engine_cache.write_cached("k", "network.onnx", writer()) is None
    assert "set EFFNET_HOME" in caplog.text
    engine_cache.remove_cached("k", "network.onnx")


def test_eviction(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_cache, "MAX_CACHE_BYTES", 250)
    for index, name in enumerate("abc"):
        engine_cache.write_cached(name, "network.onnx", writer(bytes(80)))
        set_age(home / "engines" / name, OLD - index)
    assert engine_cache.find_cached("a", "network.onnx")  # now the newest
    engine_cache.write_cached("d", "network.onnx", writer(bytes(80)))
    assert sorted(each.name for each in (home / "engines").iterdir()) == ["a", "c", "d"]
    engine_cache.write_cached("e", "network.onnx", writer(bytes(1000)))  # more than all of it: stays alone
    assert sorted(each.name for each in (home / "engines").iterdir()) == ["e"]


def test_no_torch(weights: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from effnet.runtime import autotune, engine_cache; "
        "key = engine_cache.file_key(Path(sys.argv[1])); "
        "autotune.open_cached_engine(key); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, weights], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]
