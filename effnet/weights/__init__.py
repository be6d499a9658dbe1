"""Weights of every ecosystem: found, downloaded, loaded, converted and saved. Only what needs torch imports it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.weights.conversion import convert as convert
    from effnet.weights.loading import load as load
    from effnet.weights.saving import save as save

# Suffixes of weights files. Anything else after a dot is part of a name, as in tf_efficientnet_b0.ns_jft_in1k
WEIGHTS_SUFFIXES = (
    *(".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".tflite", ".index", ".onnx"),
)
_MODULE_OF = {"convert": "conversion", "load": "loading", "save": "saving"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"effnet.weights has no {name!r}")
        return getattr(import_module(f"effnet.weights.{_MODULE_OF[name]}"), name)
