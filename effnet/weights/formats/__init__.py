"""Formats of weights files: tensors by name, read and written in one module per format."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.metadata import Labels, Numerics

if TYPE_CHECKING:
    from torch import Tensor

    from effnet.net import EfficientNet

METADATA_KEY = "effnet"  # the entry of a file's own metadata that holds `effnet.ModelMetadata` as JSON
UNREADABLE_SUFFIXES = (".xml", ".pt2")  # of files for other runtimes
TENSORFLOW_TABLE_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")  # the end of an .index


@dataclass(frozen=True)
class Checkpoint:
    """All tensors of a file by name, and what else the file states.

    Names are flat: what lies in dicts, lists and modules is joined by dots ("state_dict.model.conv_stem.weight");
    Keras' and TensorFlow's keep their slashes. Which tensors are the network, `effnet.weights.detect` finds.

    Args:
        tensors: every tensor of the file, also those of optimizers and other networks.
        header: text by name, as in a ``.safetensors``.
        layout: set if the format has only one.
        preprocess: stated fields of `effnet.Preprocess`.
        numerics: if stated.
        labels: the classes' names and the task, if stated.
        notes: tell the user what had to be done or chosen.
        arch_name: the network's name if stated, in any library's spelling.
        values: every plain value by its flat name: "epoch", "args.model", and attributes of pickled modules,
            "model.bn1.eps"; the class of such a module is "model.bn1.__class__".
        stated_in: name of one of these fields → where it is stated, in words.
    """

    tensors: "dict[str, Tensor]"
    header: Mapping[str, str] = field(default_factory=dict)
    layout: str | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    numerics: Numerics | None = None
    labels: Labels = field(default_factory=Labels)
    notes: tuple[str, ...] = ()
    arch_name: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    stated_in: Mapping[str, str] = field(default_factory=dict)

    def under(self, prefix: str) -> "Checkpoint":
        """Return a copy with only the tensors and values under ``prefix``, by what follows it in their names."""
        tensors, values = (
            {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
            for named in (self.tensors, self.values)
        )
        return replace(self, tensors=tensors, values=values)


# Formats are imported when a file is read or written: some need a package that may not be installed.
_READERS = {
    ".safetensors": ("pytorch", "read_safetensors"),
    ".index": ("tensorflow", "read_tensorflow"),
    "saved_model.pb": ("tensorflow_saved_model", "read_saved_model"),
    ".tflite": ("tflite_reader", "read_tflite"),
    ".onnx": ("onnx_reader", "read_onnx"),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), ("keras_reader", "read_keras")),
}
_WRITERS = {
    "effnet": ("pytorch", "write_model_file"),  # the layout, in a .safetensors
    ".safetensors": ("pytorch", "write_safetensors"),
    **dict.fromkeys((".pth", ".pt", ".bin"), ("pytorch", "write_pytorch")),
    ".index": ("tensorflow", "write_tensorflow"),
    ".tflite": ("tflite_writer", "write_tflite"),
    **dict.fromkeys((".h5", ".weights.h5", ".keras"), ("keras_writer", "write_keras")),
}
_FORMATS_WITH_DIGEST = (".safetensors", ".tflite", ".onnx")
_DISPLAY_NAMES = {"tensorflow": "TensorFlow checkpoints", "tflite": "TFLite files", "keras": "Keras files"}


def _import_function(module: str, function: str) -> Any:
    """Return a format's function. Raises ``ImportError`` that names the extra whose packages are missing."""
    try:
        return getattr(import_module(f"effnet.weights.formats.{module}"), function)
    except ModuleNotFoundError as error:
        extra = module.partition("_")[0]
        if extra not in _DISPLAY_NAMES:
            raise
        raise ImportError(f'{_DISPLAY_NAMES[extra]} require {error.name}: pip install "effnet[{extra}]"') from None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of any format. Raises ``ValueError`` if it is damaged or contains no weights."""
    from effnet.data.storage import embedded_digest
    from effnet.weights.formats import huggingface

    if path.suffix in UNREADABLE_SUFFIXES:
        raise ValueError(f"{path}: weights are not read from {path.suffix} files; take the file that it was made from")
    suffix = path.suffix if path.suffix in _READERS or not _is_tensorflow_index(path) else ".index"
    if suffix == ".index" and (path.parent.parent / "saved_model.pb").is_file():
        suffix = "saved_model.pb"
    if suffix in _FORMATS_WITH_DIGEST and path.is_file() and path.stat().st_size:
        embedded_digest.verify(path)
    read = _import_function(*_READERS.get(suffix, ("pytorch", "read_pytorch")))
    return huggingface.add_config(path, read(path))


def _is_tensorflow_index(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - len(TENSORFLOW_TABLE_MAGIC), 0))
        return file.read() == TENSORFLOW_TABLE_MAGIC


def write_checkpoint(path: Path, suffix: str, tensors: "dict[str, Tensor]", model: "EfficientNet", layout: str) -> None:
    """Write ``tensors``, named as in ``layout``, to ``path`` in the format of ``suffix``."""
    write = _import_function(*_WRITERS[layout if layout in _WRITERS else suffix])
    write(path, suffix, tensors, model)
