"""Records to JSON and back, and the mistakes that JSON brings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from effnet.arch import ARCHS, Arch, Stage
from effnet.arch.serde import check_choice, check_float, check_int, did_you_mean
from tests.strategies import archs


@pytest.mark.parametrize("arch", ARCHS.values(), ids=ARCHS)
def test_published_archs_survive_json(arch: Arch) -> None:
    back = Arch.from_json(arch.to_json())
    assert back == arch
    assert hash(back) == hash(arch)
    assert Arch.from_json(arch.to_json(indent=2)) == arch
    assert Arch.from_dict(arch.to_dict()) == arch


@given(archs())
def test_any_arch_survives_json(arch: Arch) -> None:
    back = Arch.from_json(arch.to_json())
    assert back == arch
    assert hash(back) == hash(arch)


def test_fields_left_out_take_their_defaults() -> None:
    text = """{"name": "mine", "stages": [
        {"block": "mbconv", "expand": 6, "kernel": 3, "stride": 2, "channels": 24, "layers": 2}]}"""
    assert Arch.from_json(text) == Arch("mine", (Stage("mbconv", 6, 3, 2, 24, 2),))


def changed(**fields: object) -> str:
    return json.dumps({**ARCHS["nano"].to_dict(), **fields})


def with_row(**fields: object) -> str:
    nano = ARCHS["nano"].to_dict()
    return changed(stages=[{**nano["stages"][0], **fields}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid JSON"),
        ("{", "invalid JSON"),
        ("nonsense", "invalid JSON"),
        ("null", "expected an object"),
        ("[]", "expected an object"),
        ('"b0"', "expected an object"),
        ("{}", "name"),
        ('{"name": "x"}', "stages"),
        (changed(widht=1.1), "did you mean width"),
        (changed(zzz=1), "unknown field 'zzz'$"),
        (changed(width="1.0"), "width"),
        (changed(width=float("nan")), "width"),
        (changed(width=float("inf")), "width"),
        (changed(depth=None), "depth"),
        (changed(resolution=224.0), "resolution"),
        (changed(stages=[]), "stages"),
        (changed(stages=5), "stages"),
        (changed(stages="abc"), "stages"),
        (changed(stages=[5]), "expected an object"),
        (changed(stages={"0": {}}), "stages"),
        (with_row(stride=3), "stride"),
        (with_row(kernel=4), "kernel"),
        (with_row(channels=0), "channels"),
        (with_row(layers=True), "layers"),
        (with_row(block=["mbconv"]), "block"),
        (with_row(chanels=8), "did you mean channels"),
    ],
)
def test_wrong_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arch.from_json(text)


def test_hostile_json_is_refused() -> None:
    with pytest.raises(ValueError):
        Arch.from_json("[" * 100_000)


def test_did_you_mean() -> None:
    assert did_you_mean("b33", ["b3", "lite0"]) == "; did you mean b3?"
    assert did_you_mean("zzzz", ["b3", "lite0"]) == ""


def test_checks() -> None:
    check_int("n", 1, 1)
    check_float("x", 0.5, 0, 1)
    check_float("x", 1, 0, 1, exclusive=True)
    check_choice("c", "a", ("a", "b"))
    with pytest.raises(ValueError, match=r"n must be an integer of at least 1, got 0"):
        check_int("n", 0, 1)
    with pytest.raises(ValueError, match=r"x must be above 0 and at most 1, got 0"):
        check_float("x", 0, 0, 1, exclusive=True)
    with pytest.raises(ValueError, match=r"c must be one of a, b, got 'd'"):
        check_choice("c", "d", ("a", "b"))
