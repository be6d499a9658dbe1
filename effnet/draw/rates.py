"""The loss over a rising learning rate, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence

from effnet.draw.figure import INK, UNIT, as_svg, bare, drawing

BLUE, GREY = "#3b7dd8", "#8b919c"


def rates(rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], title: str, marked: float) -> str:
    """``losses`` as dots and ``smooth`` as a line over ``rates``, with a line at the rate ``marked``: 480 × 280 units.

    Losses far above the others are cut off at the top.
    """
    with drawing() as figure_class:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        figure = figure_class(figsize=(480 / UNIT, 280 / UNIT), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        axes.scatter(rates, losses, 9, color=GREY, alpha=0.6, linewidth=0)
        axes.plot(rates, smooth, color=BLUE, linewidth=2)
        axes.axvline(marked, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (3, 3)))
        axes.annotate(
            f"{marked:.2g}", (marked, 1), xycoords=("data", "axes fraction"),
            xytext=(5, 0), textcoords="offset points", va="top",
        )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        low, start = min(*losses, *smooth), max(smooth[0], losses[0])
        axes.set_ylim(low - 0.05 * (start - low), start + 0.6 * (start - low))
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=1)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        return as_svg(figure, title, ("rates", title, list(rates), list(losses), list(smooth), marked))
