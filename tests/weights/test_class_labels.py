"""What a network's outputs mean where its file does not say."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import effnet
from effnet.data.class_names import imagenet_labels
from effnet.metadata import Labels
from effnet.weights import convert, load
from effnet.weights.class_labels import complete_labels


def save_as_timm(folder: Path, classes: int) -> tuple[Path, effnet.EfficientNet]:
    torch.manual_seed(0)
    model = effnet.create("nano", classes=classes).eval()
    path = folder / "network.pth"
    torch.save(convert(model.state_dict(), model.arch, "effnet", "timm"), path)
    return path, model


@pytest.mark.parametrize("classes", [1000, 1001])
def test_imagenets_classes_have_names(tmp_path: Path, classes: int, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = save_as_timm(tmp_path, classes)
    with caplog.at_level(logging.INFO, "effnet"):
        assert load(path, arch="nano").labels == imagenet_labels(classes)
    assert f"its {classes:,} classes are taken for ImageNet's" in caplog.text


def test_other_numbers_have_none(tmp_path: Path) -> None:
    assert load(save_as_timm(tmp_path, 999)[0], arch="nano").labels == Labels()


def test_one_output_tells_two_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, model = save_as_timm(tmp_path, 1)
    with caplog.at_level(logging.INFO, "effnet"):
        found = load(path, arch="nano")
    assert (found.classes, found.labels) == (2, Labels())
    assert "its one output is taken for a sigmoid's logit" in caplog.text
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(x).softmax(1)[:, 1:], model(x).sigmoid())


@pytest.mark.parametrize(
    ("stated", "labels"),
    [
        (Labels(("cat", "dog")), Labels(("cat", "dog"))),
        (Labels(("cat",)), Labels(("not cat", "cat"))),
        (Labels(("cat",), "multilabel"), Labels(("not cat", "cat"))),
    ],
)
def test_names_of_the_two(stated: Labels, labels: Labels) -> None:
    tensors = {"classifier.weight": torch.ones(1, 4), "classifier.bias": torch.ones(1)}
    found, named, notes = complete_labels(tensors, stated)
    assert named == labels
    assert found["classifier.weight"].tolist() == [[0] * 4, [1] * 4]
    assert found["classifier.bias"].tolist() == [0, 1]
    assert "--labels" not in notes[0]


def test_a_value_stays_one() -> None:
    tensors = {"classifier.weight": torch.ones(1, 4), "classifier.bias": torch.ones(1)}
    assert complete_labels(tensors, Labels(("age",), "regression")) == (tensors, Labels(("age",), "regression"), ())
    assert complete_labels(tensors, Labels(("age",)), "regression") == (tensors, Labels(("age",), "regression"), ())
    assert complete_labels(tensors, Labels(("old",)), "multilabel") == (tensors, Labels(("old",), "multilabel"), ())
    assert complete_labels({}, Labels()) == ({}, Labels(), ())
