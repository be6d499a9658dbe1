"""Several models as one: their labels reconciled by name, their answers the weighted mean."""

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
from effnet.data import PictureError
from effnet.prediction.ensemble import Ensemble, models_of, weigh

EAGER = partial(Predictor, engine="eager")
LABELS = ("ant", "bee", "wasp")


def network(seed: int, labels: Sequence[str] = LABELS, kind: str = "one", size: int = 32) -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = effnet.create("nano", classes=len(labels))
    made.labels = effnet.Labels(tuple(labels), kind)
    made.preprocess = replace(made.preprocess, size=(size, size))
    return made.eval()


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    dice = np.random.default_rng(0)
    return [dice.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(5)]


def answered(predictor: Predictor | Ensemble, arrays: list[np.ndarray]) -> np.ndarray:
    return np.stack([row for _, row in predictor.answers((str(at), one) for at, one in enumerate(arrays))])


def test_the_weighted_mean_by_labels_names(arrays: list[np.ndarray]) -> None:
    one, other = EAGER(network(1)), EAGER(network(2, ("wasp", "ant", "bee")))
    expected = 0.75 * answered(one, arrays) + 0.25 * answered(other, arrays)[:, [1, 2, 0]]
    both = Ensemble([one, other], [3, 1])
    assert both.labels.names == LABELS
    assert answered(both, arrays) == pytest.approx(expected, abs=1e-12)
    best = both(arrays[0], top=2)[0]
    assert best.labels == tuple(LABELS[place] for place in np.argsort(-expected[0])[:2])
    assert best.probabilities == pytest.approx(np.sort(expected[0])[::-1][:2])


@pytest.mark.parametrize("kind", ["any", "value"])
def test_other_kinds(arrays: list[np.ndarray], kind: str) -> None:
    one, other = EAGER(network(1, kind=kind)), EAGER(network(2, kind=kind))
    expected = (answered(one, arrays) + answered(other, arrays)) / 2
    both = Ensemble([one, other])
    assert answered(both, arrays) == pytest.approx(expected, abs=1e-12)
    told = both(arrays)[0]
    if kind == "value":
        assert [told.values[name] for name in LABELS] == pytest.approx(expected[0], rel=1e-5)
    else:
        assert set(told.labels) == {name for name, share in zip(LABELS, expected[0], strict=True) if share >= 0.5}


def test_members_that_see_pictures_differently_and_errors(arrays: list[np.ndarray]) -> None:
    one, other = EAGER(network(1)), EAGER(network(2, size=48))
    named = [(str(at), array) for at, array in enumerate(arrays)]
    named.insert(2, ("bad", PictureError("bad is no picture")))  # type: ignore[arg-type]
    found = list(Ensemble([one, other]).stream(iter(named), top=3))
    assert [each.picture for each in found] == ["0", "1", "bad", "2", "3", "4"]
    assert found[2].error == "bad is no picture"
    expected = (answered(one, arrays) + answered(other, arrays)) / 2
    assert found[3].probabilities == pytest.approx(np.sort(expected[2])[::-1])
    alike = list(Ensemble([one, EAGER(network(2))]).stream(iter(named)))
    assert [bool(each.error) for each in alike] == [False, False, True, False, False, False]


def test_a_run_of_folds_counts_as_one(arrays: list[np.ndarray], tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"run/fold{number}").mkdir(parents=True)
        effnet.save(network(number), tmp_path / f"run/fold{number}/model.safetensors")
    run = tmp_path / "run"
    assert models_of(run) == [run]
    (run / "folds.csv").touch()
    with pytest.raises(ValueError, match="not finished: go on with it by --resume"):
        models_of(run)
    models = ["fold0/model.safetensors", "fold1/model.safetensors"]
    (run / "folds.json").write_text(json.dumps({"models": models, "kind": "one"}))
    assert models_of(run) == [run / name for name in models]
    third = EAGER(network(7))
    mixed = Ensemble([run, third], make=EAGER)
    assert mixed.weights == [0.25, 0.25, 0.5]
    parts = [answered(EAGER(run / name), arrays) for name in models]
    assert answered(mixed, arrays) == pytest.approx((parts[0] + parts[1]) / 4 + answered(third, arrays) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="no out-of-fold predictions"):
        weigh([tmp_path / "other", run])


def test_a_member_without_weight_is_not_asked(arrays: list[np.ndarray]) -> None:
    one, other = EAGER(network(1)), EAGER(network(2))
    other.compute = None  # type: ignore[method-assign, assignment]
    assert answered(Ensemble([one, other], [1, 0]), arrays) == pytest.approx(answered(one, arrays), abs=1e-12)


def test_refusals() -> None:
    one = EAGER(network(1))
    for other, reason in (
        (network(2, ("ant", "bee", "fly")), "one of them has no 'wasp'"),
        (network(2, ("ant", "bee")), "the first has 3 .* another 2"),
        (network(2, kind="any"), "kind 'one'.*kind 'any'"),
    ):
        with pytest.raises(ValueError, match=reason):
            Ensemble([one, EAGER(other)])
    for weights, reason in (([1], "2 members and 1 weights"), ([0, 0], "not all of them 0"), ([1, -1], "at least 0")):
        with pytest.raises(ValueError, match=reason):
            Ensemble([one, one], weights)
    with pytest.raises(ValueError, match="at least one model"):
        Ensemble([])
