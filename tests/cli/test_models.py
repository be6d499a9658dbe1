"""``effnet models``: networks, published weights, bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effnet.weights.catalog import ENTRIES, PUBLISHERS, find_entry, search_entries
from effnet.weights.download import cache_key
from tests.cli.conftest import Run


def test_weights(run: Run) -> None:
    done = run("models", "--weights")
    assert done.status == 0
    assert done.err == ""
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.strip()}
    assert set(ENTRIES) <= set(rows)
    assert rows["b0/ra4_e3600_r224_in1k"] == ["256", "79.4", "256", "apache-2.0", "timm"]
    assert rows["b0/tf_ns_jft_in1k"] == ["*", "224", "78.7", "224", "apache-2.0", "timm"]
    assert rows["lite3/google_int8"] == ["280", "79.0", "–", "apache-2.0", "google"]
    assert rows["b0/keras_notop"] == ["224", "–", "–", "apache-2.0", "keras"]
    assert rows["b7/torchvision_v1"] == ["600", "84.1", "600", "–", "torchvision"]


def test_weights_fit_a_narrow_terminal(run: Run) -> None:
    table = run("models", "--weights").out.partition("\n*")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


def test_weights_by_name_and_publisher(run: Run) -> None:
    found = json.loads(run("models", "lite", "--weights", "--publisher", "google", "--json").out)
    assert [row["name"] for row in found] == [entry.name for entry in search_entries("lite", "google")]
    assert {row["arch"] for row in found} == {f"lite{number}" for number in range(5)}
    assert run("models", "EfficientNetB8", "--weights", "--publisher", "keras").out.startswith(
        "no published weights match"
    )
    assert run("models", "nano", "--weights", "--json").out == "[]\n"


def test_weights_json(run: Run) -> None:
    found = {row["name"]: row for row in json.loads(run("models", "--weights", "--json").out)}
    assert list(found) == list(ENTRIES)
    b0 = found["b0/google_ns"]
    assert b0["top1"] == 0.788
    expected = find_entry("b0/google_ns").to_dict() | {"top1": 0.788}
    assert b0 == json.loads(json.dumps(expected))
    assert found["b0/keras_notop"]["top1"] is None


@pytest.mark.parametrize(
    ("words", "message"), [(["--publisher", "tim"], ", ".join(PUBLISHERS)), (["b9", "--weights"], "did you mean b8?")]
)
def test_unknown_names(run: Run, words: list[str], message: str) -> None:
    done = run("models", *words)
    assert done.status == 1
    assert message in done.err


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two published files, offline."""
    for name in ("EFFNET_MIRROR", "EFFNET_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    for name in ("b0", "lite0"):
        path = (
            tmp_path
            / "home"
            / cache_key(f"https://huggingface.co/{find_entry(name).hub}/resolve/main/model.safetensors")
        )
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(21_000))
    return tmp_path / "home"


def test_bundle(run: Run, tmp_path: Path) -> None:
    done = run("models", "b0", "lite0", "--bundle", "weights.zip")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[2].split() == [find_entry("b0").name, "21.0", "kB"]
    assert done.out.splitlines()[3].split() == [find_entry("lite0").name, "21.0", "kB"]
    assert done.out.splitlines()[-1] == "  EFFNET_BUNDLE=weights.zip effnet predict photos --model b0"
    assert (tmp_path / "weights.zip").stat().st_size > 42_000


def test_bundle_json(run: Run, tmp_path: Path) -> None:
    result = json.loads(run("models", "b0", "--bundle", "weights.zip", "--json").out)
    assert result["weights"] == [{"name": find_entry("b0").name, "bytes": 21_000}]
    assert result["bytes"] == (tmp_path / "weights.zip").stat().st_size


def test_bundle_requires_names(run: Run) -> None:
    done = run("models", "--bundle", "weights.zip")
    assert done.status == 2
    assert "Missing argument 'NAME' of --bundle" in done.err


def test_bundle_of_unavailable_weights(run: Run, tmp_path: Path) -> None:
    done = run("models", "b1", "--bundle", "weights.zip")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"effnet: {find_entry('b1').name}: https://huggingface.co/")
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "weights.zip").exists()


def test_several_names(run: Run) -> None:
    assert [row["name"] for row in json.loads(run("models", "b0", "nano", "--json").out)] == ["b0", "v2_b0", "nano"]
