"""The study of scaling: what it trains, what it makes of the results, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from effnet.arch import Arch
from effnet.compare.writing import comma_separated, markdown
from effnet.search.directions import WAYS
from effnet.search.enough import Judges, by_chance, verdict_possible
from effnet.search.examples import Examples
from effnet.search.figure8 import plot, table, to_dict
from effnet.search.jobs import Job
from effnet.search.ledger import Result
from effnet.search.study import Outcome, Study, enlarged, outcome, points, run

PICTURES = {"fit": 8000, "judge": 2000, "side": 32}
NOISE = (0.000, 0.004, -0.004)  # of three seeds


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.of()


def made_up(study: Study, better: Mapping[str, float]) -> Outcome:
    """The outcome where every way has 50 % and what it is ``better`` by, and the seeds of width differ most."""
    results: dict[str, Result] = {}
    for one in study.networks:
        for seed in range(study.seeds):
            noise = NOISE[seed] * (10 if one.way == "width" else 1) * (1 if one.times != 4 else -1)
            share = 0.5 + better.get(one.way, 0.0) + noise
            key = Job(one.arch, study.epochs, seed).key
            results[key] = {"selected": 0.0, "judged": share, "loss": 1.0, "seconds": 2.0}
    return outcome(study, results)


def test_every_network_is_trained_from_every_seed(study: Study) -> None:
    assert len(study.networks) == 13
    jobs = study.jobs
    assert len({job.key for job in jobs}) == 39
    assert [job.seed for job in jobs] == [0] * 13 + [1] * 13 + [2] * 13
    first = [one.macs for job in jobs[:13] for one in study.networks if one.arch == job.arch]
    assert first == sorted(first, reverse=True)
    assert study.side == 33  # of CIFAR-10's 32
    assert "seeds" not in study.about  # more can be asked for later


def test_the_claim_where_it_holds_and_where_it_does_not(study: Study) -> None:
    found = made_up(study, {"compound": 0.1})
    assert found.verdict().startswith("The paper's claim holds here: compound scaling is better than depth (+10.0, ")
    assert found.overall["depth"].mean == pytest.approx(0.1)
    assert found.overall["depth"].pairs == 3  # a seed each: the sizes differ by more than luck
    assert found.leads["depth", 8.0].pairs == 3
    found = made_up(study, {"compound": 0.1, "resolution": 0.15})
    assert found.verdict().startswith("The paper's claim does not hold here: compound scaling is better than ")
    assert "worse than resolution (−5.0, " in found.verdict()


def test_what_lies_within_the_noise_is_said_to(study: Study) -> None:
    found = made_up(study, {"compound": 0.01})
    lead = found.overall["width"]
    assert lead.low < 0 < lead.high
    assert found.verdict().startswith("The paper's claim is shown in part here")
    assert "not to be told from width (+1.0, " in found.verdict()
    alone = made_up(replace(study, seeds=1), {"compound": 0.1})
    assert all(one.pairs == 1 and one.low == -1 for one in (*alone.leads.values(), *alone.overall.values()))
    assert alone.verdict().startswith("One seed shows no spread")


def test_table_and_plot(study: Study) -> None:
    found = made_up(study, {"compound": 0.02})
    shown = table(found, PICTURES, {"machine": {"name": "none"}})
    rows = {row.name: row for row in shown.rows}
    assert rows["compound ×8"]["top1"].measured == pytest.approx(0.52)
    assert rows["width ×2"]["spread"].measured == pytest.approx(0.04)
    assert str(rows["depth ×2"]["lead"].measured).startswith("+2.0 (")
    assert rows["compound ×2"]["lead"].measured is None
    paper = rows["paper: compound (1.4 / 1.2 / 1.3)"]
    assert paper["top1"].amount("quoted") == 0.811
    assert paper["top1"].measured is None
    text = markdown(shown)
    assert found.verdict() in text
    assert "2,000 pictures" in text
    assert "beyond the pictures" not in text
    assert comma_separated(shown).count("\n") == 1 + 13 + 5
    told = to_dict(found, PICTURES)
    assert len(told["networks"]) == 13
    assert {(one["over"], one["times"]) for one in told["leads"]} == {
        (way, times) for way in WAYS[1:] for times in (2.0, 4.0, 8.0)
    }
    assert Arch.from_dict(told["networks"][3]["arch"]) == study.networks[3].arch
    texts = {element.text for element in ElementTree.fromstring(plot(found).svg).iter() if element.tag.endswith("text")}
    assert {*WAYS, "millions of MACs for one picture", "top-1, mean of 3 seeds ± standard deviation"} <= texts


def test_points_of_accuracy() -> None:
    assert [points(value) for value in (0.0123, -0.0123, -0.0001, 0.0)] == ["+1.2", "−1.2", "0.0", "0.0"]


def test_enlarged_pictures_are_named(study: Study) -> None:
    assert "sizes of 24 and 33 px are beyond the pictures' own 20" in enlarged(study, 20)
    assert enlarged(study, 32) == ""


def test_it_runs_and_goes_on_with_more_seeds(striped: Examples, tiny: Arch, tmp_path: Path) -> None:
    study = Study.of(tiny, 3, epochs=1, seeds=1, times=(2,))
    found = run(study, striped, tmp_path / "s.db", processes=1)
    assert [one.grown.way for one in found.scored] == ["base", *WAYS]
    assert all(0.2 < one.accuracies.mean <= 1 for one in found.scored)
    heard: list[int] = []
    more = replace(study, seeds=2)
    again = run(more, striped, tmp_path / "s.db", 1, lambda results, jobs: heard.append(len(results)))
    assert heard == [5, 6, 7, 8, 9, 10]
    assert [one.accuracies[0] for one in again.scored] == [one.accuracies.mean for one in found.scored]
    with pytest.raises(ValueError, match="another search: epochs differs"):
        run(replace(study, epochs=2), striped, tmp_path / "s.db", 1)


@pytest.mark.parametrize("name", ["epochs", "seeds"])
def test_none_of_them(tiny: Arch, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Study.of(tiny, 3, **{name: 0})  # type: ignore[arg-type]


def test_too_few_pictures_for_a_verdict() -> None:
    assert verdict_possible(10_000) == pytest.approx(1.96 * (2 * 0.25 / 10_000) ** 0.5)
    assert by_chance(100) > by_chance(100, accuracy=0.9)
    with pytest.raises(ValueError, match="99 pictures to compare networks by are too few"):
        verdict_possible(99)


def test_what_a_verdict_must_say_besides() -> None:
    assert Judges(10_000).caution(0.02) == ""
    assert "another draw of 2,000 pictures to judge by might move the difference by 3.1 points" in Judges(2000).caution(
        -0.02
    )
    assert Judges(10_000, unseen=False).caution(0.02).endswith("which flatters what was chosen.")
