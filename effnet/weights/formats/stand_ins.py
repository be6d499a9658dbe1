"""What is read instead of the objects in a pickle: tensors whose numbers are still in the file, and stand-ins.

`unpickler` reads a pickle's instructions, this module says what stands for each object that they make. No class or
function is looked up, and nothing but the functions of this module is called.

Sources: PyTorch ``torch/_utils.py``, ``torch/_tensor.py``, ``torch/storage.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_KEY = 2**53  # Python hashes larger integers modulo 2⁶¹ − 1: a file could choose keys that all collide


class DamagedPickleError(ValueError):
    """The bytes are no pickle, or one that no program wrote."""


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A class or function that a pickle names: ``torch.nn.modules.conv.Conv2d``."""

    full: str

    def __str__(self) -> str:
        return self.full


@dataclass(eq=False, slots=True, repr=False)
class StandIn:
    """Takes the place of an object: what the pickle says of it, without any of its behavior.

    Args:
        kind: full name of its class, or of the function that would have returned it.
        arguments: what that would have been called with.
        attributes: by name.
        items: of a mapping that is no plain dictionary.
        entries: of a sequence that is no plain list.
    """

    kind: str
    arguments: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    items: dict[Any, Any] | None = None
    entries: list[Any] | None = None

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Bytes of tensors, still in the file: ``elements`` numbers from the element ``start`` of ``key`` in ``source``."""

    source: Any
    key: str
    dtype: str
    elements: int
    start: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class StoredTensor:
    """A tensor whose values are still in the file. ``offset`` and ``stride`` count elements."""

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class UnreadableTensor:
    """A tensor that is not a plain array of numbers: quantized, sparse, complex, or without values."""

    size: tuple[int, ...]


# What a storage's class or a dtype says of its numbers; any other is none that weights have
_PLAIN_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
PLAIN_DTYPES = frozenset(_PLAIN_DTYPES.values())
ITEM_SIZES = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    # Of what is not read, to find what lies behind it
    "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8,
    "QInt32Storage": 4,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
}


def read_storage_dtype(kind: Any) -> str:
    """Return the dtype of ``torch.FloatStorage`` and its kin, as the pickle names them; its last word for others."""
    if not isinstance(kind, Name):
        raise DamagedPickleError("a storage without a class")
    last = kind.full.rpartition(".")[2]
    return _PLAIN_DTYPES.get(last, last)


# Objects that are read as what they are ------------------------------------------------------------------------------


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor | UnreadableTensor:
    """Return a view of a storage: ``_rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    return _view(storage, getattr(storage, "dtype", ""), offset, size, stride)


def _rebuild_typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> StoredTensor | UnreadableTensor:
    """Return a view of a storage of bytes: ``_rebuild_tensor_v3``."""
    return _view(storage, dtype.full.rpartition(".")[2] if isinstance(dtype, Name) else "", offset, size, stride)


def _view(storage: Any, dtype: str, offset: Any, size: Any, stride: Any) -> StoredTensor | UnreadableTensor:
    size, stride = _read_sides(size), _read_sides(stride)
    if (
        not isinstance(storage, Storage)
        or len(size) != len(stride)
        or type(offset) is not int
        or not 0 <= offset < 2**62
    ):
        raise DamagedPickleError("a tensor without a storage, or of another number of strides than of sides")
    if dtype not in PLAIN_DTYPES or storage.dtype not in PLAIN_DTYPES:
        return UnreadableTensor(size)
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    held = storage.elements * ITEM_SIZES[storage.dtype] // ITEM_SIZES[dtype]
    if 0 not in size and last >= held:
        raise DamagedPickleError(f"a tensor of shape {list(size)} lies beyond the end of its {held} numbers")
    return StoredTensor(storage, dtype, offset, size, stride)


def _read_sides(sides: Any) -> tuple[int, ...]:
    """Return the sides or strides of a tensor. Raises `DamagedPickleError`."""
    if not isinstance(sides, (tuple, list)) or len(sides) > 64:
        raise DamagedPickleError("a tensor's shape is no list")
    if not all(type(side) is int and 0 <= side < 2**62 for side in sides):
        raise DamagedPickleError("a tensor's shape is no list of whole numbers")
    return tuple(sides)


def _rebuild_wrapped(data: Any, *_: Any) -> Any:
    """Return the tensor in a ``torch.nn.Parameter`` or similar."""
    return data


