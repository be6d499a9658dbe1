"""Network search: resumable, reproducible from its seed, and never mixed with another search."""

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
from effnet.lab.search import nas, proxy_task
from effnet.lab.search.cost_estimate import estimate_nas
from effnet.lab.search.job_store import TrainingResult
from effnet.lab.search.nas import (
    NASCandidate,
    NASConfig,
    NASProgress,
    NASResult,
    NASWorker,
    open_candidates,
    pareto_front,
    read_candidates,
    run_nas,
    trained_candidates,
    weights_folder,
)
from effnet.lab.search.proxy_task import LabeledImages, SearchDataset
from effnet.lab.search.random_baseline import RandomBaselineJobs, compare_with_random, random_networks
from effnet.lab.search.report import write_nas, write_random_comparison
from effnet.lab.search.search_space import count_different_choices, layers_key
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
CONFIG = NASConfig(BASE, target=1.2 * count(BASE, classes=3).macs, epochs=1)


POPULATION = 5


@pytest.fixture(scope="module", autouse=True)
def small_population() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas, "POPULATION_SIZE", POPULATION)
        yield


@pytest.fixture(scope="module")
def images() -> SearchDataset:
    """Three classes that differ in their color, with noise."""
    generator = torch.Generator().manual_seed(0)

    def part(number: int) -> LabeledImages:
        classes = torch.arange(number) % 3
        noise = torch.randint(0, 128, (number, 3, 8, 8), generator=generator)
        noise[torch.arange(number), classes] += 40
        return LabeledImages(noise.to(torch.uint8), classes)

    return SearchDataset(part(128), part(120), part(120), ("red", "green", "blue"), True, "colors", True)


def found_in(
    folder: Path, images: SearchDataset, trials: int = 6, config: NASConfig = CONFIG, processes: int = 1
) -> NASResult:
    folder.mkdir(exist_ok=True)
    store = str(folder / "search.db")
    return run_nas(config, images, store, trials, processes=processes, final=1, final_epochs=1)


