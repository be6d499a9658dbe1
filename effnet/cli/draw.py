"""``effnet draw``: a network or a block as a diagram."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import JsonOption, parse_image_size, refuse_existing

if TYPE_CHECKING:
    from effnet.cli.options import ResolvedNetwork
    from effnet.draw.rendering import Diagram

_BLOCK_KINDS = ("mbconv", "fused", "squeeze_excite")
_SUFFIXES = (".svg", ".png")


class DetailLevel(StrEnum):
    """How far a network is opened."""

    stages = "stages"
    layers = "layers"
    operations = "operations"


class NetworkView(StrEnum):
    """How a network is looked at."""

    network = "network"
    modules = "modules"


@dataclass(frozen=True)
class DrawOutputs:
    """A diagram in every form; each is made when it is called for."""

    text: str
    rows: dict[str, Any]
    diagram: Diagram


def draw(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A network: a name (b0), a file of weights, an arch as JSON. Or mbconv, fused, squeeze_excite.",
        ),
    ],
    against: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Draw this network beside it, and mark what differs.")
    ] = None,
    detail: Annotated[DetailLevel, typer.Option(help="How far the network is opened.")] = DetailLevel.stages,
    view: Annotated[NetworkView, typer.Option("--as", help="modules: by what repeats in it.")] = NetworkView.network,
    block: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the network this block alone: stage3.0.")
    ] = None,
    narrow: Annotated[bool, typer.Option("--narrow", help="The stages downwards, for a telephone.")] = False,
    at: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="HEIGHTxWIDTH", help="Of the picture, if not the network's own; of a block's map: 56."
        ),
    ] = None,
    inputs: Annotated[int | None, typer.Option("--in", min=1, metavar="N", help="Of a block: channels in.")] = None,
    expand: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Of a block: inner channels over those in; 6, fused 4; of a squeeze_excite 1."
        ),
    ] = None,
    kernel: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of a block: 3, 5 …; 3.")] = None,
    stride: Annotated[int | None, typer.Option(min=1, max=2, metavar="N", help="Of a block: 1 or 2; 1.")] = None,
    squeeze: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="RATIO", help="Of a block: squeezed channels over those in; 0.25, fused 0."),
    ] = None,
    out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|N", help="Write this .svg or .png; may be repeated. A number: a block's channels out."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is already there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw a network or a block, to scale, with shapes and counts.

    As text in the terminal, or with --out into a file. From the arch alone: nothing is computed.
    """
    files, channels = _parse_outputs(out or [], force)
    ratios = {"--in": inputs, "--expand": expand, "--kernel": kernel, "--stride": stride, "--squeeze": squeeze}
    given = [name for name, value in ratios.items() if value is not None] + (["--out N"] if channels else [])
    whole = {"--against": against, "--block": block, "--narrow": narrow}
    whole |= {"--detail": detail != DetailLevel.stages, "--as modules": view == NetworkView.modules}
    asked = [name for name, value in whole.items() if value]
    wanted = parse_image_size(at)
    if what in _BLOCK_KINDS:
        if asked:
            raise typer.BadParameter(f"is of networks, not of a block such as {what}", param_hint=asked[0])
        if inputs is None:
            raise typer.BadParameter(f"how many channels enter the {what}? Say --in N", param_hint="--in")
        drawn = _draw_block(what, inputs, channels, expand, kernel, stride, squeeze, wanted)
    else:
        if given:
            raise typer.BadParameter(
                f"is of a block, not of a network: effnet draw mbconv {given[0]} …", param_hint=given[0]
            )
        if len(asked) > 1:
            raise typer.BadParameter(f"goes without {asked[1]}: one view at a time", param_hint=asked[0])
        drawn = _draw_network(what, against, detail.value, view == NetworkView.modules, block, narrow, wanted)
    _write_outputs(drawn, files, as_json)


