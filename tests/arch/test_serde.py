"""Records to JSON and back, and the mistakes that JSON brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from effnet.arch import ARCHS, Arch, Stage, serde
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
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("nonsense", "is not JSON"),
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


DEEP = ("[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 50_000, '[{"a": ' * 101)


@pytest.mark.parametrize("text", [*DEEP, "[" * 102 + "]" * 102], ids=range(5))
def test_deep_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^run\.json is (nested more than 100 levels|not JSON)") as caught:
        serde.parse_json(text, "run.json")
    assert len(str(caught.value)) < 200


def test_json_of_the_depth_that_models_have() -> None:
    value = serde.parse_json('{"a": ' + "[" * 99 + "]" * 99 + "}", "config.json")
    assert list(value) == ["a"]
    assert serde.parse_json(b'\xef\xbb\xbf{"a": [1]}', "config.json") == {"a": [1]}  # as editors on Windows write it
    assert serde.parse_json('{"a": 1}'.encode("utf-16"), "config.json") == {"a": 1}


@pytest.mark.parametrize("content", [b"\xff\xfe\xfd", b"", b"{", b'{"a": 1}}', b"1" * 5000, b'"\xff"'])
def test_what_is_no_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is not JSON \("):
        serde.read_json(tmp_path / "run.json")


def test_files_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"epochs": "3"}')
    assert serde.read_json_object(path, lambda found: int(found["epochs"])) == 3
    with pytest.raises(ValueError, match=r"run\.json: damaged, or of another version \(it has no 'seed'\)"):
        serde.read_json_object(path, lambda found: found["seed"])
    with pytest.raises(ValueError, match=r"run\.json: damaged"):
        serde.read_json_object(path, lambda found: tuple(found["epochs"]["a"]))
    monkeypatch.setattr(serde, "MAX_JSON_BYTES", 10)
    with pytest.raises(ValueError, match=r"run\.json: more than"):
        serde.read_json(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"run\.json: not a JSON object, but list"):
        serde.read_json_object(path, dict)


def test_all_json_is_read_by_one_function() -> None:
    root = Path(serde.__file__).parents[1]
    found = {
        str(path.relative_to(root)): line.strip()
        for path in root.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if ("json.loads(" in line or "json.load(" in line) and "json.loads(json.dumps(" not in line
    }
    assert set(found) == {
        "arch/serde.py",
        "lab/bench/profilers.py",
    }  # the second reads what onnxruntime has just written
