"""One file a format, reading and writing side by side: bytes on disk into tensors by name, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from effnet.net import EfficientNet
    from effnet.weights.formats.checkpoint import Checkpoint

    Reader = Callable[[Path], Checkpoint]
    Writer = Callable[[Path, str, dict[str, Tensor], EfficientNet], None]  # (path, its suffix, tensors, their network)

EXPORTED_SUFFIXES = (".onnx", ".xml", ".pt2")

# Formats are imported when a file is read or written: engines look into one of them without torch.


def _readers() -> dict[str, Reader]:
    from effnet.weights.formats import keras_reader, safetensors, tensorflow
    from effnet.weights.formats.tflite_reader import read_tflite

    return {
        ".safetensors": safetensors.read_safetensors,
        ".index": tensorflow.read_tensorflow,
        ".tflite": read_tflite,
        **dict.fromkeys((".h5", ".hdf5", ".keras"), keras_reader.read_keras),
    }


def _writers() -> dict[str, Writer]:
    from effnet.weights.formats import keras_writer, pytorch, safetensors, tensorflow
    from effnet.weights.formats.tflite_writer import write_tflite

    return {
        ".safetensors": safetensors.write_safetensors,
        **dict.fromkeys((".pth", ".pt", ".bin"), pytorch.write_pytorch),
        ".index": tensorflow.write_tensorflow,
        ".tflite": write_tflite,
        **dict.fromkeys((".h5", ".weights.h5", ".keras"), keras_writer.write_keras),
    }


def read_checkpoint(path: Path) -> Checkpoint:
    """What is in the file ``path``. Raises ``ValueError`` for a file that holds no weights, or not all of them."""
    from effnet.weights.formats import huggingface, pytorch, tensorflow
    from effnet.weights.formats.checkpoint import strip_prefixes

    if path.suffix in EXPORTED_SUFFIXES:
        raise ValueError(
            f"{path} was exported for another runtime: it predicts and is evaluated, but weights are not read"
        )
    reader = _readers().get(path.suffix) or (
        tensorflow.read_tensorflow if tensorflow.is_table(path) else pytorch.read_pytorch
    )
    return huggingface.add_config(path, strip_prefixes(reader(path)))


def write_checkpoint(path: Path, suffix: str, tensors: dict[str, Tensor], model: EfficientNet, layout: str) -> None:
    """``tensors``, named as in ``layout``, to ``path`` in the format that ``suffix`` means."""
    from effnet.weights.formats import safetensors

    writer = safetensors.write_model_file if layout == "effnet" else _writers()[suffix]
    writer(path, suffix, tensors, model)


def companion_files(path: Path, model: EfficientNet, layout: str) -> dict[str, str]:
    """Name → text of the files that the ecosystem of ``layout`` wants beside ``path``."""
    from effnet.weights.formats import huggingface

    return huggingface.config_files(path, model) if layout == "huggingface" else {}
