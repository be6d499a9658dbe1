"""What a search found, as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import log
from pathlib import Path

from effnet.data.storage.atomic_write import atomic_write
from effnet.draw import search_plots as drawn
from effnet.draw.figure import RenderedPlot
from effnet.draw.network_diagram import draw_network
from effnet.draw.search_plots import CandidateKind, plot_search_history
from effnet.draw.search_plots import PlottedCandidate as Shown
from effnet.draw.search_plots import plot_pareto_front as front_plot
from effnet.lab.compare.table import write_csv, write_drawing
from effnet.lab.search.coefficients import PAPER_COEFFICIENTS
from effnet.lab.search.grid_search import MACS_GROWTH, GridSearchResult
from effnet.lab.search.nas import NASConfig, NASResult, pareto_front, trained_candidates
from effnet.lab.search.random_baseline import RandomComparison


def write_grid_search(found: GridSearchResult, folder: Path) -> list[Path]:
    """Writes ``coefficients.json``, ``points.csv`` (a line a triple), ``surface.svg`` and ``.png``; gives the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "coefficients.json"
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [
        path,
        write_csv(folder / "points.csv", *_coefficient_rows(found)),
        *write_drawing(folder / "surface", _plot_surface(found)),
    ]


def _coefficient_rows(found: GridSearchResult) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    search, by_arch = found.search, {stand.arch: stand for stand in found.standings}
    place = {stand.arch: number for number, stand in enumerate(found.standings, start=1)}
    triple = ("alpha", "beta", "gamma", "growth", "network", "macs")
    heading = (*triple, "round", "epochs", "seeds", "accuracy", "spread", "at_equal_macs", "first_round")

    def line(number: int) -> Sequence[object]:
        point, arch = search.coefficients[number], search.networks[number]
        stand = by_arch[arch]
        reached = (stand.accuracies.mean, stand.accuracies.spread, stand.equal_macs_accuracy, found.first_round[arch])
        rung = (stand.macs, stand.rung + 1, stand.epochs, len(stand.accuracies))
        return *point.triple, float(point.growth), place[arch], *rung, *(f"{value:.6f}" for value in reached)

    return heading, map(line, range(len(search.coefficients)))


def _plot_surface(found: GridSearchResult) -> RenderedPlot:
    """The first round, which all networks took part in, and who came out best."""
    best, smooth = found.best, found.surface
    spots = []
    for point, arch in zip(found.search.coefficients, found.search.networks, strict=True):
        name = "the paper's" if point == PAPER_COEFFICIENTS else ""
        if arch == best.arch and point == best.representative:
            name = "the best" if not name else "the paper's, the best"
        spots.append(drawn.CoefficientPoint(point.triple[0], point.triple[2], found.first_round[arch], name))

    def height(alpha: float, beta: float, gamma: float) -> float:
        assert smooth
        whole = log(MACS_GROWTH)
        return smooth.predict(log(alpha) / whole, 2 * log(beta) / whole, 2 * log(gamma) / whole)

    return drawn.plot_coefficient_surface(
        spots, "Accuracy by α and γ, after the first round", height if smooth else None, "top-1 at equal MACs"
    )


# What a network search found, as files: the network, its drawing, every candidate, and plots of both.


COST_SCALES = {"macs": 1e6, "params": 1e3, "latency": 1e-3}  # units of the plots' axes


COST_LABELS = {"macs": "million MACs", "params": "thousand params", "latency": "ms a picture, on this machine"}


CANDIDATE_COLUMNS = (
    *("number", "fate", "macs", "params", "cost", "accuracy", "reward"),
    *("score", "parent", "inherited", "generation", "loss", "seconds"),
)


def write_nas(result: NASResult, config: NASConfig, classes: int, folder: Path) -> list[Path]:
    """Writes ``found`` into ``folder``; the paths, the arch's first.

    ``network.json``, an arch as every verb takes it; ``network.svg`` and ``.png``, the same drawn; ``trials.csv``, a
    line a candidate; ``front_macs``, ``front_params`` and ``history`` as ``.svg`` and ``.png``, which show what
    stands in it; ``front_latency`` besides where that was the cost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.json"
    with atomic_write(path) as beside:
        beside.write_text(result.answer.arch.to_json(indent=2) + "\n", encoding="utf-8")
    names, edge = list(config.space.options), {one.number for one in pareto_front(result.candidates)}
    lines = (
        [
            *(_format_value(getattr(one, column)) for column in CANDIDATE_COLUMNS),
            int(one.number in edge),
            *(one.choices[name] for name in names),
        ]
        for one in result.candidates
    )
    written = [path]
    drawing = draw_network(result.answer.arch, classes=classes)
    for suffix, content in ((".svg", drawing.standalone_svg.encode()), (".png", drawing.png)):
        with atomic_write(path.with_suffix(suffix)) as beside:
            beside.write_bytes(content)
        written.append(path.with_suffix(suffix))
    written.append(write_csv(folder / "trials.csv", (*CANDIDATE_COLUMNS, "front", *names), lines))
    done = trained_candidates(result.candidates)
    for kind in dict.fromkeys(("macs", "params", config.cost)):
        written += write_drawing(folder / f"front_{kind}", _plot_front(result, config, kind))
    rewards = [one.reward for one in done]
    written += write_drawing(
        folder / "history", plot_search_history(rewards, "reward", "The candidates' rewards", percent=False)
    )
    return written


def _plot_front(found: NASResult, plan: NASConfig, cost: str) -> RenderedPlot:
    """All that were trained by one of their costs, with the front by that cost."""
    done = [replace(one, cost=one.cost if cost == plan.cost else float(getattr(one, cost))) for one in found.candidates]
    edge = {one.number for one in pareto_front(done)}
    shown = []
    for one in trained_candidates(done):
        kind: CandidateKind = "candidate"
        if one.choices == plan.space.base_choices:
            kind = "base"
        if one.number == found.answer.number:
            kind = "answer"
        shown.append(Shown(one.cost / COST_SCALES[cost], one.accuracy or 0.0, kind, on_front=one.number in edge))
    accuracy = f"top-1 after {plan.epochs} epochs" if plan.epochs > 1 else "top-1 after an epoch"
    return front_plot(shown, COST_LABELS[cost], f"Accuracy of all candidates against {COST_LABELS[cost]}", accuracy)


def write_random_comparison(compared: RandomComparison, folder: Path) -> Path:
    """Writes ``random.json``: the best random network, both networks' accuracies and their difference."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "random.json"
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(comparison_to_dict(compared), indent=2) + "\n", encoding="utf-8")
    return path


def comparison_to_dict(compared: RandomComparison) -> dict[str, object]:
    """The same as plain data."""
    apart = compared.difference
    return {
        "random": [{"arch": arch.to_dict(), "accuracy": accuracy} for arch, accuracy in compared.random_networks],
        "ours": compared.ours,
        "theirs": compared.theirs,
        "difference": {"mean": apart.mean, "low": apart.low, "high": apart.high, "seeds": apart.pairs},
        "best_random": compared.best.to_dict(),
    }


def _format_value(value: object) -> object:
    """A number as a table has it: six decimals, and nothing for what is not known."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
