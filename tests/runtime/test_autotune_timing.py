"""Who wins a contest of engines, and what is written down of it."""

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

QUESTION = TuningKey("a CPU", 2, ("avx2",), (("torch", "2"),), 1, None, "float32", None)


def noise(count: int = 1) -> ImageBatch:
    return np.random.default_rng(3).integers(0, 256, (count, 32, 32, 3), np.uint8)


class Stub:
    """An engine that answers what it is told to, and is said to take so many seconds."""

    metadata = network("nano").metadata
    threads, classes = 1, 3

    def __init__(self, kind: str, precision: str, seconds: float, answer: FloatArray) -> None:
        self.kind, self.precision, self.seconds, self.answer = kind, precision, seconds, answer

    def run(self, pictures: ImageBatch) -> FloatArray:
        return np.repeat(self.answer, len(pictures), axis=0)

    embed = run

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        self.prepared = batch, size


@pytest.fixture
def by_their_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stubs are timed by what they say: no load on the machine changes who wins."""

    def timed(contestants: dict[str, partial[FloatArray]], runs: int, consecutive: int = 1, **rest: float) -> object:
        return {
            name: Timing(((call.func.__self__.seconds,) * consecutive,) * runs)  # type: ignore[attr-defined]
            for name, call in contestants.items()
        }

    monkeypatch.setattr(autotune, "time_interleaved", timed)


@pytest.mark.usefixtures("by_their_word")
def test_who_is_far_behind_or_off_is_not_timed() -> None:
    answer = np.array([[1, 2, 4]], np.float32)
    reference = Stub("eager", "float32", 0.002, answer)
    ways: dict[tuple[str, str], Callable[[], Engine]] = {
        ("eager", "float32"): lambda: reference,
        ("onnxruntime", "float32"): lambda: Stub("onnxruntime", "float32", 0, answer + np.float32(1e-3)),
        ("openvino", "float32"): lambda: Stub("openvino", "float32", 0.001, answer + np.float32(1e-5)),
        ("openvino", "bfloat16"): lambda: Stub("openvino", "bfloat16", 0.00098, answer + np.float32(1e-2)),
        ("litert", "float32"): lambda: Stub("litert", "float32", 0.02, answer),
    }
    found, winner = autotune.autotune(ways, reference, QUESTION, noise(), (ExcludedEngine("x", "", "not here"),))
    assert (found.kind, found.precision) == ("openvino", "float32")  # fewer bits for 2 % of the time: not worth it
    assert winner.precision == "float32"
    assert [one.kind for one in found.excluded] == ["x", "onnxruntime"]
    assert found.excluded[1].reason == "its outputs differ by 2.5e-04"
    calls = {(one.kind, one.precision): one.calls for one in found.timings}
    assert calls["litert", "float32"] == 1  # far behind
    assert calls["openvino", "float32"] >= 9
    assert found.timings[-1].kind == "litert"


@pytest.mark.usefixtures("by_their_word")
def test_fewer_bits_where_they_are_worth_it() -> None:
    answer = np.array([[1, 2, 4]], np.float32)
    reference = Stub("eager", "float32", 0.004, answer)
    ways: dict[tuple[str, str], Callable[[], Engine]] = {
        ("eager", "float32"): lambda: reference,
        ("openvino", "bfloat16"): lambda: Stub("openvino", "bfloat16", 0.002, answer + np.float32(1e-2)),
    }
    found, winner = autotune.autotune(ways, reference, QUESTION, noise())
    assert winner.precision == found.precision == "bfloat16"
    assert found.describe() == "openvino, bf16, 2.0 ms; eager 4.0"


def test_long_calls_are_timed_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "MAX_CALL_SECONDS", 0.01)
    slow = Stub("eager", "float32", 0.02, np.ones((1, 3), np.float32))
    monkeypatch.setattr(slow, "run", lambda pictures: sleep(0.01) or np.ones((len(pictures), 3), np.float32))
    found, _ = autotune.autotune({("eager", "float32"): lambda: slow}, slow, replace(QUESTION, batch_size=8), noise(8))
    assert found.batch_size < 8


def test_the_best_batch_is_the_smallest_that_is_as_good() -> None:
    assert (
        EngineThroughput(QUESTION, "eager", "float32", ((1, 50.0), (8, 98.0), (16, 100.0)), "today").best_batch_size
        == 8
    )


def test_records_go_to_json_and_back() -> None:
    contestant = EngineTiming("eager", "float32", 0.0162, 0.016, 0.017, 45, 0.0)
    others = (EngineTiming("openvino", "bfloat16", 0.0049, 0.0048, 0.005, 45, 0.004), contestant)
    made = EngineChoice(
        QUESTION, "openvino", "bfloat16", others, (ExcludedEngine("litert", "", "not here"),), 1, "today"
    )
    assert made.describe() == "openvino, bf16, 4.9 ms; eager 16.2"
    all_ = TuningRecords(
        (made,),
        (EngineThroughput(QUESTION, "eager", "float32", ((1, 50.0),), "today"),),
        (VerifiedEngine("eager", "float32", ()),),
    )
    assert TuningRecords.from_json(all_.to_json()) == all_
