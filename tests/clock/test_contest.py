"""Contestants that take turns, on a clock that the test turns."""

from __future__ import annotations

import sys

import pytest

import effnet.clock  # noqa: F401
from effnet.clock import PAUSE, Contestant, contest

MODULE = sys.modules["effnet.clock.contest"]


class Clock:
    """Time that passes only while somebody works or sleeps."""

    def __init__(self) -> None:
        self.now, self.told = 0.0, ""

    def contestant(self, name: str, seconds: float) -> Contestant:
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
    found = contest({"a": clock.contestant("a", 1.0), "b": clock.contestant("b", 2.0)}, runs=3, warm_up=1)
    assert clock.told == "ab" + "ab" + "ba" + "ab"
    assert {name: timing.seconds for name, timing in found.items()} == {"a": 1.0, "b": 2.0}
    assert found["a"].rounds == ((1.0,), (1.0,), (1.0,))


def test_a_pause_is_followed_by_a_call_that_is_not_timed_where_it_is_short(clock: Clock) -> None:
    takers = {"a": clock.contestant("a", 0.01), "b": clock.contestant("b", 60.0)}
    found = contest(takers, runs=1, warm_up=1, consecutive=2, pause=PAUSE)
    assert clock.told == "ab" + ".aaa" + ".bb"
    assert found["a"].runs == found["b"].runs == 2
    assert found["a"].seconds == pytest.approx(0.01)


def test_no_round_begins_after_its_time(clock: Clock) -> None:
    heard: list[tuple[int, int]] = []
    takers = {"a": clock.contestant("a", 1.0)}
    found = contest(takers, runs=50, warm_up=0, seconds=4.5, progress=lambda done, total: heard.append((done, total)))
    assert found["a"].runs == 5
    assert heard[-1] == (5, 50)
    assert contest(takers, runs=50, warm_up=0, seconds=0.1)["a"].runs == 3


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"warm_up": -1}, {"consecutive": 0}, {"pause": -1.0}])
def test_refusals(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        contest({"a": lambda: None}, **wrong)
