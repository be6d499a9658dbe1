from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import effnet
from tests.cli.conftest import Run


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A model for the photos' two classes."""
    torch.manual_seed(0)
    model = effnet.create("nano", classes=2)
    model.labels = effnet.Labels(("ant", "bee"))
    path: Path = effnet.save(model, tmp_path / "two.safetensors")
    return path


def test_json(run: Run, two: Path, photos: Path) -> None:
    done = run("evaluate", two, photos, "--json")
    assert done.status == 0
    assert done.err == ""
    found = json.loads(done.out)
    assert effnet.Evaluation.from_dict(found) == effnet.evaluate(two, photos)
    assert found["pictures"] == 4
    assert found["top5"] == 1
    assert {"top1", "loss", "calibration_error", "classes", "confusion", "mistakes"} <= set(found)


def test_in_words(run: Run, two: Path, photos: Path) -> None:
    (photos / "bee" / "page.jpg").write_text("<html>")
    done = run("evaluate", two, photos)
    assert done.status == 0
    assert "of 4 pictures of the split train" in done.out
    assert "is ↓  taken for →" in done.out
    assert "mistakes: " in done.out
    assert f"{photos / 'bee' / 'page.jpg'} is not a picture" in done.out


def test_many_classes(run: Run, weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["effnet.cli.evaluate"]  # effnet.cli.evaluate itself is the function
    for name, most in (("CONFUSION_MOST", 2), ("CLASSES_MOST", 1), ("MISTAKES", 1)):
        monkeypatch.setattr(module, name, most)
    done = run("evaluate", weights, photos)
    assert "the 1 weakest of 2 classes" in done.out
    assert "taken for →" not in done.out
    assert ", the 1 surest" in done.out


def test_failures(run: Run, two: Path, weights: Path, photos: Path) -> None:
    assert "does not exist" in run("evaluate", two, photos / "no").err
    assert "there is no split 'val'" in run("evaluate", two, photos, "--split", "val").err
    assert run("evaluate", two, photos, "--decode", "half").status == 2
    assert run("evaluate", two).status == 2
    (photos / "bee" / "page.jpg").write_text("<html>")
    assert run("evaluate", two, photos, "--strict").status == 1
    (photos / "moth").mkdir()
    (photos / "ant" / "1.jpg").rename(photos / "moth" / "1.jpg")
    done = run("evaluate", weights, photos)
    assert done.status == 1
    assert "does not know the class 'moth'" in done.err
