"""The largest network within limits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch import ARCHS, Arch, count, fit, scale
from effnet.arch.budget import PHIS, _line


@given(
    st.sampled_from(["b0", "v2_b0", "nano"]),
    st.fixed_dictionaries(
        {},
        optional={"macs": st.floats(3e7, 1e12), "params": st.floats(4e6, 1e9), "bytes": st.floats(1e6, 1e9)},
    ).filter(bool),
)
@settings(max_examples=60, deadline=None)  # the first call on a line counts all of it
def test_the_largest_within_every_limit(name: str, limits: dict[str, float]) -> None:
    found = count(fit(name, **limits))
    assert all(getattr(found, what) <= limit for what, limit in limits.items())
    larger = [candidate for candidate in _line(ARCHS[name]) if candidate.macs > found.macs]
    if larger:  # the next one breaks a limit
        assert any(getattr(larger[0], what) > limit for what, limit in limits.items())


def test_every_step_of_phi_is_a_candidate() -> None:
    b0 = count(ARCHS["b0"])
    assert fit("b0", macs=b0.macs, params=b0.params) is ARCHS["b0"]
    for phi in (-3.0, 1.0, 2.5):
        wanted = count(scale("b0", phi))
        assert count(fit("b0", macs=wanted.macs)).macs == wanted.macs


def test_line_is_sorted_and_distinct() -> None:
    line = _line(ARCHS["b0"])
    costs = [(candidate.macs, candidate.params) for candidate in line]
    assert costs == sorted(set(costs))
    assert 100 < len(line) <= len(PHIS)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "needs a limit"),
        ({"macs": 1}, r"smallest has [\d,]+ macs where 1 are allowed"),
        ({"params": 1000, "bytes": 10}, "params where 1,000 are allowed, .* bytes where 10 are allowed"),
        ({"macs": 0}, "macs"),
        ({"macs": -1e9}, "macs"),
        ({"macs": float("nan")}, "macs"),
        ({"params": "5M"}, "params"),
        ({"bytes": True}, "bytes"),
        ({"costs": [(lambda arch: 1.0, 0.5)]}, "costs"),
    ],
)
def test_fit_refuses(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit("b0", **limits)


@pytest.mark.parametrize("limit", [0.02, 0.4, 10.0, 500.0])
def test_dear_costs_are_asked_for_seldom(limit: float) -> None:
    asked: dict[str, float] = {}

    def seconds(arch: Arch) -> float:
        assert arch.name not in asked
        asked[arch.name] = count(arch).macs / 1e9
        return asked[arch.name]

    found = fit("b0", costs=[(seconds, limit)])
    assert len(asked) <= 12
    assert asked[found.name] <= limit
    larger = [candidate for candidate in _line(ARCHS["b0"]) if candidate.macs > count(found).macs]
    assert not larger or larger[0].macs / 1e9 > limit


def test_cost_and_limit_together() -> None:
    assert fit("b0", macs=5e8, costs=[(lambda arch: 0.0, 1.0)]) == fit("b0", macs=5e8)
    both = fit("b0", macs=5e8, costs=iter([(lambda arch: count(arch).params / 1e6, 4.0)]))
    assert count(both).params <= 4e6
    assert count(both).macs <= 5e8


def test_several_costs() -> None:
    found = fit("b0", costs=[(lambda arch: count(arch).macs, 1e9), (lambda arch: count(arch).params, 5e6)])
    assert count(found) == count(fit("b0", macs=1e9, params=5e6))


def test_a_scaled_arch_keeps_its_line() -> None:
    assert count(fit(scale("b0", 1), macs=2e9)).macs <= 2e9


def test_a_very_wide_arch_has_a_line_too() -> None:
    wide = Arch("wide", ARCHS["nano"].stages, width=40.0, resolution=32)
    assert count(fit(wide, macs=1e9)).macs <= 1e9
