"""What a user calls a network, as an arch: a name, a file of weights, a file of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from effnet.arch import Arch, resolve
from effnet.contract import Labels

# As `effnet.weights.find` has them, which would bring torch with it
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".tflite", ".index")


class Opened(NamedTuple):
    """An arch with the classes and the picture's channels that it is meant for."""

    arch: Arch
    classes: int = 1000
    channels: int = 3
    labels: Labels | None = None  # None: of an arch alone, whose outputs mean nothing yet


def opened(network: str) -> Opened:
    """The arch that ``network`` means. Raises ``ValueError`` or ``OSError`` where it means none."""
    path = Path(network)
    if path.suffix == ".json":
        try:
            return Opened(Arch.from_json(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} holds no arch: {error}") from None
    if path.suffix in (".onnx", ".xml"):
        from effnet.engines.opening import open_file

        file = open_file(path)
        return Opened(file.contract.arch, file.classes, len(file.contract.preprocess.mean), file.contract.labels)
    if path.suffix in SUFFIXES or path.is_file() or (path / "model.safetensors").is_file():
        from effnet.weights import load

        model = load(path)
        return Opened(model.arch, model.classes, model.channels, model.labels)
    return Opened(resolve(network))
