"""The grid of α, β, γ, how a base grows, the surface over growth fractions, and the search with its verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from effnet.arch import ARCHS, Arch, count, layers
from effnet.arch.rounding_rules import stage_depths
from effnet.lab.search.grid_search import (
    PAPER_COEFFICIENTS,
    CompoundCoefficients,
    GridSearch,
    GridSearchResult,
    ResponseSurface,
    coefficient_grid,
    fit_surface,
    grow,
    growth_fractions,
    run_grid_search,
    summarize_grid_search,
)
from effnet.lab.search.job_store import TrainingResult
from effnet.lab.search.proxy_task import BASE_ARCH, SearchDataset
from effnet.lab.search.report import write_grid_search
from effnet.lab.search.scoring import CostFunction, Reward
from effnet.lab.search.statistics import HeldOutImages


def test_the_papers_grid() -> None:
    total = 20**5  # in twentieths, as integers
    expected = {
        CompoundCoefficients(Fraction(a, 20), Fraction(b, 20), Fraction(c, 20))
        for a, b, c in product(range(20, 41), repeat=3)
        if 10 * abs(a * b * b * c * c - 2 * total) < total
    }
    points = coefficient_grid()
    assert set(points) == expected
    assert len(points) == 108
    assert PAPER_COEFFICIENTS in points
    assert PAPER_COEFFICIENTS.growth == Fraction("1.92027")
    assert CompoundCoefficients.parse(1.9, 1, 1) not in points  # |1.9 − 2| is not below .1, as it is in floats
    assert list(points) == sorted(points)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"step": "0"}, "above 0"),
        ({"tolerance": "-1"}, "above 0"),
        ({"step": "0.7", "tolerance": "0.01"}, "smaller step or a larger tolerance"),
        ({"tolerance": "1"}, "is no growth"),
        ({"step": "0.001"}, "more than 100 values"),
        ({"step": "1/0"}, "not a decimal"),
        ({"tolerance": "1e400"}, "not a decimal"),
    ],
)
def test_bad_grids(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        coefficient_grid(**given)


@pytest.mark.parametrize("name", ["b0", "nano", "lite0"])
def test_grown_networks_have_the_expected_macs(name: str) -> None:
    base = ARCHS[name]
    before = sum(stage_depths(base))
    for point in coefficient_grid(step="0.1"):
        alpha, beta, gamma = point.triple
        made = grow(base, alpha, beta, gamma)
        fixed = 0 if base.scale_ends else base.stages[0].layers + base.stages[-1].layers
        assert abs(sum(stage_depths(made)) - fixed - alpha * (before - fixed)) <= 0.5
        assert made.resolution == pytest.approx(base.resolution * gamma, abs=0.5)
        for row, wide in zip(base.stages, made.stages, strict=True):
            assert abs(made.scale_channels(wide.channels) - row.channels * beta) <= 0.5
            assert row.layers <= wide.layers <= row.layers * 2
        if name == "b0":
            assert count(made).macs / count(base).macs == pytest.approx(float(point.growth), rel=0.14)


def test_layers_go_where_most_are_missing() -> None:
    made = grow(ARCHS["nano"], 1.5, 1, 1)  # 1, 2, 3 layers become 1.5, 3, 4.5: nine in total
    assert [stage.layers for stage in made.stages] == [2, 3, 4]
    assert [layer.channels for layer in layers(made)] == [16, 16, 16, 24, 24, 24, 48, 48, 48, 48, 192, 1000]


def test_ones_keep_the_base() -> None:
    made = grow(ARCHS["b0"], 1, 1, 1)
    assert list(layers(made)) == list(layers(ARCHS["b0"]))
    assert made.resolution == 224


def test_growth_fractions_of_the_paper() -> None:
    depth, width, resolution = growth_fractions(PAPER_COEFFICIENTS)
    assert depth + width + resolution == pytest.approx(1)
    assert depth == pytest.approx(np.log(1.2) / np.log(1.92027), abs=1e-6)
    assert width == pytest.approx(2 * np.log(1.1) / np.log(1.92027), abs=1e-6)
    assert growth_fractions(CompoundCoefficients.parse(2, 1, 1)) == (1, 0, 0)


def test_a_quadratic_is_recovered() -> None:
    truth = ResponseSurface((0.3, 0.2, 0.1, 0.5, 0.4, 0.3), 1, 0)
    points = coefficient_grid()
    found = fit_surface(points, [truth.predict(*growth_fractions(point)) for point in points])
    assert found
    assert found.terms == pytest.approx(truth.terms, abs=1e-6)
    assert found.r_squared == pytest.approx(1)
    assert found.p_value == pytest.approx(0, abs=1e-9)
    top = found.maximum()
    assert sum(top) == pytest.approx(1)
    nearby = [truth.predict(*growth_fractions(point)) for point in points]
    assert truth.predict(*top) >= max(nearby) - 1e-6


def test_p_values_of_noise() -> None:
    random = np.random.default_rng(0)
    points = coefficient_grid()
    p_values = []
    for _ in range(200):
        found = fit_surface(points, random.normal(size=len(points)).tolist())
        assert found
        p_values.append(found.p_value)
    # p-values of values without a pattern are uniform
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.05)


def test_too_few_points_or_no_difference() -> None:
    assert fit_surface(coefficient_grid()[:7], [0.1 * number for number in range(7)]) is None
    assert fit_surface(coefficient_grid(), [0.5] * 108) is None


HELD_OUT = HeldOutImages(10_000)


def small(tiny: Arch, final: int = 2) -> GridSearch:
    return GridSearch.create(
        tiny,
        coefficient_grid(step="0.5", tolerance="0.6"),
        3,
        (1, 2),
        seeds=2,
        finalists=final,
        final_epochs=3,
        final_seeds=3,
    )


def made_up(
    search: GridSearch, best: Arch, lead: Sequence[float], held_out: HeldOutImages = HELD_OUT
) -> GridSearchResult:
    """Make up results in which all networks are equal but ``best``, which is selected and leads by ``lead`` in the end.

    ``lead`` is at equal MACs, one value per seed.
    """
    results: dict[str, TrainingResult] = {}
    while missing := [job for job in search.halving(results) if job.key not in results]:
        for job in missing:
            value = 0.5 + job.seed % 2 / 100
            ahead = (0.2, lead[job.seed % 1000] if job.seed >= 1000 else 0.0) if job.arch == best else (0.0, 0.0)
            factor = search.halving.value(job.arch, 1.0)  # for MACs beyond the target
            results[job.key] = {
                "selection_accuracy": (value + ahead[0]) / factor,
                "test_accuracy": (value + ahead[1]) / factor,
            }
    return summarize_grid_search(search, results, held_out)


def test_the_papers_grid_on_nano() -> None:
    search = GridSearch.create()
    assert search.coefficients == coefficient_grid()
    assert len(search.halving.candidates) == 58
    assert len({(arch.resolution, *layers(arch)) for arch in search.halving.candidates}) == 58
    for point, arch in zip(search.coefficients, search.networks, strict=True):
        assert point in search.coefficients_of(arch)
    assert search.halving.always_include == (search.networks[search.coefficients.index(PAPER_COEFFICIENTS)],)
    assert [rung.keep for rung in search.halving.rungs] == [58, 19, 6, 3]
    assert len(search.halving.expected_jobs()) == 58 * 3 + (19 + 1) * 3 + (6 + 1) * 3 + (3 + 1) * 5


def test_the_papers_triple_always_takes_part(tiny: Arch) -> None:
    search = small(tiny)
    assert PAPER_COEFFICIENTS not in coefficient_grid(step="0.5", tolerance="0.6")
    assert PAPER_COEFFICIENTS in search.coefficients


def test_accuracy_at_equal_macs(tiny: Arch) -> None:
    macs = count(tiny, classes=3).macs
    assert Reward(macs, CostFunction("macs", 3))(tiny, 0.5) == 0.5
    assert Reward(macs / 2, CostFunction("macs", 3))(tiny, 0.5) == pytest.approx(0.5 * 2**-0.07)


def test_a_whole_search(tiny: Arch, striped: SearchDataset, tmp_path: Path) -> None:
    search = small(tiny)
    outcome = run_grid_search(search, striped, tmp_path / "s.db", processes=1)
    assert (
        run_grid_search(search, striped, tmp_path / "other.db", processes=1).to_dict() == outcome.to_dict()
    )  # it is reproducible
    assert {stand.arch for stand in outcome.standings} == set(search.halving.candidates)
    assert sorted({point for stand in outcome.standings for point in stand.coefficients}) == sorted(search.coefficients)
    assert [stand.rung for stand in outcome.standings] == sorted(
        (stand.rung for stand in outcome.standings), reverse=True
    )
    assert outcome.noise > 0
    assert all(len(stand.accuracies) == 3 for stand, _ in outcome.finalists)
    assert [difference is None for _, difference in outcome.finalists].count(True) == 1
    written = write_grid_search(outcome, tmp_path / "out")
    assert [path.name for path in written] == ["coefficients.json", "points.csv", "surface.svg", "surface.png"]
    kept = json.loads(written[0].read_text())
    assert kept["verdict"] == outcome.verdict()
    assert Arch.from_dict(kept["networks"][0]["arch"]) == outcome.best.arch
    lines = written[1].read_text().splitlines()
    assert lines[0].startswith("alpha,beta,gamma,growth,network,macs,round")
    assert len(lines) == 1 + len(search.coefficients)


def test_another_grid_is_another_search(tiny: Arch, striped: SearchDataset, tmp_path: Path) -> None:
    run_grid_search(small(tiny, final=1), striped, tmp_path / "s.db", processes=1)
    with pytest.raises(ValueError, match="another search: rungs differs"):
        run_grid_search(small(tiny), striped, tmp_path / "s.db", processes=1)


def test_verdicts(tiny: Arch) -> None:
    search = small(tiny)
    paper, other = search.halving.always_include[0], search.halving.candidates[0]
    assert other != paper
    clear = made_up(search, other, (0.05, 0.06, 0.055)).verdict()
    assert "is better than the paper's 1.2 / 1.1 / 1.15: +5.50 points (95 % interval +3.71" in clear
    unclear = made_up(search, other, (0.05, -0.05, 0.02)).verdict()
    assert "does not differ significantly" in unclear
    assert "keep the paper's" in unclear
    worse = made_up(search, other, (-0.05, -0.06, -0.055))
    assert "is worse than the paper's 1.2 / 1.1 / 1.15: −5.50 points" in worse.verdict()
    assert worse.recommended == PAPER_COEFFICIENTS
    assert worse.notes()[-1].endswith("--alpha 1.2 --beta 1.1 --gamma 1.15")
    assert "came out best" in made_up(search, paper, (0.05, 0.06, 0.055)).verdict()
    assert (
        "favors the selected"
        in made_up(search, other, (0.05, 0.06, 0.055), HeldOutImages(10_000, unseen=False)).verdict()
    )
    assert "120 other test images" in made_up(search, other, (0.05, 0.06, 0.055), HeldOutImages(120)).verdict()


def test_more_macs_are_no_advantage(tiny: Arch) -> None:
    search = small(tiny)
    paper = search.halving.always_include[0]
    larger = max(search.halving.candidates, key=lambda arch: count(arch, classes=3).macs)
    assert count(larger, classes=3).macs > count(paper, classes=3).macs
    outcome = made_up(search, larger, (0.0, 0.0, 0.0))
    stands = {stand.arch: stand for stand, _ in outcome.finalists}
    assert stands[larger].accuracies.mean > stands[paper].accuracies.mean
    assert outcome.lead is not None
    assert outcome.lead.mean == pytest.approx(0, abs=1e-12)


def test_labels(tiny: Arch) -> None:
    outcome = made_up(small(tiny), small(tiny).halving.candidates[0], (0, 0, 0))
    stand = outcome.standings[0]
    likes = tuple(
        sorted((PAPER_COEFFICIENTS, CompoundCoefficients.parse(1, 1, 1.4), CompoundCoefficients.parse(1.2, 1.1, 1.2)))
    )
    assert replace(stand, coefficients=likes).label() == "1.2 / 1.1 / 1.15 + 2"
    assert replace(stand, coefficients=(CompoundCoefficients.parse(1, 1, 1.4),)).label() == "1 / 1 / 1.4"


def test_the_default_base() -> None:
    assert replace(ARCHS["nano"], name=BASE_ARCH.name, resolution=16, dropout=0.0, drop_path=0.0) == BASE_ARCH
