"""A sound model is broken in nearly every way that the doctor knows: it must name the cause first, and mend it."""

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
from effnet.doctor.hypotheses import (
    compare_scores,
    label_order_hypotheses,
    list_hypotheses,
    match_label_order,
    score_logits,
)
from effnet.doctor.search import apply_configuration
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, Labels, Numerics
from effnet.net import EfficientNet
from effnet.net.layers import ConvNorm
from effnet.net.surgery import set_classes
from tests.squares import CLASSES, PREPROCESS, knowing, squares

SHARED = Path(__file__).parents[1].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real weights and pictures lie in ../shared")


@pytest.fixture(scope="module")
def sound() -> EfficientNet:
    return knowing()


@pytest.fixture(scope="module")
def seen() -> ImageDataset:
    return squares(72, seed=7)


def right(model: EfficientNet, pictures: ImageDataset) -> float:
    return effnet.evaluate(model, pictures).top1


# --- without pictures


def codes(found: Diagnosis) -> list[str]:
    return [finding.code for finding in found.findings]


def test_sound_numbers(sound: EfficientNet) -> None:
    found = diagnose(sound)
    assert found.healthy
    assert found.trials == ()
    sound_mean = replace(PREPROCESS, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    usual = apply_configuration(sound, Configuration(sound_mean, sound.numerics))
    assert codes(diagnose(usual)) == []
    assert "unusual-mean-std" in codes(found)  # a remark


def test_damaged_numbers(sound: EfficientNet) -> None:
    broken = copy.deepcopy(sound)
    norm = broken.stem.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    norm.running_var[0] = -1
    assert codes(diagnose(broken))[0] == "negative-variance"
    with torch.no_grad():
        broken.head.conv.weight[0] = float("nan")
    (finding, *_) = diagnose(broken).findings
    assert (finding.code, finding.severity) == ("not-finite", "wrong")
    assert "head.conv.weight" in finding.observation


def test_numbers_never_trained() -> None:
    assert codes(diagnose(effnet.create("nano", classes=3)))[:2] == ["never-measured", "untrained-head"]


def test_dead_channels(sound: EfficientNet) -> None:
    broken = copy.deepcopy(sound)
    assert isinstance(broken.head.norm, nn.BatchNorm2d)
    with torch.no_grad():
        broken.head.norm.weight[: broken.head.norm.num_features // 2 + 1] = 0
    (finding, *_) = diagnose(broken).findings
    assert finding.code == "dead-channels"
    assert "head.norm" in finding.observation


def test_labels_that_do_not_fit(sound: EfficientNet) -> None:
    broken = copy.deepcopy(sound)
    broken.labels = Labels(CLASSES[:-1])
    assert codes(diagnose(broken))[0] == "labels-shifted"
    broken.labels = Labels(CLASSES[:2])
    assert codes(diagnose(broken))[0] == "labels-count"


def test_an_odd_contract(sound: EfficientNet) -> None:
    odd = apply_configuration(sound, Configuration(replace(PREPROCESS, size=(96, 96)), Numerics("symmetric", 1e-3)))
    assert codes(diagnose(odd)) == ["unusual-mean-std", "unusual-size", "unusual-numerics"]


# --- on labelled pictures


def other_pictures(**changes: object) -> Callable[[EfficientNet], EfficientNet]:
    return lambda model: apply_configuration(model, Configuration(replace(PREPROCESS, **changes), model.numerics))  # type: ignore[arg-type]


def other_channels(model: EfficientNet) -> EfficientNet:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.stem.conv.weight.copy_(broken.stem.conv.weight.flip(1))
    return broken


def other_epsilon(model: EfficientNet) -> EfficientNet:
    """Under its old ε the very same function, its channels scaled until that ε is nearly all of their variance."""
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
    """A momentum of .99 as PyTorch understands it: the statistics are those of one last batch, here of one picture."""
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
    "mean and std": ("mean-std", other_pictures(mean=IMAGENET_MEAN, std=IMAGENET_STD)),
    "no rescaling": ("mean-std", other_pictures(mean=(0.0,) * 3, std=(1 / 255,) * 3)),
    "BGR": ("channel-order", other_channels),
    "size": ("size", other_pictures(size=(48, 48))),
    "squash": ("crop", other_pictures(resize="squash", crop=1.0)),
    "nearest": ("interpolation", other_pictures(interpolation="nearest")),
    "TensorFlow's resize": ("resampling", other_pictures(resampling="tensorflow1")),
    "epsilon": ("epsilon", other_epsilon),
    "shifted": ("labels-shifted", other_labels((*CLASSES[1:], CLASSES[0]))),
    "as text": ("labels-order", other_labels(tuple(sorted(CLASSES)))),
    "mixed": ("labels-order", other_labels(tuple(CLASSES[i] for i in (3, 0, 4, 5, 1, 2)))),
    "last batch": ("statistics", last_batch),
}


def test_nothing_is_found_in_a_sound_model(sound: EfficientNet, seen: ImageDataset) -> None:
    found = diagnose(sound, seen)
    assert found.findings == ()
    assert found.top1 == found.best_top1 == right(sound, seen)
    assert found.trials[0].code == ""
    assert {trial.round for trial in found.trials} == {1}
    assert Diagnosis.from_dict(json.loads(found.to_json())) == found


@pytest.mark.parametrize("name", BREAKS)
def test_the_cause_is_named(
    name: str, sound: EfficientNet, seen: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_ROUNDS", 1)
    code, spoil = BREAKS[name]
    broken = spoil(sound)
    found = diagnose(broken, seen)
    assert codes(found)[:1] == [code]
    mended = repair_model(broken, found, seen)
    before, after = right(broken, seen), right(mended, seen)
    assert before + 0.1 < after
    assert after > right(sound, seen) - 0.12
    assert mended.provenance.history[-1].startswith(f"doctor, {code}: ")
    assert found.findings[0].evidence["top1"] == pytest.approx(before)


def test_two_causes_one_after_the_other(sound: EfficientNet, seen: ImageDataset) -> None:
    broken = other_labels((*CLASSES[1:], CLASSES[0]))(other_pictures(mean=IMAGENET_MEAN, std=IMAGENET_STD)(sound))
    found = diagnose(broken, seen)
    assert codes(found) == ["mean-std", "labels-shifted"]  # the stem tells the first, whose gain the second hides
    assert [finding.severity for finding in found.findings] == ["suspect", "wrong"]
    assert found.best_top1 == right(repair_model(broken, found), seen)
    assert [trial.round for trial in found.trials] == sorted(trial.round for trial in found.trials)
    assert found.trials[-1].round == 3


def test_values_divided_twice(seen: ImageDataset) -> None:
    broken = knowing(twice=True)
    found = diagnose(broken, seen)
    assert codes(found) == ["rescaled-twice"]
    assert found.best_top1 == right(repair_model(broken, found), seen)


def test_a_background_class(sound: EfficientNet, seen: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_pictures_that_do_not_fit(sound: EfficientNet, seen: ImageDataset) -> None:
    with pytest.raises(ValueError, match="only 12 pictures"):
        diagnose(sound, seen.subset(range(12)))
    with pytest.raises(ValueError, match="pictures must be"):
        diagnose(sound, seen, max_images=5)
    strange = ImageDataset(seen.items, Labels(("u", "v", "w", "x", "y", "z")))
    with pytest.raises(ValueError, match="knows none of the pictures' classes"):
        diagnose(sound, strange)
    unnamed = effnet.create("nano", classes=9)
    with pytest.raises(ValueError, match="9 outputs without names, the pictures have 6"):
        diagnose(unnamed, seen)


def test_classes_that_the_model_does_not_know(
    sound: EfficientNet, seen: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_ROUNDS", 1)
    renamed = ImageDataset(seen.items, Labels(("10 Red", *CLASSES[1:])))
    found = diagnose(sound, renamed)
    assert codes(found) == ["labels-unknown"]
    assert "'10 Red'" in found.findings[0].observation
    assert found.images == 60


# --- on pictures without labels


@pytest.fixture
def bare(seen: ImageDataset, tmp_path: Path) -> Path:
    """The squares in a folder without class folders."""
    for item in seen.items:
        assert isinstance(item.image, np.ndarray)
        Image.fromarray(item.image).save(tmp_path / f"{item.name}.png")
    return tmp_path


def test_the_stem_tells(sound: EfficientNet, bare: Path) -> None:
    assert diagnose(sound, bare).healthy
    for code, spoil in (BREAKS["mean and std"], BREAKS["BGR"]):
        broken = spoil(sound)
        found = diagnose(broken, bare)
        assert (found.labeled, found.images) == (False, 72)
        assert (found.findings[0].code, found.findings[0].severity) == (code, "suspect")
        assert right(repair_model(broken, found), squares(72, 7)) == right(sound, squares(72, 7))


def test_pictures_unlike_those_of_the_training(sound: EfficientNet, tmp_path: Path) -> None:
    for index in range(20):
        Image.new("RGB", (40, 40), (255, 255, 250 + index % 5)).save(tmp_path / f"{index}.png")
    assert "unlike-training" in codes(diagnose(sound, tmp_path))


@needs_shared
def test_real_weights_and_pictures() -> None:
    model = effnet.load(SHARED / "weights" / "lite0_imagenet_backbone_timm.pth")
    pictures = SHARED / "data" / "hymenoptera"
    assert diagnose(model, pictures, 24).findings == ()
    right_mean = model.preprocess
    model.preprocess = replace(right_mean, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    found = diagnose(model, pictures, 24)
    assert codes(found)[0] == "mean-std"
    assert repair_model(model, found).preprocess == right_mean
    model.preprocess = right_mean
    assert codes(diagnose(other_channels(model), pictures, 24)) == ["channel-order"]


# --- the parts


def test_labels_in_every_order(sound: EfficientNet) -> None:
    reading = Configuration(PREPROCESS, sound.numerics, label_order=tuple(range(6)))
    found = {
        change.description: change.configuration.label_order for change in label_order_hypotheses(reading, CLASSES, 6)
    }
    assert found["each label for the output after its own"] == (1, 2, 3, 4, 5, 0)
    assert found["labels sorted as text"] == (0, 1, 2, 4, 3, 5)  # "C" comes before "b"
    assert found["labels sorted by their numbers"] == (2, 0, 1, 4, 3, 5)
    assert "labels sorted as text, small letters and capitals alike" not in found  # as they are


def test_an_order_is_judged_on_other_pictures() -> None:
    dice = np.random.default_rng(0)
    labels = np.arange(60) % 3
    assert match_label_order(dice.normal(size=(9, 3)), labels[:9], (0, 1, 2)) is None
    chance = match_label_order(dice.normal(size=(60, 3)), labels, (0, 1, 2))
    assert chance is not None
    assert chance[1].top1 < 0.6
    clear = match_label_order(5 * np.eye(4)[(labels + 1) % 3] + dice.normal(size=(60, 4)), labels, (0, 1, 2))
    assert clear is not None
    assert clear[0] == (1, 2, 0)
    assert clear[1].top1 == 1


def test_gains_are_paired_and_free_of_temperature() -> None:
    dice = np.random.default_rng(0)
    targets = dice.integers(0, 5, 300)
    logits = 2 * np.eye(5)[targets] + dice.normal(size=(300, 5))
    sure, unsure = score_logits(logits, targets), score_logits(logits * 7, targets)
    assert compare_scores(sure, unsure).likelihood == pytest.approx(0, abs=1e-9)
    assert not compare_scores(unsure, sure).is_significant()
    better = score_logits(logits + 0.5 * np.eye(5)[targets], targets)
    assert compare_scores(better, sure).is_significant()
    assert compare_scores(better, sure.first(40)) == compare_scores(better.first(40), sure)
    worse = compare_scores(sure, better)
    assert worse.likelihood == pytest.approx(-compare_scores(better, sure).likelihood)
    assert not worse.is_significant()


def test_neighbours_differ_by_one_thing(sound: EfficientNet) -> None:
    reading = Configuration(PREPROCESS, sound.numerics)
    found = list(list_hypotheses(reading, sound.arch))
    assert all(change.configuration != reading for change in found)
    assert len({change.configuration for change in found}) == len(found)
    assert {change.code for change in found} >= {code for code, _ in BREAKS.values() if not code.startswith("labels")}