def _parse_outputs(out: list[str], force: bool) -> tuple[list[Path], int | None]:
    """Files to write, and a block's channels out. Raises ``typer.BadParameter`` for what is neither."""
    numbers = [int(each) for each in out if each.isdecimal()]
    files = [Path(each) for each in out if not each.isdecimal()]
    for file in files:
        if file.suffix.lower() not in _SUFFIXES:
            raise typer.BadParameter(f"{file} is neither .svg nor .png, nor a number of channels", param_hint="--out")
        refuse_existing(file, force)
    if len(numbers) > 1 or 0 in numbers:
        raise typer.BadParameter("give one number of channels, above 0", param_hint="--out")
    return files, numbers[0] if numbers else None


def _draw_block(
    kind: str,
    inputs: int,
    channels: int | None,
    expand: int | None,
    kernel: int | None,
    stride: int | None,
    squeeze: float | None,
    wanted: tuple[int, int] | None,
) -> DrawOutputs:
    from effnet.draw import text_diagram
    from effnet.draw.block_diagram import block_to_json, draw_block, make_block_spec

    made = (kind, inputs, channels, expand, kernel or 3, stride or 1, squeeze, wanted or 56)
    found = make_block_spec(*made)
    return DrawOutputs(text_diagram.block_text(found), block_to_json(found), draw_block(*made))


def _draw_network(
    what: str,
    other: str | None,
    detail: str,
    by_modules: bool,
    name: str | None,
    narrow: bool,
    wanted: tuple[int, int] | None,
) -> DrawOutputs:
    from effnet.arch import count
    from effnet.cli.options import resolve_network
    from effnet.draw import network_diagram, network_summary, text_diagram

    found = resolve_network(what)
    if name is not None:
        return _draw_block_of_network(found, name, wanted)
    shape = (wanted, found.classes, found.channels)
    counted = count(found.arch, *shape)
    whole = {"arch": found.arch.to_dict(), "size": counted.size, "params": counted.params, "macs": counted.macs}
    if other is not None:
        second = resolve_network(other)
        pair = [counted, count(second.arch, wanted, second.classes, second.channels)]
        both = {
            "networks": [
                {"name": each.arch.name, "size": each.size, "stages": network_summary.stages_to_json(each)}
                for each in pair
            ],
            "differences": network_summary.differences_to_json(*pair),
        }
        return DrawOutputs(text_diagram.comparison_text(*pair), both, network_diagram.draw_comparison(*pair))
    if by_modules:
        return DrawOutputs(
            text_diagram.modules_text(found.arch, *shape),
            whole | network_summary.modules_to_json(counted),
            network_diagram.draw_modules(found.arch, *shape),
        )
    told = {"stages": network_summary.stages_to_json(counted)} if detail == "stages" else {}
    told = told or {"layers": network_summary.layers_to_json(counted, operations=detail == "operations")}
    diagram = network_diagram.draw_network(found.arch, *shape, detail, narrow)
    return DrawOutputs(text_diagram.network_text(found.arch, *shape, detail), whole | told, diagram)


def _draw_block_of_network(found: ResolvedNetwork, name: str, wanted: tuple[int, int] | None) -> DrawOutputs:
    from effnet.draw import text_diagram
    from effnet.draw.block_diagram import block_to_json, draw_block_of, find_block_spec

    one = find_block_spec(found.arch, name, wanted)
    return DrawOutputs(
        text_diagram.block_text(one),
        {"name": name} | block_to_json(one),
        draw_block_of(found.arch, name, wanted),
    )


def _write_outputs(drawn: DrawOutputs, files: list[Path], as_json: bool) -> None:
    """The files that are wanted; else, or with JSON, standard output."""
    from effnet.cli.printing import note, print_json, print_results

    for file in files:
        from effnet.data.storage.atomic_write import atomic_write

        data = drawn.diagram.png if file.suffix.lower() == ".png" else drawn.diagram.standalone_svg.encode()
        with atomic_write(file) as beside:
            beside.write_bytes(data)
        note(f"{drawn.diagram.scene.title} is drawn in {file}")
    if as_json:
        print_json(drawn.rows)
    elif not files:
        print_results(drawn.text)
