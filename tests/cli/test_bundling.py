from __future__ import annotations

import json
from pathlib import Path

import pytest

from effnet.weights.cards import card
from effnet.weights.fetch.places import key
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two published files in it, and no network."""
    for name in ("EFFNET_MIRROR", "EFFNET_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    for name in ("b0", "lite0"):
        path = tmp_path / "home" / key(f"https://huggingface.co/{card(name).hub}/resolve/main/model.safetensors")
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(21_000))
    return tmp_path / "home"


def test_weights_are_packed_and_the_line_to_use_is_told(run: Run, tmp_path: Path) -> None:
    done = run("models", "b0", "lite0", "--bundle", "weights.zip")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[2].split() == [card("b0").name, "21.0", "kB"]
    assert done.out.splitlines()[3].split() == [card("lite0").name, "21.0", "kB"]
    assert done.out.splitlines()[-1] == "  EFFNET_BUNDLE=weights.zip effnet predict photos --model b0"
    assert (tmp_path / "weights.zip").stat().st_size > 42_000


def test_as_json(run: Run, tmp_path: Path) -> None:
    said = json.loads(run("models", "b0", "--bundle", "weights.zip", "--json").out)
    assert said["weights"] == [{"name": card("b0").name, "bytes": 21_000}]
    assert said["bytes"] == (tmp_path / "weights.zip").stat().st_size


def test_without_names_the_command_is_wrong(run: Run) -> None:
    done = run("models", "--bundle", "weights.zip")
    assert done.status == 2
    assert "say which weights to pack" in done.err


def test_what_cannot_be_had_is_one_sentence(run: Run, tmp_path: Path) -> None:
    done = run("models", "b1", "--bundle", "weights.zip")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"effnet: {card('b1').name}: https://huggingface.co/")
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "weights.zip").exists()


def test_several_names_can_be_listed(run: Run) -> None:
    assert [row["name"] for row in json.loads(run("models", "b0", "nano", "--json").out)] == ["b0", "v2_b0", "nano"]
