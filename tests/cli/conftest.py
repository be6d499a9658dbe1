from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.cli.app import main


class Done(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``effnet`` in this process."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["effnet", *map(str, words)])
        status = main()
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def no_installed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``--model`` a command finds none, whatever packages are installed here."""
    monkeypatch.setattr("effnet.weights.catalog.packages.find_package_file", lambda package, file: None)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of three classes with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = effnet.create("nano", classes=3)
    model.labels = effnet.Labels(("ant", "bee", "[wasp]"))
    path: Path = effnet.save(model, tmp_path_factory.mktemp("model") / "model.safetensors")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with one subfolder per class, and a file that is not an image."""
    root = tmp_path / "photos"
    noise = np.random.default_rng(0)
    for name in ("ant/1.jpg", "ant/[2].png", "bee/3.jpg", "bee/deep/4.jpg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    (root / "ant" / "notes.txt").write_text("skipped")
    return root
