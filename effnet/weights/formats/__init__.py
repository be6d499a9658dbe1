"""One file a format, reading and writing side by side: bytes on disk into tensors by name, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from effnet.net import EfficientNet
from effnet.weights.formats import pytorch, safetensors
from effnet.weights.formats.content import Content

Writer = Callable[[Path, str, dict[str, Tensor], EfficientNet], None]  # (path, suffix meant, tensors, their network)

_READERS: dict[str, Callable[[Path], Content]] = {".safetensors": safetensors.read}
_WRITERS: dict[str, Writer] = {
    ".safetensors": safetensors.write,
    ".pth": pytorch.write,
    ".pt": pytorch.write,
    ".bin": pytorch.write,
}


def read(path: Path) -> Content:
    """What is in the file ``path``. Raises ``ValueError`` for a file that holds no weights, or not all of them."""
    return _READERS.get(path.suffix, pytorch.read)(path)


def write(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet, layout: str) -> None:
    """``tensors``, named as in ``layout``, to ``path`` in the format that ``suffix`` means."""
    writer = safetensors.write_own if layout == "effnet" else _WRITERS[suffix]
    writer(path, suffix, tensors, model)
