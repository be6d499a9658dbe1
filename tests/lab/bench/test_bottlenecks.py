"""Bottlenecks: every step is found, sums add up, and the reasons name the slow groups."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

import effnet
from effnet.lab.bench.bottlenecks import BottleneckReport, find_bottlenecks, summarize_profile
from effnet.lab.bench.profilers import NodeMatcher, Profile, StepKey, step_costs
from effnet.runtime.base import ENGINE_PACKAGES
from effnet.runtime.latency import random_network
from effnet.timing import MachinePeaks

LIMITS = MachinePeaks(1, float32=50e9, bfloat16=100e9, cache=100e9, memory=20e9)


@pytest.mark.parametrize("name", ["b0", "lite0", "edge_s", "v2_s", "nano"])
def test_costs_add_up_to_those_of_count(name: str) -> None:
    counted = effnet.count(name)
    known = step_costs(counted)
    assert sum(cost.macs for cost in known.values()) == counted.macs
    weights = sum(cost.weights for cost in known.values())
    norms = sum(op.channels for row in counted.layers for op, _ in row.operations if op.norm)
    assert weights == counted.params - norms  # batch norm is folded: of its two vectors one bias remains
    assert {cost.group for cost in known.values()} >= {"stem", "pointwise", "activation", "classifier"}


@pytest.mark.parametrize("engine", ["eager", "onnxruntime", "openvino"])
def test_every_engine_adds_up(engine: str) -> None:
    if engine in ENGINE_PACKAGES and not (find_spec(ENGINE_PACKAGES[engine]) and find_spec("onnx")):
        pytest.skip(f"{engine} is not installed")
    model = random_network("nano", classes=7)
    found = find_bottlenecks(model, engine, batch_size=2, threads=1, runs=4, seconds=5)
    assert found.macs == 2 * effnet.count("nano", classes=7).macs
    for parts in (found.stages, found.groups):
        assert sum(part.seconds for part in parts) == pytest.approx(found.seconds)
        assert sum(part.time_fraction for part in parts) == pytest.approx(1)
        assert sum(part.macs_fraction for part in parts) == pytest.approx(1)
        assert sum(part.macs for part in parts) == found.macs
    assert [part.name for part in found.stages if part.macs] == ["stem", "stage1", "stage2", "stage3", "head"]
    assert found.profiled_fraction > 0
    assert 1 <= len(found.reasons) <= 3
    assert BottleneckReport.from_json(found.to_json()) == found


def profile(**slow: float) -> Profile:
    """Make up a profile of B0: every step at a peak of 50 GMAC/s, but ``slow`` groups take these seconds in total."""
    known = {key: cost for key, cost in step_costs(effnet.count("b0")).items() if key.part not in ("padding", "layout")}
    members = {group: sum(cost.group == group for cost in known.values()) for group in slow}
    steps = {
        key: slow[cost.group] / members[cost.group] if cost.group in slow else max(cost.macs / 50e9, 1e-9)
        for key, cost in known.items()
    }
    return Profile(sum(steps.values()), steps)


def test_reasons_name_slow_groups() -> None:
    found = summarize_profile(
        effnet.count("b0"), profile(depthwise=20e-3, activation=9e-3), "eager", "float32", 1, 3, LIMITS
    )
    first, second = found.reasons[:2]
    assert first.startswith("depthwise convolutions: 5")
    assert "for 9.0% of the MACs; 1.4 MACs per byte" in first
    assert second.startswith("activations (SiLU): 2")
    assert "no MACs" in second
    assert not any(reason.startswith("1×1") for reason in found.reasons)


def test_time_between_the_steps_is_a_reason() -> None:
    steps = profile()
    late = Profile(3 * steps.seconds, steps.steps)
    found = summarize_profile(effnet.count("b0"), late, "eager", "float32", 1, 3, LIMITS)
    assert found.profiled_fraction == pytest.approx(1 / 3)
    assert found.reasons[0].startswith("between the steps: 67% of the time")


def test_a_profile_slower_than_the_call_is_scaled_down() -> None:
    steps = profile()
    found = summarize_profile(
        effnet.count("b0"), Profile(steps.seconds / 2, steps.steps), "eager", "float32", 1, 3, LIMITS
    )
    assert found.profiled_fraction == pytest.approx(2)
    assert sum(step.seconds for step in found.steps) == pytest.approx(steps.seconds / 2)


def test_a_profile_without_an_operation_is_refused() -> None:
    steps = {key: took for key, took in profile().steps.items() if key.operation != "head"}
    with pytest.raises(ValueError, match="lacks 1 operations, the first is head"):
        summarize_profile(effnet.count("b0"), Profile(1.0, steps), "eager", "float32", 1, 3, LIMITS)


def test_node_names_of_runtimes() -> None:
    nodes = NodeMatcher(effnet.count("b0"))
    found = nodes.sum_steps(
        [
            ("centered", "", 1.0),
            ("channels_first_abcd_acdb_stem/WithoutBiases", "layout", 2.0),
            ("stem_nchwc", "convolution", 4.0),
            ("stem.silu/QuickGeluFusion/", "", 8.0),
            ("ReorderOutput_token_371", "layout", 16.0),
            ("stage1.0.squeeze_excite.expand.sigmoid_nchwc", "convolution", 32.0),
            ("stage2.1.add", "", 64.0),
            ("logits/WithoutBiases", "convolution", 128.0),
        ]
    )
    assert found == {
        StepKey("input", "input"): 3.0,
        StepKey("stem", "convolution"): 4.0,
        StepKey("stem", "activation"): 8.0,
        StepKey("stem", "layout"): 16.0,
        StepKey("stage1.0.squeeze_excite.expand", "convolution"): 32.0,
        StepKey("stage2.1", "residual"): 64.0,
        StepKey("classifier", "convolution"): 128.0,
    }


def test_invalid_arguments() -> None:
    model = random_network("nano")
    for wrong, message in (
        ({"threads": 0}, "threads"),
        ({"engine": "tensorrt"}, "engine must be one of"),
        ({"engine": "compiled"}, "cannot be profiled"),
        ({"engine": "eager", "precision": "int8"}, "not in int8"),
    ):
        with pytest.raises(ValueError, match=message):
            find_bottlenecks(model, **wrong)  # type: ignore[arg-type]
