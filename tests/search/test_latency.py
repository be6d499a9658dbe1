"""Latency as a cost: the engine that is chosen, what is timed, what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from effnet.arch import ARCHS, Arch, count, fit, scale
from effnet.clock import Timing
from effnet.clock.fresh import Fresh
from effnet.engines.engine import installed
from effnet.exporting import contest
from effnet.exporting.origin import FILES
from effnet.search import Latency, Measured, latency
from effnet.search.latency import Asked, Raced, again, race
from effnet.weights.fetch.places import store

NANO = ARCHS["nano"]
MODULE = import_module("effnet.search.latency")  # in its room the function has the name


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in this process, and timed for a moment."""

    def here(call: Callable[..., object], *arguments: object) -> Fresh[object]:
        return Fresh(call(*arguments), 0.0, 0, 0)

    monkeypatch.setattr(MODULE, "in_fresh_process", here)
    monkeypatch.setattr(contest, "SECONDS", 0.05)
    monkeypatch.setattr(MODULE, "SECONDS", 0.05)


def test_processes_of_their_own_time_a_network() -> None:
    """No word is stubbed: two new processes, the second of which opens the first one's file."""
    cost = latency(threads=1)
    seconds = cost(NANO)
    (found,) = cost.measured
    assert found.arch == NANO
    assert 0 < found.timing.p10 <= seconds <= found.timing.p90
    assert found.timing.runs >= 3
    assert not (store() / "engines").exists()  # whose place is for networks that people use


@pytest.mark.usefixtures("quick")
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


@pytest.mark.usefixtures("quick")
def test_a_larger_network_and_a_larger_batch_take_longer() -> None:
    one, eight = latency(threads=1), latency(threads=1, batch=8)
    large = scale("nano", 4)
    assert count(large).macs > 15 * count(NANO).macs
    assert one(large) > 2 * one(NANO)
    assert eight(NANO) > 1.5 * one.measured[1].timing.seconds
    assert [each.arch for each in one.measured] == [large, NANO]


@pytest.mark.parametrize(
    ("taken", "counts"), [([1.1, 1.0], 1.0), ([1.0, 1.05], 1.0), ([1.0, 2.0, 1.8], 1.8), ([2.0, 1.0, 0.9], 1.0)]
)
def test_processes_that_differ_are_asked_for_another(
    taken: list[float], counts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [Timing(((seconds,),)) for seconds in taken]
    seen = []

    def process(call: Callable[..., object], asked: Asked, told: object) -> Fresh[object]:
        seen.append((call, told))
        assert (asked.arch, asked.classes, asked.channels, asked.batch, asked.threads) == (NANO, 5, 1, 3, 2)
        assert asked.folder.is_dir()
        timing = left.pop(0)
        return Fresh(Raced("litert", ("litert",), timing) if call is race else timing, 0.0, 0, 0)

    monkeypatch.setattr(MODULE, "in_fresh_process", process)
    cost = Latency(2, batch=3, classes=5, channels=1)
    assert cost(NANO) == counts
    assert left == []
    assert seen == [
        (race, tuple(kind for kind in installed() if kind in FILES)),
        *[(again, "litert")] * (len(taken) - 1),
    ]


def test_a_network_that_is_asked_for_again_is_measured_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    def measure(self: Latency, arch: Arch) -> Measured:
        pass_by(10)
        return Measured(arch, "eager", Timing(((now,),)))

    monkeypatch.setattr(MODULE, "monotonic", lambda: now)
    monkeypatch.setattr(MODULE, "sleep", pass_by)
    monkeypatch.setattr(Latency, "_measure", measure)
    cost = latency()
    assert [cost(arch) for arch in (NANO, ARCHS["b0"], NANO, ARCHS["b0"])] == [10, 20, 65, 75]
    pass_by(100)
    assert cost(NANO) == 185


def test_the_winner_is_opened_alone_with_or_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "SECONDS", 0.05)
    asked = Asked(NANO, 5, 3, 2, 1, tmp_path)
    assert again(asked, "eager").seconds > 0
    assert not list(tmp_path.iterdir())
    assert again(asked, "onnxruntime").seconds > 0
    assert (tmp_path / FILES["onnxruntime"]).exists()
    monkeypatch.setattr(MODULE, "random_network", None)  # its file is there
    assert again(asked, "onnxruntime").seconds > 0


def test_without_other_engines_eager_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "SECONDS", 0.05)
    raced = race(Asked(NANO, 5, 3, 1, 1, tmp_path), ())
    assert (raced.kind, raced.close) == ("eager", ())
    assert raced.timing.seconds > 0


@pytest.mark.usefixtures("quick")
def test_told_as_it_is_measured() -> None:
    told: list[Measured] = []
    cost = Latency(1, told=told.append)
    cost(NANO)
    assert told == cost.measured


@pytest.mark.usefixtures("quick")
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
    monkeypatch.setattr(MODULE, "APART", 0.0)
    cost = latency(threads=2)
    found = fit("b0", costs=[(cost, 0.020)])
    assert len(cost.measured) <= 7
    assert 0.0194 <= next(one.timing.seconds for one in cost.measured if one.arch == found) <= 0.020


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": -1}, {"batch": 0}, {"threads": True}])
def test_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        latency(**wrong)
