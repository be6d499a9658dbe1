"""Arguments and options that several commands share, their parsers, and usage errors."""

import os
import re
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from typer import Argument, BadParameter, Option

from effnet.arch import serde
from effnet.draw.text import printable
from effnet.weights import WEIGHTS_SUFFIXES

if TYPE_CHECKING:
    from effnet.arch import Arch
    from effnet.cli.weights_options import WeightsOptions
    from effnet.metadata import Labels
    from effnet.net import EfficientNet

BATCH_SIZE = ("--batch-size", "--batch")
IMAGE_SIZE = ("--image-size", "--imgsz", "--size")


# Every number has a smallest and a largest value (tests/cli/test_numbers.py): "nan", "inf" and a slip of the finger are
# refused at once, not after the data has been read
MAX_COUNT = 1_000_000
MAX_SECONDS = 86_400
MAX_DIGITS = 20
MAX_AMOUNT = 1e24  # MACs, parameters, bytes


def number(help: str, *names: str, min: int = 1, max: int = MAX_COUNT, metavar: str = "N") -> Any:
    """Declare an option that takes an integer in [min, max]."""
    return Option(*names, min=min, max=max, metavar=metavar, help=help)


def real(
    help: str, *names: str, min: float = 0, max: float = MAX_COUNT, positive: bool = False, metavar: str = "X"
) -> Any:
    """Declare an option that takes a number in [min, max]; with ``positive``, one above 0 and up to ``max``."""
    callback = _require_positive if positive else _require_number
    return Option(*names, min=min, max=max, callback=callback, metavar=metavar, help=help)


def _require_number(value: float | None) -> float | None:
    """Refuse nan, which is neither below nor above a range."""
    if value is not None and isnan(value):
        raise BadParameter("nan is not a number")
    return value


def _require_positive(value: float | None) -> float | None:
    if value is not None and value <= 0:
        raise BadParameter(f"must be above 0, got {value:g}")
    return _require_number(value)


def output(metavar: str, help: str) -> Any:
    """Declare --output."""
    return Option("--output", "--out", "-o", metavar=metavar, help=help)


MODEL_HELP = "A weights file, a run directory or a model name such as b0."
NetworkArgument = Annotated[
    str, Argument(metavar="NETWORK", help="A name such as b0, a weights file, or an architecture as JSON.")
]
ModelArgument = Annotated[str, Argument(metavar="MODEL", help=MODEL_HELP)]
JsonOption = Annotated[bool, Option("--json", help="Print JSON, and nothing else, on standard output.")]
DeviceOption = Annotated[
    str | None, Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, … (default: a GPU if there is one).")
]
BatchSizeOption = Annotated[int, number("Images per batch.", *BATCH_SIZE, max=serde.MAX_BATCH_SIZE)]
SeedOption = Annotated[int, number("Random seed.", min=0, max=serde.MAX_SEED)]
ImageSizeOption = Annotated[
    str | None,
    Option(*IMAGE_SIZE, metavar="SIZE", help="Input resolution, 224 or HEIGHTxWIDTH (default: the network's)."),
]
EngineOption = Annotated[
    str, Option(metavar="KIND", help="auto (the fastest), eager, compiled, native, onnxruntime, openvino or litert.")
]
SplitOption = Annotated[
    str | None, Option(metavar="NAME", help="train, val or test (default: the last one that exists).")
]
ToleranceOption = Annotated[float | None, real("Largest allowed difference, relative to the largest logit.", max=1_000)]
StrictOption = Annotated[bool, Option("--strict", help="Fail if an image cannot be read.")]
LabelsOption = Annotated[
    Path | None,
    Option("--labels", metavar="FILE", help="Names of the model's outputs: one per line, or JSON (default: its own)."),
]


def _parse_color(text: str | None) -> str | None:
    if text is None:
        return None
    from effnet.metadata import COLOR_CHANNELS

    spellings = {mode.lower(): mode for mode in COLOR_CHANNELS} | {"grey": "L", "gray": "L"}
    if text.lower() not in spellings:
        raise BadParameter(f"{text!r} is not one of grey, {', '.join(COLOR_CHANNELS)}")
    return spellings[text.lower()]


