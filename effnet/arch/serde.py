"""Frozen records that go to JSON and back: the base of everything that is data here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, ClassVar, Self


class Record:
    """A frozen dataclass with JSON both ways. Subclasses validate in ``__post_init__``.

    ``RECORDS`` names the fields that hold a record, or a tuple of records, and of which class.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    RECORDS: ClassVar[Mapping[str, type[Record]]] = MappingProxyType({})

    def to_dict(self) -> dict[str, Any]:
        """The record as plain dicts, tuples, numbers and strings."""
        return asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        """The record as JSON text. ``from_json`` gives an equal record back."""
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The record that ``to_dict`` described; fields left out take their defaults.

        Raises ``ValueError`` for a field that does not exist, is missing, or is out of range.
        """
        what = cls.__name__
        if not isinstance(data, dict):
            raise ValueError(f"{what}: expected an object with named fields, got {type(data).__name__}")
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise ValueError(f"{what}: no field is called {name!r}{did_you_mean(name, known)}")
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
        """The record in ``text``. Raises ``ValueError`` where the text is not such a record."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{cls.__name__}: not JSON ({error})") from None
        return cls.from_dict(data)


def did_you_mean(name: str, known: list[str]) -> str:
    """``'; did you mean b3?'`` when something in ``known`` is close to ``name``, else ``''``."""
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def check_int(name: str, value: Any, minimum: int) -> None:
    """Raises ``ValueError`` unless ``value`` is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")


def check_float(
    name: str, value: Any, minimum: float, maximum: float = float("inf"), *, exclusive: bool = False
) -> None:
    """Raises ``ValueError`` unless ``value`` is finite and in [low, high], or in (low, high] with ``above``."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = fits and abs(value) < float("inf") and minimum <= value <= maximum  # NaN compares with nothing
    if not fits or (exclusive and value == minimum):
        bounds = f"above {minimum:g}" if exclusive else f"at least {minimum:g}"
        upper = "" if maximum == float("inf") else f" and at most {maximum:g}"
        raise ValueError(f"{name} must be {bounds}{upper}, got {value!r}")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises ``ValueError`` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
