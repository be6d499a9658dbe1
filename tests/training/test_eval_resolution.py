from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from effnet.data import ImageDataset
from effnet.net import EfficientNet
from effnet.training.eval_resolution import ResolutionResult, _candidate_sizes, tune_resolution
from effnet.training.validation import SelectionScore, score_model
from tests.squares import squares, trained_on_squares


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    return trained_on_squares()


Judge = Callable[[EfficientNet], SelectionScore]


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ImageDataset:
    """Images that no statistics are estimated on."""
    monkeypatch.setattr("effnet.training.init_model.estimate_batch_norm", lambda *_: None)
    return squares(8, seed=1)


def scorer_preferring(size: int, count: int = 200, noise: float = 0.1) -> Judge:
    """A judge to whom ``size`` is the best, and who says nothing about the images."""
    spread = np.random.default_rng(0).normal(0, 1, count)

    def judge(model: EfficientNet) -> SelectionScore:
        side = model.preprocess.size[0]
        own = np.random.default_rng(side).normal(0, noise, count)
        losses = 2 + spread + 0.2 * abs(np.log(side / size)) + own
        return SelectionScore(tuple(losses.tolist()), 0.5, 2.0)

    return judge


def try_factors(
    monkeypatch: pytest.MonkeyPatch, model: EfficientNet, judge: Judge, images: ImageDataset, *factors: float
) -> tuple[EfficientNet, ResolutionResult]:
    monkeypatch.setattr("effnet.training.eval_resolution.SIZE_FACTORS", factors)
    return tune_resolution(model, judge, images)


def test_finds_the_best_size(model: EfficientNet, images: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned, result = try_factors(monkeypatch, model, scorer_preferring(64), images, 1.5, 2, 3)
    assert tuned.preprocess == replace(model.preprocess, size=(64, 64))
    assert result.best.image_size == (64, 64)
    assert [trial.image_size[0] for trial in result.trials[::2]] == [32, 48, 64, 96]
    assert result.trials[0].improvement == 0
    assert result.best.improvement == pytest.approx(0.2 * np.log(2), abs=0.03)
    assert "64×64 instead of 32×32" in result.summary()
    assert "4 times the computation" in result.summary()
    assert isinstance(tuned.classifier, nn.Linear)
    assert isinstance(model.classifier, nn.Linear)
    assert torch.allclose(tuned.classifier.weight, 2 * model.classifier.weight)  # the judge's gain
    assert model.preprocess.size == (32, 32)
    assert "64×64" in tuned.provenance.history[-1]


def test_noise_is_not_significant(model: EfficientNet, images: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sizes alike: differences are noise, and in twenty runs hardly one is taken."""
    moved = 0
    for seed in range(40):

        def judge(model: EfficientNet, seed: int = seed) -> SelectionScore:
            rng = np.random.default_rng((seed, model.preprocess.size[0]))
            return SelectionScore(tuple(rng.normal(1, 0.3, 60).tolist()), 0.5, 1.0)

        tuned, result = try_factors(monkeypatch, model, judge, images, 1.5, 2, 2.5)
        moved += result.chosen_index > 0
        if not result.chosen_index:
            assert "keeping 32×32" in result.summary()
            assert all(
                torch.equal(one, other)
                for one, other in zip(tuned.state_dict().values(), model.state_dict().values(), strict=True)
            )
    assert moved <= 6


def test_differences_are_compared_per_image(
    model: EfficientNet, images: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small gain of every image is clear, however far the images lie apart."""
    _, result = try_factors(monkeypatch, model, scorer_preferring(48, noise=0.01), images, 1.5)
    assert result.best.image_size == (48, 48)
    assert result.best.improvement == pytest.approx(0.2 * np.log(48 / 32), abs=0.01)
    assert result.best.noise < 0.003


def test_re_estimated_batch_norm(model: EfficientNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose statistics belong to images twice as bright: re-estimating them at its own size repairs it."""
    broken = with_scaled_variances(model)
    learned, select = squares(96, seed=1), squares(90, seed=2)

    def judge(model: EfficientNet) -> SelectionScore:
        return score_model(model, select, "cpu")

    tuned, result = try_factors(monkeypatch, broken, judge, learned)
    assert [(trial.image_size[0], trial.batch_norm_estimated) for trial in result.trials] == [(32, False), (32, True)]
    assert result.best.batch_norm_estimated
    assert result.best.loss < 0.5 * result.trials[0].loss
    assert "with re-estimated batch norm" in result.summary()
    assert judge(tuned).loss == pytest.approx(result.best.loss, rel=0.02)
    assert judge(tuned).logit_scale == pytest.approx(1, rel=0.2)
    assert not tuned.training


def with_scaled_variances(model: EfficientNet) -> EfficientNet:
    other = EfficientNet(model.arch, model.classes, preprocess=model.preprocess, labels=model.labels)
    other.load_state_dict(model.state_dict())
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.mul_(4)
    return other.eval()


def test_sizes() -> None:
    assert list(_candidate_sizes(224, 224)) == [(224, 224), (256, 256), (288, 288), (320, 320)]
    assert list(_candidate_sizes(32, 32)) == [(32, 32), (48, 48)]
    assert list(_candidate_sizes(100, 150)) == [(100, 150), (112, 168), (128, 192), (144, 216)]


def test_one_image_is_never_significant(
    model: EfficientNet, images: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = try_factors(monkeypatch, model, scorer_preferring(64, count=1), images, 2)
    assert result.chosen_index == 0


def test_batch_norm_is_estimated_on_a_subset(model: EfficientNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.training.eval_resolution.MAX_BATCH_NORM_IMAGES", 10)
    batch_counts: list[int] = []

    def estimate(other: EfficientNet, batches: Iterable[torch.Tensor]) -> None:
        batch_counts.append(sum(map(len, batches)))

    monkeypatch.setattr("effnet.training.init_model.estimate_batch_norm", estimate)
    try_factors(monkeypatch, model, scorer_preferring(64), squares(24, seed=1), 1.5)
    assert batch_counts == [8, 8]
