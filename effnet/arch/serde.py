"""Frozen records that serialize to JSON and back, the reader of all JSON, and the checks that other modules share."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

T = TypeVar("T")

MAX_JSON_BYTES = 2**26  # an index of a million images has 2²⁶; what travels with a model, a thousandth
MAX_JSON_DEPTH = 100  # Keras nests its models some ten levels deep; Python's own functions fail at a thousand


def parse_json(content: str | bytes, source: object) -> Any:
    """Parse JSON that someone else may have written. ``source`` is what the message calls it: a path, as a rule.

    Raises ``ValueError`` if it is no JSON, or nested more deeply than any that describes a network, a run or a dataset:
    what reads the value may then recurse.

    Example:
        >>> parse_json('{"size": [224, 224]}', "config.json")
        {'size': [224, 224]}
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise _too_deep_error(source) from None
    except ValueError as error:
        raise ValueError(f"{source} is not JSON ({error})") from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        inner = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list)))
        level = [child for children in inner for child in children if isinstance(child, (dict, list))]
        if not level:
            return value
    raise _too_deep_error(source)


def _too_deep_error(source: object) -> ValueError:
    return ValueError(f"{source} is nested more than {MAX_JSON_DEPTH} levels deep: a damaged or hostile JSON")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises ``ValueError`` as `parse_json` or for a huge file, and ``OSError``."""
    with path.open("rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{path}: more than {MAX_JSON_BYTES >> 20} MiB, far above any JSON that is read here")
    return parse_json(content, path)


def read_json_object(path: Path, build: Callable[[dict[str, Any]], T]) -> T:
    """Return what ``build`` makes of the JSON object in a file.

    Raises as `read_json`, and ``ValueError`` that names the file if it holds something else, or ``build`` fails on it.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object, but {type(content).__name__}")
    try:
        return build(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: damaged, or of another version ({reason})") from None


# More than anybody means: beyond these a slip of the finger would ask for memory and hours before anything fails
MAX_IMAGE_SIDE = 16_384  # pixels
MAX_BATCH_SIZE = 65_536
MAX_EPOCHS = 100_000
MAX_LEARNING_RATE = 10
MAX_MINUTES = 366 * 24 * 60
MAX_PROCESSES = 1_024  # or threads
MAX_SEED = 2**31 - 1  # scikit-learn takes twice that, and some seeds are this one plus 1


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
        return cls.from_dict(parse_json(text, cls.__name__))


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ``"; did you mean b3?"`` if something in ``known`` is close to ``name``, else ``""``."""
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def check_int(name: str, value: Any, minimum: int, maximum: float = float("inf")) -> None:
    """Raise ``ValueError`` unless ``value`` is an int in [minimum, maximum]."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        upper = "" if maximum == float("inf") else f" and at most {maximum}"
        raise ValueError(f"{name} must be an integer of at least {minimum}{upper}, got {value!r:.200}")


def check_float(
    name: str, value: Any, minimum: float, maximum: float = float("inf"), *, exclusive: bool = False
) -> None:
    """Raise ``ValueError`` unless ``value`` is finite and in [minimum, maximum], or (minimum, …] if ``exclusive``."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = fits and abs(value) < float("inf") and minimum <= value <= maximum  # False for NaN
    if not fits or (exclusive and value == minimum):
        lower = f"above {minimum:g}" if exclusive else f"at least {minimum:g}"
        upper = "" if maximum == float("inf") else f" and at most {maximum:g}"
        raise ValueError(f"{name} must be {lower}{upper}, got {value!r:.200}")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r:.200}")


def check_size(size: Any, name: str = "size") -> tuple[int, int]:
    """Return ``size``, an int for a square or (height, width), as (height, width) in pixels.

    Every function that takes a size calls this one, so that all accept both forms. Raises ``ValueError`` for others.
    """
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or not all(1 <= side <= MAX_IMAGE_SIDE for side in sides):
        allowed = f"a side in pixels or (height, width), each an integer of at least 1 and at most {MAX_IMAGE_SIDE}"
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
