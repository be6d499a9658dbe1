from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from effnet.contract import Labels
from effnet.data import Item, Pictures
from effnet.data.order import WINDOW, Order

GREY = np.zeros((4, 4, 3), np.uint8)


def pictures(*labels: object, kind: str = "one", weights: tuple[float, ...] = ()) -> Pictures:
    given = weights or (1.0,) * len(labels)
    items = (Item(GREY, label, str(n), weight) for n, (label, weight) in enumerate(zip(labels, given, strict=True)))  # type: ignore[arg-type]
    return Pictures(tuple(items), Labels(("a", "b", "c"), kind))


PLAIN = pictures(*[0, 1, 2] * 34, 0)  # 103


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_no_picture_twice_and_none_missing(ranks: int) -> None:
    orders = [Order(PLAIN, 16, 7, rank, ranks) for rank in range(ranks)]
    alone = list(Order(PLAIN, 16, 7).batches(3))
    shares = [list(order.batches(3)) for order in orders]
    assert {len(order) for order in orders} == {len(alone)} == {7}
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        assert np.array_equal(np.concatenate(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sorted(np.concatenate(alone)) == list(range(103))
    assert {len(batch) for batch in alone} == {14, 15}


def test_only_seed_and_epoch_decide() -> None:
    def all(seed: int, epoch: int) -> list[int]:
        found: list[int] = Order(PLAIN, 16, seed).all(epoch).tolist()
        return found

    assert all(1, 2) == all(1, 2)
    assert all(1, 2) != all(1, 3) != all(2, 3)
    later = [batch.tolist() for batch in Order(PLAIN, 16, 1).batches(2, start=4)]
    assert later == [batch.tolist() for batch in Order(PLAIN, 16, 1).batches(2)][4:]


def test_what_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="batches of 1 pictures cannot be shared among 3 processes: give larger"):
        Order(PLAIN, 2, 0, 0, 3)
    with pytest.raises(ValueError, match="batches of 3 pictures cannot be shared among 4 processes"):
        Order(pictures(0, 1, 2), 16, 0, 0, 4)
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1"):
        Order(PLAIN, 0, 0)


# Even -------------------------------------------------------------------------------------------------------------


def test_classes_come_equally_often() -> None:
    labels = [0] * 89 + [1] * 10 + [2]
    order = Order(pictures(*labels), 10, 0, even=True)
    rounds = [order.all(epoch) for epoch in range(4)]
    for drawn in rounds:
        assert len(drawn) == 100
        assert set(np.bincount(np.array(labels)[drawn])) <= {33, 34}
        times = Counter(drawn.tolist())
        assert {times[n] for n in range(89, 99)} <= {3, 4}  # each of its class as often as the others
        assert max(times[n] for n in range(89)) == 1
    assert not np.array_equal(rounds[0], rounds[1])
    assert len({int(n) for drawn in rounds for n in drawn if n < 89}) > 60  # others every time


def test_weights_count_within_a_class() -> None:
    weighted = pictures(0, 0, 0, 1, 1, 1, weights=(1, 0, 3, 1, 1, 1))
    found = np.bincount(np.concatenate([Order(weighted, 6, 0, even=True).all(epoch) for epoch in range(400)]))
    assert found[1] == 0
    assert found[:3].sum() == found[3:].sum() == 1200
    assert found[2] / found[0] == pytest.approx(3, rel=0.1)


def test_other_kinds_of_labels() -> None:
    several = pictures((0, 1), (0,), (0,), (), (0,), (2,), kind="any")
    found = np.bincount(np.concatenate([Order(several, 6, 0, even=True).all(epoch) for epoch in range(600)]))
    assert found[[1, 2, 4]] == pytest.approx(found[[1, 2, 4]].mean(), rel=0.2)
    assert found[5] == pytest.approx(found[3], rel=0.15)  # alone in its class, and in that of none
    assert found[0] > found[5] > found[1] * 2
    values = pictures((0.5,), (1.5,), (9.0,), kind="value", weights=(1, 1, 4))
    found = np.bincount(np.concatenate([Order(values, 3, 0, even=True).all(epoch) for epoch in range(200)]))
    assert found.tolist() == [pytest.approx(100, rel=0.2), pytest.approx(100, rel=0.2), 400]


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0), (1.0, float("nan"))])
def test_weights_that_are_none(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="the weights of pictures must be numbers of 0 or more, and not all of them 0"):
        Order(pictures(0, 1, weights=weights), 2, 0, even=True)


# Archives ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stored:
    archive: object
    name: str = ""

    def read(self) -> bytes:
        return b""


@pytest.mark.parametrize("even", [False, True])
def test_pictures_of_an_archive_come_together(even: bool) -> None:
    archives = [object() for _ in range(10)]
    numbers = np.repeat(np.arange(10), 20)
    items = tuple(Item(Stored(archives[number]), int(number) % 3, str(number)) for number in numbers)
    order = Order(Pictures(items, Labels(("a", "b", "c"))), 7, 0, even=even)
    for epoch in range(3):
        drawn = order.all(epoch)
        if not even:
            assert sorted(drawn) == list(range(200))
            windows = [set(numbers[drawn[start : start + 20 * WINDOW]]) for start in range(0, 200, 20 * WINDOW)]
            assert [len(window) for window in windows] == [4, 4, 2]
        turns = numbers[drawn]
        spans = [np.flatnonzero(turns == number) for number in range(10)]
        assert max(span[-1] - span[0] for span in spans) < 20 * WINDOW * (1.6 if even else 1)
        assert np.mean(turns[1:] != turns[:-1]) > 0.5  # shuffled among each other
    assert not np.array_equal(order.all(0), order.all(1))
