"""Arguments and options that mean the same in every verb."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from effnet.arch import Arch, resolve_arch
from effnet.metadata import Labels

NetworkArgument = Annotated[
    str, typer.Argument(metavar="NETWORK", help="A name (b0), a file of weights, or an arch as JSON.")
]


MODEL_HELP = "Any file of weights, a run's folder, or a name: b0."


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


DeviceOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps …; a GPU if there is one.")
]


BatchSizeOption = Annotated[int, typer.Option(min=1, metavar="N", help="Pictures computed at once.")]


EngineOption = Annotated[
    str,
    typer.Option(metavar="KIND", help="auto, eager, compiled, onnxruntime, openvino, litert: by default the fastest."),
]


PrecisionOption = Annotated[
    str,
    typer.Option(metavar="TYPE", help="float32, or bfloat16 or float16, which are then allowed, where it is faster."),
]


ThreadsOption = Annotated[int | None, typer.Option(metavar="N", help="Threads of the engine: by default one a core.")]


StrictOption = Annotated[bool, typer.Option("--strict", help="Fail where a picture cannot be read.")]


def _require_positive(seconds: float) -> float:
    if not seconds > 0:
        raise typer.BadParameter("must be above 0")
    return seconds


FrameIntervalOption = Annotated[
    float, typer.Option(metavar="SECONDS", callback=_require_positive, help="Of a video, take a frame this often.")
]


def _set_offline(wanted: bool) -> None:
    """Says so where downloads look for it, for as long as this process lives."""
    if wanted:
        os.environ["EFFNET_OFFLINE"] = "1"


OfflineOption = Annotated[
    bool,
    typer.Option("--offline", callback=_set_offline, help="Use published weights only if they are here."),
]


class JpegDecode(StrEnum):
    """How a JPEG is decoded: to its last pixel, or at a reduced scale where that is enough."""

    exact = "exact"
    reduced = "reduced"


_DECIMAL_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


_BINARY_FACTORS = {"k": 2.0**10, "m": 2.0**20, "g": 2.0**30, "t": 2.0**40}


_QUANTITY_PATTERN = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_quantity(text: str) -> float:
    """``500MB``, ``8M``, ``1G``, ``1e9`` or ``64MiB`` as a number. Raises ``typer.BadParameter`` for anything else."""
    found = _QUANTITY_PATTERN.fullmatch(text.strip())
    if not found or (found[3] and not found[2]):
        raise typer.BadParameter(f"{text!r} is no amount: write 8M, 1.5G, 500MB, 64MiB or 1e9")
    return float(found[1]) * (_BINARY_FACTORS if found[3] else _DECIMAL_FACTORS)[found[2].lower()]


def refuse_existing(target: Path, force: bool) -> None:
    """Raises ``typer.BadParameter`` where ``target`` is there already and is not to be replaced."""
    if target.exists() and not force:
        raise typer.BadParameter(f"{target} is already there: give another name, or --force", param_hint="OUT")


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """``240`` or ``197x251`` as (height, width); None stays None. Raises ``typer.BadParameter`` for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:[x×]([1-9]\d*))?", text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no size: write 240, or height x width as 197x251", param_hint="--size")
    return int(found[1]), int(found[2] or found[1])


# Limits as people write them: how many, how much memory, how long.


_SECONDS_PER_UNIT = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}


_TIME_PATTERN = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-zµμ]*)", re.IGNORECASE)


_BYTES_PATTERN = re.compile(r"[kmgt]i?b", re.IGNORECASE)


def parse_count(text: str) -> float:
    """``1G``, ``0.39B`` as papers write it, ``8M``, ``8,000,000`` or ``1e9``; raises ``typer.BadParameter``."""
    bare = re.sub(r"(?<=\d)[,_](?=\d{3}(?!\d))", "", text.strip())
    if _BYTES_PATTERN.search(bare) or bare.lower().endswith("ib"):
        raise typer.BadParameter(f"{text!r} is an amount of memory: write how many, as 1G, 8M or 1e9")
    if re.search(r"\d\s*b$", bare, re.IGNORECASE):
        bare = bare[:-1] + "G"
    return parse_quantity(bare)


def parse_seconds(text: str) -> float:
    """``20ms``, ``0.02s`` or ``500us`` in seconds; raises ``typer.BadParameter`` for anything else."""
    found = _TIME_PATTERN.fullmatch(text.strip())
    if not found or found[2].lower() not in _SECONDS_PER_UNIT or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no time: write it with its unit, as 20ms, 0.02s or 500us")
    return float(found[1]) * _SECONDS_PER_UNIT[found[2].lower()]


# What a user calls a network, as an arch: a name, a file of weights, a file of JSON.


# As `effnet.weights.resolve` has them, which would bring torch with it
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".tflite", ".index")


class ResolvedNetwork(NamedTuple):
    """An arch with the classes and the picture's channels that it is meant for."""

    arch: Arch
    classes: int = 1000
    channels: int = 3
    labels: Labels | None = None  # None: of an arch alone, whose outputs mean nothing yet


def resolve_network(network: str) -> ResolvedNetwork:
    """The arch that ``network`` means. Raises ``ValueError`` or ``OSError`` where it means none."""
    path = Path(network)
    if path.suffix == ".json":
        try:
            return ResolvedNetwork(Arch.from_json(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} holds no arch: {error}") from None
    if path.suffix in (".onnx", ".xml"):
        from effnet.runtime.base import open_exported

        file = open_exported(path)
        return ResolvedNetwork(
            file.metadata.arch, file.classes, len(file.metadata.preprocess.mean), file.metadata.labels
        )
    if path.suffix in WEIGHT_SUFFIXES or path.is_file() or (path / "model.safetensors").is_file():
        from effnet.weights import load

        model = load(path)
        return ResolvedNetwork(model.arch, model.classes, model.channels, model.labels)
    return ResolvedNetwork(resolve_arch(network))
