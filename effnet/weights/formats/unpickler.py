"""A reader of pickles that runs nothing: classes and functions are names here, never looked up and never called.

Python's unpickler imports what a pickle names, and calls it with arguments of the pickle's choice. This one returns
plain values, lists and dictionaries, tensors as references to their bytes, and a `StandIn` for every other object.

It is no `pickle.Unpickler` with another ``find_class``: that one still asks objects for ``append`` and ``__setitem__``,
returns objects from the process's own cache of extensions, allocates what a pickle merely claims, and hashes nested
tuples for keys (2ⁿ steps for n levels). Here time and memory are linear in the pickle's length, and what is nested a
million levels deep is read without recursion.

Sources: CPython ``Lib/pickle.py``, ``Lib/pickletools.py``.
"""

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any

from effnet.weights.formats.stand_ins import (
    LOAD_FROM_BYTES,
    DamagedPickleError,
    Name,
    StandIn,
    make_key,
    make_stand_in,
    stand_for_call,
)

MAX_INSTRUCTIONS = 3_000_000  # half a minute and a gigabyte at most; a checkpoint with its optimizer has some 100,000
CHARACTERS_PER_STEP = 64  # of text that is read or copied at the cost of an instruction


@dataclass
class Budget:
    """Instructions that may still be read, of a pickle and all within it; every entry that is copied counts as one."""

    left: int = MAX_INSTRUCTIONS

    def spend(self, count: int) -> None:
        """Take ``count`` off. Raises `DamagedPickleError` if nothing is left."""
        self.left -= count
        if self.left < 0:
            raise DamagedPickleError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")


def _refuse_persistent(_: Any) -> Any:
    raise DamagedPickleError("it refers to something outside itself")


