"""Results of a search as files: architectures, tables and plots."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import log
from pathlib import Path

from effnet.draw import network_diagram, plotting, search_plots
from effnet.lab.compare.comparison_table import write_csv, write_drawing, write_json
from effnet.lab.search import grid_search, nas, random_baseline

COST_SCALES = {"macs": 1e6, "params": 1e3, "latency": 1e-3}  # units of the axes
COST_LABELS = {"macs": "million MACs", "params": "thousand params", "latency": "ms per image, on this machine"}
COEFFICIENT_COLUMNS = (
    *("alpha", "beta", "gamma", "growth", "network", "macs"),
    *("round", "epochs", "seeds", "accuracy", "spread", "at_equal_macs", "first_round"),
)
CANDIDATE_COLUMNS = (
    *("number", "status", "macs", "params", "cost", "accuracy", "reward"),
    *("score", "parent", "inherited", "generation", "loss", "seconds"),
)


def write_grid_search(result: grid_search.GridSearchResult, folder: Path) -> list[Path]:
    """Write ``coefficients.json``, ``points.csv`` (one row per triple), ``surface.svg`` and ``.png``."""
    return [
        write_json(folder / "coefficients.json", result.to_dict()),
        write_csv(folder / "points.csv", COEFFICIENT_COLUMNS, _coefficient_rows(result)),
        *write_drawing(folder / "surface", _plot_surface(result)),
    ]


def _coefficient_rows(result: grid_search.GridSearchResult) -> Iterator[Sequence[object]]:
    ranked = {standing.arch: (rank, standing) for rank, standing in enumerate(result.standings, start=1)}
    for coefficients, arch in zip(result.search.coefficients, result.search.networks, strict=True):
        rank, one = ranked[arch]
        figures = (one.accuracies.mean, one.accuracies.spread, one.equal_macs_accuracy, result.first_round[arch])
        training = (one.macs, one.rung + 1, one.epochs, len(one.accuracies))
        growth = float(coefficients.growth)
        yield *coefficients.triple, growth, rank, *training, *(f"{figure:.6f}" for figure in figures)


def _plot_surface(result: grid_search.GridSearchResult) -> plotting.RenderedPlot:
    """Plot the first round, in which all networks took part, and which came out best."""
    best, surface = result.best, result.surface
    points = []
    for coefficients, arch in zip(result.search.coefficients, result.search.networks, strict=True):
        names = ["the paper's"] if coefficients == grid_search.PAPER_COEFFICIENTS else []
        if arch == best.arch and coefficients == best.representative:
            names.append("the best")
        alpha, _, gamma = coefficients.triple
        points.append(search_plots.CoefficientPoint(alpha, gamma, result.first_round[arch], ", ".join(names)))

    def height(alpha: float, beta: float, gamma: float) -> float:
        assert surface
        total = log(grid_search.MACS_GROWTH)
        return surface.predict(log(alpha) / total, 2 * log(beta) / total, 2 * log(gamma) / total)

    return search_plots.plot_coefficient_surface(
        points, "Accuracy by α and γ, after the first round", height if surface else None, "top-1 at equal MACs"
    )


def write_nas(result: nas.NASResult, config: nas.NASConfig, classes: int, folder: Path) -> list[Path]:
    """Write ``network.json`` (the first of the paths returned) with its diagram, ``trials.csv`` and the plots.

    Plots: ``front_macs``, ``front_params``, ``front_latency`` if that was the cost, and ``history``.
    """
    front = {candidate.number for candidate in nas.pareto_front(result.candidates)}
    choices = list(config.space.options)
    rows = []
    for candidate in result.candidates:
        values = (getattr(candidate, column) for column in CANDIDATE_COLUMNS)
        figures = (f"{value:.6g}" if isinstance(value, float) else value for value in values)
        rows.append((*figures, int(candidate.number in front), *(candidate.choices[name] for name in choices)))
    rewards = [candidate.reward for candidate in nas.trained_candidates(result.candidates)]
    history = search_plots.plot_search_history(rewards, "reward", "The candidates' rewards", percent=False)
    paths = [
        write_json(folder / "network.json", result.answer.arch.to_dict()),
        *write_drawing(folder / "network", network_diagram.draw_network(result.answer.arch, classes=classes)),
        write_csv(folder / "trials.csv", (*CANDIDATE_COLUMNS, "front", *choices), rows),
    ]
    for cost in dict.fromkeys(("macs", "params", config.cost)):
        paths += write_drawing(folder / f"front_{cost}", _plot_front(result, config, cost))
    return [*paths, *write_drawing(folder / "history", history)]


def _plot_front(result: nas.NASResult, config: nas.NASConfig, cost: str) -> plotting.RenderedPlot:
    """Plot all trained candidates by one of their costs, with the Pareto front of that cost."""
    trained = [
        one if cost == config.cost else replace(one, cost=float(getattr(one, cost)))
        for one in nas.trained_candidates(result.candidates)
    ]
    front = {candidate.number for candidate in nas.pareto_front(trained)}

    def plotted(one: nas.NASCandidate) -> search_plots.PlottedCandidate:
        is_answer, is_base = one.number == result.answer.number, one.choices == config.space.base_choices
        kind: search_plots.CandidateKind = "answer" if is_answer else "base" if is_base else "candidate"
        return search_plots.PlottedCandidate(
            one.cost / COST_SCALES[cost], one.accuracy or 0.0, kind, on_front=one.number in front
        )

    label = COST_LABELS[cost]
    epochs = f"{config.epochs} epochs" if config.epochs > 1 else "one epoch"
    return search_plots.plot_pareto_front(
        [plotted(one) for one in trained], label, f"Accuracy of all candidates against {label}", f"top-1 after {epochs}"
    )


def write_random_comparison(comparison: random_baseline.RandomComparison, folder: Path) -> Path:
    """Write ``random.json``: the best random network, both networks' accuracies and their difference."""
    return write_json(folder / "random.json", comparison.to_dict())
