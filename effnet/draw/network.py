"""A network as a diagram, from the arch alone: its stages to scale, its layers, its operations, what repeats in it."""

from __future__ import annotations

from effnet.arch import Arch, Count, count
from effnet.arch.count import Size
from effnet.draw.diagram.cards import cards
from effnet.draw.diagram.chips import chips
from effnet.draw.diagram.diagram import Diagram
from effnet.draw.diagram.modules import modules as modules_scene
from effnet.draw.diagram.strip import strip
from effnet.draw.diagram.upright import upright

DETAILS = ("stages", "layers", "operations")


def network(
    arch: str | Arch,
    size: Size | None = None,
    classes: int = 1000,
    channels: int = 3,
    detail: str = "stages",
    narrow: bool = False,
    beside: str | Arch | None = None,
) -> Diagram:
    """The network for a picture of ``size`` pixels (its own resolution if None), down to the ``detail`` wanted.

    "stages": a strip to scale, on which a map's height and depth are its sides in pixels and its length the channels
    of all layers of the stage; with the paper's table below. "layers": each stage opened into its layers. "operations":
    each layer opened into its convolutions and linear maps, equal neighbours together.

    ``narrow``: the stages downwards, 360 units wide, for a telephone. ``beside``: a network, at its own resolution,
    that would have room on the same scale, so that drawings of several can be compared; of the stages only.
    Raises ``ValueError`` for a detail that there is none of, for ``narrow`` or ``beside`` with another than the
    stages, and for a size below one pixel.
    """
    if known_detail(detail) != "stages" and (narrow or beside):
        raise ValueError(f"narrow and beside are for the detail stages, not for {detail}")
    counted = count(arch, size, classes, channels)
    if detail == "layers":
        return Diagram(chips(counted))
    if detail == "operations":
        return Diagram(cards(counted))
    scale = count(beside, None, classes, channels) if beside else None
    return Diagram(upright(counted, scale) if narrow else strip([counted], scale))


def known_detail(detail: str) -> str:
    """``detail`` itself. Raises ``ValueError`` where none is called so."""
    if detail not in DETAILS:
        raise ValueError(f"no detail is called {detail!r}: there are {', '.join(DETAILS)}")
    return detail


def modules(arch: str | Arch, size: Size | None = None, classes: int = 1000, channels: int = 3) -> Diagram:
    """The network by what repeats in it: stages of sub-blocks, which have one colour where they are alike."""
    return Diagram(modules_scene(count(arch, size, classes, channels)))


def against(first: Count, second: Count) -> Diagram:
    """Two counted networks on one scale, one above the other, and a table in which is marked what differs."""
    return Diagram(strip([first, second]))
