"""Plots of searches: scaling curves, Pareto front, history, surface."""

from __future__ import annotations

import re
from math import inf, nan

import pytest

from effnet.draw.search_plots import (
    CoefficientPoint,
    PlottedCandidate,
    ScalingPoint,
    pareto_front,
    plot_coefficient_surface,
    plot_pareto_front,
    plot_scaling,
    plot_search_history,
)
from tests.draw.legible import svg_texts

BASE = ScalingPoint(1.0, 0.5, 0.01)
CURVES = {
    name: (BASE, ScalingPoint(2.0, 0.5 + gain, 0.01), ScalingPoint(4.1, 0.5 + 2 * gain, 0.02))
    for name, gain in (("compound", 0.03), ("depth", 0.01), ("width", 0.02), ("resolution", 0.02))
}
CANDIDATES = (
    *(PlottedCandidate(cost, 0.3 + cost / 50, "candidate") for cost in (1.0, 2.5, 3.0, 6.0)),
    PlottedCandidate(1.5, 0.4, on_front=True),
    PlottedCandidate(4.0, 0.5, "answer", on_front=True),
    PlottedCandidate(3.5, 0.41, "base"),
)
POINTS = (
    *(
        CoefficientPoint(1 + alpha / 20, 1 + gamma / 20, 0.4 + alpha * gamma / 500)
        for alpha in range(9)
        for gamma in range(4)
    ),
    CoefficientPoint(1.2, 1.15, 0.43, "the paper's"),
)


def test_scaling_curves_and_axes_are_labeled() -> None:
    drawing = plot_scaling(CURVES, "MACs", "top-1", "a & b")
    assert {"compound", "depth", "width", "resolution", "MACs", "top-1", "1", "2"} <= set(svg_texts(drawing))
    assert "50%" in svg_texts(drawing)
    assert drawing.svg == plot_scaling(CURVES, "MACs", "top-1", "a & b").svg


def test_scaling_plot_of_a_single_network() -> None:
    assert {"alone", "1"} <= set(svg_texts(plot_scaling({"alone": (BASE,)}, "MACs", "top-1", "t")))


def test_pareto_front() -> None:
    points = [(3.0, 0.5), (1.0, 0.3), (2.0, 0.5), (2.0, 0.4), (4.0, 0.45), (1.0, 0.3), (5.0, 0.6)]
    found = pareto_front(points)
    assert found == [1, 2, 6]
    for index, (cost, accuracy) in enumerate(points):
        dominated = any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)
        assert dominated == (index not in found) or points.index((cost, accuracy)) != index
    assert pareto_front([]) == []


def test_result_and_base_are_labeled() -> None:
    found = svg_texts(plot_pareto_front(CANDIDATES, "million MACs", "t"))
    assert {"million MACs", "result", "base", "Pareto front", "candidate", "top-1"} <= set(found)
    assert found.count("result") == 2  # at its point and in the legend


def test_the_line_joins_only_the_front() -> None:
    found = plot_pareto_front(
        [PlottedCandidate(1.0, 0.4, "base", on_front=True), PlottedCandidate(2.0, 0.5, on_front=True)], "MACs", "t"
    )
    beside = plot_pareto_front(
        [PlottedCandidate(1.0, 0.4, "base"), PlottedCandidate(2.0, 0.5, on_front=True)], "MACs", "t"
    )
    line = [drawing.svg.count("stroke: #3b7dd8") for drawing in (found, beside)]
    assert line[0] > 0
    path = [max(re.findall(r'd="(M[^"]*)"[^>]*stroke: #3b7dd8', drawing.svg), key=len) for drawing in (found, beside)]
    assert [one.count("L") for one in path] == [2, 0]  # a step up from the base, or a single point


def test_front_of_a_single_candidate() -> None:
    assert "result" in svg_texts(plot_pareto_front([PlottedCandidate(1.0, 0.4, "answer")], "MACs", "t"))


@pytest.mark.parametrize("values", [(0.2, 0.5, 0.3), (0.4,), (nan, 0.4, inf), (nan,)], ids=str)
def test_history(values: tuple[float, ...]) -> None:
    drawing = plot_search_history(values, "reward", "t")
    assert {"reward", "best so far"} <= set(svg_texts(drawing))
    assert "nan" not in drawing.svg.replace('"', " ").split()


def test_history_without_percent() -> None:
    assert not any(
        text.endswith("%") for text in svg_texts(plot_search_history((1.0, 2.0), "score", "t", percent=False))
    )


def test_surface_with_and_without_a_fit() -> None:
    bare = svg_texts(plot_coefficient_surface(POINTS, "t"))
    assert {"α: depth", "γ: resolution", "β = 1.2", "the paper's", "top-1"} <= set(bare)
    arguments: list[tuple[float, float, float]] = []

    def height(alpha: float, beta: float, gamma: float) -> float:
        arguments.append((alpha, beta, gamma))
        return 0.4 + 0.1 * (alpha - 1) * (gamma - 1)

    fitted = svg_texts(plot_coefficient_surface(POINTS, "t", height))
    assert "top-1, fitted" in fitted
    assert all(beta >= 1 for _, beta, _ in arguments)
    assert all(alpha * beta**2 * gamma**2 == pytest.approx(2) for alpha, beta, gamma in arguments)


def test_surface_of_equal_accuracies() -> None:
    assert "40%" in svg_texts(
        plot_coefficient_surface(
            [CoefficientPoint(1.0, 1.0, 0.4), CoefficientPoint(1.2, 1.1, 0.4)], "t", lambda *_: 0.4
        )
    )
