"""Medians, quantiles, and the interval of a ratio, on times that are made up."""

from __future__ import annotations

import sys
from random import Random

import pytest

import effnet.timing  # noqa: F401
from effnet.timing import THREAD_POOL_PAUSE, TimedCall, Timing, time_interleaved, time_ratio


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
    found = time_ratio(timing(*(2 * each for each in disturbed)), timing(*disturbed))
    assert (found.low, found.value, found.high) == pytest.approx((2, 2, 2))
    shuffled = disturbed[:]
    dice.shuffle(shuffled)
    apart = time_ratio(timing(*(2 * each for each in disturbed)), timing(*shuffled))
    assert apart.high - apart.low > 0.2


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    dice, held, tries = Random(1), 0, 60
    for _ in range(tries):
        one, other = ([median * dice.lognormvariate(0, 0.2) for _ in range(25)] for median in (3.0, 1.0))
        found = time_ratio(timing(*one), timing(*other), 0.9)
        assert found.low <= found.value <= found.high
        held += found.low <= 3.0 <= found.high
    assert 0.78 <= held / tries <= 1


def test_the_same_times_give_the_same_interval() -> None:
    one, other = timing(3.0, 3.5, 2.5, 3.1), timing(1.0, 1.2, 0.9, 1.1)
    assert time_ratio(one, other) == time_ratio(one, other)
    assert str(time_ratio(one, one)) == "1.00× (1.00–1.00)"


def test_only_rounds_of_one_contest_compare() -> None:
    with pytest.raises(ValueError, match="rounds"):
        time_ratio(timing(1.0, 2.0), timing(1.0))
    with pytest.raises(ValueError, match="confidence"):
        time_ratio(timing(1.0), timing(1.0), 1.0)


# Contestants that take turns, on a clock that the test turns.


MODULE = sys.modules["effnet.timing.timer"]


class Clock:
    """Time that passes only while somebody works or sleeps."""

    def __init__(self) -> None:
        self.now, self.told = 0.0, ""

    def contestant(self, name: str, seconds: float) -> TimedCall:
        def call() -> None:
            self.told += name
            self.now += seconds

        return call

    def sleep(self, seconds: float) -> None:
        self.told += "."
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(MODULE, "perf_counter", lambda: made.now)
    monkeypatch.setattr(MODULE, "sleep", made.sleep)
    return made


def test_they_alternate(clock: Clock) -> None:
    found = time_interleaved({"a": clock.contestant("a", 1.0), "b": clock.contestant("b", 2.0)}, runs=3, warmup_runs=1)
    assert clock.told == "ab" + "ab" + "ba" + "ab"
    assert {name: timing.seconds for name, timing in found.items()} == {"a": 1.0, "b": 2.0}
    assert found["a"].rounds == ((1.0,), (1.0,), (1.0,))


def test_a_pause_is_followed_by_a_call_that_is_not_timed_where_it_is_short(clock: Clock) -> None:
    takers = {"a": clock.contestant("a", 0.01), "b": clock.contestant("b", 60.0)}
    found = time_interleaved(takers, runs=1, warmup_runs=1, calls_per_round=2, pause=THREAD_POOL_PAUSE)
    assert clock.told == "ab" + ".aaa" + ".bb"
    assert found["a"].runs == found["b"].runs == 2
    assert found["a"].seconds == pytest.approx(0.01)


def test_no_round_begins_after_its_time(clock: Clock) -> None:
    heard: list[tuple[int, int]] = []
    takers = {"a": clock.contestant("a", 1.0)}
    found = time_interleaved(
        takers, runs=50, warmup_runs=0, seconds=4.5, progress=lambda done, total: heard.append((done, total))
    )
    assert found["a"].runs == 5
    assert heard[-1] == (5, 50)
    assert time_interleaved(takers, runs=50, warmup_runs=0, seconds=0.1)["a"].runs == 3


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"warm_up": -1}, {"consecutive": 0}, {"pause": -1.0}])
def test_refusals(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        time_interleaved({"a": lambda: None}, **wrong)
