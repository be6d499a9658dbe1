"""Latency as a cost: the engine that is chosen, what is timed, what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from effnet.arch import ARCHS, Arch, count, fit, scale
from effnet.data.preprocessing import normalize
from effnet.data.storage.cache_dir import writable_cache_dir
from effnet.runtime import autotune
from effnet.runtime.autotune import ENGINE_FILES
from effnet.runtime.base import installed_engines
from effnet.runtime.latency import (
    FastestEngine,
    Latency,
    LatencyMeasurement,
    LatencyTask,
    latency,
    random_network,
    time_engine,
    time_fastest_engine,
)
from effnet.timing import Timing
from effnet.timing.child_process import ProcessResult

NANO = ARCHS["nano"]


MODULE = import_module("effnet.runtime.latency")  # in its room the function has the name


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in this process, and timed for a moment."""

    def here(call: Callable[..., object], *arguments: object) -> ProcessResult[object]:
        return ProcessResult(call(*arguments), 0.0, 0, 0)

    monkeypatch.setattr("effnet.timing.child_process.run_in_subprocess", here)
    monkeypatch.setattr(autotune, "TIMING_SECONDS", 0.05)
    monkeypatch.setattr(MODULE, "TIMING_SECONDS", 0.05)


def test_processes_of_their_own_time_a_network() -> None:
    """No word is stubbed: two new processes, the second of which opens the first one's file."""
    cost = latency(threads=1)
    seconds = cost(NANO)
    (found,) = cost.measurements
    assert found.arch == NANO
    assert 0 < found.timing.p10 <= seconds <= found.timing.p90
    assert found.timing.runs >= 3
    assert not (writable_cache_dir() / "engines").exists()  # whose place is for networks that people use


@pytest.mark.usefixtures("quick")
def test_a_network_is_timed_in_the_fastest_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    hold = autotune.autotune

    def watched(*arguments: object) -> object:
        chosen = hold(*arguments)  # type: ignore[arg-type]
        held.append(chosen[0])
        return chosen

    monkeypatch.setattr(autotune, "autotune", watched)
    cost = latency(threads=1)
    seconds = cost(NANO)
    (choice,) = held
    (found,) = cost.measurements
    assert {one.kind for one in choice.timings} | {one.kind for one in choice.excluded} == {
        *("eager",),
        *(set(installed_engines()) & set(ENGINE_FILES)),
    }
    assert found.engine == choice.kind == choice.timings[0].kind
    assert (choice.key.threads, choice.key.precision, choice.key.batch_size) == (1, "float32", 1)
    assert seconds == found.timing.seconds
    assert found.engine in found.describe()


@pytest.mark.usefixtures("quick")
def test_a_larger_network_and_a_larger_batch_take_longer() -> None:
    one, eight = latency(threads=1), latency(threads=1, batch_size=8)
    large = scale("nano", 4)
    assert count(large).macs > 15 * count(NANO).macs
    assert one(large) > one(NANO)
    assert eight(NANO) > one.measurements[1].timing.seconds
    assert [each.arch for each in one.measurements] == [large, NANO]


