"""The plane of most plots of networks: what one costs across, in powers, and how accurate it is upwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet.draw.figure import INK, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter


def cost_across(axes: Axes, label: str) -> None:
    """A logarithmic x axis with round numbers, under ``label``."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel(label)


def accuracy_upwards(axes: Axes, label: str) -> None:
    """A y axis of fractions shown as percent, under ``label`` where it has one."""
    axes.yaxis.set_major_formatter(percents())
    if label:
        axes.set_ylabel(label)


def percents() -> Formatter:
    """Fractions as percent with as few digits as they need: 45%, 43.5%."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.6g}%")


def ruled(axes: Axes) -> None:
    """A bare frame with faint lines behind what is drawn."""
    bare(axes)
    axes.grid(color=INK, alpha=0.1, linewidth=1)
    axes.set_axisbelow(True)
