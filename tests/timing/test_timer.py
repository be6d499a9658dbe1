"""Medians, quantiles and ratios of made-up times; interleaved calls under a fake clock."""

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
    assert (found.seconds, found.fastest, found.runs) == (3.0, 1.0, 5)
    assert found.p10 == pytest.approx(1.4)
    assert found.p90 == pytest.approx(4.6)
    assert found.p99 == pytest.approx(4.96)
    assert found.spread == pytest.approx((4 - 2) / 3)
    assert timing(2.0).p99 == 2.0


def test_an_empty_timing_is_refused() -> None:
    for rounds in ((), ((),)):
        with pytest.raises(ValueError, match="at least one"):
            Timing(rounds)


def test_a_common_disturbance_does_not_widen_the_interval() -> None:
    random = Random(0)
    disturbed = [random.uniform(1, 3) for _ in range(30)]
    found = time_ratio(timing(*(2 * each for each in disturbed)), timing(*disturbed))
    assert (found.low, found.value, found.high) == pytest.approx((2, 2, 2))
    shuffled = disturbed[:]
    random.shuffle(shuffled)
    unpaired = time_ratio(timing(*(2 * each for each in disturbed)), timing(*shuffled))
    assert unpaired.high - unpaired.low > 0.2


def test_the_interval_has_its_coverage() -> None:
    random, covered, tries = Random(1), 0, 60
    for _ in range(tries):
        one, other = ([median * random.lognormvariate(0, 0.2) for _ in range(25)] for median in (3.0, 1.0))
        found = time_ratio(timing(*one), timing(*other), 0.9)
        assert found.low <= found.value <= found.high
        covered += found.low <= 3.0 <= found.high
    assert 0.78 <= covered / tries <= 1


def test_the_same_times_give_the_same_interval() -> None:
    one, other = timing(3.0, 3.5, 2.5, 3.1), timing(1.0, 1.2, 0.9, 1.1)
    assert time_ratio(one, other) == time_ratio(one, other)
    assert str(time_ratio(one, one)) == "1.00× (1.00–1.00)"


def test_timings_of_different_rounds_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="rounds"):
        time_ratio(timing(1.0, 2.0), timing(1.0))
    with pytest.raises(ValueError, match="confidence"):
        time_ratio(timing(1.0), timing(1.0), 1.0)


MODULE = sys.modules["effnet.timing.timer"]


class Clock:
    """A clock that advances only while a call runs or sleeps."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def make_call(self, name: str, seconds: float) -> TimedCall:
        def call() -> None:
            self.log += name
            self.now += seconds

        return call

    def sleep(self, seconds: float) -> None:
        self.log += "."
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(MODULE, "perf_counter", lambda: fake.now)
    monkeypatch.setattr(MODULE, "sleep", fake.sleep)
    return fake


def test_calls_alternate(clock: Clock) -> None:
    found = time_interleaved({"a": clock.make_call("a", 1.0), "b": clock.make_call("b", 2.0)}, runs=3, warmup_runs=1)
    assert clock.log == "ab" + "ab" + "ba" + "ab"
    assert {name: timing.seconds for name, timing in found.items()} == {"a": 1.0, "b": 2.0}
    assert found["a"].rounds == ((1.0,), (1.0,), (1.0,))


def test_a_short_call_is_repeated_untimed_after_a_pause(clock: Clock) -> None:
    calls = {"a": clock.make_call("a", 0.01), "b": clock.make_call("b", 60.0)}
    found = time_interleaved(calls, runs=1, warmup_runs=1, calls_per_round=2, pause=THREAD_POOL_PAUSE)
    assert clock.log == "ab" + ".aaa" + ".bb"
    assert found["a"].runs == found["b"].runs == 2
    assert found["a"].seconds == pytest.approx(0.01)


def test_no_round_starts_after_the_time_limit(clock: Clock) -> None:
    reports: list[tuple[int, int]] = []
    calls = {"a": clock.make_call("a", 1.0)}
    found = time_interleaved(
        calls, runs=50, warmup_runs=0, seconds=4.5, progress=lambda done, total: reports.append((done, total))
    )
    assert found["a"].runs == 5
    assert reports[-1] == (5, 50)
    assert time_interleaved(calls, runs=50, warmup_runs=0, seconds=0.1)["a"].runs == 3


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"warmup_runs": -1}, {"calls_per_round": 0}, {"pause": -1.0}])
def test_invalid_arguments(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        time_interleaved({"a": lambda: None}, **wrong)
