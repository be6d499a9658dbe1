"""``effnet draw``: a network or a block as a diagram."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options

if TYPE_CHECKING:
    from effnet.draw import block_diagram, diagram

_BLOCK_KINDS = ("mbconv", "fused", "squeeze_excite")
_BLOCK_OPTIONS = ("--in-channels", "--out-channels", "--expand", "--kernel", "--stride", "--squeeze")
DetailLevel = StrEnum("DetailLevel", ["stages", "layers", "operations"])
NetworkView = StrEnum("NetworkView", ["network", "modules"])


@dataclass(frozen=True)
class DrawOutputs:
    """A diagram in every form."""

    text: str
    rows: dict[str, Any]
    image: "diagram.Diagram"


@with_weights_options()
def draw(
    what: Annotated[
        str,
        Argument(
            metavar="WHAT",
            help="A network (a name such as b0, a weights file, JSON), or a block: mbconv, fused, squeeze_excite.",
        ),
    ],
    against: Annotated[
        str | None, Option(metavar="NETWORK", help="Draw this network beside it, and mark the differences.")
    ] = None,
    detail: Annotated[DetailLevel, Option(help="Level of detail of a network.")] = DetailLevel.stages,
    view: Annotated[
        NetworkView, Option("--view", "--as", help="modules: by the modules that repeat in it.")
    ] = NetworkView.network,
    block: Annotated[str | None, Option(metavar="NAME", help="Draw only this block of the network: stage3.0.")] = None,
    narrow: Annotated[bool, Option("--narrow", help="Draw the stages vertically, for phones.")] = False,
    image_size: Annotated[
        str | None,
        Option(
            *options.IMAGE_SIZE,
            metavar="SIZE",
            help="Input resolution, 224 or HEIGHTxWIDTH (default: the network's); of a block's input: 56.",
        ),
    ] = None,
    in_channels: Annotated[int | None, options.number("Block: input channels.", "--in-channels", "--in")] = None,
    out_channels: Annotated[int | None, options.number("Block: output channels (default: as many as in).")] = None,
    expand: Annotated[
        int | None, options.number("Block: expansion ratio (default: 6; fused 4; squeeze_excite 1).")
    ] = None,
    kernel: Annotated[int | None, options.number("Block: kernel size (default: 3).")] = None,
    stride: Annotated[int | None, options.number("Block: stride (default: 1).", max=2)] = None,
    squeeze: Annotated[
        float | None, options.real("Block: squeeze ratio (default: 0.25; fused 0).", max=1, metavar="RATIO")
    ] = None,
    part: WeightsOptions = AS_STATED,
    out: Annotated[list[Path] | None, options.output("FILE", "Write this .svg or .png; may be repeated.")] = None,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Draw a network or a block to scale, with shapes and counts.

    Prints text, or with --output writes an image. Drawn from the architecture alone, without computing anything.
    """
    files = out or []
    for file in files:
        if file.suffix.lower() not in (".svg", ".png"):
            raise options.UsageError(f"--output {file}: the file name must end in .svg or .png")
        options.refuse_existing(file, force)
    by_modules = view == NetworkView.modules
    block_values = (in_channels, out_channels, expand, kernel, stride, squeeze)
    network_options = {"--against": against, "--block": block, "--narrow": narrow}
    network_options |= {"--detail": detail != DetailLevel.stages, "--view modules": by_modules}
    of_block = [name for name, value in zip(_BLOCK_OPTIONS, block_values, strict=True) if value is not None]
    of_network = [name for name, value in network_options.items() if value]
    size = options.parse_image_size(image_size)
    if what in _BLOCK_KINDS:
        part.refuse(f"applies to networks, not to a block such as {what}")
        if of_network:
            raise options.UsageError(f"{of_network[0]} applies to networks, not to a block such as {what}")
        if in_channels is None:
            raise options.UsageError(f"Missing option '--in-channels': pass the number of input channels of the {what}")
        from effnet.draw.block_diagram import make_block_spec

        spec = (what, in_channels, out_channels, expand, kernel or 3, stride or 1, squeeze, size or 56)
        outputs = _draw_block(make_block_spec(*spec))
    else:
        if of_block:
            raise options.UsageError(f"{of_block[0]} applies to blocks, as in: effnet draw mbconv {of_block[0]} …")
        if len(of_network) > 1:
            raise options.UsageError(f"{of_network[0]} cannot be combined with {of_network[1]}")
        outputs = _draw_network(
            options.resolve_network(what, part), against, detail.value, by_modules, block, narrow, size
        )
    for file in files:
        from effnet.data.storage.atomic_write import atomic_write

        data = outputs.image.png if file.suffix.lower() == ".png" else outputs.image.standalone_svg.encode()
        with atomic_write(file) as temporary:
            temporary.write_bytes(data)
        printing.note(f"wrote {outputs.image.title} to {file}")
    if as_json:
        printing.print_json(outputs.rows)
    elif not files:
        printing.print_results(outputs.text)


def _draw_block(spec: "block_diagram.BlockSpec") -> DrawOutputs:
    from effnet.draw import block_diagram, text_diagram

    return DrawOutputs(text_diagram.block_text(spec), block_diagram.block_to_json(spec), block_diagram.draw_block(spec))


def _draw_network(
    network: options.ResolvedNetwork,
    against: str | None,
    detail: str,
    by_modules: bool,
    block: str | None,
    narrow: bool,
    size: tuple[int, int] | None,
) -> DrawOutputs:
    from effnet.arch import count
    from effnet.draw import block_diagram, diagram_data, layer_diagram, network_diagram, text_diagram

    if block is not None:
        outputs = _draw_block(block_diagram.find_block_spec(network.arch, block, size))
        return replace(outputs, rows={"name": block} | outputs.rows)
    shape = (size, network.classes, network.channels)
    counted = count(network.arch, *shape)
    summary = {"arch": network.arch.to_dict(), "size": counted.size, "params": counted.params, "macs": counted.macs}
    if against is not None:
        other = options.resolve_network(against)
        pair = [counted, count(other.arch, size, other.classes, other.channels)]
        networks = [
            {"name": each.arch.name, "size": each.size, "stages": diagram_data.stages_to_json(each)} for each in pair
        ]
        rows: dict[str, Any] = {"networks": networks, "differences": diagram_data.differences_to_json(*pair)}
        return DrawOutputs(text_diagram.comparison_text(*pair), rows, network_diagram.draw_comparison(*pair))
    if by_modules:
        rows = summary | diagram_data.modules_to_json(counted)
        return DrawOutputs(text_diagram.modules_text(counted), rows, layer_diagram.draw_modules(counted))
    text = text_diagram.network_text(counted, detail)
    if detail == "stages":
        rows = summary | {"stages": diagram_data.stages_to_json(counted)}
    else:
        rows = summary | {"layers": diagram_data.layers_to_json(counted, operations=detail == "operations")}
    return DrawOutputs(text, rows, network_diagram.draw_network(network.arch, *shape, detail, narrow))
