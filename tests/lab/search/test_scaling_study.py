"""The scaling study: networks of equal MACs scaled in four ways, and the verdicts, tables and plots of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log
from pathlib import Path
from xml.etree import ElementTree

import pytest

from effnet.arch import ARCHS, Arch, count
from effnet.arch.rounding_rules import stage_depths
from effnet.lab.compare.comparison_table import to_csv, to_markdown
from effnet.lab.search.grid_search import CompoundCoefficients
from effnet.lab.search.job_store import TrainingJob, TrainingResult
from effnet.lab.search.proxy_task import SearchDataset
from effnet.lab.search.scaling_study import (
    SCALING_METHODS,
    SMALL_BASE,
    ScaledNetwork,
    ScalingStudy,
    ScalingStudyResult,
    format_points,
    plot_study,
    run_study,
    scale_in_each_way,
    study_table,
    summarize_study,
    upsampling_warning,
)


@pytest.fixture(scope="module")
def small() -> tuple[ScaledNetwork, ...]:
    return scale_in_each_way(SMALL_BASE, classes=10)


def test_every_size_has_all_methods_at_nearly_the_same_macs(small: tuple[ScaledNetwork, ...]) -> None:
    assert [(one.method, one.macs_factor) for one in small] == [
        ("base", 1.0),
        *((way, times) for times in (2.0, 4.0, 8.0) for way in SCALING_METHODS),
    ]
    own = count(SMALL_BASE, classes=10).macs
    for one in small:
        assert one.macs == count(one.arch, classes=10).macs
        assert abs(one.macs_error) < 0.04
        assert one.macs == pytest.approx(
            one.macs_factor * own, rel=0.17
        )  # 16 px are 1.78 times the pixels of 12, and 17 px 2.01


def test_each_method_scales_its_dimension_alone(small: tuple[ScaledNetwork, ...]) -> None:
    layers, side = sum(stage_depths(SMALL_BASE)), SMALL_BASE.resolution
    for one in small[1:]:
        grown = (sum(stage_depths(one.arch)) > layers, one.arch.width > SMALL_BASE.width, one.arch.resolution > side)
        want = {"depth": (True, False, False), "width": (False, True, False), "resolution": (False, False, True)}
        assert grown == want.get(one.method, (True, True, True)), one.method
        assert (one.arch.dropout, one.arch.drop_path) == (0.0, 0.0)


def test_compound_stays_near_the_line(small: tuple[ScaledNetwork, ...]) -> None:
    for one in (each for each in small if each.method == "compound"):
        phi = log(one.macs_factor) / log(1.2 * 1.1**2 * 1.15**2)
        assert abs(sum(stage_depths(one.arch)) - 6 * 1.2**phi) < 1
        assert abs(one.arch.resolution - 12 * 1.15**phi) < 1
        assert one.arch.width / SMALL_BASE.width == pytest.approx(1.1**phi, rel=0.06)


def test_b0_as_the_paper_scales_it() -> None:
    four = {one.method: one.arch for one in scale_in_each_way(ARCHS["b0"], (4,))}
    assert four["resolution"].resolution == 448  # twice 224
    assert four["width"].width == pytest.approx(2, rel=0.05)
    assert sum(stage_depths(four["depth"])) / 16 == pytest.approx(4, rel=0.15)
    compound = four["compound"]
    assert compound.width == pytest.approx(1.2, abs=0.05)  # Table 7: 1.4, 1.2, 1.3
    assert compound.resolution / 224 == pytest.approx(1.3, abs=0.05)


def test_coefficients_that_keep_the_width(tiny: Arch) -> None:
    two = {one.method: one for one in scale_in_each_way(tiny, (2,), CompoundCoefficients.parse(1.4, 1, 1.2), 3)}
    assert two["compound"].arch.width == tiny.width
    assert abs(two["compound"].macs_error) < 0.3  # a network this small has few layers to choose from


def test_coefficients_that_grow_nothing(tiny: Arch) -> None:
    with pytest.raises(ValueError, match="grow nothing"):
        scale_in_each_way(tiny, (2,), CompoundCoefficients.parse(1, 1, 1))


IMAGES = {"train": 8000, "test": 2000, "size": 32}
NOISE = (0.000, 0.004, -0.004)  # of three seeds


@pytest.fixture(scope="module")
def study() -> ScalingStudy:
    return ScalingStudy()


def made_up(study: ScalingStudy, better: Mapping[str, float]) -> ScalingStudyResult:
    """Make up results: 50 % for every method plus what it is ``better`` by; the seeds of width differ most."""
    results: dict[str, TrainingResult] = {}
    for one in study.networks:
        for seed in range(study.seeds):
            noise = NOISE[seed] * (10 if one.method == "width" else 1) * (1 if one.macs_factor != 4 else -1)
            accuracy = 0.5 + better.get(one.method, 0.0) + noise
            key = TrainingJob(one.arch, study.epochs, seed).key
            results[key] = {"selection_accuracy": 0.0, "test_accuracy": accuracy, "loss": 1.0, "seconds": 2.0}
    return summarize_study(study, results)


def test_every_network_is_trained_from_every_seed(study: ScalingStudy) -> None:
    assert len(study.networks) == 13
    jobs = study.jobs
    assert len({job.key for job in jobs}) == 39
    assert [job.seed for job in jobs] == [0] * 13 + [1] * 13 + [2] * 13
    first = [one.macs for job in jobs[:13] for one in study.networks if one.arch == job.arch]
    assert first == sorted(first, reverse=True)
    assert study.max_image_size == 33  # CIFAR-10 has 32
    assert "seeds" not in study.identity  # more can be added later


def test_verdicts(study: ScalingStudy) -> None:
    found = made_up(study, {"compound": 0.1})
    assert found.verdict().startswith("The paper's claim holds here: compound scaling is better than depth (+10.0, ")
    assert found.overall["depth"].mean == pytest.approx(0.1)
    assert found.overall["depth"].pairs == 3  # one per seed: sizes differ by more than chance
    assert found.leads["depth", 8.0].pairs == 3
    found = made_up(study, {"compound": 0.1, "resolution": 0.15})
    assert found.verdict().startswith("The paper's claim does not hold here: compound scaling is better than ")
    assert "worse than resolution (−5.0, " in found.verdict()


def test_differences_within_the_noise(study: ScalingStudy) -> None:
    found = made_up(study, {"compound": 0.01})
    lead = found.overall["width"]
    assert lead.low < 0 < lead.high
    assert found.verdict().startswith("The paper's claim holds in part here")
    assert "not significantly different from width (+1.0, " in found.verdict()
    single = made_up(replace(study, seeds=1), {"compound": 0.1})
    assert all(one.pairs == 1 and one.low == -1 for one in (*single.leads.values(), *single.overall.values()))
    assert single.verdict().startswith("A single seed shows no spread")


def test_table_and_plot(study: ScalingStudy) -> None:
    found = made_up(study, {"compound": 0.02})
    shown = study_table(found, IMAGES, {"machine": {"name": "none"}})
    rows = {row.name: row for row in shown.rows}
    assert rows["compound ×8"]["top1"].measured == pytest.approx(0.52)
    assert rows["width ×2"]["spread"].measured == pytest.approx(0.04)
    assert str(rows["depth ×2"]["lead"].measured).startswith("+2.0 (")
    assert rows["compound ×2"]["lead"].measured is None
    paper = rows["paper: compound (1.4 / 1.2 / 1.3)"]
    assert paper["top1"].amount("quoted") == 0.811
    assert paper["top1"].measured is None
    text = to_markdown(shown)
    assert found.verdict() in text
    assert "2,000 images" in text
    assert "upsampling" not in text
    assert to_csv(shown).count("\n") == 1 + 13 + 5
    content = found.to_dict(IMAGES)
    assert len(content["networks"]) == 13
    assert {(one["over"], one["macs_factor"]) for one in content["leads"]} == {
        (way, times) for way in SCALING_METHODS[1:] for times in (2.0, 4.0, 8.0)
    }
    assert Arch.from_dict(content["networks"][3]["arch"]) == study.networks[3].arch
    texts = {
        element.text for element in ElementTree.fromstring(plot_study(found).svg).iter() if element.tag.endswith("text")
    }
    assert {*SCALING_METHODS, "million MACs per image", "top-1, mean of 3 seeds ± standard deviation"} <= texts


def test_format_points() -> None:
    assert [format_points(value) for value in (0.0123, -0.0123, -0.0001, 0.0)] == ["+1.2", "−1.2", "0.0", "0.0"]


def test_upsampling_warning(study: ScalingStudy) -> None:
    assert "resolutions of 24 and 33 px exceed the images' own 20 px" in upsampling_warning(study, 20)
    assert upsampling_warning(study, 32) == ""


def test_it_runs_and_continues_with_more_seeds(striped: SearchDataset, tiny: Arch, tmp_path: Path) -> None:
    study = ScalingStudy(tiny, 3, epochs=1, seeds=1, macs_factors=(2,))
    found = run_study(study, striped, tmp_path / "s.db", processes=1)
    assert [one.network.method for one in found.trained] == ["base", *SCALING_METHODS]
    assert all(0.2 < one.accuracies.mean <= 1 for one in found.trained)
    progress: list[int] = []
    more = replace(study, seeds=2)
    again = run_study(more, striped, tmp_path / "s.db", 1, lambda results, jobs: progress.append(len(results)))
    assert progress == [5, 6, 7, 8, 9, 10]
    assert [one.accuracies[0] for one in again.trained] == [one.accuracies.mean for one in found.trained]
    with pytest.raises(ValueError, match="another search: epochs differs"):
        run_study(replace(study, epochs=2), striped, tmp_path / "s.db", 1)


@pytest.mark.parametrize("name", ["epochs", "seeds"])
def test_epochs_and_seeds_must_be_positive(tiny: Arch, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*at least 1"):
        ScalingStudy(tiny, 3, **{name: 0})  # type: ignore[arg-type]
