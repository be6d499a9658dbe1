from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from effnet.data import ImageDataset
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.training.eval_resolution import _candidate_sizes, tune_resolution
from effnet.training.validation import SelectionScore, score_model
from tests.squares import squares, trained_on_squares


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    return trained_on_squares()


def scorer_preferring(size: int, count: int = 200, noise: float = 0.1) -> object:
    """A judge to whom ``size`` is the best, and who says nothing about the images."""
    spread = np.random.default_rng(0).normal(0, 1, count)

    def judge(model: EfficientNet) -> SelectionScore:
        side = model.preprocess.size[0]
        own = np.random.default_rng(side).normal(0, noise, count)
        losses = 2 + spread + 0.2 * abs(np.log(side / size)) + own
        return SelectionScore(tuple(losses.tolist()), 0.5, 2.0)

    return judge


def test_finds_the_best_size(model: EfficientNet) -> None:
    made, found = tune_resolution(model, scorer_preferring(64), sizes=(32, 48, 64, 96))  # type: ignore[arg-type]
    assert made.preprocess == replace(model.preprocess, size=(64, 64))
    assert found.best.image_size == (64, 64)
    assert [trial.image_size[0] for trial in found.trials] == [32, 48, 64, 96]
    assert found.trials[0].improvement == 0
    assert not found.trials[0].is_significant
    assert found.best.improvement == pytest.approx(0.2 * np.log(2), abs=0.03)
    assert "64×64 instead of 32×32" in found.summary()
    assert "4 times the computation" in found.summary()
    assert isinstance(made.classifier, nn.Linear)
    assert isinstance(model.classifier, nn.Linear)
    assert torch.allclose(made.classifier.weight, 2 * model.classifier.weight)  # the judge's gain
    assert model.preprocess.size == (32, 32)
    assert "64×64" in made.provenance.history[-1]


def test_noise_is_not_significant(model: EfficientNet) -> None:
    """All sizes alike: differences are noise, and in twenty runs hardly one is taken."""
    moved = 0
    for seed in range(40):

        def judge(model: EfficientNet, seed: int = seed) -> SelectionScore:
            rng = np.random.default_rng((seed, model.preprocess.size[0]))
            return SelectionScore(tuple(rng.normal(1, 0.3, 60).tolist()), 0.5, 1.0)

        made, found = tune_resolution(model, judge, sizes=(32, 48, 64, 80))
        moved += found.chosen_index > 0
        if not found.chosen_index:
            assert "keeping 32×32" in found.summary()
            assert all(
                torch.equal(one, other)
                for one, other in zip(made.state_dict().values(), model.state_dict().values(), strict=True)
            )
    assert moved <= 6


def test_differences_are_compared_per_image(model: EfficientNet) -> None:
    """A small gain of every image is clear, however far the images lie apart."""
    _, found = tune_resolution(model, scorer_preferring(40, noise=0.01), sizes=(40,))  # type: ignore[arg-type]
    assert found.best.image_size == (40, 40)
    assert found.best.improvement == pytest.approx(0.2 * np.log(40 / 32), abs=0.01)
    assert found.best.noise < 0.003


def test_re_estimated_batch_norm(model: EfficientNet) -> None:
    """A network whose statistics belong to images twice as bright: re-estimating them at its own size repairs it."""
    broken = with_scaled_variances(model)
    learned, select = squares(96, seed=1), squares(90, seed=2)

    def judge(model: EfficientNet) -> SelectionScore:
        return score_model(model, select, "cpu")

    made, found = tune_resolution(broken, judge, learned, sizes=(32,))
    assert [(trial.image_size[0], trial.batch_norm_estimated) for trial in found.trials] == [(32, False), (32, True)]
    assert found.best.batch_norm_estimated
    assert found.best.loss < 0.5 * found.trials[0].loss
    assert "with re-estimated batch norm" in found.summary()
    assert judge(made).loss == pytest.approx(found.best.loss, rel=0.02)
    assert judge(made).logit_scale == pytest.approx(1, rel=0.2)
    assert not made.training


def with_scaled_variances(model: EfficientNet) -> EfficientNet:
    other = EfficientNet(model.arch, model.classes, preprocess=model.preprocess, labels=model.labels)
    other.load_state_dict(model.state_dict())
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.mul_(4)
    return other.eval()


def test_sizes() -> None:
    assert list(_candidate_sizes(Preprocess((224, 224)), None)) == [(224, 224), (256, 256), (288, 288), (320, 320)]
    assert list(_candidate_sizes(Preprocess((32, 32)), None)) == [(32, 32), (48, 48)]
    assert list(_candidate_sizes(Preprocess((100, 150)), None)) == [(100, 150), (112, 168), (128, 192), (144, 216)]
    assert list(_candidate_sizes(Preprocess((64, 64)), (96, 64, 96))) == [(96, 96), (64, 64)]


@pytest.mark.parametrize(
    ("sizes", "message"), [((0,), "size must be"), ((40.5,), "size must be"), ((32,), "current size")]
)
def test_invalid_settings(model: EfficientNet, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tune_resolution(model, scorer_preferring(64), sizes=sizes)  # type: ignore[arg-type]


def test_one_image_is_never_significant(model: EfficientNet) -> None:
    _, found = tune_resolution(model, scorer_preferring(64, count=1), sizes=(64,))  # type: ignore[arg-type]
    assert found.chosen_index == 0


def test_batch_norm_is_estimated_on_a_subset(model: EfficientNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.training.eval_resolution.MAX_BATCH_NORM_IMAGES", 10)
    batch_counts: list[int] = []

    def estimate(other: EfficientNet, batches: object) -> None:
        batch_counts.append(sum(len(batch) for batch in batches))  # type: ignore[attr-defined]

    monkeypatch.setattr("effnet.training.init_model.estimate_batch_norm", estimate)
    learned: ImageDataset = squares(24, seed=1)
    tune_resolution(model, scorer_preferring(64), learned, sizes=(48,))  # type: ignore[arg-type]
    assert batch_counts == [8]
