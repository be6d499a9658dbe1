"""Weights of every ecosystem: found, downloaded, loaded, converted and saved. Only what needs torch imports it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.weights.conversion import convert as convert
    from effnet.weights.loading import load as load
    from effnet.weights.saving import save as save

_MODULE_OF = {"convert": "conversion", "load": "loading", "save": "saving"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"effnet.weights has no {name!r}")
        return getattr(import_module(f"effnet.weights.{_MODULE_OF[name]}"), name)
