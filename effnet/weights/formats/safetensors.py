"""safetensors: our own files, and everyone's."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from effnet.net import EfficientNet
from effnet.weights.formats.checkpoint import Checkpoint

METADATA_KEY = (
    "effnet"  # the one text in the header of our files: arch, numerics, preprocess, labels, provenance as JSON
)


def read_safetensors(path: Path) -> Checkpoint:
    """Tensors and texts of the file; bytes are read when they are used. Raises ``ValueError`` if damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: a damaged file of weights ({error})") from None


def write_safetensors(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` for any reader: without our header."""
    save_file(tensors, path, metadata={"format": "pt"})


def write_model_file(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet) -> None:
    """``tensors`` with the whole contract of ``model`` in the header."""
    save_file(tensors, path, metadata={METADATA_KEY: model.metadata.to_json()})
