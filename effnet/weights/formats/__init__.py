"""One file a format, reading and writing side by side: bytes on disk into tensors by name, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from effnet.net import EfficientNet
    from effnet.weights.formats.content import Content

    Reader = Callable[[Path], Content]
    Writer = Callable[[Path, str, dict[str, Tensor], EfficientNet], None]  # (path, its suffix, tensors, their network)

EXPORTED = (".onnx", ".xml", ".pt2")

# Formats are imported when a file is read or written: engines look into one of them without torch.


def _readers() -> dict[str, Reader]:
    from effnet.weights.formats import keras, safetensors, tensorflow
    from effnet.weights.formats.tflite.read import read

    return {
        ".safetensors": safetensors.read,
        ".index": tensorflow.read,
        ".tflite": read,
        **dict.fromkeys((".h5", ".hdf5", ".keras"), keras.read),
    }


def _writers() -> dict[str, Writer]:
    from effnet.weights.formats import keras, pytorch, safetensors, tensorflow
    from effnet.weights.formats.tflite.write import write

    return {
        ".safetensors": safetensors.write,
        **dict.fromkeys((".pth", ".pt", ".bin"), pytorch.write),
        ".index": tensorflow.write,
        ".tflite": write,
        **dict.fromkeys((".h5", ".weights.h5", ".keras"), keras.write),
    }


def read(path: Path) -> Content:
    """What is in the file ``path``. Raises ``ValueError`` for a file that holds no weights, or not all of them."""
    from effnet.weights.formats import huggingface, pytorch, sstable, tensorflow
    from effnet.weights.formats.wrappings import unprefixed

    if path.suffix in EXPORTED:
        raise ValueError(
            f"{path} was exported for another runtime: it predicts and is evaluated, but weights are not read"
        )
    reader = _readers().get(path.suffix) or (tensorflow.read if sstable.is_one(path) else pytorch.read)
    return huggingface.read_beside(path, unprefixed(reader(path)))


def write(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet, layout: str) -> None:
    """``tensors``, named as in ``layout``, to ``path`` in the format that ``suffix`` means."""
    from effnet.weights.formats import safetensors

    writer = safetensors.write_own if layout == "effnet" else _writers()[suffix]
    writer(path, suffix, tensors, model)


def companions(path: Path, model: EfficientNet, layout: str) -> dict[str, str]:
    """Name → text of the files that the ecosystem of ``layout`` wants beside ``path``."""
    from effnet.weights.formats import huggingface

    return huggingface.companions(path, model) if layout == "huggingface" else {}
