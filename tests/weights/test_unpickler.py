"""Pickles are read without running anything in them, and cost no more than their length."""

from __future__ import annotations

import copyreg
import importlib
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from effnet.weights.formats.stand_ins import DamagedPickleError, Name, StandIn
from effnet.weights.formats.unpickler import Budget, InertUnpickler

PLAIN = {
    "none": None,
    "numbers": [
        0,
        1,
        255,
        256,
        65535,
        65536,
        -1,
        2**31,
        -(2**31),
        2**40,
        -(2**70),
        1.5,
        -0.0,
        float("inf"),
        True,
        False,
    ],
    "texts": ["", "a", "ü", "\n'\\", "x" * 300],
    "bytes": [b"", b"a", bytes(300)],
    "containers": {"a": [1, (2, 3), (), (4,), (5, 6, 7, 8)], "b": {}, 3: [], None: [[]], 1.5: {"c": None}},
}


def read(data: bytes) -> Any:
    return InertUnpickler(data).load()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_are_themselves(name: str, protocol: int) -> None:
    assert read(pickle.dumps(PLAIN[name], protocol)) == PLAIN[name]


@pytest.mark.parametrize("protocol", range(6))
def test_containers_of_the_standard_library(protocol: int) -> None:
    content = [OrderedDict(a=1, b=2), Counter("aab"), defaultdict(list, x=[3]), {4, 5}, frozenset({6})]
    ordered, counter, default, some, frozen = read(pickle.dumps(content, protocol))
    assert (ordered, counter, default) == ({"a": 1, "b": 2}, {"a": 2, "b": 1}, {"x": [3]})
    assert (sorted(some), list(frozen)) == ([4, 5], [6])


@pytest.mark.parametrize("protocol", range(6))
def test_what_contains_itself(protocol: int) -> None:
    content: dict[str, Any] = {}
    content["itself"] = [content]
    found = read(pickle.dumps(content, protocol))
    assert found["itself"][0] is found


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Slotted:
    __slots__ = ("y",)

    def __init__(self, y: int) -> None:
        self.y = y


class Mapping(dict[str, int]): ...


class Sequence(list[int]): ...


@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_become_stand_ins(protocol: int) -> None:
    mapping = Mapping(a=1)
    mapping.b = 2  # type: ignore[attr-defined]
    content = [Point(1), Slotted(2), mapping, Sequence([3, 4]), datetime(2026, 11, 30), Path("a/b"), Point]
    point, slotted, made, sequence, date, path, kind = read(pickle.dumps(content, protocol))
    assert all(isinstance(each, StandIn) for each in (point, slotted, made, sequence, date, path))
    assert (point.kind, point.attributes) == (f"{__name__}.Point", {"x": 1})
    assert slotted.attributes == {"y": 2}
    assert (made.items, made.attributes) == ({"a": 1}, {"b": 2})
    assert sequence.entries == [3, 4]
    assert date.kind == "datetime.datetime"
    assert path.arguments == ("a", "b")
    assert isinstance(kind, Name)
    assert str(kind) == f"{__name__}.Point"


# Pickles that would run a program --------------------------------------------------------------------------------


class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any, **more: Any) -> None:
        self.call = (function, arguments, *more.values())

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """Pickle asks whether a function can be called."""


class SetsState:
    marker: str

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["marker"]).touch()

    def __reduce__(self) -> Any:
        return SetsState, (), {"marker": self.marker}


class SetsItems(dict[str, str]):
    def __setitem__(self, key: str, value: str) -> None:
        Path(value).touch()


class Appends(list[str]):
    def append(self, value: str) -> None:
        Path(value).touch()

    def extend(self, values: Iterable[str]) -> None:
        for value in values:
            self.append(value)


class Hashes:
    marker: str

    def __hash__(self) -> int:
        if hasattr(self, "marker"):
            Path(self.marker).touch()
        return 1


def touch(name: str) -> None:
    Path(name).touch()


