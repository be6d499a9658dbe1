"""What training begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import effnet
from effnet.data.preprocessing import normalize
from effnet.metadata import Labels
from effnet.net import create
from effnet.training.config import TrainConfig
from effnet.training.init_model import (
    MIN_IMAGES_TO_UPDATE_BATCH_NORM,
    build_model,
    choose_batch_norm,
    estimate_batch_norm,
)
from effnet.training.losses import Teacher
from effnet.training.recipes import Recipe

RECIPE = Recipe(name="test", epochs=1)
LABELS = Labels(("a", "b", "c"))


def save_model(folder: Path, labels: Labels = LABELS) -> Path:
    torch.manual_seed(5)
    model = create("nano", len(labels.names)).eval()
    model.labels = labels
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
    return effnet.save(model, folder / "model.safetensors")


def test_other_stem_stride_keeps_the_weights(tmp_path: Path) -> None:
    path = save_model(tmp_path)
    original = effnet.load(path)
    recipe = replace(RECIPE, stem_stride=2, image_size=64)
    model = build_model(TrainConfig(data="", out=tmp_path, recipe=recipe, weights=path), LABELS)
    assert model.arch.stem_stride == 2
    assert model.preprocess.size == (64, 64)
    assert torch.equal(model.stem.conv.weight, original.stem.conv.weight)
    x = torch.randn(1, 3, 32, 32)
    assert model.features(x)["stem"].shape[2:] == (16, 16)


def test_one_of_several_networks_in_a_file(tmp_path: Path) -> None:
    networks = {name: create("nano", 3) for name in ("left", "right")}
    tensors = {f"{name}.{key}": value for name, each in networks.items() for key, value in each.state_dict().items()}
    torch.save(tensors, tmp_path / "m.pth")
    config = TrainConfig(data="", out=tmp_path, recipe=RECIPE, weights=tmp_path / "m.pth", prefix="right")
    assert torch.equal(build_model(config, LABELS).stem.conv.weight, networks["right"].stem.conv.weight)
    assert config.to_settings("", "float32")["prefix"] == "right"
    assert "prefix" not in replace(config, prefix=None).to_settings("", "float32")


def test_the_image_size_is_a_side_or_height_and_width(tmp_path: Path) -> None:
    config = TrainConfig(data="", out=tmp_path, recipe=RECIPE, model="nano", weights="none", image_size=(24, 40))
    assert build_model(config, LABELS).preprocess.size == (24, 40)
    assert build_model(replace(config, image_size=24), LABELS).preprocess.size == (24, 24)
    for wrong in (0, (24,), (24, 0.5)):
        with pytest.raises(ValueError, match="image_size must be a side in pixels"):
            replace(config, image_size=wrong)


def test_estimate_batch_norm() -> None:
    torch.manual_seed(0)
    model = create("nano", 3)
    batches = [torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8) for _ in range(3)]
    estimate_batch_norm(model, batches)
    assert all(module.training for module in model.modules())
    with torch.no_grad():
        maps = [model.stem.conv(normalize(batch, model.preprocess)) for batch in batches]
    means = torch.stack([each.mean((0, 2, 3)) for each in maps]).mean(0)
    variances = torch.stack([each.var((0, 2, 3)) for each in maps]).mean(0)
    assert torch.allclose(model.stem.norm.running_mean, means, atol=1e-5)
    assert torch.allclose(model.stem.norm.running_var, variances, atol=1e-4)
    assert model.stem.norm.momentum == create("nano", 3).stem.norm.momentum


def test_batch_norm_mode_by_number_of_images() -> None:
    assert [
        choose_batch_norm(count, True)[0]
        for count in (10, MIN_IMAGES_TO_UPDATE_BATCH_NORM - 1, MIN_IMAGES_TO_UPDATE_BATCH_NORM)
    ] == ["frozen", "frozen", "train"]
    assert choose_batch_norm(10, False)[0] == "train"


def test_teacher_with_labels_in_another_order(tmp_path: Path) -> None:
    path = save_model(tmp_path, Labels(("c", "d", "a", "b")))
    taught = Teacher(path, LABELS, torch.device("cpu"))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    model = effnet.load(path)
    with torch.no_grad():
        expected = model(normalize(images, model.preprocess))[:, [2, 3, 0]]
    assert torch.allclose(taught(images), expected, atol=1e-4)
    assert taught(torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)).shape == (2, 3)
    with pytest.raises(ValueError, match="does not know 'x' and 1 more: it must have all classes"):
        Teacher(path, Labels(("a", "x", "y")), torch.device("cpu"))
    with pytest.raises(ValueError, match="was trained for classification, not for multilabel"):
        Teacher(path, Labels(("a", "b"), "multilabel"), torch.device("cpu"))


def test_a_teacher_without_a_classifier(tmp_path: Path) -> None:
    path = effnet.save(create("nano", 0), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="no classifier, which the teacher"):
        Teacher(path, LABELS, torch.device("cpu"))
