"""Ensembles: labels aligned by name, weighted mean of the scores, weights fitted on out-of-fold predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import effnet
from effnet import EfficientNet, Predictor
from effnet.data import ImageError
from effnet.metadata import Labels
from effnet.prediction.ensemble import Ensemble, fit_ensemble_weights, fit_weights_on_oof, member_models
from effnet.prediction.out_of_fold import OutOfFold

EAGER = partial(Predictor, engine="eager")


LABELS = ("ant", "bee", "wasp")


def network(seed: int, labels: Sequence[str] = LABELS, task: str = "classification", size: int = 32) -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = effnet.create("nano", classes=len(labels))
    made.labels = effnet.Labels(tuple(labels), task)
    made.preprocess = replace(made.preprocess, size=(size, size))
    return made.eval()


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(5)]


def scores_of(predictor: Predictor | Ensemble, arrays: list[np.ndarray]) -> np.ndarray:
    return np.stack([row for _, row in predictor.predict_scores((str(at), one) for at, one in enumerate(arrays))])


def test_weighted_mean_by_label_names(arrays: list[np.ndarray]) -> None:
    one, other = EAGER(network(1)), EAGER(network(2, ("wasp", "ant", "bee")))
    expected = 0.75 * scores_of(one, arrays) + 0.25 * scores_of(other, arrays)[:, [1, 2, 0]]
    both = Ensemble([one, other], [3, 1])
    assert both.labels.names == LABELS
    assert scores_of(both, arrays) == pytest.approx(expected, abs=1e-12)
    best = both(arrays[0], top=2)[0]
    assert best.labels == tuple(LABELS[place] for place in np.argsort(-expected[0])[:2])
    assert best.probabilities == pytest.approx(np.sort(expected[0])[::-1][:2])


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks(arrays: list[np.ndarray], task: str) -> None:
    one, other = EAGER(network(1, task=task)), EAGER(network(2, task=task))
    expected = (scores_of(one, arrays) + scores_of(other, arrays)) / 2
    both = Ensemble([one, other])
    assert scores_of(both, arrays) == pytest.approx(expected, abs=1e-12)
    told = both(arrays)[0]
    if task == "regression":
        assert [told.values[name] for name in LABELS] == pytest.approx(expected[0], rel=1e-5)
    else:
        assert set(told.labels) == {name for name, share in zip(LABELS, expected[0], strict=True) if share >= 0.5}


def test_members_of_different_preprocessing_and_errors(arrays: list[np.ndarray]) -> None:
    one, other = EAGER(network(1)), EAGER(network(2, size=48))
    named = [(str(at), array) for at, array in enumerate(arrays)]
    named.insert(2, ("bad", ImageError("bad is no image")))  # type: ignore[arg-type]
    found = list(Ensemble([one, other]).stream(iter(named), top=3))
    assert [each.image for each in found] == ["0", "1", "bad", "2", "3", "4"]
    assert found[2].error == "bad is no image"
    expected = (scores_of(one, arrays) + scores_of(other, arrays)) / 2
    assert found[3].probabilities == pytest.approx(np.sort(expected[2])[::-1])
    alike = list(Ensemble([one, EAGER(network(2))]).stream(iter(named)))
    assert [bool(each.error) for each in alike] == [False, False, True, False, False, False]


def test_cross_validation_run_counts_as_one(arrays: list[np.ndarray], tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"run/fold{number}").mkdir(parents=True)
        effnet.save(network(number), tmp_path / f"run/fold{number}/model.safetensors")
    run = tmp_path / "run"
    assert member_models(run) == [run]
    (run / "folds.csv").touch()
    with pytest.raises(ValueError, match="unfinished cross-validation run: finish it with --resume"):
        member_models(run)
    models = ["fold0/model.safetensors", "fold1/model.safetensors"]
    (run / "folds.json").write_text(json.dumps({"models": models, "task": "classification"}))
    assert member_models(run) == [run / name for name in models]
    third = EAGER(network(7))
    mixed = Ensemble([run, third], make_predictor=EAGER)
    assert mixed.weights == [0.25, 0.25, 0.5]
    parts = [scores_of(EAGER(run / name), arrays) for name in models]
    assert scores_of(mixed, arrays) == pytest.approx((parts[0] + parts[1]) / 4 + scores_of(third, arrays) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="no out-of-fold predictions"):
        fit_ensemble_weights([tmp_path / "other", run])


def test_member_of_weight_zero_is_not_computed(arrays: list[np.ndarray]) -> None:
    one, other = EAGER(network(1)), EAGER(network(2))
    other.compute = None  # type: ignore[method-assign, assignment]
    assert scores_of(Ensemble([one, other], [1, 0]), arrays) == pytest.approx(scores_of(one, arrays), abs=1e-12)


def test_invalid_members_and_weights() -> None:
    one = EAGER(network(1))
    for other, reason in (
        (network(2, ("ant", "bee", "fly")), "one of them has no 'wasp'"),
        (network(2, ("ant", "bee")), "the first has 3 .* another 2"),
        (network(2, task="multilabel"), "classification.*multilabel"),
    ):
        with pytest.raises(ValueError, match=reason):
            Ensemble([one, EAGER(other)])
    for weights, reason in (([1], "2 members and 1 weights"), ([0, 0], "not all of them 0"), ([1, -1], "at least 0")):
        with pytest.raises(ValueError, match=reason):
            Ensemble([one, one], weights)
    with pytest.raises(ValueError, match="at least one model"):
        Ensemble([])


# Out-of-fold tables and fitted weights


AB = Labels(("a", "b"))


def oof(answers: object, wanted: object, task: str = "classification", folds: object = None) -> OutOfFold:
    rows, right = np.array(answers, np.float64), np.array(wanted, np.float64)
    names = tuple("abcdefg"[: rows.shape[1]])
    places = np.arange(len(rows)) % 5 if folds is None else np.array(folds)
    return OutOfFold(Labels(names, task), tuple(f"{at}.jpg" for at in range(len(rows))), places, right, rows)


def guessing(count: int, sure: float, seed: int) -> OutOfFold:
    """A model of two classes whose logit for the right one is ``sure`` ± 1; ``seed`` is its own noise."""
    truth = np.random.default_rng(0).integers(0, 2, count)
    logit = (2 * truth - 1) * sure + np.random.default_rng(seed).normal(0, 1, count)
    share = 1 / (1 + np.exp(-logit))
    return oof(np.stack([1 - share, share], 1), np.eye(2)[truth])


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_oof_round_trip(tmp_path: Path, task: str) -> None:
    wanted = {"classification": [[1, 0], [0, 1]], "multilabel": [[1, 1], [0, 0]], "regression": [[1.5, -2], [3, 1e6]]}[
        task
    ]
    given = OutOfFold(Labels(("a, b", "c"), task), ("x.jpg", "é,1"), np.array([1, 0]),
                      np.array(wanted, np.float64), np.array([[0.25, 0.75], [1e-9, 0.1234567]]))  # fmt: skip
    given.write(tmp_path / "oof.csv")
    found = OutOfFold.read(tmp_path / "oof.csv", task)
    assert (found.labels, found.ids) == (given.labels, given.ids)
    assert found.folds.tolist() == [1, 0]
    assert found.targets.tolist() == given.targets.tolist()
    assert found.predictions.tolist() == given.predictions.tolist()
    head, first = (tmp_path / "oof.csv").read_text().splitlines()[:2]
    assert head == 'id,label,fold,"a, b",c'
    assert first.startswith(
        {"classification": 'x.jpg,"a, b",1,0.25', "multilabel": 'x.jpg,"a, b|c",1', "regression": "x.jpg,1.5|-2,1"}[
            task
        ]
    )


def test_invalid_oof_tables(tmp_path: Path) -> None:
    path = tmp_path / "oof.csv"
    for text, reason in (
        ("", "has no out-of-fold predictions"),
        ("id,label,fold\n", "its columns must be id,label,fold and the classes"),
        ("id,label,fold,a,b\nx,c,0,0.5,0.5\n", "is damaged"),
        ("id,label,fold,a,b\nx,a,0,0.5,half\n", "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            OutOfFold.read(path)


def test_oof_metrics() -> None:
    one = oof([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], [[1, 0], [0, 1], [0, 1], [0, 1]]).metrics()
    assert one["top1"] == 0.75
    assert one["loss"] == pytest.approx(-np.log([0.5, 0.8, 0.1, 0.6]).mean())
    several = oof(
        [[0.9, 0.1, 0.3], [0.6, 0.8, 0.3], [0.7, 0.2, 0.3]], [[1, 0, 0], [0, 1, 0], [1, 1, 0]], "multilabel"
    ).metrics()
    assert several["mean_average_precision"] == pytest.approx((1 + 1) / 2)  # class c has no image
    assert several["label_accuracy"] == pytest.approx(7 / 9)
    values = oof([[1.0, 5], [3, 5], [5, 5]], [[2.0, 5], [3, 5], [4, 5]], "regression").metrics()
    assert values["rmse"] == pytest.approx(np.sqrt(2 / 3) / 2)
    assert values["r2"] == pytest.approx(0)
    assert oof([[1.0], [2]], [[1.0], [2]], "regression").metrics() == {"rmse": 0.0, "r2": 1.0}


def test_better_models_get_more_weight() -> None:
    good, bad = guessing(600, 2.0, seed=1), guessing(600, 0.3, seed=2)
    found = fit_weights_on_oof([bad, good])
    assert found.uses_fitted
    assert found.weights == found.fitted
    assert sum(found.weights) == pytest.approx(1)
    assert found.weights[1] > 0.8
    assert found.fitted_loss < found.equal_loss
    assert 0 < found.gain <= found.equal_loss - found.fitted_loss + 1e-9  # less on unseen images
    assert found.member_losses[1] < found.member_losses[0]
    grid = np.linspace(0, 1, 201)  # the lowest of all, by grid search
    tried = [-np.log(((1 - w) * bad.predictions + w * good.predictions)[good.targets == 1]).mean() for w in grid]
    assert found.weights[1] == pytest.approx(grid[int(np.argmin(tried))], abs=0.006)
    assert found.fitted_loss <= min(tried) + 1e-6
    assert "using fitted weights: on 600 out-of-fold images" in found.summary()


def test_equal_weights_if_the_gain_may_be_noise() -> None:
    alike = fit_weights_on_oof([guessing(12, 1.0, seed=3), guessing(12, 1.0, seed=4), guessing(12, 1.0, seed=5)])
    assert not alike.uses_fitted
    assert alike.weights == (1 / 3,) * 3
    assert alike.summary().startswith("using equal weights: ")
    same = fit_weights_on_oof([guessing(50, 1.0, seed=3)] * 2)
    assert same.weights == (0.5, 0.5)
    assert same.gain == pytest.approx(0, abs=1e-9)


def test_weights_for_regression_and_multilabel() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(300, 2)) * [1, 1000]
    near, far = (
        oof(truth + rng.normal(size=truth.shape) * scale * [1, 1000], truth, "regression") for scale in (0.1, 1.0)
    )
    found = fit_weights_on_oof([near, far])
    assert found.uses_fitted
    assert found.weights[0] == pytest.approx(1 / 1.01, abs=0.02)  # inverse variances: 1 / 0.01 and 1 / 1
    wanted = rng.integers(0, 2, (300, 3))
    sharp, dull = (
        oof(np.clip(wanted + rng.normal(0, s, wanted.shape), 0.01, 0.99), wanted, "multilabel") for s in (0.3, 0.8)
    )
    assert fit_weights_on_oof([dull, sharp]).weights[1] > 0.6


def test_rows_and_classes_are_aligned() -> None:
    first, other = guessing(100, 2.0, seed=1), guessing(100, 0.5, seed=2)
    turned = OutOfFold(
        Labels(("b", "a")), other.ids[::-1], other.folds[::-1], other.targets[::-1, ::-1], other.predictions[::-1, ::-1]
    )
    assert fit_weights_on_oof([first, turned]) == fit_weights_on_oof([first, other])


def test_oof_of_other_data() -> None:
    first = guessing(20, 1.0, seed=1)
    for other, reason in (
        (guessing(21, 1.0, seed=1), "not of the same images"),
        (OutOfFold(AB, first.ids, first.folds, 1 - first.targets, first.predictions), "other labels for the same"),
        (OutOfFold(Labels(("a", "c")), first.ids, first.folds, first.targets, first.predictions), "other classes"),
    ):
        with pytest.raises(ValueError, match=reason):
            fit_weights_on_oof([first, other])
    with pytest.raises(ValueError, match="at least two"):
        fit_weights_on_oof([first])
