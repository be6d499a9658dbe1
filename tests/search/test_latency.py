"""Latency as a cost: the engine that is chosen, what is timed, what is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from effnet.arch import ARCHS, Arch, count, fit, scale
from effnet.clock import Timing
from effnet.engines.engine import Engine, installed
from effnet.exporting import contest
from effnet.exporting.origin import FILES
from effnet.search import Latency, Measured, latency
from effnet.weights.fetch.places import store

NANO = ARCHS["nano"]
MODULE = import_module("effnet.search.latency")  # in its room the function has the name


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(contest, "SECONDS", 0.05)
    monkeypatch.setattr(MODULE, "SECONDS", 0.05)


def test_a_network_is_timed_in_the_fastest_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    hold = contest.hold

    def watched(*arguments: object) -> object:
        chosen = hold(*arguments)  # type: ignore[arg-type]
        held.append(chosen[0])
        return chosen

    monkeypatch.setattr(MODULE, "hold", watched)
    cost = latency(threads=1)
    seconds = cost(NANO)
    (choice,) = held
    (found,) = cost.measured
    assert {one.kind for one in choice.contestants} | {one.kind for one in choice.left_out} == {
        *("eager",),
        *(set(installed()) & set(FILES)),
    }
    assert found.kind == choice.kind == choice.contestants[0].kind
    assert (choice.question.threads, choice.question.precision, choice.question.batch) == (1, "float32", 1)
    assert seconds == found.timing.seconds
    # the contest timed the same engine; a machine that does other things too may take a few times as long
    assert choice.contestants[0].seconds / 5 < seconds < choice.contestants[0].seconds * 5
    assert found.kind in found.in_words()
    assert not (store() / "engines").exists()  # whose place is for networks that people use


def test_a_larger_network_and_a_larger_batch_take_longer() -> None:
    one, eight = latency(threads=1), latency(threads=1, batch=8)
    large = scale("nano", 4)
    assert count(large).macs > 15 * count(NANO).macs
    assert one(large) > 2 * one(NANO)
    assert eight(NANO) > 1.5 * one.measured[1].timing.seconds
    assert [each.arch for each in one.measured] == [large, NANO]


class Steady:
    """An engine that answers at once, for pictures of the right shape alone."""

    kind, precision, threads, classes = "eager", "float32", 1, 5

    def __init__(self, contract: object) -> None:
        self.contract, self.seen = contract, set[tuple[int, ...]]()

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        assert (batch, size) == (3, None)

    def run(self, pictures: np.ndarray) -> np.ndarray:
        self.seen.add(pictures.shape)
        return np.zeros((len(pictures), self.classes), np.float32)


def test_of_goes_that_are_disturbed_the_fastest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    goes: Iterator[Timing] = iter(
        [Timing(((1.0,), (3.0,), (5.0,))), Timing(((2.0,), (2.5,))), Timing(((4.0,), (5.0,)))]
    )
    monkeypatch.setattr(MODULE, "contest", lambda *_, **__: {"": next(goes)})
    steady: list[Steady] = []

    def fastest(self: Latency, model: object, folder: Path) -> tuple[Engine, np.ndarray]:
        steady.append(Steady(model.contract))  # type: ignore[attr-defined]
        return steady[0], np.zeros((3, 32, 32, 3), np.uint8)  # type: ignore[return-value]

    monkeypatch.setattr(Latency, "_fastest", fastest)
    cost = Latency(batch=3)
    assert cost(NANO) == 2.25
    assert next(goes, None) is None

    calm = iter([Timing(((1.1,), (1.11,))), Timing(((1.0,), (1.01,)))])  # two of these are enough
    monkeypatch.setattr(MODULE, "contest", lambda *_, **__: {"": next(calm)})
    assert cost(NANO) == 1.005


def test_told_as_it_is_measured() -> None:
    told: list[Measured] = []
    cost = Latency(1, told=told.append)
    cost(NANO)
    assert told == cost.measured


def test_engines_that_are_far_behind_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    hold = contest.hold

    def watched(ways: dict[tuple[str, str], object], *rest: object) -> object:
        tried.append({kind for kind, _ in ways})
        return hold(ways, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(MODULE, "hold", watched)
    monkeypatch.setattr(MODULE, "CLOSE", 1.0)
    cost = latency(threads=1)
    cost(NANO)
    cost(NANO)
    assert tried[1] <= {"eager", cost.measured[0].kind} < tried[0] | {"eager"} or len(tried) < 2


def test_fit_keeps_to_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: Latency, arch: Arch) -> Measured:
        return Measured(arch, "eager", Timing(((0.001 + count(arch).macs / 20e9,),)))

    monkeypatch.setattr(Latency, "_measure", measure)
    cost = latency(threads=2)
    found = fit("b0", costs=[(cost, 0.020)])
    assert len(cost.measured) <= 6
    assert 0.0194 <= next(one.timing.seconds for one in cost.measured if one.arch == found) <= 0.020


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": -1}, {"batch": 0}, {"threads": True}])
def test_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        latency(**wrong)
