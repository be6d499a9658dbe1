"""Latency as a cost: the chosen engine, the timed processes, the engine cache that stays untouched."""

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
from effnet.runtime.base import installed_engines
from effnet.runtime.engine_cache import ENGINE_FILES
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
MODULE = import_module("effnet.runtime.latency")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run everything in this process, and time it briefly."""

    def run_here(call: Callable[..., object], *arguments: object) -> ProcessResult[object]:
        return ProcessResult(call(*arguments), 0.0, 0, 0)

    monkeypatch.setattr("effnet.timing.child_process.run_in_subprocess", run_here)
    monkeypatch.setattr(autotune, "TIMING_SECONDS", 0.05)
    monkeypatch.setattr(MODULE, "TIMING_SECONDS", 0.05)


def test_subprocesses() -> None:
    """Without stubs: two new processes, the second of which opens the first one's file."""
    cost = latency(threads=1)
    seconds = cost(NANO)
    (found,) = cost.measurements
    assert found.arch == NANO
    assert 0 < found.timing.p10 <= seconds <= found.timing.p90
    assert found.timing.runs >= 3
    assert not (writable_cache_dir() / "engines").exists()


@pytest.mark.usefixtures("in_this_process")
def test_uses_the_fastest_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = []
    original = autotune.autotune

    def recorded(*arguments: object) -> object:
        chosen = original(*arguments)  # type: ignore[arg-type]
        choices.append(chosen[0])
        return chosen

    monkeypatch.setattr(autotune, "autotune", recorded)
    cost = latency(threads=1)
    seconds = cost(NANO)
    (choice,) = choices
    (found,) = cost.measurements
    assert {one.kind for one in choice.timings} | {one.kind for one in choice.excluded} == {
        *("eager",),
        *(set(installed_engines()) & set(ENGINE_FILES)),
    }
    assert found.engine == choice.kind == choice.timings[0].kind
    assert (choice.key.threads, choice.key.precision, choice.key.batch_size) == (1, "float32", 1)
    assert seconds == found.timing.seconds
    assert found.engine in found.describe()


@pytest.mark.usefixtures("in_this_process")
def test_larger_networks_and_batches() -> None:
    one, eight = latency(threads=1), latency(threads=1, batch_size=8)
    large = scale("nano", 4)
    assert count(large).macs > 15 * count(NANO).macs
    assert one(large) > one(NANO)
    assert eight(NANO) > one.measurements[1].timing.seconds
    assert [each.arch for each in one.measurements] == [large, NANO]


@pytest.mark.parametrize(
    ("seconds", "expected"), [([1.1, 1.0], 1.0), ([1.0, 1.05], 1.0), ([1.0, 2.0, 1.8], 1.8), ([2.0, 1.0, 0.9], 1.0)]
)
def test_third_process_if_the_others_differ(
    seconds: list[float], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    remaining = [Timing(((each,),)) for each in seconds]
    calls = []

    def process(call: Callable[..., object], task: LatencyTask, kinds: object) -> ProcessResult[object]:
        calls.append((call, kinds))
        assert (task.arch, task.classes, task.channels, task.batch_size, task.threads) == (NANO, 5, 1, 3, 2)
        assert task.folder.is_dir()
        timing = remaining.pop(0)
        return ProcessResult(
            FastestEngine("litert", ("litert",), timing) if call is time_fastest_engine else timing, 0.0, 0, 0
        )

    monkeypatch.setattr("effnet.timing.child_process.run_in_subprocess", process)
    cost = Latency(2, batch_size=3, classes=5, channels=1)
    assert cost(NANO) == expected
    assert remaining == []
    assert calls == [
        (time_fastest_engine, tuple(kind for kind in installed_engines() if kind in ENGINE_FILES)),
        *[(time_engine, "litert")] * (len(seconds) - 1),
    ]


def test_second_measurement_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    def measure(self: Latency, arch: Arch) -> LatencyMeasurement:
        advance(10)
        return LatencyMeasurement(arch, "eager", Timing(((now,),)))

    monkeypatch.setattr(MODULE, "monotonic", lambda: now)
    monkeypatch.setattr(MODULE, "sleep", advance)
    monkeypatch.setattr(Latency, "_measure", measure)
    cost = latency()
    assert [cost(arch) for arch in (NANO, ARCHS["b0"], NANO, ARCHS["b0"])] == [10, 20, 65, 75]
    advance(100)
    assert cost(NANO) == 185


def test_time_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "TIMING_SECONDS", 0.05)
    task = LatencyTask(NANO, 5, 3, 2, 1, tmp_path)
    assert time_engine(task, "eager").seconds > 0
    assert not list(tmp_path.iterdir())
    assert time_engine(task, "onnxruntime").seconds > 0
    assert (tmp_path / ENGINE_FILES["onnxruntime"]).exists()
    monkeypatch.setattr(MODULE, "random_network", None)  # its file exists
    assert time_engine(task, "onnxruntime").seconds > 0


def test_eager_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "TIMING_SECONDS", 0.05)
    fastest = time_fastest_engine(LatencyTask(NANO, 5, 3, 1, 1, tmp_path), ())
    assert (fastest.engine, fastest.close_kinds) == ("eager", ())
    assert fastest.timing.seconds > 0


@pytest.mark.usefixtures("in_this_process")
def test_on_measured() -> None:
    measured: list[LatencyMeasurement] = []
    cost = Latency(1, on_measured=measured.append)
    cost(NANO)
    assert measured == cost.measurements


@pytest.mark.usefixtures("in_this_process")
def test_slow_engines_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    original = autotune.autotune

    def recorded(openers: dict[tuple[str, str], object], *rest: object) -> object:
        tried.append({kind for kind, _ in openers})
        return original(openers, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(autotune, "autotune", recorded)
    monkeypatch.setattr(MODULE, "MAX_SLOWDOWN", 1.0)
    monkeypatch.setattr(MODULE, "SECONDS_BETWEEN_MEASUREMENTS", 0.0)
    cost = latency(threads=1)
    cost(NANO)
    cost(NANO)
    assert tried[1] <= {"eager", cost.measurements[0].engine} < tried[0] | {"eager"} or len(tried) < 2


def test_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: Latency, arch: Arch) -> LatencyMeasurement:
        return LatencyMeasurement(arch, "eager", Timing(((0.001 + count(arch).macs / 20e9,),)))

    monkeypatch.setattr(Latency, "_measure", measure)
    monkeypatch.setattr(MODULE, "SECONDS_BETWEEN_MEASUREMENTS", 0.0)
    cost = latency(threads=2)
    found = fit("b0", costs=[(cost, 0.020)])
    assert len(cost.measurements) <= 7
    assert 0.0194 <= next(one.timing.seconds for one in cost.measurements if one.arch == found) <= 0.020


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": -1}, {"batch_size": 0}, {"threads": True}])
def test_invalid_arguments(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        latency(**wrong)


@pytest.mark.parametrize("name", ["b0", "b4", "lite4", "v2_s"])
def test_random_network_outputs(name: str) -> None:
    """Activations keep typical magnitudes at any depth."""
    model = random_network(name, classes=10)
    side = ARCHS[name].resolution // 2
    images = torch.randint(256, (1, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    x = normalize(images, model.preprocess)
    with torch.inference_mode():
        single, exact = model(x), model.double()(x.double())
    assert exact.abs().max() < 50  # with statistics of other noise 266 for B4, and 2 % rounding error for B7
    assert (single - exact).abs().max() < 1e-5 * exact.abs().max()
