"""Folds and hold-outs: complete, stratified for every task, groups whole, independent of order."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data import ImageDataset, Item, holdout
from effnet.data.splits import make_folds
from effnet.metadata import Labels

BLANK = np.zeros((4, 4, 3), np.uint8)


def single(*counts: int, groups: list[str] | None = None) -> ImageDataset:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    groups = groups or [""] * len(labels)
    pairs = zip(labels, groups, strict=True)
    items = (Item(BLANK, label, f"{at}", group=group) for at, (label, group) in enumerate(pairs))
    return ImageDataset(tuple(items), Labels(tuple(f"c{label}" for label in range(len(counts)))))


def multilabel(count: int, classes: int, seed: int = 0) -> ImageDataset:
    """Multi-label images, of which one in c + 2 has class c."""
    rng = np.random.default_rng(seed)
    rows = rng.random((count, classes)) < 1 / (np.arange(classes) + 2)
    items = (Item(BLANK, tuple(np.flatnonzero(row).tolist()), f"{at}") for at, row in enumerate(rows))
    return ImageDataset(tuple(items), Labels(tuple(f"c{label}" for label in range(classes)), "multilabel"))


def regression(count: int) -> ImageDataset:
    rng = np.random.default_rng(0)
    items = (Item(BLANK, (float(value),), f"{at}") for at, value in enumerate(rng.lognormal(size=count)))
    return ImageDataset(tuple(items), Labels(("price",), "regression"))


def names(dataset: ImageDataset) -> set[str]:
    return {item.name for item in dataset.items}


def assert_partition(dataset: ImageDataset, found: list[tuple[ImageDataset, ImageDataset]]) -> None:
    held = Counter(item.name for _, val in found for item in val.items)
    assert held == Counter(item.name for item in dataset.items)
    for train, val in found:
        assert names(train) == names(dataset) - names(val)
        groups = [{item.group for item in part.items} - {""} for part in (train, val)]
        assert not groups[0] & groups[1]


def test_folds_are_stratified() -> None:
    dataset = single(23, 40, 7, 5)
    found = make_folds(dataset, 5, seed=0)
    assert_partition(dataset, found)
    counts = np.array([val.class_counts() for _, val in found])
    assert (counts.max(0) - counts.min(0)).max() == 1
    assert counts[:, 3].tolist() == [1] * 5
    assert [len(val) for _, val in found] == [15] * 5


def test_folds_depend_on_seed_and_names() -> None:
    dataset = single(20, 30)
    first = [names(val) for _, val in make_folds(dataset, 4, seed=0)]
    assert first == [names(val) for _, val in make_folds(dataset.subset(reversed(range(50))), 4, seed=0)]
    assert first != [names(val) for _, val in make_folds(dataset, 4, seed=1)]


def test_multilabel_folds_are_stratified() -> None:
    dataset = multilabel(400, 12)
    found = make_folds(dataset, 5, seed=0)
    assert_partition(dataset, found)
    shares = np.array([val.class_counts() for _, val in found]) / np.array(dataset.class_counts())
    assert np.abs(shares - 0.2).max() < 0.03
    at_random = np.array_split(np.random.default_rng(0).permutation(400), 5)
    chance = np.array([dataset.subset(part).class_counts() for part in at_random]) / np.array(dataset.class_counts())
    assert np.abs(shares - 0.2).mean() < np.abs(chance - 0.2).mean() / 4
    assert max(len(val) for _, val in found) - min(len(val) for _, val in found) <= 20


def test_values_are_stratified_by_their_quantiles() -> None:
    dataset = regression(200)
    found = make_folds(dataset, 5, seed=3)
    assert_partition(dataset, found)
    tenths = np.quantile(dataset.target_matrix, np.arange(1, 10) / 10)
    counts = np.array([np.bincount(np.digitize(val.target_matrix[:, 0], tenths), minlength=10) for _, val in found])
    assert counts.tolist() == [[4] * 10] * 5
    assert [len(val) for _, val in found] == [40] * 5


def test_groups_stay_whole_and_classes_balanced() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{rng.integers(40)}" for _ in range(300)]
    dataset = single(200, 100, groups=groups)
    found = make_folds(dataset, 5, seed=0)
    assert_partition(dataset, found)
    shares = np.array([val.class_counts() for _, val in found]) / np.array(dataset.class_counts())
    assert np.abs(shares - 0.2).max() < 0.05


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "", "x", "y", "z"])), min_size=8, max_size=40),
    st.integers(2, 4),
    st.integers(0, 5),
)
def test_folds_are_complete(rows: list[tuple[int, str]], count: int, seed: int) -> None:
    items = tuple(Item(BLANK, label, f"{at}", group=group) for at, (label, group) in enumerate(rows))
    dataset = ImageDataset(items, Labels(("a", "b", "c", "d")))
    there = len({item.group or item.name for item in items})
    if there < count:
        with pytest.raises(ValueError, match="too few for"):
            make_folds(dataset, count, seed)
        return
    found = make_folds(dataset, count, seed)
    assert_partition(dataset, found)
    assert len(found) == count
    assert all(len(val) for _, val in found)


def test_predefined_folds(caplog: pytest.LogCaptureFixture) -> None:
    dataset = single(3, 3, groups=["", "", "", "", "t", "t"])
    folds = (2, 5, None, 2, 5, 2)
    items = (replace(item, fold=fold) for item, fold in zip(dataset.items, folds, strict=True))
    own = replace(dataset, items=tuple(items))
    with caplog.at_level(logging.INFO, "effnet"):
        found = make_folds(own, 5, seed=0)
    assert [sorted(names(val)) for _, val in found] == [["0", "3", "5"], ["1", "4"]]
    assert all("2" in names(train) for train, _ in found)
    assert "using the 2 folds of the data" in caplog.text
    assert "1 group is in several folds of the data, such as 't'" in caplog.text
    lone = replace(dataset, items=tuple(replace(item, fold=1) for item in dataset.items))
    with pytest.raises(ValueError, match="at least two folds"):
        make_folds(lone, 5, seed=0)


def test_folds_refusals() -> None:
    with pytest.raises(ValueError, match="folds must be an integer of at least 2"):
        make_folds(single(5, 5), 1, seed=0)
    with pytest.raises(ValueError, match="4 images are too few for 5 folds"):
        make_folds(single(2, 2), 5, seed=0)
    with pytest.raises(ValueError, match="2 groups are too few for 5 folds"):
        make_folds(single(5, 5, groups=["x", "y"] * 5), 5, seed=0)


def test_holdout_never_changes() -> None:
    held = holdout(single(20, 10, 3), 0.25, seed=7)[1]  # since the first version
    assert [item.name for item in held.items] == ["0", "2", "5", "15", "16", "20", "25", "31"]


def test_holdout_keeps_groups_whole() -> None:
    rng = np.random.default_rng(1)
    dataset = single(120, 80, groups=[f"g{rng.integers(50)}" if at % 3 else "" for at in range(200)])
    kept, held = holdout(dataset, 0.2, seed=0)
    assert_partition(dataset, [(kept, held), (held, kept)])
    assert held.class_counts() == pytest.approx((24, 16), abs=3)
    shuffled = dataset.subset(rng.permutation(200))
    assert names(holdout(shuffled, 0.2, seed=0)[1]) == names(held)
    assert names(holdout(dataset, 0.2, seed=1)[1]) != names(held)


def test_holdout_of_multilabel_and_regression() -> None:
    dataset = multilabel(300, 8)
    kept, held = holdout(dataset, 0.2, seed=0)
    assert len(kept) + len(held) == 300
    assert np.array(held.class_counts()) / np.array(dataset.class_counts()) == pytest.approx(np.full(8, 0.2), abs=0.04)
    kept, held = holdout(regression(100), 0.2, seed=0)
    assert len(held) == 20
    assert np.median(held.target_matrix) == pytest.approx(np.median(kept.target_matrix), rel=0.3)


def test_holdout_of_rare_labels() -> None:
    rare = single(30, 2, groups=["x"] * 2 + [""] * 30)
    kept, held = holdout(rare, 0.2, seed=0)
    assert kept.class_counts()[1] == held.class_counts()[1] == 1
    one_group = single(12, 4, groups=[""] * 12 + ["all of it"] * 4)
    kept, held = holdout(one_group, 0.5, seed=0)
    assert kept.class_counts()[1] == 4
    with pytest.raises(ValueError, match="none of the 2 groups of images can be held out"):
        holdout(single(4, 4, groups=["a"] * 4 + ["b"] * 4), 0.5, seed=0)
    two = single(4, 4, groups=["a", "a", "b", "b"] * 2)
    kept, held = holdout(two, 0.2, seed=0)
    assert len(kept) == len(held) == 4
