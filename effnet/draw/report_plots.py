"""Plots of training and evaluation: curves, confusion matrix, reliability diagram, learning-rate finder, schedule."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from effnet.draw import plotting
from effnet.draw.plotting import BLUE, FONT_SIZE, GREY, INK, ORANGE, RenderedPlot, new_figure, render_figure, style_axes
from effnet.draw.text import clean_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (GREY, BLUE, ORANGE)
CORRECT_COLOR, WRONG_COLOR = BLUE, ORANGE

_MAX_LABEL_LETTERS = 18  # of a class name at the confusion matrix

CONFIDENCE_STYLE: dict[str, Any] = {"color": WRONG_COLOR, "linewidth": 2.5, "solid_capstyle": "butt"}


def plot_curves(
    lines: Mapping[str, Sequence[float]], title: str, percent: bool = False, marked: tuple[int, str] | None = None
) -> RenderedPlot:
    """Plot a value per epoch for each named line, or a gap if it is not finite. ``marked``: an epoch, and its label."""
    with new_figure(380, 240) as figure:
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        axes = figure.subplots()
        style_axes(axes, grid="y")
        colors = COLORS if len(lines) > 1 else (CORRECT_COLOR,)
        for index, (name, values) in enumerate(lines.items()):
            shown = [value if isfinite(value) else nan for value in values]
            color, marker = colors[index % len(colors)], "o" if len(shown) <= 25 else ""
            look: dict[str, Any] = {"linewidth": 2, "marker": marker, "markersize": 4, "clip_on": False}
            axes.plot(range(1, len(shown) + 1), shown, color=color, label=name, **look)
        last = max(map(len, lines.values()))
        if marked:
            epoch, words = marked
            axes.axvline(epoch, color=INK, alpha=0.35, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
            shift, align = (-5, "right") if epoch > 0.6 * last else (5, "left")
            units = ("data", "axes fraction")
            plotting.annotate(axes, words, (epoch, 0.5), (shift, 0), xycoords=units, ha=align, alpha=0.75)
        axes.set(xlabel="epoch", xlim=(1, last) if last > 1 else (0.5, 1.5))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
        plotting.add_legend(figure, len(lines), borderpad=0.8, borderaxespad=0)
        return render_figure(figure, title, ("curves", title, dict(lines), percent, marked))


def plot_confusion_matrix(table: Sequence[Sequence[int]], names: Sequence[str], title: str) -> RenderedPlot:
    """Plot image counts ``table[true][predicted]``: blue is correct, orange wrong, strong a large share of the row."""
    classes = len(names)
    cell = 36.0 if classes <= 12 else 24.0
    short = [_shorten_name(name) for name in names]
    if len(set(short)) < len(set(names)):  # they begin alike
        short = [_shorten_name(name, keep_end=True) for name in names]
    # Chinese, Japanese and Korean characters are as wide as high
    widths = [sum(1.05 if east_asian_width(letter) in "WF" else 0.6 for letter in name) for name in short]
    longest = FONT_SIZE * max(widths)
    rotated = longest > cell - 4
    left = 22 + longest + (max(0.0, 0.71 * longest - 22 - longest - cell / 2) if rotated else 0)
    below = 26 + (0.71 * longest + 8 if rotated else FONT_SIZE + 4)
    side = cell * classes
    width, height = left + side + 2, below + side + 2
    with new_figure(width, height, layout="none") as figure:
        from matplotlib.patches import Rectangle

        axes = figure.add_axes((left / width, below / height, side / width, side / height))
        style_axes(axes)
        axes.spines["bottom"].set_visible(False)
        for row, counts in enumerate(table):
            total = max(sum(counts), 1)
            for column, count in enumerate(counts):
                color, strength = (CORRECT_COLOR, 0.6) if row == column else (WRONG_COLOR, 0.75)
                # Partly transparent, so that a number keeps its contrast on light and dark pages
                shade, alpha = (color, 0.1 + strength * sqrt(count / total)) if count else (INK, 0.04)
                corner = (column + 0.03, row + 0.03)
                axes.add_patch(Rectangle(corner, 0.94, 0.94, color=shade, alpha=alpha, linewidth=0))
                if count:
                    size = min(FONT_SIZE, 1.5 * (cell - 4) / len(str(count)))
                    axes.text(column + 0.5, row + 0.53, str(count), ha="center", va="center", fontsize=size)
        middles = [index + 0.5 for index in range(classes)]
        axes.set_xticks(middles, short)
        if rotated:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(middles, short)
        axes.set(xlim=(0, classes), ylim=(classes, 0))
        figure.text((left + side / 2) / width, 4 / height, "predicted", ha="center", va="bottom", alpha=0.7)
        figure.text(4 / width, (below + side / 2) / height, "true", ha="left", va="center", rotation=90, alpha=0.7)
        return render_figure(figure, title, ("confusion", title, [list(row) for row in table], list(names)))


def _shorten_name(name: str, keep_end: bool = False) -> str:
    name = clean_text(name)  # a file name need not be decodable
    if len(name) <= _MAX_LABEL_LETTERS:
        return name
    if keep_end:
        return "…" + name[1 - _MAX_LABEL_LETTERS :].lstrip()
    return name[: _MAX_LABEL_LETTERS - 1].rstrip() + "…"


def plot_reliability(bins: Sequence[tuple[int, float, float]], title: str) -> RenderedPlot:
    """Plot a reliability diagram (arXiv:1706.04599) of equally wide ``bins``: images, mean confidence, accuracy."""
    with new_figure(420, 360) as figure:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
        from matplotlib.ticker import PercentFormatter

        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        style_axes(above, grid="y")
        style_axes(below)
        width = 1 / len(bins)
        for index, (images, confidence, accuracy) in enumerate(bins):
            if not images:
                continue
            middle = (index + 0.5) * width
            above.bar(middle, accuracy, 0.86 * width, color=CORRECT_COLOR, alpha=0.55, linewidth=0)
            above.plot((middle - 0.43 * width, middle + 0.43 * width), (confidence,) * 2, **CONFIDENCE_STYLE)
            below.bar(middle, images, 0.86 * width, color=INK, alpha=0.3, linewidth=0)
            name, top = _short_count(images), (middle, images)
            plotting.annotate(below, name, top, (0, 2), ha="center", fontsize=8, alpha=0.85)
        _draw_diagonal(above, 0, 1)
        above.set(ylim=(0, 1), ylabel="accuracy")
        above.yaxis.set_major_formatter(PercentFormatter(1.0))
        below.set(xlim=(0, 1), xlabel="confidence", ylabel="images", yticks=[])
        below.set_ylim(0, 1.25 * max(1, *(images for images, _, _ in bins)))
        below.xaxis.set_major_formatter(PercentFormatter(1.0))
        handles = [Patch(color=CORRECT_COLOR, alpha=0.55), Line2D((), (), **CONFIDENCE_STYLE)]
        names = ["accuracy", "mean confidence"]
        plotting.add_legend(figure, 2, 1.2, handles=handles, labels=names, borderpad=0.4)
        return render_figure(figure, title, ("reliability", title, [list(values) for values in bins]))


def plot_true_vs_predicted(pairs: Sequence[tuple[float, float]], title: str) -> RenderedPlot:
    """Scatter (true, predicted) values on equal axes, with the diagonal. ``title`` is for screen readers."""
    assert pairs
    true, predicted = zip(*pairs, strict=True)
    low, high = min(*true, *predicted), max(*true, *predicted)
    margin = 0.04 * (high - low) or 1.0
    limits = low - margin, high + margin
    with new_figure(380, 380) as figure:
        axes = figure.subplots()
        style_axes(axes, grid="both")
        _draw_diagonal(axes, *limits)
        axes.plot(true, predicted, "o", color=CORRECT_COLOR, alpha=0.5, markersize=4, markeredgewidth=0)
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="true", ylabel="predicted")
        axes.locator_params(nbins=5)
        return render_figure(figure, title, ("scatter", title, [list(pair) for pair in pairs]))


def _draw_diagonal(axes: "Axes", low: float, high: float) -> None:
    axes.plot((low, high), (low, high), color=INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 3)))


def _short_count(number: int) -> str:
    """Return 1234 as 1.2k, short enough for a narrow bar."""
    return str(number) if number < 1000 else f"{number / 1000:.2g}k" if number < 99_500 else f"{number / 1000:.0f}k"


def plot_lr_finder(
    learning_rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], title: str, suggestion: float
) -> RenderedPlot:
    """Plot the loss over an increasing learning rate: of single batches as dots, smoothed, and the suggested rate."""
    with new_figure(480, 280) as figure:
        axes = figure.subplots()
        style_axes(axes, grid="y")
        axes.scatter(learning_rates, losses, 9, color=GREY, alpha=0.6, linewidth=0)
        axes.plot(learning_rates, smoothed, color=BLUE, linewidth=2)
        axes.axvline(suggestion, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (3, 3)))
        units = ("data", "axes fraction")
        plotting.annotate(axes, f"{suggestion:.2g}", (suggestion, 1), (5, 0), xycoords=units, va="top")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        plotting.set_plain_ticks(axes, "x")
        low, start = min(*losses, *smoothed), max(smoothed[0], losses[0])
        axes.set_ylim(low - 0.05 * (start - low), start + 0.6 * (start - low))  # losses far above are cut off
        numbers = ("lr finder", title, list(learning_rates), list(losses), list(smoothed), suggestion)
        return render_figure(figure, title, numbers)


def plot_lr_schedule(
    learning_rates: Sequence[tuple[float, float]], settings: Mapping[str, Sequence[float]], title: str
) -> RenderedPlot:
    """Plot pairs of (epochs passed, learning rate), and below them the settings that change, a value for each epoch."""
    count = 1 + len(settings)
    with new_figure(640, 150 + 90 * count) as figure:
        heights = [2.2, *(1 for _ in settings)]
        panels = figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        panels[0].plot(*zip(*learning_rates, strict=True), color=BLUE, linewidth=1.6)
        panels[0].set_ylabel("learning rate")
        panels[0].set_ylim(bottom=0)
        for axes, (name, values) in zip(panels[1:], settings.items(), strict=True):
            axes.step(range(len(values) + 1), [*values, values[-1]], where="post", color=ORANGE, linewidth=1.6)
            axes.set_ylabel(name)
        for axes in panels:
            style_axes(axes, grid="y")
        panels[-1].set_xlabel("epoch")
        panels[0].set_title(title, loc="left")
        return render_figure(figure, title, ("schedule", title, learning_rates, dict(settings)))
