"""A training run's learning rate over its epochs, and what changes beside it, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effnet.draw.figure import INK, UNIT, as_svg, bare, drawing

BLUE, ORANGE = "#3b7dd8", "#d9772b"


def schedule(rates: Sequence[tuple[float, float]], changing: Mapping[str, Sequence[float]], title: str) -> str:
    """``rates``: (epochs passed, learning rate); ``changing``: by its name, one value an epoch. 640 units wide."""
    with drawing() as figure_class:
        rows = 1 + len(changing)
        figure = figure_class(figsize=(640 / UNIT, (150 + 90 * rows) / UNIT), layout="constrained")
        heights = [2.2, *(1 for _ in changing)]
        every = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        every[0].plot(*zip(*rates, strict=True), color=BLUE, linewidth=1.6)
        every[0].set_ylabel("learning rate")
        every[0].set_ylim(bottom=0)
        for axes, (name, values) in zip(every[1:], changing.items(), strict=True):
            axes.step(range(len(values) + 1), [*values, values[-1]], where="post", color=ORANGE, linewidth=1.6)
            axes.set_ylabel(name)
        for axes in every:
            bare(axes)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=1)
        every[-1].set_xlabel("epoch")
        every[0].set_title(title, loc="left")
        return as_svg(figure, title, ("schedule", title, rates, dict(changing)))
