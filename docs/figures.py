"""Draw the figures of the docs: the family, the networks it was compared with, and diagrams. ``make docs`` runs it."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from effnet.arch import ARCHS, PUBLISHED_TOP1, count
from effnet.draw.block_diagram import draw_block, make_block_spec
from effnet.draw.diagram import Diagram
from effnet.draw.layer_diagram import draw_modules
from effnet.draw.network_diagram import draw_comparison, draw_network
from effnet.lab.compare.paper_tables import figure1, table2

# Family: its networks, color, and the offset of its labels
FAMILIES = {
    "EfficientNet V2 (S–XL; XL from ImageNet-21k)": (("v2_s", "v2_m", "v2_l", "v2_xl"), "#7b3fa0", (0, 8)),
    "EfficientNet V2-B": (("v2_b0", "v2_b1", "v2_b2", "v2_b3"), "#c05299", (0, -15)),
    "EfficientNet B0–B7": (("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"), "#3b7dd8", (9, -13)),
    "Lite": (("lite0", "lite1", "lite2", "lite3", "lite4"), "#2a9d6f", (0, -15)),
    "EdgeTPU": (("edge_s", "edge_m", "edge_l"), "#d9772b", (0, -15)),
}


def family() -> Figure:
    """Plot top-1 against MACs: a line for each family, the area of a point proportional to its parameters."""
    figure = Figure(figsize=(9, 4.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for label, (names, color, offset) in FAMILIES.items():
        counted = [count(ARCHS[name]) for name in names]
        x, y = [found.macs / 1e9 for found in counted], [PUBLISHED_TOP1[name][0] for name in names]
        axes.plot(x, y, color=color, linewidth=1.5, alpha=0.6, zorder=1)
        axes.scatter(x, y, s=[4 * found.params / 1e6 for found in counted], color=color, alpha=0.25, linewidths=0)
        axes.scatter(x, y, s=14, color=color, label=label, zorder=2)
        for name, at_x, at_y in zip(names, x, y, strict=True):
            shown = name.removeprefix("v2_").removeprefix("lite").removeprefix("edge_").upper()
            axes.annotate(shown, (at_x, at_y), offset, textcoords="offset points", ha="center", fontsize=8, color=color)
    axes.set_ylim(74, 88.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else ""))
    axes.set_xlabel("multiply-accumulates for one image, in billions (counted)")
    axes.set_ylabel("ImageNet top-1, % (published)")
    axes.set_title("The EfficientNet family; areas are proportional to parameters", fontsize=11, loc="left")
    axes.grid(which="both", alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def diagrams() -> dict[str, Diagram]:
    """Return the diagrams of docs/drawing.md by name."""
    return {
        "b0": draw_network("b0"),
        "b0-operations": draw_network("b0", detail="operations"),
        "b0-modules": draw_modules(count("b0")),
        "b0-b3": draw_comparison(count("b0"), count("b3")),
        "v2_s": draw_network("v2_s"),
        "mbconv": draw_block(make_block_spec("mbconv", 16)),
        "fused": draw_block(make_block_spec("fused", 24, 48, stride=2)),
    }


def main() -> None:
    """Write the figures next to this file."""
    for name, drawn in diagrams().items():
        Path(__file__).with_name(f"{name}.svg").write_text(drawn.standalone_svg, encoding="utf-8")
    _, rivals = figure1(table2())
    Path(__file__).with_name("rivals.svg").write_text(rivals.standalone_svg, encoding="utf-8")
    with matplotlib.rc_context({"svg.hashsalt": "effnet", "svg.fonttype": "path"}):
        family().savefig(Path(__file__).with_name("family.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
