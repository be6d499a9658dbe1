"""The network search: resumable, the same from the same seed, and never mixed with another's."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from effnet.arch import Arch, Stage, count
from effnet.lab.search import nas as candidates_module
from effnet.lab.search import nas as network_module
from effnet.lab.search.cost_estimate import estimate_nas
from effnet.lab.search.dataset import LabeledImages, SearchDataset
from effnet.lab.search.nas import (
    NASCandidate,
    NASConfig,
    NASProgress,
    NASResult,
    NASWorker,
    open_study,
    pareto_front,
    read_candidates,
    run_nas,
    trained_candidates,
    weights_folder,
)
from effnet.lab.search.random_baseline import RandomBaselineJobs, compare_with_random, random_networks
from effnet.lab.search.report import write_nas, write_random_comparison
from effnet.lab.search.search_space import count_different_choices, layers_key
from effnet.lab.search.store import TrainingResult
from effnet.lab.search.successive_halving import SuccessiveHalving

BASE = Arch(
    "tiny",
    (Stage("mbconv", 2, 3, 2, 8, 1, 0.25), Stage("mbconv", 2, 3, 1, 8, 2)),
    resolution=8,
    dropout=0.0,
    drop_path=0.0,
    stem=8,
    head=16,
)
PLAN = NASConfig(BASE, target=1.2 * count(BASE, classes=3).macs, epochs=1)


POPULATION = 5


@pytest.fixture(scope="module", autouse=True)
def small_population() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates_module, "POPULATION", POPULATION)
        yield


@pytest.fixture(scope="module")
def pictures() -> SearchDataset:
    """Three classes that differ in their colour, with noise."""
    drawn = torch.Generator().manual_seed(0)

    def part(number: int) -> LabeledImages:
        classes = torch.arange(number) % 3
        noise = torch.randint(0, 128, (number, 3, 8, 8), generator=drawn)
        noise[torch.arange(number), classes] += 40
        return LabeledImages(noise.to(torch.uint8), classes)

    return SearchDataset(part(128), part(120), part(120), ("red", "green", "blue"), True, "colours", True)


def found_in(
    folder: Path, pictures: SearchDataset, trials: int = 6, plan: NASConfig = PLAN, processes: int = 1
) -> NASResult:
    folder.mkdir(exist_ok=True)
    store = str(folder / "search.db")
    return run_nas(plan, pictures, store, trials, processes=processes, final=1, final_epochs=1)


def without_times(found: NASResult) -> list[NASCandidate]:
    return [replace(one, seconds=0.0) for one in found.candidates]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pictures: SearchDataset) -> tuple[Path, NASResult]:
    """A search beyond its first population, so that candidates inherit."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, found_in(folder, pictures, POPULATION + 3)


def test_the_same_seed_gives_the_same_search_even_when_it_was_stopped(
    whole: tuple[Path, NASResult], pictures: SearchDataset, tmp_path: Path
) -> None:
    found_in(tmp_path, pictures, 3)
    again = found_in(tmp_path, pictures, POPULATION + 3)
    assert without_times(again) == without_times(whole[1])
    assert again.answer == whole[1].answer


def test_candidates_are_different_networks_and_the_first_is_the_base(whole: tuple[Path, NASResult]) -> None:
    found = whole[1]
    done = trained_candidates(found.candidates)
    assert len(done) == POPULATION + 3
    assert done[0].choices == PLAN.space.base_choices
    assert len({layers_key(PLAN.space.arch(one.choices)) for one in done}) == len(done)
    for one in done:
        counted = count(PLAN.space.arch(one.choices), classes=3)
        assert (one.macs, one.params, one.cost) == (counted.macs, counted.params, counted.macs)
        assert one.reward == pytest.approx(one.accuracy * (one.macs / PLAN.target) ** -0.07)
    assert all("costs over" in one.status for one in found.candidates if one.macs > 1.5 * PLAN.target)


def test_candidates_inherit_from_the_nearest_that_is_done(whole: tuple[Path, NASResult]) -> None:
    folder, found = whole
    done = trained_candidates(found.candidates)
    assert all(one.parent is None for one in done[:POPULATION])
    for place, one in enumerate(done[POPULATION:], start=POPULATION):
        distances = {other.number: count_different_choices(one.choices, other.choices) for other in done[:place]}
        assert one.parent is not None
        assert distances[one.parent] == min(distances.values())
        assert one.inherited > 0
        tensors = load_file(weights_folder(str(folder / "search.db")) / f"{one.parent}.safetensors")
        assert one.inherited <= len(tensors)
        assert one.generation == 1 + next(other.generation for other in done if other.number == one.parent)


