"""Arguments and options that mean the same in every verb."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Network = Annotated[str, typer.Argument(metavar="NETWORK", help="A name (b0), a file of weights, or an arch as JSON.")]
MODEL = "Any file of weights, a run's folder, or a name: b0."
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps …; a GPU if there is one.")]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Pictures computed at once.")]
Engine = Annotated[
    str,
    typer.Option(metavar="KIND", help="auto, eager, compiled, onnxruntime, openvino, litert: by default the fastest."),
]
Precision = Annotated[
    str,
    typer.Option(metavar="TYPE", help="float32, or bfloat16 or float16, which are then allowed, where it is faster."),
]
Threads = Annotated[int | None, typer.Option(metavar="N", help="Threads of the engine: by default one a core.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a picture cannot be read.")]


def _above_zero(seconds: float) -> float:
    if not seconds > 0:
        raise typer.BadParameter("must be above 0")
    return seconds


Every = Annotated[
    float, typer.Option(metavar="SECONDS", callback=_above_zero, help="Of a video, take a frame this often.")
]


def _leave_the_network_alone(wanted: bool) -> None:
    """Says so where downloads look for it, for as long as this process lives."""
    if wanted:
        os.environ["EFFNET_OFFLINE"] = "1"


Offline = Annotated[
    bool,
    typer.Option("--offline", callback=_leave_the_network_alone, help="Use published weights only if they are here."),
]


class Decode(StrEnum):
    """How a JPEG is decoded: to its last pixel, or at a reduced scale where that is enough."""

    exact = "exact"
    reduced = "reduced"


_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BINARY = {"k": 2.0**10, "m": 2.0**20, "g": 2.0**30, "t": 2.0**40}
_QUANTITY = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def quantity(text: str) -> float:
    """``500MB``, ``8M``, ``1G``, ``1e9`` or ``64MiB`` as a number. Raises ``typer.BadParameter`` for anything else."""
    found = _QUANTITY.fullmatch(text.strip())
    if not found or (found[3] and not found[2]):
        raise typer.BadParameter(f"{text!r} is no amount: write 8M, 1.5G, 500MB, 64MiB or 1e9")
    return float(found[1]) * (_BINARY if found[3] else _FACTORS)[found[2].lower()]


def vacant(target: Path, force: bool) -> None:
    """Raises ``typer.BadParameter`` where ``target`` is there already and is not to be replaced."""
    if target.exists() and not force:
        raise typer.BadParameter(f"{target} is already there: give another name, or --force", param_hint="OUT")


def size(text: str | None) -> tuple[int, int] | None:
    """``240`` or ``197x251`` as (height, width); None stays None. Raises ``typer.BadParameter`` for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:[x×]([1-9]\d*))?", text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no size: write 240, or height x width as 197x251", param_hint="--size")
    return int(found[1]), int(found[2] or found[1])