ColorOption = Annotated[
    str | None,
    Option(
        *("--channels", "--color"),
        metavar="MODE",
        callback=_parse_color,
        help="What images are read as: grey, RGB, RGBA, LA, CMYK, HSV or YCbCr (default: as the network states).",
    ),
]
BitsOption = Annotated[
    int | None,
    Option(
        "--bits",
        metavar="N",
        min=8,
        max=16,
        help="How many bits 16-bit images hold, such as 12 (default: as the model or the files state; in a set of "
        "images as few as hold all).",
    ),
]
ForceOption = Annotated[bool, Option("--force", help="Overwrite existing output.")]


class UsageError(BadParameter):
    """A wrong command: its message alone, without the "Invalid value" that typer puts before any other."""

    def format_message(self) -> str:
        """Return the message alone."""
        return printable(self.message, keep_lines=True)


FrameIntervalOption = Annotated[
    float, real("Interval between frames of a video.", "--every", max=MAX_SECONDS, positive=True, metavar="SECONDS")
]


def _set_offline(offline: bool) -> None:
    if offline:
        os.environ["EFFNET_OFFLINE"] = "1"


OfflineOption = Annotated[
    bool, Option("--offline", callback=_set_offline, help="Use only weights that are already downloaded.")
]


def _set_csv_cells(cells: str | None) -> None:
    if cells is not None:
        if cells not in ("safe", "exact"):
            raise BadParameter(f"{cells!r} is not safe or exact")
        os.environ["EFFNET_CSV_CELLS"] = cells


CsvCellsOption = Annotated[
    str | None,
    Option(
        "--csv-cells",
        metavar="HOW",
        callback=_set_csv_cells,
        help="Cells of a .csv that begin with = + - @: safe (default: an apostrophe before them, so that spreadsheets "
        "do not run them) or exact.",
    ),
]


_DECIMAL_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BINARY_FACTORS = {"k": 2.0**10, "m": 2.0**20, "g": 2.0**30, "t": 2.0**40}
_SECONDS_PER_UNIT = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_NUMBER = r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*"


def parse_quantity(text: str) -> float:
    """Return ``500MB``, ``8M``, ``1G``, ``1e9`` or ``64MiB`` as a number; raise ``typer.BadParameter`` otherwise."""
    match = re.fullmatch(_NUMBER + r"([kmgt]?)(i?)b?", text.strip(), re.IGNORECASE)
    if not match or (match[3] and not match[2]):
        raise BadParameter(f"{text!r} is not an amount: write 8M, 1.5G, 500MB, 64MiB or 1e9")
    amount = float(match[1]) * (_BINARY_FACTORS if match[3] else _DECIMAL_FACTORS)[match[2].lower()]
    if not 0 < amount <= MAX_AMOUNT:
        raise BadParameter(f"{text!r} is not above 0 and at most {MAX_AMOUNT:g}")
    return amount


def parse_count(text: str) -> float:
    """Return ``1G``, ``0.39B`` (as papers write it), ``8M``, ``8,000,000`` or ``1e9`` as a number; refuse bytes."""
    bare = re.sub(r"(?<=\d)[,_](?=\d{3}(?!\d))", "", text.strip())
    if re.search(r"[kmgt]i?b|ib$", bare, re.IGNORECASE):
        raise BadParameter(f"{text!r} is an amount of memory: write a count such as 1G, 8M or 1e9")
    return parse_quantity(re.sub(r"(?<=\d)\s*b$", "G", bare, flags=re.IGNORECASE))


