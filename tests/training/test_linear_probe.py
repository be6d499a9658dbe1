from __future__ import annotations

import numpy as np
import pytest

from effnet.training.linear_probe import REGULARIZATION_STRENGTHS, fit_linear_probe
from effnet.training.validation import Targets


def blobs(images: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(images) % classes
    centres = rng.normal(size=(classes, width))
    return (centres[targets] + rng.normal(size=(images, width)) * 1.5 + 3).astype(np.float32), targets


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression with a free intercept, the plain way."""
    mean, share = x.mean(0), y.mean(0)
    weight = np.linalg.solve((x - mean).T @ (x - mean) + penalty * np.eye(x.shape[1]), (x - mean).T @ (y - share))
    return weight, share - mean @ weight


@pytest.mark.parametrize(("images", "width"), [(30, 8), (18, 40)], ids=["tall", "wide"])
def test_leave_one_out_equals_refitting(images: int, width: int) -> None:
    features, targets = blobs(images, width, 3)
    probe = fit_linear_probe(features, Targets(targets, "classification", 3))
    x, y = features.astype(float), np.eye(3)[targets]
    penalty = probe.regularization * ((x - x.mean(0)) ** 2).sum() / len(x)
    scores = np.empty_like(y)
    for index in range(images):
        rest = np.arange(images) != index
        # The intercept and the class shares stay those of all images but the one left out, as in the closed form.
        weight, bias = ridge(x[rest], y[rest], penalty)
        scores[index] = x[index] @ weight + bias
    assert probe.metric == pytest.approx((scores.argmax(1) == targets).mean())
    assert probe.loss == pytest.approx(
        Targets(targets, "classification", 3).losses(probe.logit_scale * scores).mean(), rel=1e-6
    )


def test_head_is_the_ridge_solution() -> None:
    features, targets = blobs(60, 12, 4)
    probe = fit_linear_probe(features, Targets(targets, "classification", 4))
    x, y = features.astype(float), np.eye(4)[targets]
    weight, bias = ridge(x, y, probe.regularization * ((x - x.mean(0)) ** 2).sum() / len(x))
    np.testing.assert_allclose(probe.weight, probe.logit_scale * weight.T, atol=1e-9)
    np.testing.assert_allclose(probe.bias, probe.logit_scale * bias, atol=1e-9)


def test_strength_has_the_lowest_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = blobs(40, 60, 2)
    chosen = fit_linear_probe(features, Targets(targets, "classification", 2))
    losses = []
    for strength in REGULARIZATION_STRENGTHS:
        monkeypatch.setattr("effnet.training.linear_probe.REGULARIZATION_STRENGTHS", (strength,))
        losses.append(fit_linear_probe(features, Targets(targets, "classification", 2)).loss)
    assert chosen.loss == min(losses)
    assert chosen.regularization == REGULARIZATION_STRENGTHS[int(np.argmin(losses))]


def test_logit_scale_calibrates_overconfident_logits() -> None:
    targets = np.array([0, 1, 0, 1])
    overconfident = np.array([[9.0, 0], [0, 9], [9, 0], [9, 0]])  # the last one is wrong
    gain, loss = Targets(targets, "classification", 2).fit_logit_scale(overconfident)
    assert gain < 1
    assert loss < Targets(targets, "classification", 2).losses(overconfident).mean()


def test_class_without_images() -> None:
    features, targets = blobs(30, 8, 2)
    probe = fit_linear_probe(features, Targets(targets, "classification", 3))
    assert probe.weight.shape == (3, 8)
    assert (probe.logits(features).argmax(1) < 2).all()