class InertUnpickler:
    """Reads one pickle after another from ``data``.

    Args:
        data: bytes that contain pickles.
        load_persistent: returns what a persistent id stands for: PyTorch's storages.
        load_nested: returns the content of bytes that are themselves a file of PyTorch's.
        budget: shared by pickles of one file.

    Example:
        >>> InertUnpickler(pickle.dumps({"a": [1, 2]})).load()
        {'a': [1, 2]}
    """

    def __init__(
        self,
        data: bytes | mmap,
        load_persistent: Callable[[Any], Any] = _refuse_persistent,
        load_nested: Callable[[bytes], Any] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.data = data
        self.position = 0
        self.load_persistent = load_persistent
        self.load_nested = load_nested
        self.budget = budget or Budget()
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the content of the next pickle. Raises ``ValueError`` if it is damaged or too long."""
        self.stack, self.marked, self.memo = [], [], {}
        while True:
            code = self._take(1)[0]
            if code == _STOP:
                return self._pop()
            self.budget.spend(1)
            run = _INSTRUCTIONS.get(code)
            if run is None:
                raise DamagedPickleError(f"byte {self.position - 1} is no instruction of a pickle")
            run(self)

    # The bytes

    def _take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise DamagedPickleError("it ends early")
        return self.data[start : self.position]

    def _take_number(self, form: str) -> int:
        number: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        if number < 0:
            raise DamagedPickleError("a negative length")
        return number

    def _take_line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise DamagedPickleError("it ends early")
        line = self._take(end - self.position)
        self.position += 1
        return line

    # The stack

    def _pop(self) -> Any:
        if not self.stack:
            raise DamagedPickleError("it takes a value that is not there")
        return self.stack.pop()

    def _top(self) -> Any:
        if not self.stack:
            raise DamagedPickleError("it takes a value that is not there")
        return self.stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self.marked:
            raise DamagedPickleError("it ends a list that it did not begin")
        values, self.stack = self.stack, self.marked.pop()
        return values

    def _mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def _duplicate(self) -> None:
        self.stack.append(self._top())

    def _spend_on_copies(self, *values: Any) -> None:
        """Count what is copied: the memo holds a value once, and a pickle can use it a million times."""
        for value in values:
            if isinstance(value, (list, tuple, dict)):
                self.budget.spend(len(value))
            elif isinstance(value, (str, bytes)):
                self.budget.spend(len(value) // CHARACTERS_PER_STEP)

    # Plain values

    def _push_decimal(self) -> None:
        line = self._take_line().decode("ascii").strip().removesuffix("L")
        if len(line) > 40:
            raise DamagedPickleError("a number of too many digits")
        self.stack.append({"00": False, "01": True}[line] if line in ("00", "01") else int(line))

    def _push_decimal_float(self) -> None:
        self.stack.append(float(self._take_line()[:400]))

    def _push_long(self, form: str) -> None:
        self.stack.append(int.from_bytes(self._take(self._take_number(form)), "little", signed=True))

    def _push_text(self, form: str, encoding: str = "utf-8") -> None:
        self._push_string(self._take(self._take_number(form)).decode(encoding, "surrogatepass"))

    def _push_old_text(self, form: str) -> None:
        """Push a string of Python 2, which may be text or bytes."""
        self._push_string(self._take(self._take_number(form)).decode("latin-1"))

    def _push_quoted(self) -> None:
        quoted = self._take_line().strip()
        if len(quoted) < 2 or quoted[0] != quoted[-1] or quoted[0] not in b"'\"":
            raise DamagedPickleError("a string without quotes")
        self._push_string(codecs.escape_decode(quoted[1:-1])[0].decode("latin-1"))

    def _push_escaped(self) -> None:
        self._push_string(self._take_line().decode("raw-unicode-escape"))

    def _push_string(self, text: str) -> None:
        """Push text, in memory up to four bytes for each of the file's."""
        self._spend_on_copies(text)
        self.stack.append(text)

    def _push_bytes(self, form: str) -> None:
        self.stack.append(bytes(self._take(self._take_number(form))))

    # The memo

    def _put(self, index: int) -> None:
        self.memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise DamagedPickleError("it refers to a value that it does not have")
        self.stack.append(self.memo[index])

    # Containers

    def _push_sequence(self, kind: type, count: int) -> None:
        if len(self.stack) < count:
            raise DamagedPickleError("it takes a value that is not there")
        first = len(self.stack) - count
        self.stack[first:] = [kind(self.stack[first:])]

    def _push_marked(self, kind: type) -> None:
        values = self._pop_mark()
        self.stack.append(kind(values))

    def _push_dict(self) -> None:
        values = self._pop_mark()
        self.stack.append({})
        self._set_items(values)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _set_marked_items(self) -> None:
        self._set_items(self._pop_mark())

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, StandIn):
            if target.items is None:
                target.items = {}
            target = target.items
        if not isinstance(target, dict) or len(values) % 2:
            raise DamagedPickleError("it sets items of something that has none")
        for index in range(0, len(values), 2):
            target[make_key(values[index])] = values[index + 1]

    def _append(self) -> None:
        self._extend([self._pop()])

    def _extend_marked(self) -> None:
        self._extend(self._pop_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, StandIn):
            if target.entries is None:
                target.entries = []
            target = target.entries
        if not isinstance(target, list):
            raise DamagedPickleError("it appends to something that is no list")
        target += values

    # Objects

    def _push_name(self) -> None:
        module, name = self._take_line().decode(), self._take_line().decode()
        self.stack.append(Name(f"{module}.{name}"))

    def _push_stacked_name(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise DamagedPickleError("a name that is no text")
        self.stack.append(Name(f"{module}.{name}"))

    def _push_instance(self) -> None:
        self._push_name()
        kind, arguments = self._pop(), self._pop_mark()
        self.stack.append(make_stand_in(kind, arguments))

    def _push_object(self) -> None:
        values = self._pop_mark()
        if not values:
            raise DamagedPickleError("an object without a class")
        self.stack.append(make_stand_in(values[0], values[1:]))

    def _new_object(self) -> None:
        arguments, kind = self._pop(), self._pop()
        self._spend_on_copies(arguments)
        self.stack.append(make_stand_in(kind, arguments))

    def _new_object_by_name(self) -> None:
        named, arguments, kind = self._pop(), self._pop(), self._pop()
        self._spend_on_copies(arguments, named)
        made = make_stand_in(kind, arguments)
        if isinstance(named, dict):
            made.attributes.update((name, value) for name, value in named.items() if isinstance(name, str))
        self.stack.append(made)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise DamagedPickleError("a call without arguments")
        if not isinstance(function, Name) or function.full != LOAD_FROM_BYTES:  # which copies nothing
            self._spend_on_copies(*arguments)
        self.stack.append(stand_for_call(function, arguments, self.load_nested))

    def _build(self) -> None:
        """Set an object's attributes. Those of a dictionary or a tensor are not weights."""
        state, target = self._pop(), self._top()
        if not isinstance(target, StandIn):
            return
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        if all(part is None or isinstance(part, dict) for part in parts):  # of __dict__, and of __slots__
            for part in parts:
                self._spend_on_copies(part)
                target.attributes.update((name, value) for name, value in (part or {}).items() if isinstance(name, str))
        else:
            target.attributes["state"] = state

    def _push_persistent(self) -> None:
        self.stack.append(self.load_persistent(self._pop()))

    def _push_persistent_line(self) -> None:
        self.stack.append(self.load_persistent(self._take_line().decode("ascii")))


_STOP = ord(".")
_Run = Callable[[InertUnpickler], object]


def _push(value: Any) -> _Run:
    return lambda machine: machine.stack.append(value)


def _push_new(kind: type) -> _Run:
    return lambda machine: machine.stack.append(kind())


def _push_struct(form: str) -> _Run:
    size = struct.calcsize(form)
    return lambda machine: machine.stack.extend(struct.unpack(form, machine._take(size)))


def _with_number(run: Callable[[InertUnpickler, int], None], form: str) -> _Run:
    return lambda machine: run(machine, machine._take_number(form))


def _with_line(run: Callable[[InertUnpickler, int], None]) -> _Run:
    return lambda machine: run(machine, int(machine._take_line()[:20]))


def _skip(form: str) -> _Run:
    return lambda machine: machine._take_number(form)


# Named as in ``pickletools``. Sets are lists here, so that nothing in them is hashed.
_M = InertUnpickler
_INSTRUCTIONS: dict[int, _Run] = {
    ord("("): _M._mark,
    ord("0"): _M._drop,
    ord("1"): lambda machine: machine._pop_mark(),
    ord("2"): _M._duplicate,
    0x80: _skip("<B"),  # PROTO
    0x95: _skip("<Q"),  # FRAME
    # Plain values
    ord("N"): _push(None),
    0x88: _push(True),
    0x89: _push(False),
    ord("I"): _M._push_decimal,
    ord("L"): _M._push_decimal,
    ord("J"): _push_struct("<i"),
    ord("K"): _push_struct("<B"),
    ord("M"): _push_struct("<H"),
    0x8A: lambda machine: machine._push_long("<B"),
    0x8B: lambda machine: machine._push_long("<i"),
    ord("F"): _M._push_decimal_float,
    ord("G"): _push_struct(">d"),
    ord("S"): _M._push_quoted,
    ord("T"): lambda machine: machine._push_old_text("<i"),
    ord("U"): lambda machine: machine._push_old_text("<B"),
    ord("V"): _M._push_escaped,
    ord("X"): lambda machine: machine._push_text("<I"),
    0x8C: lambda machine: machine._push_text("<B"),
    0x8D: lambda machine: machine._push_text("<Q"),
    ord("B"): lambda machine: machine._push_bytes("<I"),
    ord("C"): lambda machine: machine._push_bytes("<B"),
    0x8E: lambda machine: machine._push_bytes("<Q"),
    0x96: lambda machine: machine._push_bytes("<Q"),  # BYTEARRAY8
    # The memo
    ord("p"): _with_line(_M._put),
    ord("q"): _with_number(_M._put, "<B"),
    ord("r"): _with_number(_M._put, "<I"),
    0x94: lambda machine: machine._put(len(machine.memo)),
    ord("g"): _with_line(_M._get),
    ord("h"): _with_number(_M._get, "<B"),
    ord("j"): _with_number(_M._get, "<I"),
    # Containers
    ord(")"): _push(()),
    ord("t"): lambda machine: machine._push_marked(tuple),
    0x85: lambda machine: machine._push_sequence(tuple, 1),
    0x86: lambda machine: machine._push_sequence(tuple, 2),
    0x87: lambda machine: machine._push_sequence(tuple, 3),
    ord("]"): _push_new(list),
    ord("l"): lambda machine: machine._push_marked(list),
    ord("a"): _M._append,
    ord("e"): _M._extend_marked,
    ord("}"): _push_new(dict),
    ord("d"): _M._push_dict,
    ord("s"): _M._set_item,
    ord("u"): _M._set_marked_items,
    0x8F: _push_new(list),  # EMPTY_SET
    0x90: _M._extend_marked,  # ADDITEMS
    0x91: lambda machine: machine._push_marked(tuple),  # FROZENSET
    # Objects
    ord("c"): _M._push_name,
    0x93: _M._push_stacked_name,
    ord("i"): _M._push_instance,
    ord("o"): _M._push_object,
    0x81: _M._new_object,
    0x92: _M._new_object_by_name,
    ord("R"): _M._reduce,
    ord("b"): _M._build,
    ord("Q"): _M._push_persistent,
    ord("P"): _M._push_persistent_line,
}
