"""Weights of every ecosystem: found, downloaded, loaded, converted and saved. Only what needs torch imports it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.weights.conversion import convert as convert
    from effnet.weights.loading import load as load
    from effnet.weights.saving import save as save


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in ("convert", "load", "save"):
            raise AttributeError(f"effnet.weights has no {name!r}")
        from effnet.weights.conversion import convert
        from effnet.weights.loading import load
        from effnet.weights.saving import save

        globals().update(convert=convert, load=load, save=save)
        return globals()[name]
