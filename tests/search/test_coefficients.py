"""The coefficient search: its points, its outcome, and what it says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from effnet.arch import ARCHS, Arch, count, layers
from effnet.search.coefficients import Coefficients, Found, Worth, found, run
from effnet.search.enough import Judges
from effnet.search.examples import Examples
from effnet.search.grid import PAPER, Point, grid
from effnet.search.ledger import Result
from effnet.search.proxy import BASE
from effnet.search.writing import write_coefficients

JUDGES = Judges(10_000)


def small(tiny: Arch, final: int = 2) -> Coefficients:
    return Coefficients.of(
        tiny, grid(step="0.5", within="0.6"), 3, (1, 2), seeds=2, final=final, final_epochs=3, final_seeds=3
    )


def told(search: Coefficients, best: Arch, lead: Sequence[float], judges: Judges = JUDGES) -> Found:
    """The outcome if all networks were worth the same but ``best``, which is chosen, and judged to lead by ``lead``.

    ``lead`` is of the full trainings, a seed each, at equal MACs.
    """
    results: dict[str, Result] = {}
    while missing := [job for job in search.halving(results) if job.key not in results]:
        for job in missing:
            worth = 0.5 + job.seed % 2 / 100
            ahead = (0.2, lead[job.seed % 1000] if job.seed >= 1000 else 0.0) if job.arch == best else (0.0, 0.0)
            gift = search.halving.value(job.arch, 1.0)  # what MACs beyond the target take from an accuracy
            results[job.key] = {"selected": (worth + ahead[0]) / gift, "judged": (worth + ahead[1]) / gift}
    return found(search, results, judges)


def test_the_papers_grid_on_nano() -> None:
    search = Coefficients.of()
    assert search.points == grid()
    assert len(search.halving.candidates) == 58
    assert len({(arch.resolution, *layers(arch)) for arch in search.halving.candidates}) == 58
    for point, arch in zip(search.points, search.networks, strict=True):
        assert point in search.of_network(arch)
    assert search.halving.always == (search.networks[search.points.index(PAPER)],)
    assert [rung.keep for rung in search.halving.rungs] == [58, 19, 6, 3]
    assert len(search.halving.expected()) == 58 * 3 + (19 + 1) * 3 + (6 + 1) * 3 + (3 + 1) * 5


def test_the_paper_always_takes_part(tiny: Arch) -> None:
    search = small(tiny)
    assert PAPER not in grid(step="0.5", within="0.6")
    assert PAPER in search.points


def test_worth_is_at_equal_cost(tiny: Arch) -> None:
    macs = count(tiny, classes=3).macs
    assert Worth(macs, 3)(tiny, 0.5) == 0.5
    assert Worth(macs / 2, 3)(tiny, 0.5) == pytest.approx(0.5 * 2**-0.07)


def test_a_whole_search(tiny: Arch, striped: Examples, tmp_path: Path) -> None:
    search = small(tiny)
    outcome = run(search, striped, tmp_path / "s.db", processes=1)
    assert run(search, striped, tmp_path / "other.db", processes=1).to_dict() == outcome.to_dict()  # it repeats itself
    assert {stand.arch for stand in outcome.stands} == set(search.halving.candidates)
    assert sorted({point for stand in outcome.stands for point in stand.points}) == sorted(search.points)
    assert [stand.rung for stand in outcome.stands] == sorted((stand.rung for stand in outcome.stands), reverse=True)
    assert outcome.noise > 0
    assert all(len(stand.accuracies) == 3 for stand, _ in outcome.finals)
    assert [difference is None for _, difference in outcome.finals].count(True) == 1
    written = write_coefficients(outcome, tmp_path / "out")
    assert [path.name for path in written] == ["coefficients.json", "points.csv", "surface.svg", "surface.png"]
    kept = json.loads(written[0].read_text())
    assert kept["verdict"] == outcome.verdict()
    assert Arch.from_dict(kept["networks"][0]["arch"]) == outcome.best.arch
    lines = written[1].read_text().splitlines()
    assert lines[0].startswith("alpha,beta,gamma,growth,network,macs,round")
    assert len(lines) == 1 + len(search.points)


def test_another_grid_is_another_search(tiny: Arch, striped: Examples, tmp_path: Path) -> None:
    run(small(tiny, final=1), striped, tmp_path / "s.db", processes=1)
    with pytest.raises(ValueError, match="another search: rungs differs"):
        run(small(tiny), striped, tmp_path / "s.db", processes=1)


def test_verdicts(tiny: Arch) -> None:
    search = small(tiny)
    paper, other = search.halving.always[0], search.halving.candidates[0]
    assert other != paper
    clear = told(search, other, (0.05, 0.06, 0.055)).verdict()
    assert "is better than the paper's 1.2 / 1.1 / 1.15: +5.50 points (95 % interval +3.71" in clear
    unclear = told(search, other, (0.05, -0.05, 0.02)).verdict()
    assert "it cannot be told" in unclear
    assert "keep the paper's" in unclear
    worse = told(search, other, (-0.05, -0.06, -0.055))
    assert "is worse than the paper's 1.2 / 1.1 / 1.15: −5.50 points" in worse.verdict()
    assert worse.advice == PAPER
    assert worse.remarks()[-1].endswith("--alpha 1.2 --beta 1.1 --gamma 1.15")
    assert "came out best" in told(search, paper, (0.05, 0.06, 0.055)).verdict()
    assert "flatters" in told(search, other, (0.05, 0.06, 0.055), Judges(10_000, unseen=False)).verdict()
    assert "another draw of 120 pictures" in told(search, other, (0.05, 0.06, 0.055), Judges(120)).verdict()


def test_more_macs_are_no_merit(tiny: Arch) -> None:
    search = small(tiny)
    paper = search.halving.always[0]
    larger = max(search.halving.candidates, key=lambda arch: count(arch, classes=3).macs)
    assert count(larger, classes=3).macs > count(paper, classes=3).macs
    outcome = told(search, larger, (0.0, 0.0, 0.0))
    stands = {stand.arch: stand for stand, _ in outcome.finals}
    assert stands[larger].accuracies.mean > stands[paper].accuracies.mean
    assert outcome.lead is not None
    assert outcome.lead.mean == pytest.approx(0, abs=1e-12)


def test_called_by_the_paper_or_the_middle(tiny: Arch) -> None:
    outcome = told(small(tiny), small(tiny).halving.candidates[0], (0, 0, 0))
    stand = outcome.stands[0]
    likes = tuple(sorted((PAPER, Point.of(1, 1, 1.4), Point.of(1.2, 1.1, 1.2))))
    assert replace(stand, points=likes).called() == "1.2 / 1.1 / 1.15 + 2"
    assert replace(stand, points=(Point.of(1, 1, 1.4),)).called() == "1 / 1 / 1.4"


def test_the_base_is_a_base() -> None:
    assert replace(ARCHS["nano"], name=BASE.name, resolution=16, dropout=0.0, drop_path=0.0) == BASE
