"""Checks of weights, metadata and labels without images."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import effnet
from effnet.doctor import Diagnosis, diagnose
from effnet.doctor.diagnosis import Configuration
from effnet.doctor.search import apply_configuration
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, Labels, Numerics
from effnet.net import EfficientNet
from tests.squares import CLASSES, PREPROCESS, trained_on_squares


@pytest.fixture(scope="module")
def sound() -> EfficientNet:
    return trained_on_squares()


def codes(found: Diagnosis) -> list[str]:
    return [finding.code for finding in found.findings]


def test_healthy_weights(sound: EfficientNet) -> None:
    found = diagnose(sound)
    assert found.healthy
    assert found.trials == ()
    sound_mean = replace(PREPROCESS, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    usual = apply_configuration(sound, Configuration(sound_mean, sound.numerics))
    assert codes(diagnose(usual)) == []
    assert "unusual-mean-std" in codes(found)  # a remark


def test_damaged_weights(sound: EfficientNet) -> None:
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


def test_untrained_network() -> None:
    assert codes(diagnose(effnet.create("nano", classes=3)))[:2] == ["never-measured", "untrained-head"]


def test_dead_channels(sound: EfficientNet) -> None:
    broken = copy.deepcopy(sound)
    assert isinstance(broken.head.norm, nn.BatchNorm2d)
    with torch.no_grad():
        broken.head.norm.weight[: broken.head.norm.num_features // 2 + 1] = 0
    (finding, *_) = diagnose(broken).findings
    assert finding.code == "dead-channels"
    assert "head.norm" in finding.observation


def test_number_of_labels(sound: EfficientNet) -> None:
    broken = copy.deepcopy(sound)
    broken.labels = Labels(CLASSES[:-1])
    assert codes(diagnose(broken))[0] == "labels-shifted"
    broken.labels = Labels(CLASSES[:2])
    assert codes(diagnose(broken))[0] == "labels-count"


def test_unusual_metadata(sound: EfficientNet) -> None:
    odd = apply_configuration(sound, Configuration(replace(PREPROCESS, size=(96, 96)), Numerics("symmetric", 1e-3)))
    assert codes(diagnose(odd)) == ["unusual-mean-std", "unusual-size", "unusual-numerics"]