def parse_seconds(text: str) -> float:
    """Return ``20ms``, ``0.02s`` or ``500us`` in seconds; raise ``typer.BadParameter`` otherwise."""
    match = re.fullmatch(_NUMBER + "([a-zµμ]*)", text.strip(), re.IGNORECASE)
    if not match or match[2].lower() not in _SECONDS_PER_UNIT or not float(match[1]):
        raise BadParameter(f"{text!r} is not a time: write it with its unit, such as 20ms, 0.02s or 500us")
    seconds = float(match[1]) * _SECONDS_PER_UNIT[match[2].lower()]
    if seconds > MAX_SECONDS:
        raise BadParameter(f"{text!r} is more than a day")
    return seconds


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """Return ``240`` or ``197x251`` as (height, width), and None for None; raise ``typer.BadParameter`` otherwise."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d*)(?:[x×]([1-9]\d*))?", text.strip())
    if not match:
        message = f"{text!r} is not a size: write 240, or height x width as 197x251"
        raise BadParameter(message, param_hint=f"'{IMAGE_SIZE[0]}'")
    height, width = (_parse_digits(side) for side in (match[1], match[2] or match[1]))
    if max(height, width) > serde.MAX_IMAGE_SIDE:
        message = f"{text!r} is more than {serde.MAX_IMAGE_SIDE:,} pixels: write 240, or height x width as 197x251"
        raise BadParameter(message, param_hint=f"'{IMAGE_SIZE[0]}'")
    return height, width


def _parse_digits(digits: str) -> int:
    return int(digits[:MAX_DIGITS])  # Python refuses to convert thousands of digits


def split_list(text: str) -> tuple[str, ...]:
    """Return ``a, b`` as ("a", "b")."""
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def parse_int_list(text: str, option: str, max: int) -> tuple[int, ...]:
    """Return ``1,32`` as (1, 32); raise ``typer.BadParameter`` for anything but positive integers up to ``max``."""
    try:
        numbers = tuple(int(word) for word in split_list(text))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise BadParameter(f"{text!r} is not a list of positive integers such as 1,32", param_hint=f"'{option}'")
    if largest := [number for number in numbers if number > max]:
        raise BadParameter(f"{largest[0]} is more than {max:,}", param_hint=f"'{option}'")
    return numbers


def refuse_existing(target: Path, force: bool) -> None:
    """Raise `UsageError` if ``target`` exists and must not be overwritten."""
    if target.exists() and not force:
        raise UsageError(f"{target} already exists: choose another name or pass --force")


def given(**choices: Any) -> dict[str, Any]:
    """Return the options that were given, those that are not None."""
    return {name: value for name, value in choices.items() if value is not None}


class ResolvedNetwork(NamedTuple):
    """An architecture with its number of classes and image channels, and the labels of a trained one."""

    arch: "Arch"
    classes: int = 1000
    channels: int = 3
    labels: "Labels | None" = None  # None for an architecture alone, whose outputs mean nothing yet


def resolve_network(network: str, part: "WeightsOptions | None" = None) -> ResolvedNetwork:
    """Return what a NETWORK argument means: a name, a weights file, an exported file or JSON.

    ``part`` says how a weights file is read; any other meaning refuses it.
    """
    from effnet.arch import Arch, resolve_arch
    from effnet.arch.serde import read_json

    path = Path(network)
    chosen = part is not None and bool(part.chosen)
    if part and path.suffix == ".json":
        part.refuse(f"applies to a file of weights, not to {network}")
    if path.suffix == ".json":
        try:
            return ResolvedNetwork(Arch.from_dict(read_json(path)))
        except ValueError as error:
            raise ValueError(f"{path} is not an architecture: {error}") from None
    from effnet.runtime import base, io_spec

    if path.suffix != ".tflite" and io_spec.is_exported(path) and not chosen:
        exported = base.open_exported(path)
        metadata = exported.metadata
        assert metadata.arch is not None, "what effnet exported states its architecture"
        return ResolvedNetwork(metadata.arch, exported.classes, len(metadata.preprocess.mean), metadata.labels)
    if path.suffix in WEIGHTS_SUFFIXES or path.is_file() or (path / "model.safetensors").is_file():
        from effnet.weights import load

        model = part.load(network) if part else load(path)
        return ResolvedNetwork(model.arch, model.classes, model.channels, model.labels)
    if part:
        part.refuse(f"applies to a file of weights, not to {network}")
    return ResolvedNetwork(resolve_arch(network))


def read_labels(path: Path | None) -> tuple[str, ...] | None:
    """Return the names in the file of --labels, or None without one."""
    if path is None:
        return None
    from effnet.data.class_names import read_labels as read

    return read(path)


def rename_outputs(model: "EfficientNet", labels: tuple[str, ...] | None) -> "EfficientNet":
    """Give ``model`` these labels, if any, and return it."""
    if labels is not None:
        from effnet.data import class_names

        model.labels = class_names.rename_outputs(model.labels, model.classes, labels)
    return model


def display_name(model: str) -> str:
    """Return what to call a model in a heading: a path's last part, or the run directory of ``model.safetensors``."""
    path = Path(model)
    if path.name == "model.safetensors" and path.parent.name:
        return path.parent.name
    return path.resolve().name if path.exists() else model