def test_the_answer_is_the_best_of_those_trained_from_random_weights(whole: tuple[Path, NASResult]) -> None:
    found = whole[1]
    assert found.answer == found.finalists[0]
    assert found.answer.reward == max(one.reward for one in found.finalists)
    assert any(one.number is None and one.arch == BASE for one in found.finalists)
    assert found.score_correlation.networks == POPULATION + 3


def test_what_is_written_can_be_used(whole: tuple[Path, NASResult], pictures: SearchDataset, tmp_path: Path) -> None:
    found = whole[1]
    paths = write_nas(found, PLAN, 3, tmp_path)
    assert [path.name for path in paths] == [
        *("network.json", "network.svg", "network.png", "trials.csv"),
        *("front_macs.svg", "front_macs.png", "front_params.svg", "front_params.png", "history.svg", "history.png"),
    ]
    assert layers_key(Arch.from_json(paths[0].read_text())) == layers_key(found.answer.arch)
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.candidates)
    assert [row["accuracy"] != "" for row in rows] == [one.accuracy is not None for one in found.candidates]
    assert rows[0]["stage1.operation"] == "mbconv"


def test_another_searchs_store_is_refused_and_left_alone(
    whole: tuple[Path, NASResult], pictures: SearchDataset, tmp_path: Path
) -> None:
    store = whole[0] / "search.db"
    before = store.read_bytes()
    others = (
        (replace(PLAN, target=1e6), pictures, "target"),
        (replace(PLAN, base=replace(BASE, head=24)), pictures, "base"),
        (PLAN, replace(pictures, fingerprint="others"), "pictures"),
    )
    for plan, examples, what in others:
        with pytest.raises(ValueError, match=f"holds another search.*{what}"):
            run_nas(plan, examples, str(store), 1, processes=1)
    assert store.read_bytes() == before


def test_a_target_that_nothing_meets_is_said(pictures: SearchDataset, tmp_path: Path) -> None:
    plan = replace(PLAN, target=1.0)
    with pytest.raises(ValueError, match=r"no candidate was trained .*give a larger target"):
        found_in(tmp_path, pictures, 1, plan)


def without_numbers(found: NASResult) -> list[NASCandidate]:
    """The candidates with their places in place of their numbers, which what was cut short leaves gaps in."""
    place = {one.number: index for index, one in enumerate(found.candidates)}
    return [
        replace(one, number=place[one.number], parent=None if one.parent is None else place[one.parent])
        for one in without_times(found)
        if not one.status.startswith("the same")  # as another, by its number
    ]


