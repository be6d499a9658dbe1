"""The surface over shares: exact where values are one, and honest where they are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effnet.arch import ARCHS, Arch, count, layers
from effnet.lab.search.coefficients import PAPER_COEFFICIENTS, CompoundCoefficients, coefficient_grid
from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.grid_search import (
    EqualMacsAccuracy,
    GridSearch,
    GridSearchResult,
    ResponseSurface,
    fit_surface,
    growth_fractions,
    run_grid_search,
    summarize_grid_search,
)
from effnet.lab.search.proxy_training import BASE_ARCH
from effnet.lab.search.report import write_grid_search
from effnet.lab.search.statistics import HeldOutImages
from effnet.lab.search.store import TrainingResult


def test_shares_of_the_paper() -> None:
    depth, width, resolution = growth_fractions(PAPER_COEFFICIENTS)
    assert depth + width + resolution == pytest.approx(1)
    assert depth == pytest.approx(np.log(1.2) / np.log(1.92027), abs=1e-6)
    assert width == pytest.approx(2 * np.log(1.1) / np.log(1.92027), abs=1e-6)
    assert growth_fractions(CompoundCoefficients.parse(2, 1, 1)) == (1, 0, 0)


def test_a_quadratic_is_found_again() -> None:
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


def test_noise_is_no_surface() -> None:
    drawn = np.random.default_rng(0)
    points = coefficient_grid()
    chances = []
    for _ in range(200):
        found = fit_surface(points, drawn.normal(size=len(points)).tolist())
        assert found
        chances.append(found.p_value)
    # of values without a pattern the F-test's chance is spread evenly over 0 … 1
    assert np.mean(chances) == pytest.approx(0.5, abs=0.08)
    assert np.mean(np.array(chances) < 0.05) == pytest.approx(0.05, abs=0.05)


def test_too_few_points_or_no_difference() -> None:
    assert fit_surface(coefficient_grid()[:7], [0.1 * number for number in range(7)]) is None
    assert fit_surface(coefficient_grid(), [0.5] * 108) is None


# The coefficient search: its points, its outcome, and what it says of it.


JUDGES = HeldOutImages(10_000)


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


def told(search: GridSearch, best: Arch, lead: Sequence[float], judges: HeldOutImages = JUDGES) -> GridSearchResult:
    """The outcome if all networks were worth the same but ``best``, which is chosen, and judged to lead by ``lead``.

    ``lead`` is of the full trainings, a seed each, at equal MACs.
    """
    results: dict[str, TrainingResult] = {}
    while missing := [job for job in search.halving(results) if job.key not in results]:
        for job in missing:
            worth = 0.5 + job.seed % 2 / 100
            ahead = (0.2, lead[job.seed % 1000] if job.seed >= 1000 else 0.0) if job.arch == best else (0.0, 0.0)
            gift = search.halving.value(job.arch, 1.0)  # what MACs beyond the target take from an accuracy
            results[job.key] = {"selected": (worth + ahead[0]) / gift, "judged": (worth + ahead[1]) / gift}
    return summarize_grid_search(search, results, judges)


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


def test_the_paper_always_takes_part(tiny: Arch) -> None:
    search = small(tiny)
    assert PAPER_COEFFICIENTS not in coefficient_grid(step="0.5", tolerance="0.6")
    assert PAPER_COEFFICIENTS in search.coefficients


def test_worth_is_at_equal_cost(tiny: Arch) -> None:
    macs = count(tiny, classes=3).macs
    assert EqualMacsAccuracy(macs, 3)(tiny, 0.5) == 0.5
    assert EqualMacsAccuracy(macs / 2, 3)(tiny, 0.5) == pytest.approx(0.5 * 2**-0.07)


def test_a_whole_search(tiny: Arch, striped: SearchDataset, tmp_path: Path) -> None:
    search = small(tiny)
    outcome = run_grid_search(search, striped, tmp_path / "s.db", processes=1)
    assert (
        run_grid_search(search, striped, tmp_path / "other.db", processes=1).to_dict() == outcome.to_dict()
    )  # it repeats itself
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
    clear = told(search, other, (0.05, 0.06, 0.055)).verdict()
    assert "is better than the paper's 1.2 / 1.1 / 1.15: +5.50 points (95 % interval +3.71" in clear
    unclear = told(search, other, (0.05, -0.05, 0.02)).verdict()
    assert "it cannot be told" in unclear
    assert "keep the paper's" in unclear
    worse = told(search, other, (-0.05, -0.06, -0.055))
    assert "is worse than the paper's 1.2 / 1.1 / 1.15: −5.50 points" in worse.verdict()
    assert worse.recommended == PAPER_COEFFICIENTS
    assert worse.notes()[-1].endswith("--alpha 1.2 --beta 1.1 --gamma 1.15")
    assert "came out best" in told(search, paper, (0.05, 0.06, 0.055)).verdict()
    assert "flatters" in told(search, other, (0.05, 0.06, 0.055), HeldOutImages(10_000, unseen=False)).verdict()
    assert "another draw of 120 pictures" in told(search, other, (0.05, 0.06, 0.055), HeldOutImages(120)).verdict()


def test_more_macs_are_no_merit(tiny: Arch) -> None:
    search = small(tiny)
    paper = search.halving.always_include[0]
    larger = max(search.halving.candidates, key=lambda arch: count(arch, classes=3).macs)
    assert count(larger, classes=3).macs > count(paper, classes=3).macs
    outcome = told(search, larger, (0.0, 0.0, 0.0))
    stands = {stand.arch: stand for stand, _ in outcome.finalists}
    assert stands[larger].accuracies.mean > stands[paper].accuracies.mean
    assert outcome.lead is not None
    assert outcome.lead.mean == pytest.approx(0, abs=1e-12)


def test_called_by_the_paper_or_the_middle(tiny: Arch) -> None:
    outcome = told(small(tiny), small(tiny).halving.candidates[0], (0, 0, 0))
    stand = outcome.standings[0]
    likes = tuple(
        sorted((PAPER_COEFFICIENTS, CompoundCoefficients.parse(1, 1, 1.4), CompoundCoefficients.parse(1.2, 1.1, 1.2)))
    )
    assert replace(stand, points=likes).label() == "1.2 / 1.1 / 1.15 + 2"
    assert replace(stand, points=(CompoundCoefficients.parse(1, 1, 1.4),)).label() == "1 / 1 / 1.4"


def test_the_base_is_a_base() -> None:
    assert replace(ARCHS["nano"], name=BASE_ARCH.name, resolution=16, dropout=0.0, drop_path=0.0) == BASE_ARCH
