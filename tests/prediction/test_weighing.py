"""Out-of-fold tables there and back, their figures by hand, and weights that help or are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effnet.contract import Labels
from effnet.prediction.oof import OutOfFold
from effnet.prediction.weighing import fit_weights

AB = Labels(("a", "b"))


def oof(answers: object, wanted: object, kind: str = "one", folds: object = None) -> OutOfFold:
    rows, right = np.array(answers, np.float64), np.array(wanted, np.float64)
    names = tuple("abcdefg"[: rows.shape[1]])
    places = np.arange(len(rows)) % 5 if folds is None else np.array(folds)
    return OutOfFold(Labels(names, kind), tuple(f"{at}.jpg" for at in range(len(rows))), places, right, rows)


def guessing(count: int, sure: float, seed: int) -> OutOfFold:
    """A model of two classes whose logit for the right one is ``sure`` ± 1; ``seed`` is its own noise."""
    truth = np.random.default_rng(0).integers(0, 2, count)
    logit = (2 * truth - 1) * sure + np.random.default_rng(seed).normal(0, 1, count)
    share = 1 / (1 + np.exp(-logit))
    return oof(np.stack([1 - share, share], 1), np.eye(2)[truth])


@pytest.mark.parametrize("kind", ["one", "any", "value"])
def test_there_and_back(tmp_path: Path, kind: str) -> None:
    wanted = {"one": [[1, 0], [0, 1]], "any": [[1, 1], [0, 0]], "value": [[1.5, -2], [3, 1e6]]}[kind]
    given = OutOfFold(Labels(("a, b", "c"), kind), ("x.jpg", "é,1"), np.array([1, 0]),
                      np.array(wanted, np.float64), np.array([[0.25, 0.75], [1e-9, 0.1234567]]))  # fmt: skip
    given.write(tmp_path / "oof.csv")
    found = OutOfFold.read(tmp_path / "oof.csv", kind)
    assert (found.labels, found.ids) == (given.labels, given.ids)
    assert found.folds.tolist() == [1, 0]
    assert found.wanted.tolist() == given.wanted.tolist()
    assert found.answers.tolist() == given.answers.tolist()
    head, first = (tmp_path / "oof.csv").read_text().splitlines()[:2]
    assert head == 'id,label,fold,"a, b",c'
    assert first.startswith({"one": 'x.jpg,"a, b",1,0.25', "any": 'x.jpg,"a, b|c",1', "value": "x.jpg,1.5|-2,1"}[kind])


def test_tables_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "oof.csv"
    for text, reason in (
        ("", "holds no out-of-fold predictions"),
        ("id,label,fold\n", "its columns must be id,label,fold and the classes"),
        ("id,label,fold,a,b\nx,c,0,0.5,0.5\n", "is damaged"),
        ("id,label,fold,a,b\nx,a,0,0.5,half\n", "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            OutOfFold.read(path)


def test_figures_by_hand() -> None:
    one = oof([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], [[1, 0], [0, 1], [0, 1], [0, 1]]).figures()
    assert one["top1"] == 0.75
    assert one["loss"] == pytest.approx(-np.log([0.5, 0.8, 0.1, 0.6]).mean())
    several = oof(
        [[0.9, 0.1, 0.3], [0.6, 0.8, 0.3], [0.7, 0.2, 0.3]], [[1, 0, 0], [0, 1, 0], [1, 1, 0]], "any"
    ).figures()
    assert several["mean_average_precision"] == pytest.approx((1 + 1) / 2)  # class c has no picture
    assert several["labels_right"] == pytest.approx(7 / 9)
    values = oof([[1.0, 5], [3, 5], [5, 5]], [[2.0, 5], [3, 5], [4, 5]], "value").figures()
    assert values["rmse"] == pytest.approx(np.sqrt(2 / 3) / 2)
    assert values["r2"] == pytest.approx(0)
    assert oof([[1.0], [2]], [[1.0], [2]], "value").figures() == {"rmse": 0.0, "r2": 1.0}


def test_better_models_count_more_and_sums_are_one() -> None:
    good, bad = guessing(600, 2.0, seed=1), guessing(600, 0.3, seed=2)
    found = fit_weights([bad, good])
    assert found.kept
    assert found.weights == found.fitted
    assert sum(found.weights) == pytest.approx(1)
    assert found.weights[1] > 0.8
    assert found.fitted_loss < found.equal_loss
    assert 0 < found.gain <= found.equal_loss - found.fitted_loss + 1e-9  # what is unseen gains less
    assert found.alone[1] < found.alone[0]
    grid = np.linspace(0, 1, 201)  # the least of all, tried one by one
    tried = [-np.log(((1 - w) * bad.answers + w * good.answers)[good.wanted == 1]).mean() for w in grid]
    assert found.weights[1] == pytest.approx(grid[int(np.argmin(tried))], abs=0.006)
    assert found.fitted_loss <= min(tried) + 1e-6
    assert "fitted weights are used: on 600 out-of-fold pictures" in found.in_words()


def test_equal_ones_where_a_gain_may_be_chance() -> None:
    alike = fit_weights([guessing(12, 1.0, seed=3), guessing(12, 1.0, seed=4), guessing(12, 1.0, seed=5)])
    assert not alike.kept
    assert alike.weights == (1 / 3,) * 3
    assert alike.in_words().startswith("equal weights are used: ")
    same = fit_weights([guessing(50, 1.0, seed=3)] * 2)
    assert same.weights == (0.5, 0.5)
    assert same.gain == pytest.approx(0, abs=1e-9)


def test_values_and_several_labels() -> None:
    dice = np.random.default_rng(0)
    truth = dice.normal(size=(300, 2)) * [1, 1000]
    near, far = (oof(truth + dice.normal(size=truth.shape) * scale * [1, 1000], truth, "value") for scale in (0.1, 1.0))
    found = fit_weights([near, far])
    assert found.kept
    assert found.weights[0] == pytest.approx(1 / 1.01, abs=0.02)  # by their variances: 1 / 0.01 against 1 / 1
    wanted = dice.integers(0, 2, (300, 3))
    sharp, dull = (
        oof(np.clip(wanted + dice.normal(0, s, wanted.shape), 0.01, 0.99), wanted, "any") for s in (0.3, 0.8)
    )
    assert fit_weights([dull, sharp]).weights[1] > 0.6


def test_rows_and_classes_are_put_in_order() -> None:
    first, other = guessing(100, 2.0, seed=1), guessing(100, 0.5, seed=2)
    turned = OutOfFold(
        Labels(("b", "a")), other.ids[::-1], other.folds[::-1], other.wanted[::-1, ::-1], other.answers[::-1, ::-1]
    )
    assert fit_weights([first, turned]) == fit_weights([first, other])


def test_what_does_not_belong_together() -> None:
    first = guessing(20, 1.0, seed=1)
    for other, reason in (
        (guessing(21, 1.0, seed=1), "other pictures"),
        (OutOfFold(AB, first.ids, first.folds, 1 - first.wanted, first.answers), "other labels for the same"),
        (OutOfFold(Labels(("a", "c")), first.ids, first.folds, first.wanted, first.answers), "other classes"),
    ):
        with pytest.raises(ValueError, match=reason):
            fit_weights([first, other])
    with pytest.raises(ValueError, match="at least two"):
        fit_weights([first])
