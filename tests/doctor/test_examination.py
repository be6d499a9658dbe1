"""A healthy model is broken in nearly every way that the doctor knows: it must name the cause, and repair it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import effnet
from effnet.data import ImageDataset, load_input
from effnet.data.preprocessing import normalize
from effnet.doctor import Diagnosis, diagnose, repair_model, search
from effnet.doctor.diagnosis import Configuration
from effnet.doctor.search import apply_configuration
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, Labels, Numerics
from effnet.net import EfficientNet
from effnet.net.layers import ConvNorm
from effnet.net.surgery import set_classes
from tests.squares import CLASSES, PREPROCESS, squares, trained_on_squares

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real weights and images lie in ../shared")


@pytest.fixture(scope="module")
def sound() -> EfficientNet:
    return trained_on_squares()


@pytest.fixture(scope="module")
def seen() -> ImageDataset:
    return squares(72, seed=7)


def right(model: EfficientNet, images: ImageDataset) -> float:
    return effnet.evaluate(model, images).top1


def codes(found: Diagnosis) -> list[str]:
    return [finding.code for finding in found.findings]


def other_images(**changes: object) -> Callable[[EfficientNet], EfficientNet]:
    return lambda model: apply_configuration(model, Configuration(replace(PREPROCESS, **changes), model.numerics))  # type: ignore[arg-type]


def other_channels(model: EfficientNet) -> EfficientNet:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.stem.conv.weight.copy_(broken.stem.conv.weight.flip(1))
    return broken


def other_epsilon(model: EfficientNet) -> EfficientNet:
    """The same function at its old ε, with channels scaled until ε is most of their variance."""
    broken = copy.deepcopy(model)
    for module in broken.modules():
        if isinstance(module, ConvNorm):
            norm = module.norm
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            factor = (1.05 * norm.eps / (norm.running_var + norm.eps)).sqrt()
            with torch.no_grad():
                module.conv.weight *= factor[:, None, None, None]
            norm.running_mean *= factor
            norm.running_var.fill_(0.05 * norm.eps)
    return apply_configuration(broken, Configuration(broken.preprocess, Numerics(bn_eps=1e-5)))


def other_labels(names: tuple[str, ...]) -> Callable[[EfficientNet], EfficientNet]:
    def relabel(model: EfficientNet) -> EfficientNet:
        broken = copy.deepcopy(model)
        broken.labels = Labels(names)
        return broken

    return relabel


def last_batch(model: EfficientNet) -> EfficientNet:
    """Momentum 0.99 in PyTorch: the statistics are those of the last batch, here of one image."""
    broken = copy.deepcopy(model)
    x = torch.from_numpy(np.stack([load_input(squares(1, 3).items[0].image, PREPROCESS)]))
    for norm in broken.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.99
            norm.train()
    with torch.no_grad():
        broken(normalize(x, PREPROCESS))
    return broken.eval()


BREAKS: dict[str, tuple[str, Callable[[EfficientNet], EfficientNet]]] = {
    "mean and std": ("mean-std", other_images(mean=IMAGENET_MEAN, std=IMAGENET_STD)),
    "no rescaling": ("mean-std", other_images(mean=(0.0,) * 3, std=(1 / 255,) * 3)),
    "BGR": ("channel-order", other_channels),
    "size": ("size", other_images(size=(48, 48))),
    "squash": ("crop", other_images(resize="squash", crop_fraction=1.0)),
    "nearest": ("interpolation", other_images(interpolation="nearest")),
    "TensorFlow's resize": ("resampling", other_images(resampling="tensorflow1")),
    "epsilon": ("epsilon", other_epsilon),
    "shifted": ("labels-shifted", other_labels((*CLASSES[1:], CLASSES[0]))),
    "as text": ("labels-order", other_labels(tuple(sorted(CLASSES)))),
    "mixed": ("labels-order", other_labels(tuple(CLASSES[i] for i in (3, 0, 4, 5, 1, 2)))),
    "last batch": ("statistics", last_batch),
}


def test_healthy_model(sound: EfficientNet, seen: ImageDataset) -> None:
    found = diagnose(sound, seen)
    assert found.findings == ()
    assert found.top1 == found.best_top1 == right(sound, seen)
    assert found.trials[0].code == ""
    assert {trial.round for trial in found.trials} == {1}
    assert Diagnosis.from_dict(json.loads(found.to_json())) == found


@pytest.mark.parametrize("name", BREAKS)
def test_single_cause(name: str, sound: EfficientNet, seen: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_ROUNDS", 1)
    code, spoil = BREAKS[name]
    broken = spoil(sound)
    found = diagnose(broken, seen)
    assert codes(found)[:1] == [code]
    repaired = repair_model(broken, found, seen)
    before, after = right(broken, seen), right(repaired, seen)
    assert before + 0.1 < after
    assert after > right(sound, seen) - 0.12
    assert repaired.provenance.history[-1].startswith(f"doctor, {code}: ")
    assert found.findings[0].evidence["top1"] == pytest.approx(before)


def test_two_causes(sound: EfficientNet, seen: ImageDataset) -> None:
    broken = other_labels((*CLASSES[1:], CLASSES[0]))(other_images(mean=IMAGENET_MEAN, std=IMAGENET_STD)(sound))
    found = diagnose(broken, seen)
    assert codes(found) == ["mean-std", "labels-shifted"]  # found by the stem, since the second cause hides its gain
    assert [finding.severity for finding in found.findings] == ["suspect", "wrong"]
    assert found.best_top1 == right(repair_model(broken, found), seen)
    assert [trial.round for trial in found.trials] == sorted(trial.round for trial in found.trials)
    assert found.trials[-1].round == 3


def test_rescaled_twice(seen: ImageDataset) -> None:
    broken = trained_on_squares(twice=True)
    found = diagnose(broken, seen)
    assert codes(found) == ["rescaled-twice"]
    assert found.best_top1 == right(repair_model(broken, found), seen)


def test_background_class(sound: EfficientNet, seen: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_ROUNDS", 1)
    broken = copy.deepcopy(sound)
    old = broken.classifier
    assert isinstance(old, nn.Linear)
    set_classes(broken, len(CLASSES) + 1)
    assert isinstance(broken.classifier, nn.Linear)
    with torch.no_grad():
        broken.classifier.weight.copy_(torch.cat([0 * old.weight[:1], old.weight]))
        broken.classifier.bias.copy_(torch.cat([old.bias[:1] - 9, old.bias]))
    for names in ((), CLASSES):
        broken.labels = Labels(names)
        found = diagnose(broken, seen)
        assert codes(found)[0] == "labels-shifted"
        assert "output after" in found.findings[0].observation
        assert repair_model(broken, found).labels.names == ("background", *CLASSES)


def test_errors(sound: EfficientNet, seen: ImageDataset) -> None:
    with pytest.raises(ValueError, match="only 12 usable images"):
        diagnose(sound, seen.subset(range(12)))
    with pytest.raises(ValueError, match="max_images must be"):
        diagnose(sound, seen, max_images=5)
    strange = ImageDataset(seen.items, Labels(("u", "v", "w", "x", "y", "z")))
    with pytest.raises(ValueError, match="knows none of the classes"):
        diagnose(sound, strange)
    unnamed = effnet.create("nano", classes=9)
    with pytest.raises(ValueError, match="9 outputs without names, the data has 6"):
        diagnose(unnamed, seen)


def test_unknown_classes(sound: EfficientNet, seen: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_ROUNDS", 1)
    renamed = ImageDataset(seen.items, Labels(("crimson", *CLASSES[1:])))
    found = diagnose(sound, renamed)
    assert codes(found) == ["labels-unknown"]
    assert "'crimson'" in found.findings[0].observation
    assert found.images == 60


@pytest.fixture
def bare(seen: ImageDataset, tmp_path: Path) -> Path:
    """The squares in a folder without class folders."""
    for item in seen.items:
        assert isinstance(item.image, np.ndarray)
        Image.fromarray(item.image).save(tmp_path / f"{item.name}.png")
    return tmp_path


def test_unlabeled_images(sound: EfficientNet, bare: Path) -> None:
    assert diagnose(sound, bare).healthy
    for code, spoil in (BREAKS["mean and std"], BREAKS["BGR"]):
        broken = spoil(sound)
        found = diagnose(broken, bare)
        assert (found.labeled, found.images) == (False, 72)
        assert (found.findings[0].code, found.findings[0].severity) == (code, "suspect")
        assert right(repair_model(broken, found), squares(72, 7)) == right(sound, squares(72, 7))


def test_images_unlike_the_training_images(sound: EfficientNet, tmp_path: Path) -> None:
    for index in range(20):
        Image.new("RGB", (40, 40), (255, 255, 250 + index % 5)).save(tmp_path / f"{index}.png")
    assert "unlike-training" in codes(diagnose(sound, tmp_path))


@needs_shared
def test_real_weights() -> None:
    model = effnet.load(SHARED / "weights" / "lite0_imagenet_backbone_timm.pth")
    images = SHARED / "data" / "hymenoptera"
    assert diagnose(model, images, 24).findings == ()
    right_mean = model.preprocess
    model.preprocess = replace(right_mean, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    found = diagnose(model, images, 24)
    assert codes(found)[0] == "mean-std"
    assert repair_model(model, found).preprocess == right_mean
    model.preprocess = right_mean
    assert codes(diagnose(other_channels(model), images, 24)) == ["channel-order"]