def traps(marker: Path) -> dict[str, Any]:
    """Objects whose unpickling would make the file ``marker``."""
    python = f"open({str(marker)!r}, 'w').close()"
    sets_state, hashes = SetsState(), Hashes()
    sets_state.marker = str(marker)
    key = {hashes: 1}
    hashes.marker = str(marker)
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "subprocess": Call(subprocess.run, ["touch", str(marker)]),
        "open": Call(open, str(marker), "w"),
        "a call of a call's result": Call(Call(getattr, Call(Path, str(marker)), "touch")),
        "a chain": Call(getattr, Call(importlib.import_module, "os"), "system"),
        "partial": Call(partial(os.system, f"touch {marker}")),
        "in partial's state": partial(touch, str(marker)),
        "numpy's reconstruct": Call(numpy._core.multiarray._reconstruct, numpy.ndarray, (0,), b"b"),  # type: ignore[attr-defined]
        "torch.hub": Call(torch.hub.load, str(marker.parent), "model", "local"),
        "torch.load": Call(torch.load, str(marker)),
        "a download": Call(torch.hub.load_state_dict_from_url, f"file://{marker}"),
        "__setstate__": sets_state,
        "state": Call(Point, 1, state={"marker": str(marker)}),
        "list items": Call(Appends, items=None, listitems=iter([str(marker)])),
        "dict items": Call(SetsItems, items=None, listitems=None, dictitems=iter([("a", str(marker))])),
        "a key's hash": key,
        "copyreg": Call(copyreg._reconstructor, SetsState, object, None),  # type: ignore[attr-defined]
        "a class that is made": Call(type, "Made", (), {}),
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", list(traps(Path("never"))))
def test_nothing_is_run(name: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    data = pickle.dumps([traps(marker)[name], "after"], protocol)
    marker.unlink(missing_ok=True)  # writing it may have hashed a key
    assert read(data)[1] == "after"
    assert not marker.exists()


def test_traps_are_traps(tmp_path: Path) -> None:
    """Python's own unpickler runs what the test above writes."""
    marker = tmp_path / "was-run"
    run = []
    for name in ("os.system", "eval", "exec", "subprocess", "__setstate__", "list items", "dict items", "a key's hash"):
        data = pickle.dumps(traps(marker)[name])
        marker.unlink(missing_ok=True)
        pickle.loads(data)
        run += [name] * marker.exists()
    assert len(run) == 8


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module on the path would write a file as it is imported; one that is loaded is not asked for its attributes."""
    (tmp_path / "never_imported.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    assert str(read(b"cnever_imported\nThing\n.")) == "never_imported.Thing"
    assert read(b"\x80\x04\x8c\x0enever_imported\x8c\x05Thing\x93).")[:0] == ()
    assert read(b"(inever_imported\nThing\n.").kind == "never_imported.Thing"
    assert set(sys.modules) == before
    assert not (tmp_path / "was-run").exists()


def test_the_cache_of_extensions_is_not_asked() -> None:
    """Python's unpickler returns from it what an earlier pickle looked up."""
    with pytest.raises(DamagedPickleError, match="no instruction"):
        read(b"\x82\x01.")


@pytest.mark.parametrize("data", [b"Qx.", b"K\x01Q.", b"P1\n."])
def test_references_to_the_outside(data: bytes) -> None:
    with pytest.raises(DamagedPickleError):
        read(data)


# Pickles that cost more than their length ------------------------------------------------------------------------


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


NESTED = 200_000
BOMBS: dict[str, bytes] = {
    "a memo of 2³² entries": b"]r\xff\xff\xff\xff.",
    "a memo index without end": b"]p" + b"9" * 100_000 + b"\n.",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "a bytearray that is not there": b"\x96" + struct.pack("<Q", 2**40) + b"x.",
    "text that is not there": b"\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a frame without end": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a number of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "a key of nested tuples": b"})" + b"2\x86" * 60 + b"Ns.",
    "lists in lists": b"]" * NESTED + b"a" * (NESTED - 1) + b".",
    "tuples in tuples": b")" + b"\x85" * NESTED + b".",
    "a deep key": b"})" + b"\x85" * NESTED + b"Ns.",
    "dictionaries in dictionaries": b"}" + b"K\x01}" * NESTED + b"s" * NESTED + b".",
    "marks": b"(" * NESTED + b"t" * NESTED + b".",
    "objects in objects": b"ca\nb\n" * NESTED + b")" + b"\x81\x85" * NESTED + b".",
    "keys that collide": b"}("
    + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(1, 50_000))
    + b"u.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_nothing(name: str) -> None:
    before = peak()
    with suppress(ValueError):
        read(BOMBS[name])
    assert peak() - before < 300 * 2**20


MANY = 100_000
MANY_TIMES: dict[str, tuple[bytes, bytes]] = {  # what the memo holds as 0, and what is done with it again and again
    "attributes": (
        b"}(" + b"".join(b"X\x06\x00\x00\x00%06dN" % n for n in range(MANY)) + b"uq\x000",
        b"ca\nb\n)\x81h\x00b",
    ),
    "a dictionary's copies": (
        b"}(" + b"".join(b"J%sN" % n.to_bytes(4, "little") for n in range(MANY)) + b"uq\x000",
        b"ccollections\nOrderedDict\nh\x00\x85R",
    ),
    "arguments": (b"](" + b"N" * MANY + b"eq\x000", b"ca\nb\nh\x00\x81"),
    "named arguments": (
        b"}(" + b"".join(b"X\x06\x00\x00\x00%06dN" % n for n in range(MANY)) + b"uq\x000",
        b"ca\nb\n)h\x00\x92",
    ),
    "a set's copies": (b"](" + b"N" * MANY + b"eq\x000", b"cbuiltins\nset\nh\x00\x85R"),
    "encoded text": (
        b"X" + struct.pack("<I", 64 * MANY) + b"x" * 64 * MANY + b"q\x000",
        b"c_codecs\nencode\nh\x00\x85R",
    ),
}


@pytest.mark.parametrize("name", MANY_TIMES)
def test_what_the_memo_holds_once_is_not_copied_a_million_times(name: str) -> None:
    held, again = MANY_TIMES[name]
    before = peak()
    with pytest.raises(DamagedPickleError, match="more than"):
        InertUnpickler(held + again * 20_000 + b".", budget=Budget(2_000_000)).load()
    assert peak() - before < 400 * 2**20


def test_more_instructions_than_any_checkpoint_has() -> None:
    with pytest.raises(DamagedPickleError, match="more than"):
        InertUnpickler(b"N0" * 100 + b"N.", budget=Budget(50)).load()


def test_damaged_pickles_end_in_value_errors() -> None:
    chance = random.Random(0)
    content = pickle.dumps([PLAIN, OrderedDict(a=1), datetime(2026, 1, 1), Point(1)], 2)
    old = pickle.dumps([PLAIN["texts"], OrderedDict(a=1), Point(1)], 0)
    ends = 0
    for whole in (content, old):
        for _ in range(3000):
            damaged = bytearray(whole)
            for _ in range(chance.randrange(1, 6)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                read(bytes(damaged[: chance.randrange(1, len(damaged) + 1)]))
            except ValueError:
                ends += 1
    assert ends > 1000