@pytest.mark.parametrize("cut", [0, 1, POPULATION + 1])
def test_what_is_cut_short_is_drawn_again(
    whole: tuple[Path, NASResult], pictures: SearchDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    trains, begun = candidates_module.train_proxy, 0

    def interrupted(*given: Any, **named: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == cut + 1:
            raise KeyboardInterrupt
        return trains(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(candidates_module, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            found_in(tmp_path, pictures, POPULATION + 3)
    again = found_in(tmp_path, pictures, POPULATION + 3)
    assert without_numbers(again) == without_numbers(whole[1])
    assert replace(again.answer.arch, name="x") == replace(whole[1].answer.arch, name="x")


def test_after_a_kill_it_goes_on_as_if_it_had_never_stopped(
    whole: tuple[Path, NASResult], pictures: SearchDataset, tmp_path: Path
) -> None:
    found_in(tmp_path, pictures, 2)
    with open_study(str(tmp_path / "search.db"), PLAN) as study:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it expects a heartbeat, which is what is missing
            lost = study.ask()  # as a process does that is killed then
        for name, values in PLAN.space.options.items():
            lost.suggest_categorical(name, values)
        study._storage.record_heartbeat(lost._trial_id)  # type: ignore[attr-defined]
    again = found_in(tmp_path, pictures, POPULATION + 3)
    assert without_numbers(again) == without_numbers(whole[1])


def test_what_another_trains_is_left_to_it(pictures: SearchDataset, tmp_path: Path) -> None:
    store = str(tmp_path / "search.db")
    with open_study(store, PLAN) as study:
        study.enqueue_trial(PLAN.space.base_choices)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it expects a heartbeat
            other = study.ask()  # another process, which is still at it
        for name, values in PLAN.space.options.items():
            other.suggest_categorical(name, values)
        study._storage.record_heartbeat(other._trial_id)  # type: ignore[attr-defined]
        NASWorker(PLAN, weights_folder(store), 1, is_single=False).run(study, pictures)
        found = read_candidates(study)
    assert found[0].status == "the same network as 0"
    assert [one.choices == PLAN.space.base_choices for one in trained_candidates(found)] == [False]


def test_one_network_takes_one_place_in_the_finals(
    whole: tuple[Path, NASResult], pictures: SearchDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [*whole[1].candidates]
    twice = [*done, *(replace(one, number=one.number + 1000) for one in done)]
    monkeypatch.setattr(network_module, "_candidates", lambda *_: twice)
    seen: list[int] = []

    def counted(store: str, about: object, rule: SuccessiveHalving, *_: Any, **__: Any) -> dict[str, TrainingResult]:
        seen.append(len(rule.candidates))
        raise InterruptedError

    monkeypatch.setattr(network_module, "perform", counted)
    with pytest.raises(InterruptedError):
        found_in(whole[0], pictures, POPULATION + 3)
    assert seen == [len(trained_candidates(done)) - 1]  # the base has a place of its own


def test_a_front_is_kept_in_pareto_mode(pictures: SearchDataset, tmp_path: Path) -> None:
    plan = replace(PLAN, pareto=True)
    found = found_in(tmp_path, pictures, 5, plan)
    edge = pareto_front(found.candidates)
    assert [one.cost for one in edge] == sorted(one.cost for one in edge)
    assert [one.accuracy for one in edge] == sorted({one.accuracy for one in edge})
    for one in trained_candidates(found.candidates):
        assert any(other.cost <= one.cost and other.accuracy >= one.accuracy for other in edge)


def test_several_processes_share_a_search(pictures: SearchDataset, tmp_path: Path) -> None:
    told: list[NASProgress] = []
    store = str(tmp_path / "search.db")
    found = run_nas(PLAN, pictures, store, 4, processes=2, final=1, final_epochs=1, on_progress=told.append)
    assert (
        4 <= len(trained_candidates(found.candidates)) <= 5
    )  # each may have begun its last when the other ended its own
    assert len(trained_candidates(told[-1].candidates)) == len(trained_candidates(found.candidates))


def test_random_networks_cost_what_the_answer_costs(pictures: SearchDataset, tmp_path: Path) -> None:
    macs = count(BASE, classes=3).macs
    others = random_networks(PLAN.space, BASE, 5, 3)
    assert len(others) == 5
    assert all(abs(count(arch, classes=3).macs - macs) <= 0.05 * macs for arch in others)
    assert len({layers_key(arch) for arch in (*others, BASE)}) == 6
    assert others == random_networks(PLAN.space, BASE, 5, 3)

    compared = compare_with_random(PLAN, BASE, pictures, str(tmp_path / "search.db"), 2, 1, processes=1)
    assert len(compared.ours) == len(compared.theirs) == 5
    assert compared.difference.mean == pytest.approx((sum(compared.ours) - sum(compared.theirs)) / 5)
    assert "the best of 2 random networks" in compared.verdict()
    written = json.loads(write_random_comparison(compared, tmp_path).read_text())
    assert written["difference"]["mean"] == compared.difference.mean
    assert len(written["random"]) == 2


def test_the_best_random_network_is_compared_once_all_are_known() -> None:
    others = random_networks(PLAN.space, BASE, 3, 3)
    contest = RandomBaselineJobs(BASE, others, 1, 2, 0)
    assert contest({}) == contest.selection_jobs()
    results = {
        job.key: {"selected": 0.4 + 0.1 * place, "loss": 1.0, "judged": 0.9 - 0.1 * place}
        for place, job in enumerate(contest.selection_jobs())
    }
    assert contest.best(results) == others[2]  # by the pictures to choose by, not by the others
    assert [(job.arch, job.epochs) for job in contest(results)[3:]] == [(BASE, 2)] * 5 + [(others[2], 2)] * 5


def test_the_prospect_is_said_before(pictures: SearchDataset) -> None:
    ahead = estimate_nas(PLAN, pictures, 10, 2, 3, processes=1)
    assert ahead.combinations == PLAN.space.size
    assert 0 < ahead.affordable_fraction <= 1
    assert ahead.candidates_seconds > 0
    assert ahead.finals_seconds > 0
    with pytest.raises(ValueError, match=r"no network around tiny is that small: the smallest has [\d.]+ k MACs"):
        estimate_nas(replace(PLAN, target=1000.0), pictures, 10, 2, 3)
    few = replace(pictures, select=LabeledImages(pictures.selection.images[:50], pictures.selection.classes[:50]))
    with pytest.raises(ValueError, match=r"50 pictures .*too few"):
        estimate_nas(PLAN, few, 10, 2, 3)


def test_a_plan_is_told_from_others() -> None:
    with pytest.raises(ValueError, match="target must be above 0"):
        replace(PLAN, target=0.0)
    json.dumps(PLAN.identity)
    for other in (replace(PLAN, seed=1), replace(PLAN, pareto=True), replace(PLAN, epochs=2)):
        assert other.identity != PLAN.identity