def without_times(found: NASResult) -> list[NASCandidate]:
    return [replace(one, seconds=0.0) for one in found.candidates]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, images: SearchDataset) -> tuple[Path, NASResult]:
    """A search beyond its first population, so that candidates inherit."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, found_in(folder, images, POPULATION + 3)


def test_the_same_seed_gives_the_same_search_even_when_it_was_stopped(
    whole: tuple[Path, NASResult], images: SearchDataset, tmp_path: Path
) -> None:
    found_in(tmp_path, images, 3)
    again = found_in(tmp_path, images, POPULATION + 3)
    assert without_times(again) == without_times(whole[1])
    assert again.answer == whole[1].answer


def test_candidates_are_different_networks_and_the_first_is_the_base(whole: tuple[Path, NASResult]) -> None:
    found = whole[1]
    done = trained_candidates(found.candidates)
    assert len(done) == POPULATION + 3
    assert done[0].choices == CONFIG.space.base_choices
    assert len({layers_key(CONFIG.space.arch(one.choices)) for one in done}) == len(done)
    for one in done:
        counted = count(CONFIG.space.arch(one.choices), classes=3)
        assert (one.macs, one.params, one.cost) == (counted.macs, counted.params, counted.macs)
        assert one.reward == pytest.approx(one.accuracy * (one.macs / CONFIG.target) ** -0.07)
    assert all("costs over" in one.status for one in found.candidates if one.macs > 1.5 * CONFIG.target)


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


def test_what_is_written_can_be_used(whole: tuple[Path, NASResult], images: SearchDataset, tmp_path: Path) -> None:
    found = whole[1]
    paths = write_nas(found, CONFIG, 3, tmp_path)
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
    whole: tuple[Path, NASResult], images: SearchDataset, tmp_path: Path
) -> None:
    store = whole[0] / "search.db"
    before = store.read_bytes()
    others = (
        (replace(CONFIG, target=1e6), images, "target"),
        (replace(CONFIG, base=replace(BASE, head=24)), images, "base"),
        (CONFIG, replace(images, fingerprint="others"), "images"),
    )
    for config, dataset, what in others:
        with pytest.raises(ValueError, match=f"contains another search.*{what}"):
            run_nas(config, dataset, str(store), 1, processes=1)
    assert store.read_bytes() == before


def test_a_target_that_nothing_meets_is_refused(images: SearchDataset, tmp_path: Path) -> None:
    config = replace(CONFIG, target=1.0)
    with pytest.raises(ValueError, match=r"no candidate was trained .*choose a larger target"):
        found_in(tmp_path, images, 1, config)


def without_numbers(found: NASResult) -> list[NASCandidate]:
    """The candidates with their places in place of their numbers, which what was cut short leaves gaps in."""
    place = {one.number: index for index, one in enumerate(found.candidates)}
    return [
        replace(one, number=place[one.number], parent=None if one.parent is None else place[one.parent])
        for one in without_times(found)
        if not one.status.startswith("the same")  # as another, by its number
    ]


@pytest.mark.parametrize("cut", [0, 1, POPULATION + 1])
def test_what_is_cut_short_is_proposed_again(
    whole: tuple[Path, NASResult], images: SearchDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    trains, begun = proxy_task.train_proxy, 0

    def interrupted(*given: Any, **named: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == cut + 1:
            raise KeyboardInterrupt
        return trains(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(proxy_task, "train_proxy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            found_in(tmp_path, images, POPULATION + 3)
    again = found_in(tmp_path, images, POPULATION + 3)
    assert without_numbers(again) == without_numbers(whole[1])
    assert replace(again.answer.arch, name="x") == replace(whole[1].answer.arch, name="x")


def test_after_a_kill_it_goes_on_as_if_it_had_never_stopped(
    whole: tuple[Path, NASResult], images: SearchDataset, tmp_path: Path
) -> None:
    found_in(tmp_path, images, 2)
    with open_candidates(str(tmp_path / "search.db"), CONFIG, images) as study:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it expects a heartbeat, which is what is missing
            lost = study.ask()  # as a process does that is killed then
        for name, values in CONFIG.space.options.items():
            lost.suggest_categorical(name, values)
        study._storage.record_heartbeat(lost._trial_id)  # type: ignore[attr-defined]
    again = found_in(tmp_path, images, POPULATION + 3)
    assert without_numbers(again) == without_numbers(whole[1])


def test_what_another_trains_is_left_to_it(images: SearchDataset, tmp_path: Path) -> None:
    store = str(tmp_path / "search.db")
    with open_candidates(store, CONFIG, images) as study:
        study.enqueue_trial(CONFIG.space.base_choices)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it expects a heartbeat
            other = study.ask()  # another process, which is still at it
        for name, values in CONFIG.space.options.items():
            other.suggest_categorical(name, values)
        study._storage.record_heartbeat(other._trial_id)  # type: ignore[attr-defined]
        NASWorker(CONFIG, weights_folder(store), 1, is_single=False).run(study, images)
        found = read_candidates(study)
    assert found[0].status == "the same network as 0"
    assert [one.choices == CONFIG.space.base_choices for one in trained_candidates(found)] == [False]


def test_one_network_takes_one_place_in_the_finals(
    whole: tuple[Path, NASResult], images: SearchDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [*whole[1].candidates]
    twice = [*done, *(replace(one, number=one.number + 1000) for one in done)]
    monkeypatch.setattr(nas, "_run_candidates", lambda *_: twice)
    seen: list[int] = []

    def counted(store: str, about: object, rule: SuccessiveHalving, *_: Any, **__: Any) -> dict[str, TrainingResult]:
        seen.append(len(rule.candidates))
        raise InterruptedError

    monkeypatch.setattr(nas.job_store, "run_jobs", counted)
    with pytest.raises(InterruptedError):
        found_in(whole[0], images, POPULATION + 3)
    assert seen == [len(trained_candidates(done)) - 1]  # the base has a place of its own


def test_a_front_is_kept_in_pareto_mode(images: SearchDataset, tmp_path: Path) -> None:
    config = replace(CONFIG, pareto=True)
    found = found_in(tmp_path, images, 5, config)
    edge = pareto_front(found.candidates)
    assert [one.cost for one in edge] == sorted(one.cost for one in edge)
    assert [one.accuracy for one in edge] == sorted({one.accuracy for one in edge})
    for one in trained_candidates(found.candidates):
        assert any(other.cost <= one.cost and other.accuracy >= one.accuracy for other in edge)


def test_several_processes_share_a_search(images: SearchDataset, tmp_path: Path) -> None:
    progress: list[NASProgress] = []
    store = str(tmp_path / "search.db")
    found = run_nas(CONFIG, images, store, 4, processes=2, final=1, final_epochs=1, on_progress=progress.append)
    assert (
        4 <= len(trained_candidates(found.candidates)) <= 5
    )  # each may have begun its last when the other ended its own
    assert len(trained_candidates(progress[-1].candidates)) == len(trained_candidates(found.candidates))


def test_random_networks_cost_what_the_answer_costs(images: SearchDataset, tmp_path: Path) -> None:
    macs = count(BASE, classes=3).macs
    others = random_networks(CONFIG.space, BASE, 5, 3)
    assert len(others) == 5
    assert all(abs(count(arch, classes=3).macs - macs) <= 0.05 * macs for arch in others)
    assert len({layers_key(arch) for arch in (*others, BASE)}) == 6
    assert others == random_networks(CONFIG.space, BASE, 5, 3)

    compared = compare_with_random(CONFIG, BASE, images, str(tmp_path / "search.db"), 2, 1, processes=1)
    assert len(compared.ours) == len(compared.theirs) == 5
    assert compared.difference.mean == pytest.approx((sum(compared.ours) - sum(compared.theirs)) / 5)
    assert "the best of 2 random networks" in compared.verdict()
    written = json.loads(write_random_comparison(compared, tmp_path).read_text())
    assert written["difference"]["mean"] == compared.difference.mean
    assert len(written["random"]) == 2


def test_the_best_random_network_is_compared_once_all_are_known() -> None:
    others = random_networks(CONFIG.space, BASE, 3, 3)
    contest = RandomBaselineJobs(BASE, others, 1, 2, 0)
    assert contest({}) == contest.selection_jobs()
    results = {
        job.key: {"selection_accuracy": 0.4 + 0.1 * place, "loss": 1.0, "test_accuracy": 0.9 - 0.1 * place}
        for place, job in enumerate(contest.selection_jobs())
    }
    assert contest.best(results) == others[2]  # on the selection images, not on the test images
    assert [(job.arch, job.epochs) for job in contest(results)[3:]] == [(BASE, 2)] * 5 + [(others[2], 2)] * 5


def test_estimate_of_a_search(images: SearchDataset) -> None:
    ahead = estimate_nas(CONFIG, images, 10, 2, 3, processes=1)
    assert ahead.combinations == CONFIG.space.size
    assert 0 < ahead.affordable_fraction <= 1
    assert ahead.candidates_seconds > 0
    assert ahead.finals_seconds > 0
    with pytest.raises(ValueError, match=r"every network around tiny is too large: the smallest has [\d.]+ k MACs"):
        estimate_nas(replace(CONFIG, target=1000.0), images, 10, 2, 3)
    few = replace(images, selection=LabeledImages(images.selection.images[:50], images.selection.classes[:50]))
    with pytest.raises(ValueError, match=r"50 images are too few"):
        estimate_nas(CONFIG, few, 10, 2, 3)


def test_another_config_is_another_search() -> None:
    with pytest.raises(ValueError, match="target must be above 0"):
        replace(CONFIG, target=0.0)
    json.dumps(CONFIG.identity)
    for other in (replace(CONFIG, seed=1), replace(CONFIG, pareto=True), replace(CONFIG, epochs=2)):
        assert other.identity != CONFIG.identity