def _rebuild_ordered_dict(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    """Return a dictionary of the pairs that Python 2 wrote, or an empty one, whose items follow."""
    if isinstance(pairs, dict):
        return dict(pairs)
    return {make_key(pair[0]): pair[1] for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2}


def _rebuild_empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _rebuild_tuple(values: Any = (), *_: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, (list, tuple)) else ()


def _rebuild_set(values: Any = (), *_: Any) -> list[Any]:
    """Return a set's members as a list, so that nothing is hashed."""
    return list(values) if isinstance(values, (list, tuple)) else []


def _rebuild_bytes(text: Any = "", *_: Any) -> bytes:
    """Return bytes as protocol 2 writes them: as text of their values."""
    if isinstance(text, str):
        return text.encode("latin-1", "replace")
    return text if isinstance(text, bytes) else b""


def _read_unreadable(arguments: tuple[Any, ...], place: int) -> UnreadableTensor:
    """Return a tensor of which only the shape is read: its argument ``place``, or within the last argument."""
    if place < 0:  # (layout, (indices, values, size, …))
        arguments, place = (arguments[-1] if arguments and isinstance(arguments[-1], tuple) else ()), 2
    size = arguments[place] if len(arguments) > place else ()
    return UnreadableTensor(_read_sides(size))


_READ_AS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_typed_tensor,
    "torch._utils._rebuild_parameter": _rebuild_wrapped,
    "torch._utils._rebuild_parameter_with_state": _rebuild_wrapped,
    "torch.nn.parameter.Parameter": _rebuild_wrapped,
    "torch.Size": _rebuild_tuple,
    "collections.OrderedDict": _rebuild_ordered_dict,
    "collections.Counter": _rebuild_ordered_dict,
    "collections.defaultdict": _rebuild_empty_dict,
    **dict.fromkeys(("builtins.set", "builtins.frozenset"), _rebuild_set),
    **dict.fromkeys(("builtins.bytes", "builtins.bytearray", "_codecs.encode"), _rebuild_bytes),
}
_OF_SUBCLASS = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type")
# Where the shape is among the arguments; -1: within the last one
_UNREADABLE = {
    "torch._utils._rebuild_qtensor": 2,
    "torch._utils._rebuild_meta_tensor_no_storage": 1,
    "torch._utils._rebuild_wrapper_subclass": 1,
    "torch._utils._rebuild_sparse_tensor": -1,
}
_NEW_OBJECT = ("copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__")


LOAD_FROM_BYTES = "torch.storage._load_from_bytes"


def make_key(value: Any) -> Any:
    """Return a dictionary's key for ``value``: itself, if hashing and comparing it costs next to nothing."""
    kind = type(value)
    if kind in (str, bytes, bool, float, type(None), Name, StandIn) or (kind is int and abs(value) < MAX_KEY):
        return value
    return StandIn(f"builtins.{kind.__name__}", (value,))


def make_stand_in(kind: Any, arguments: Any) -> StandIn:
    """Return the stand-in for an object of ``kind``, a `Name` or what stands for another call's result."""
    name = kind.full if isinstance(kind, Name) else kind.kind if isinstance(kind, StandIn) else type(kind).__name__
    return StandIn(name, tuple(arguments) if isinstance(arguments, (list, tuple)) else (arguments,))


def stand_for_call(function: Any, arguments: tuple[Any, ...], load_nested: Callable[[bytes], Any] | None = None) -> Any:
    """Return what stands for the result of a call that a pickle asks for, and that is not made.

    Args:
        function: a `Name`, or what stands for another call's result.
        arguments: of the call.
        load_nested: returns the content of bytes that are themselves a file of PyTorch's.

    Raises:
        DamagedPickleError: the arguments are none that PyTorch writes.
    """
    name = function.full.replace("__builtin__.", "builtins.") if isinstance(function, Name) else ""
    if name in _OF_SUBCLASS and len(arguments) > 2 and isinstance(arguments[2], tuple):
        function, arguments = arguments[0], arguments[2]  # of the class of plain tensors
        name = function.full if isinstance(function, Name) else ""
    if name in _READ_AS:
        try:
            return _READ_AS[name](*arguments)
        except TypeError:
            raise DamagedPickleError(f"{name} with arguments that it does not take") from None
    if name in _UNREADABLE:
        return _read_unreadable(arguments, _UNREADABLE[name])
    if name == LOAD_FROM_BYTES and load_nested and arguments and isinstance(arguments[0], bytes):
        return load_nested(arguments[0])
    if name in _NEW_OBJECT and arguments:
        return make_stand_in(arguments[0], arguments[1:])
    return make_stand_in(function, arguments)
