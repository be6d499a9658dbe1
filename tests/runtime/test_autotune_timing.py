"""The rules for the fastest engine, with stubs in place of engines and times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import sleep

import numpy as np
import pytest

from effnet.runtime import autotune
from effnet.runtime.base import Engine, FloatArray, ImageBatch
from effnet.runtime.engine_cache import (
    EngineChoice,
    EngineThroughput,
    EngineTiming,
    ExcludedEngine,
    TuningKey,
    TuningRecords,
    VerifiedEngine,
)
from effnet.timing import Timing
from tests.exporting.networks import network

KEY = TuningKey("a CPU", 2, ("avx2",), (("torch", "2"),), 1, None, "float32", None)


def noise_images(count: int = 1) -> ImageBatch:
    return np.random.default_rng(3).integers(0, 256, (count, 32, 32, 3), np.uint8)


class Stub:
    """An engine with a given output and time."""

    metadata = network("nano").metadata
    threads, classes = 1, 3

    def __init__(self, kind: str, precision: str, seconds: float, output: FloatArray) -> None:
        self.kind, self.precision, self.seconds, self.output = kind, precision, seconds, output

    def run(self, images: ImageBatch) -> FloatArray:
        return np.repeat(self.output, len(images), axis=0)

    embed = run

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        self.prepared = batch_size, size


@pytest.fixture
def stub_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the stubs' own times, so that the load of the machine does not matter."""

    def timed(calls: dict[str, partial[FloatArray]], runs: int, calls_per_round: int = 1, **rest: float) -> object:
        return {
            name: Timing(((call.func.__self__.seconds,) * calls_per_round,) * runs)  # type: ignore[attr-defined]
            for name, call in calls.items()
        }

    monkeypatch.setattr(autotune, "time_interleaved", timed)


@pytest.mark.usefixtures("stub_timing")
def test_slow_and_disagreeing_engines() -> None:
    output = np.array([[1, 2, 4]], np.float32)
    reference = Stub("eager", "float32", 0.002, output)
    openers: dict[tuple[str, str], Callable[[], Engine]] = {
        ("eager", "float32"): lambda: reference,
        ("onnxruntime", "float32"): lambda: Stub("onnxruntime", "float32", 0, output + np.float32(1e-3)),
        ("openvino", "float32"): lambda: Stub("openvino", "float32", 0.001, output + np.float32(1e-5)),
        ("openvino", "bfloat16"): lambda: Stub("openvino", "bfloat16", 0.00098, output + np.float32(1e-2)),
        ("litert", "float32"): lambda: Stub("litert", "float32", 0.02, output),
    }
    found, fastest = autotune.autotune(
        openers, reference, KEY, noise_images(), (ExcludedEngine("x", "", "not installed"),)
    )
    assert (found.kind, found.precision) == ("openvino", "float32")  # bfloat16 saves only 2 %
    assert fastest.precision == "float32"
    assert [one.kind for one in found.excluded] == ["x", "onnxruntime"]
    assert found.excluded[1].reason == "its outputs differ by 2.5e-04"
    calls = {(one.kind, one.precision): one.calls for one in found.timings}
    assert calls["litert", "float32"] == 1  # far behind
    assert calls["openvino", "float32"] >= 9
    assert found.timings[-1].kind == "litert"


@pytest.mark.usefixtures("stub_timing")
def test_lower_precision_must_be_faster() -> None:
    output = np.array([[1, 2, 4]], np.float32)
    reference = Stub("eager", "float32", 0.004, output)
    openers: dict[tuple[str, str], Callable[[], Engine]] = {
        ("eager", "float32"): lambda: reference,
        ("openvino", "bfloat16"): lambda: Stub("openvino", "bfloat16", 0.002, output + np.float32(1e-2)),
    }
    found, fastest = autotune.autotune(openers, reference, KEY, noise_images())
    assert fastest.precision == found.precision == "bfloat16"
    assert found.describe() == "openvino, bf16, 2.0 ms; eager 4.0"


def test_long_calls_use_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "MAX_CALL_SECONDS", 0.01)
    slow = Stub("eager", "float32", 0.02, np.ones((1, 3), np.float32))
    run = slow.run
    monkeypatch.setattr(slow, "run", lambda images: (sleep(0.01), run(images))[1])
    found, _ = autotune.autotune(
        {("eager", "float32"): lambda: slow}, slow, replace(KEY, batch_size=8), noise_images(8)
    )
    assert found.batch_size < 8


def test_best_batch_size() -> None:
    assert EngineThroughput(KEY, "eager", "float32", ((1, 50.0), (8, 98.0), (16, 100.0)), "today").best_batch_size == 8


def test_records_to_json() -> None:
    timing = EngineTiming("eager", "float32", 0.0162, 0.016, 0.017, 45, 0.0)
    timings = (EngineTiming("openvino", "bfloat16", 0.0049, 0.0048, 0.005, 45, 0.004), timing)
    choice = EngineChoice(
        KEY, "openvino", "bfloat16", timings, (ExcludedEngine("litert", "", "not installed"),), 1, "today"
    )
    assert choice.describe() == "openvino, bf16, 4.9 ms; eager 16.2"
    records = TuningRecords(
        (choice,),
        (EngineThroughput(KEY, "eager", "float32", ((1, 50.0),), "today"),),
        (VerifiedEngine("eager", "float32", ()),),
    )
    assert TuningRecords.from_json(records.to_json()) == records