@pytest.mark.parametrize(
    ("taken", "counts"), [([1.1, 1.0], 1.0), ([1.0, 1.05], 1.0), ([1.0, 2.0, 1.8], 1.8), ([2.0, 1.0, 0.9], 1.0)]
)
def test_processes_that_differ_are_asked_for_another(
    taken: list[float], counts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [Timing(((seconds,),)) for seconds in taken]
    seen = []

    def process(call: Callable[..., object], asked: LatencyTask, told: object) -> ProcessResult[object]:
        seen.append((call, told))
        assert (asked.arch, asked.classes, asked.channels, asked.batch_size, asked.threads) == (NANO, 5, 1, 3, 2)
        assert asked.folder.is_dir()
        timing = left.pop(0)
        return ProcessResult(
            FastestEngine("litert", ("litert",), timing) if call is time_fastest_engine else timing, 0.0, 0, 0
        )

    monkeypatch.setattr("effnet.timing.child_process.run_in_subprocess", process)
    cost = Latency(2, batch_size=3, classes=5, channels=1)
    assert cost(NANO) == counts
    assert left == []
    assert seen == [
        (time_fastest_engine, tuple(kind for kind in installed_engines() if kind in ENGINE_FILES)),
        *[(time_engine, "litert")] * (len(taken) - 1),
    ]


def test_a_network_that_is_asked_for_again_is_measured_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    def measure(self: Latency, arch: Arch) -> LatencyMeasurement:
        pass_by(10)
        return LatencyMeasurement(arch, "eager", Timing(((now,),)))

    monkeypatch.setattr(MODULE, "monotonic", lambda: now)
    monkeypatch.setattr(MODULE, "sleep", pass_by)
    monkeypatch.setattr(Latency, "_measure", measure)
    cost = latency()
    assert [cost(arch) for arch in (NANO, ARCHS["b0"], NANO, ARCHS["b0"])] == [10, 20, 65, 75]
    pass_by(100)
    assert cost(NANO) == 185


def test_the_winner_is_opened_alone_with_or_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "TIMING_SECONDS", 0.05)
    asked = LatencyTask(NANO, 5, 3, 2, 1, tmp_path)
    assert time_engine(asked, "eager").seconds > 0
    assert not list(tmp_path.iterdir())
    assert time_engine(asked, "onnxruntime").seconds > 0
    assert (tmp_path / ENGINE_FILES["onnxruntime"]).exists()
    monkeypatch.setattr(MODULE, "random_network", None)  # its file is there
    assert time_engine(asked, "onnxruntime").seconds > 0


def test_without_other_engines_eager_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "TIMING_SECONDS", 0.05)
    raced = time_fastest_engine(LatencyTask(NANO, 5, 3, 1, 1, tmp_path), ())
    assert (raced.engine, raced.close_kinds) == ("eager", ())
    assert raced.timing.seconds > 0


@pytest.mark.usefixtures("quick")
def test_told_as_it_is_measured() -> None:
    told: list[LatencyMeasurement] = []
    cost = Latency(1, on_measured=told.append)
    cost(NANO)
    assert told == cost.measurements


@pytest.mark.usefixtures("quick")
def test_engines_that_are_far_behind_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    hold = autotune.autotune

    def watched(ways: dict[tuple[str, str], object], *rest: object) -> object:
        tried.append({kind for kind, _ in ways})
        return hold(ways, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(autotune, "autotune", watched)
    monkeypatch.setattr(MODULE, "MAX_SLOWDOWN", 1.0)
    cost = latency(threads=1)
    cost(NANO)
    cost(NANO)
    assert tried[1] <= {"eager", cost.measurements[0].engine} < tried[0] | {"eager"} or len(tried) < 2


def test_fit_keeps_to_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: Latency, arch: Arch) -> LatencyMeasurement:
        return LatencyMeasurement(arch, "eager", Timing(((0.001 + count(arch).macs / 20e9,),)))

    monkeypatch.setattr(Latency, "_measure", measure)
    monkeypatch.setattr(MODULE, "SECONDS_BETWEEN_MEASUREMENTS", 0.0)
    cost = latency(threads=2)
    found = fit("b0", costs=[(cost, 0.020)])
    assert len(cost.measurements) <= 7
    assert 0.0194 <= next(one.timing.seconds for one in cost.measurements if one.arch == found) <= 0.020


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": -1}, {"batch_size": 0}, {"threads": True}])
def test_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        latency(**wrong)


# Random networks that are timed: their numbers stay of a usual size, however deep they are.


@pytest.mark.parametrize("name", ["b0", "b4", "lite4", "v2_s"])
def test_answers_to_noise_are_exact(name: str) -> None:
    model = random_network(name, classes=10)
    side = ARCHS[name].resolution // 2
    pictures = torch.randint(256, (1, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = normalize(pictures, model.preprocess)
    with torch.inference_mode():
        single, exact = model(x), model.double()(x.double())
    assert exact.abs().max() < 50  # settled on other noise B4's came to 266, and B7's rounding to 2 % of them
    assert (single - exact).abs().max() < 1e-5 * exact.abs().max()
