"""No file is left that does not answer as the network it was made from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from effnet.metadata import Numerics
from effnet.net import EfficientNet, create
from effnet.weights import load
from effnet.weights.saving import max_relative_difference, save, save_verified


@pytest.fixture
def model() -> EfficientNet:
    torch.manual_seed(0)
    return create("nano", classes=4, numerics=Numerics("symmetric", 1e-5)).eval()


def test_what_is_written_answers_the_same(model: EfficientNet, tmp_path: Path) -> None:
    done = save_verified(model, tmp_path / "new" / "m.pth", "timm")
    assert (done.path, done.layout, done.numerics) == (tmp_path / "new" / "m.pth", "timm", model.numerics)
    assert done.max_difference == 0
    assert [file.name for file in done.path.parent.iterdir()] == ["m.pth"]
    assert max_relative_difference(model, load(done.path, arch="nano", numerics=model.numerics)) == 0


def test_nothing_is_logged_of_the_reading_back(
    model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "effnet"):
        save_verified(model, tmp_path / "m.pth", "timm")
    assert caplog.text == ""


def damaged(model: EfficientNet, path: Path, layout: str) -> Path:
    """A writer with a fault: one kernel is upside down."""
    broken = create("nano", classes=4, numerics=model.numerics)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.stem.conv.weight.copy_(model.stem.conv.weight.flip(2))
    return save(broken, path, layout)


def test_a_file_that_answers_otherwise_is_not_left(
    model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.pth").write_text("what was here before")
    monkeypatch.setattr("effnet.weights.saving.save", damaged)
    with pytest.raises(ValueError, match=r"nothing is written: .* of the largest"):
        save_verified(model, tmp_path / "m.pth", "timm")
    assert [file.name for file in tmp_path.iterdir()] == ["m.pth"]
    assert (tmp_path / "m.pth").read_text() == "what was here before"


def test_not_a_number_is_no_agreement(model: EfficientNet, tmp_path: Path) -> None:
    with torch.no_grad():
        model.head.norm.bias[0] = float("nan")
    with pytest.raises(ValueError, match="nan of the largest"):
        save_verified(model, tmp_path / "m.pth", "timm")
    assert list(tmp_path.iterdir()) == []


def test_an_ecosystem_that_computes_otherwise_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create("b0", classes=3).eval()
    with pytest.raises(ValueError, match=r"network computes with symmetric padding.* these weights expect same"):
        save_verified(model, tmp_path / "m.pth", "torchvision")
    assert list(tmp_path.iterdir()) == []
    assert save_verified(model, tmp_path / "m.pth", "torchvision", tolerance=10).max_difference > 1e-3
