"""From an exported file to the engine that runs it. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from effnet.engines.engine import Engine, installed, missing
from effnet.engines.interface import INTERFACE

SUFFIXES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",), ".tflite": ("litert",)}


def open_file(
    path: str | Path, kind: str | None = None, precision: str = "float32", threads: int | None = None
) -> Engine:
    """The engine of an exported file: onnxruntime's or OpenVINO's ``.onnx``, OpenVINO's ``.xml``, LiteRT's ``.tflite``.

    ``kind=None`` takes the first of these whose package is here and which has the precision.
    Raises ``ValueError`` for another suffix, a kind that does not open it, a damaged file, one that is not ours, and a
    precision that is not to be had; ``FileNotFoundError``; ``ImportError`` where the package is not here.
    """
    kinds = SUFFIXES.get(Path(path).suffix)
    if kinds is None:
        raise ValueError(f"{path} is no exported file: their names end in {', '.join(SUFFIXES)}")
    if kind is not None:
        if kind not in kinds:
            raise ValueError(f"{kind} does not open {Path(path).suffix} files: {' and '.join(kinds)} do")
        return opened(kind, Path(path), precision, threads)
    here = [each for each in kinds if each in installed()]
    if not here:
        raise missing(kinds[0])
    if precision not in ("float32", "int8") and "openvino" in here:  # the only one that may have it
        here = ["openvino"]
    return opened(here[0], Path(path), precision, threads)


def opened(kind: str, path: Path, precision: str, threads: int | None, cache: Path | None = None) -> Engine:
    """The engine called ``kind`` with the file. ``cache``: where it may keep what it compiled, if it does."""
    match kind:
        case "onnxruntime":
            from effnet.engines.onnxruntime import Onnxruntime

            return Onnxruntime(path, precision, threads)
        case "openvino":
            from effnet.engines.openvino import Openvino

            return Openvino(path, precision, threads, cache)
    from effnet.engines.litert import Litert

    return Litert(path, precision, threads)


def is_exported(path: Path) -> bool:
    """Whether the file is one to run as it is: an IR or ONNX, or a ``.tflite`` that says how it is to be used."""
    if path.suffix != ".tflite" or not path.is_file():
        return path.suffix in SUFFIXES and path.suffix != ".tflite"
    from effnet.engines.litert import metadata

    try:
        return INTERFACE in metadata(path)
    except ValueError:  # whoever reads its weights says what is wrong with it
        return False
