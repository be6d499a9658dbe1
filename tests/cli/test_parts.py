"""``--prefix`` and ``--head`` choose in a file of several, in every command; without a classifier each says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import effnet
from tests.cli.conftest import Run

COMMANDS = ["predict", "evaluate", "explain", "export", "doctor", "convert"]


@pytest.fixture
def two_heads(tmp_path: Path) -> Path:
    """A backbone with two linear layers, of two and of three classes."""
    torch.manual_seed(0)
    tensors = {f"backbone.{name}": value for name, value in effnet.create("nano", classes=0).state_dict().items()}
    for name, classes in (("species", 2), ("color", 3)):
        tensors |= {f"{name}.{part}": value for part, value in nn.Linear(192, classes).state_dict().items()}
    torch.save(tensors, tmp_path / "two_heads.pth")
    return tmp_path / "two_heads.pth"


@pytest.fixture
def two_networks(tmp_path: Path) -> Path:
    """Two networks of equal rank, both of two classes."""
    torch.manual_seed(0)
    networks = {name: effnet.create("nano", classes=2) for name in ("left", "right")}
    tensors = {f"{name}.{key}": value for name, each in networks.items() for key, value in each.state_dict().items()}
    torch.save(tensors, tmp_path / "two_networks.pth")
    return tmp_path / "two_networks.pth"


def words(command: str, model: Path, photos: Path, out: Path) -> tuple[object, ...]:
    return {
        "predict": (photos / "ant" / "1.jpg", "--model", model, "--json"),
        "evaluate": (model, photos, "--json"),
        "explain": (model, photos / "ant" / "1.jpg", "--output", out),
        "export": (model, out.with_suffix(".onnx")),
        "doctor": (model,),
        "convert": (model, out.with_suffix(".safetensors"), "--to", "effnet"),
    }[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_head_is_chosen(command: str, run: Run, two_heads: Path, photos: Path, tmp_path: Path) -> None:
    done = run(command, *words(command, two_heads, photos, tmp_path / "out"), "--head", "species")
    assert done.status == 0, done.err
    assert "its classifier is species" in done.err
    if command == "predict":
        assert len(json.loads(done.out)[0]["labels"]) == 2
    missing = run(command, *words(command, two_heads, photos, tmp_path / "other"), "--head", "size")
    assert missing.status == 1
    assert "size is no linear layer of 192 inputs: --head takes the name of one" in missing.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_network_is_chosen(command: str, run: Run, two_networks: Path, photos: Path, tmp_path: Path) -> None:
    refused = run(command, *words(command, two_networks, photos, tmp_path / "out"))
    assert refused.status == 1
    assert "contains 2 networks, left, right: choose one with --prefix" in refused.err
    done = run(command, *words(command, two_networks, photos, tmp_path / "out"), "--prefix", "right")
    assert done.status == 0, done.err
    assert "using the network under right, not that under left" in done.err


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain"])
def test_without_a_classifier(command: str, run: Run, two_heads: Path, photos: Path, tmp_path: Path) -> None:
    done = run(command, *words(command, two_heads, photos, tmp_path / "out"))
    assert done.status == 1
    assert "species or color could be it, choose with --head" in done.err
    last = done.err.splitlines()[-1]
    assert "this network has no classifier" in last
    assert "--head" in last
    assert "effnet train" in last
    assert "--embeddings" in last


def test_conflicts(run: Run, two_heads: Path, photos: Path) -> None:
    for option in ("--prefix", "--head"):
        done = run("predict", photos, "--ensemble", two_heads, option, "x")
        assert done.status == 2
        assert f"{option} cannot be combined with --ensemble" in done.err
    done = run("train", photos, "--prefix", "x", "--output", photos / "run")
    assert done.status == 2
    assert "--prefix requires --weights" in done.err
