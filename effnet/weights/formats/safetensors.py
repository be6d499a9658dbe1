"""safetensors: our own files, and everyone's."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from effnet.net import EfficientNet
from effnet.weights.formats.content import Content

HEADER = "effnet"  # the one text in the header of our files: arch, numerics, preprocess, labels, provenance as JSON


def read(path: Path) -> Content:
    """Tensors and texts of the file; bytes are read when they are used. Raises ``ValueError`` if damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return Content({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: a damaged file of weights ({error})") from None


def write(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` for any reader: without our header."""
    save_file(tensors, path, metadata={"format": "pt"})


def write_own(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` with the whole contract of ``model`` in the header."""
    save_file(tensors, path, metadata={HEADER: model.contract.to_json()})
