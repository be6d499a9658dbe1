"""Frozen records that serialize to JSON and back, and the checks that their fields and other modules share."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Self


class Record:
    """Base class of frozen dataclasses that serialize to JSON. Subclasses validate in ``__post_init__``.

    ``RECORDS`` maps each field that holds a record, or a tuple of records, to its class. ``FORMER_NAMES`` maps the
    names that fields had in earlier files to today's; both are read.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    RECORDS: ClassVar[Mapping[str, "type[Record]"]] = MappingProxyType({})
    FORMER_NAMES: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain dicts, tuples, numbers and strings."""
        return asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        """Return the record as JSON text, from which `from_json` restores an equal record."""
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Restore a record from the output of `to_dict`. Missing fields take their defaults.

        Raises ``ValueError`` if a field is unknown, required but missing, or out of range.
        """
        what = cls.__name__
        if not isinstance(data, dict):
            raise ValueError(f"{what}: expected an object with named fields, got {type(data).__name__}")
        data = {cls.FORMER_NAMES.get(name, name): value for name, value in data.items()}
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise ValueError(f"{what}: unknown field {name!r}{did_you_mean(name, known)}")
        try:
            return cls(**{name: cls._field(name, value) for name, value in data.items()})
        except TypeError as error:
            raise ValueError(f"{what}: {error}") from None

    @classmethod
    def _field(cls, name: str, value: Any) -> Any:
        optional = value is None and cls.__dataclass_fields__[name].default is None
        if name not in cls.RECORDS or optional:
            return _as_tuples(value)
        record = cls.RECORDS[name]
        try:
            return tuple(map(record.from_dict, value)) if isinstance(value, (list, tuple)) else record.from_dict(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restore a record from JSON text. Raises ``ValueError`` if the text does not hold such a record."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{cls.__name__}: invalid JSON ({error})") from None
        return cls.from_dict(data)


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ``"; did you mean b3?"`` if something in ``known`` is close to ``name``, else ``""``."""
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def check_int(name: str, value: Any, minimum: int) -> None:
    """Raise ``ValueError`` unless ``value`` is an int of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")


def check_float(
    name: str, value: Any, minimum: float, maximum: float = float("inf"), *, exclusive: bool = False
) -> None:
    """Raise ``ValueError`` unless ``value`` is finite and in [minimum, maximum], or (minimum, …] if ``exclusive``."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = fits and abs(value) < float("inf") and minimum <= value <= maximum  # False for NaN
    if not fits or (exclusive and value == minimum):
        lower = f"above {minimum:g}" if exclusive else f"at least {minimum:g}"
        upper = "" if maximum == float("inf") else f" and at most {maximum:g}"
        raise ValueError(f"{name} must be {lower}{upper}, got {value!r}")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def check_size(size: Any, name: str = "size") -> tuple[int, int]:
    """Return ``size``, an int for a square or (height, width), as (height, width) in pixels.

    Every function that takes a size calls this one, so that all accept both forms. Raises ``ValueError`` for others.
    """
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        allowed = "a side in pixels or (height, width), each an integer of at least 1"
        raise ValueError(f"{name} must be {allowed}, got {size!r}")
    return sides[0], sides[1]


def import_extra(module: str, extra: str, purpose: str, package: str = "", instead: str = "") -> Any:
    """Return an optional module. Raises ``ImportError``: ``plots require matplotlib: pip install "effnet[plots]"``.

    ``package`` is what installs the module, if it has another name.
    """
    try:
        return import_module(module)
    except ImportError:
        alternative = f", or use {instead}" if instead else ""
        message = f'{purpose} {package or module}: pip install "effnet[{extra}]"{alternative}'
        raise ImportError(message) from None
