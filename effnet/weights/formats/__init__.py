"""One file a format, reading and writing side by side: bytes on disk into tensors by name, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from effnet.net import EfficientNet
from effnet.weights.formats import huggingface, keras, pytorch, safetensors, sstable, tensorflow, tflite
from effnet.weights.formats.content import Content
from effnet.weights.formats.wrappings import unprefixed

Writer = Callable[[Path, str, dict[str, Tensor], EfficientNet], None]  # (path, suffix meant, tensors, their network)

_READERS: dict[str, Callable[[Path], Content]] = {
    ".safetensors": safetensors.read,
    ".index": tensorflow.read,
    ".tflite": tflite.read,
    **dict.fromkeys((".h5", ".hdf5", ".keras"), keras.read),
}
_WRITERS: dict[str, Writer] = {
    ".safetensors": safetensors.write,
    ".pth": pytorch.write,
    ".pt": pytorch.write,
    ".bin": pytorch.write,
    ".index": tensorflow.write,
    ".tflite": tflite.write,
    **dict.fromkeys((".h5", ".weights.h5", ".keras"), keras.write),
}


def read(path: Path) -> Content:
    """What is in the file ``path``. Raises ``ValueError`` for a file that holds no weights, or not all of them."""
    reader = _READERS.get(path.suffix) or (tensorflow.read if sstable.is_one(path) else pytorch.read)
    return huggingface.read_beside(path, unprefixed(reader(path)))


def write(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet, layout: str) -> None:
    """``tensors``, named as in ``layout``, to ``path`` in the format that ``suffix`` means."""
    writer = safetensors.write_own if layout == "effnet" else _WRITERS[suffix]
    writer(path, suffix, tensors, model)


def companions(path: Path, model: EfficientNet, layout: str) -> dict[str, str]:
    """Name → text of the files that the ecosystem of ``layout`` wants beside ``path``."""
    return huggingface.companions(path, model) if layout == "huggingface" else {}
