"""Medians, quantiles, and the interval of a ratio, on times that are made up."""

from __future__ import annotations

from random import Random

import pytest

from effnet.clock import Timing, ratio


def timing(*seconds: float) -> Timing:
    return Timing(tuple((each,) for each in seconds))


def test_quantiles_lie_between_calls() -> None:
    found = Timing(((5.0, 1.0), (4.0, 2.0), (3.0,)))
    assert (found.seconds, found.fastest, found.slowest, found.runs) == (3.0, 1.0, 5.0, 5)
    assert found.p10 == pytest.approx(1.4)
    assert found.p90 == pytest.approx(4.6)
    assert found.p99 == pytest.approx(4.96)
    assert found.spread == pytest.approx((4 - 2) / 3)
    assert timing(2.0).p99 == 2.0


def test_an_empty_timing_is_refused() -> None:
    for rounds in ((), ((),)):
        with pytest.raises(ValueError, match="at least one"):
            Timing(rounds)


def test_what_disturbs_both_does_not_widen_the_interval() -> None:
    dice = Random(0)
    disturbed = [dice.uniform(1, 3) for _ in range(30)]
    found = ratio(timing(*(2 * each for each in disturbed)), timing(*disturbed))
    assert (found.low, found.value, found.high) == pytest.approx((2, 2, 2))
    shuffled = disturbed[:]
    dice.shuffle(shuffled)
    apart = ratio(timing(*(2 * each for each in disturbed)), timing(*shuffled))
    assert apart.high - apart.low > 0.2


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    dice, held, tries = Random(1), 0, 60
    for _ in range(tries):
        one, other = ([median * dice.lognormvariate(0, 0.2) for _ in range(25)] for median in (3.0, 1.0))
        found = ratio(timing(*one), timing(*other), 0.9)
        assert found.low <= found.value <= found.high
        held += found.low <= 3.0 <= found.high
    assert 0.78 <= held / tries <= 1


def test_the_same_times_give_the_same_interval() -> None:
    one, other = timing(3.0, 3.5, 2.5, 3.1), timing(1.0, 1.2, 0.9, 1.1)
    assert ratio(one, other) == ratio(one, other)
    assert str(ratio(one, one)) == "1.00× (1.00–1.00)"


def test_only_rounds_of_one_contest_compare() -> None:
    with pytest.raises(ValueError, match="rounds"):
        ratio(timing(1.0, 2.0), timing(1.0))
    with pytest.raises(ValueError, match="confidence"):
        ratio(timing(1.0), timing(1.0), 1.0)
