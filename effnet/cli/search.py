"""``effnet search``: networks and coefficients found by training many small networks on one's own pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import JsonOption, parse_count, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effnet.arch import Arch
    from effnet.lab.search.cost_estimate import NASEstimate
    from effnet.lab.search.grid_search import GridSearch, GridSearchResult, GridSearchStanding
    from effnet.lab.search.job_store import TrainingJob
    from effnet.lab.search.nas import NASConfig, NASProgress, NASResult
    from effnet.lab.search.proxy_task import SearchDataset
    from effnet.lab.search.random_baseline import RandomComparison

PROGRESS_LINE_SECONDS = 30.0  # seconds between two lines where there is no terminal

DataArgument = Annotated[str, typer.Argument(metavar="DATA", help="Labelled pictures: all that `effnet train` takes.")]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="NETWORK", help="What is grown or changed: by default nano at 16 pixels, without dropout."
    ),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(min=4, metavar="PIXELS", help="The base's pictures: by default its own.")
]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Networks trained at once, a thread each: by default one a core.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        help="Where results are kept: by default search.db in --out; postgresql://… for several machines.",
    ),
]
SeedOption = Annotated[int, typer.Option(metavar="N", help="What all that is drawn depends on.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, how long it takes, and what it could tell.")
]
OutOption = Annotated[
    Path, typer.Option(metavar="FOLDER", help="What is found is written here; a search here goes on.")
]


def resolve_base(name: str | None, side: int | None) -> Arch:
    """The network that a search starts from."""
    from effnet.cli.options import resolve_network
    from effnet.lab.search.proxy_task import BASE_ARCH

    arch = BASE_ARCH if name is None else replace(resolve_network(name).arch, dropout=0.0, drop_path=0.0)
    return arch if side is None else replace(arch, name=f"{arch.name}_{side}", resolution=side)


def load_examples(data: str, side: int, seed: int) -> SearchDataset:
    """The pictures of ``data``, with a bar."""
    from effnet.cli.printing import progress_bar
    from effnet.lab.search.proxy_task import load_dataset

    with progress_bar("reading pictures") as step:
        return load_dataset(data, side, seed, step)


def describe_resolution(examples: SearchDataset, chooses: bool = True) -> str:
    """Which differences the judged pictures can tell, in words.

    Raises ``ValueError`` where they are too few, or where what ``chooses`` has too few to choose by.
    """
    from effnet.lab.search.statistics import detectable_difference

    if chooses:
        detectable_difference(len(examples.selection))
    apart = 100 * detectable_difference(len(examples.test))
    told = (
        f"judged by {len(examples.test):,} pictures: differences below {apart:.1f} points may be by chance, though "
        "less so of networks that see the same pictures"
    )
    if chooses and not examples.has_test:
        told += "; there is no val or test split, so that these are what was chosen by"
    return told


@contextmanager
def status_line() -> Iterator[Callable[[str, bool], None]]:
    """For (a text, whether it is the last): a line that is refreshed in a terminal; elsewhere one now and then."""
    from rich.console import Console

    from effnet.cli.printing import note

    console, looked, before = Console(stderr=True, highlight=False), -PROGRESS_LINE_SECONDS, ""
    terminal = sys.stderr.isatty()

    def print_status(text: str, last: bool) -> None:
        nonlocal looked, before
        if terminal:
            status.update(text)
        elif text != before and (last or time.monotonic() - looked > PROGRESS_LINE_SECONDS):
            looked, before = time.monotonic(), text
            note(text)

    with console.status("", spinner="dots") as status:
        if not terminal:
            status.stop()
        yield print_status


@contextmanager
def training_progress(
    expected: Sequence[TrainingJob],
) -> Iterator[Callable[[Mapping[str, Any], Sequence[TrainingJob]], None]]:
    """What `effnet.lab.search.scheduler.perform` tells, said: how many of the ``expected`` trainings are done, and time left."""
    from effnet.cli.printing import format_duration

    whole, begun, first = sum(job.epochs for job in expected), time.monotonic(), -1
    with status_line() as say:

        def on_results(results: Mapping[str, Any], jobs: Sequence[TrainingJob]) -> None:
            nonlocal first
            done = [job.epochs for job in jobs if job.key in results]
            first = sum(done) if first < 0 else first
            left = max(whole, sum(job.epochs for job in jobs)) - sum(done)
            pace = (time.monotonic() - begun) / (sum(done) - first) if sum(done) > first else 0.0
            ahead = f", about {format_duration(pace * left)} left" if pace and left else ""
            say(f"{len(done)} of {max(len(expected), len(jobs))} trainings{ahead}", not left)

        yield on_results


MAX_NETWORKS_SHOWN = 10  # in the terminal; all of them are in points.csv


def coefficients(
    data: DataArgument,
    base_network: BaseOption = None,
    size: ImageSizeOption = None,
    step: Annotated[str, typer.Option(metavar="DECIMAL", help="Of the grid, which goes from 1 to 2.")] = "0.05",
    within: Annotated[str, typer.Option(metavar="DECIMAL", help="How near α·β²·γ² comes to 2.")] = "0.1",
    epochs: Annotated[str, typer.Option(metavar="LIST", help="Of each round; it keeps a third.")] = "1,3,9",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings of each network a round.")] = 3,
    final: Annotated[
        int, typer.Option(min=1, metavar="N", help="Best networks trained fully, beside the paper's triple.")
    ] = 3,
    final_epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Of a full training.")] = 27,
    final_seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Full trainings of each.")] = 5,
    processes: ProcessesOption = None,
    store: StoreOption = None,
    out: OutOption = Path("coefficients"),
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find alpha, beta and gamma on your own pictures.

    The paper's step 1 (section 3.3): every triple from 1 to 2 by .05 whose alpha·beta²·gamma² is within .1 of 2 grows a
    small base to twice its MACs. The networks are trained shortly, the better third longer, and so on; the best are
    trained fully and compared with the paper's 1.2 / 1.1 / 1.15 on pictures that nothing was chosen by. The same
    command again goes on where it was stopped, and takes part where it still runs.
    """
    from effnet.cli.printing import format_duration, note, print_json, print_results
    from effnet.lab.search.cost_estimate import estimate_seconds
    from effnet.lab.search.grid_search import GridSearch, coefficient_grid, run_grid_search

    arch = resolve_base(base_network, size)
    points = coefficient_grid(step, tolerance=within)
    examples = load_examples(data, 2 * arch.resolution, seed)
    search = GridSearch.create(
        arch, points, len(examples.class_names), _parse_epochs(epochs), seeds, final, final_epochs, final_seeds, seed
    )
    jobs = search.halving.expected_jobs()
    seconds = estimate_seconds(jobs, examples, processes=processes)
    plan = (
        f"{len(search.coefficients)} triples grow {arch.name} to {len(search.halving.candidates)} different networks, which "
        f"take {len(jobs)} trainings, together {sum(job.epochs for job in jobs):,} epochs of "
        f"{len(examples.train):,} pictures: about {format_duration(seconds)} without interruption"
    )
    limit = describe_resolution(examples)
    if dry_run:
        if as_json:
            print_json(_coefficients_plan(search, examples, seconds))
        else:
            print_results(plan, limit)
        return
    note(plan)
    note(limit)
    with training_progress(jobs) as told:
        found = run_grid_search(search, examples, store or out / "search.db", processes, told)
    from effnet.lab.search.report import write_grid_search

    written = write_grid_search(found, out)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_coefficients(found)
    note(f"{', '.join(path.name for path in written)} are written to {out}")


def _parse_epochs(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise typer.BadParameter(f"{text!r}: write whole numbers as 1,3,9", param_hint="--epochs")
    return found


def _coefficients_plan(search: GridSearch, examples: SearchDataset, seconds: float) -> dict[str, Any]:
    from effnet.lab.search.statistics import detectable_difference

    jobs = search.halving.expected_jobs()
    return {
        "points": len(search.coefficients),
        "networks": len(search.halving.candidates),
        "trainings": len(jobs),
        "epochs": sum(job.epochs for job in jobs),
        "images": {"train": len(examples.train), "selection": len(examples.selection), "test": len(examples.test)},
        "seconds": seconds,
        "detectable_difference": detectable_difference(len(examples.test)),
    }


def _print_coefficients(found: GridSearchResult) -> None:
    from effnet.cli.printing import new_table, print_results

    rows = new_table("", "depth / width / resolution", "MACs", "epochs", "seeds", "accuracy", "± sd", "at equal MACs")
    for place, stand in enumerate(found.standings[:MAX_NETWORKS_SHOWN], start=1):
        rows.add_row(str(place), *_coefficients_row(stand))
    finals = new_table("depth / width / resolution", "fully trained", "± sd", "against the paper's")
    for stand, difference in found.finalists:
        against = difference.describe() if difference else "is the paper's"
        finals.add_row(stand.label(), f"{stand.accuracies.mean:.2%}", f"{stand.accuracies.spread:.2%}", against)
    print_results(*([rows, finals] if found.finalists else [rows]), *found.notes())


def _coefficients_row(stand: GridSearchStanding) -> tuple[str, ...]:
    from effnet.cli.printing import format_si

    return (
        stand.label(),
        format_si(stand.macs),
        str(stand.epochs),
        str(len(stand.accuracies)),
        f"{stand.accuracies.mean:.2%}",
        f"{stand.accuracies.spread:.2%}",
        f"{stand.equal_macs_accuracy:.2%}",
    )


def network(
    data: DataArgument,
    base_network: BaseOption = None,
    size: ImageSizeOption = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="What a network should cost: 4M; by default as the base. Of latency: 2ms."),
    ] = None,
    cost: Annotated[
        str, typer.Option(metavar="KIND", help="macs, params, or latency, which is measured here.")
    ] = "macs",
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Search the whole front of accuracy and cost, not around the target.")
    ] = False,
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Candidates to train.")] = 150,
    minutes: Annotated[float | None, typer.Option(min=0, metavar="M", help="At most, for the candidates.")] = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Of a candidate's training.")] = 3,
    final: Annotated[int, typer.Option(min=1, metavar="N", help="Best networks trained longest.")] = 3,
    final_epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Of their training.")] = 20,
    random: Annotated[
        int, typer.Option(min=0, metavar="N", help="Then compare with the best of N random networks of the same MACs.")
    ] = 0,
    processes: ProcessesOption = None,
    store: StoreOption = None,
    out: OutOption = Path("network"),
    seed: SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find a network for your own pictures.

    MnasNet's search, which found B0: each stage of a base may become an MBConv, a Fused-MBConv, a depthwise separable
    or a plain convolution, with another kernel, squeeze-excite, residual, channels and layers. Candidates inherit the
    tensors of the nearest one before and are trained shortly; the reward is accuracy x (cost / target)^-0.07. The best
    are trained longer from random weights, and the best of these is written as an arch that every verb takes. The same
    command again goes on where it was stopped, and takes part where it still runs.
    """
    from effnet.arch.serde import check_choice
    from effnet.cli.printing import note, print_json, print_results
    from effnet.lab.search.cost_estimate import estimate_nas
    from effnet.lab.search.nas import NASConfig, run_nas
    from effnet.lab.search.report import write_nas, write_random_comparison
    from effnet.lab.search.scoring import COST_KINDS, CostFunction, format_cost

    check_choice("cost", cost, COST_KINDS)
    start = resolve_base(base_network, size)
    wanted = None if target is None else (parse_seconds if cost == "latency" else parse_count)(target)
    examples = load_examples(data, start.resolution, seed)
    goal = CostFunction(cost, len(examples.class_names))(start) if wanted is None else wanted
    if wanted is None and cost == "latency":  # measured again it would be another target, and another search
        why = f"say how long a network may take: {start.name} takes {format_cost(goal, cost)} on one core here"
        raise typer.BadParameter(why, param_hint="--target")
    plan = NASConfig(start, goal, cost, pareto, epochs, seed)
    ahead = estimate_nas(plan, examples, trials, final, final_epochs, processes)
    where = store or str(out / "search.db")
    if dry_run:
        if as_json:
            print_json(
                asdict(ahead)
                | {"seconds": ahead.candidates_seconds + ahead.finals_seconds, "trials": trials, "target": plan.target}
            )
        else:
            print_results(*_describe_network_plan(plan, ahead, examples, trials, minutes, where))
        return
    for line in _describe_network_plan(plan, ahead, examples, trials, minutes, where):
        note(line)
    with _search_progress(plan) as (told, told_finals):
        limit = None if minutes is None else 60 * minutes
        found = run_nas(plan, examples, where, trials, limit, processes, final, final_epochs, told, told_finals)
    written = write_nas(found, plan, len(examples.class_names), out)
    compared = None
    if random:
        compared = _compare_with_random(plan, found, examples, where, random, final_epochs, processes)
        if compared:
            written.append(write_random_comparison(compared, out))
    if as_json:
        print_json(_network_to_dict(plan, found, compared))
    else:
        _print_network(plan, found, compared)
    note(f"{', '.join(path.name for path in written)} are written to {out}")


def _compare_with_random(
    plan: NASConfig,
    found: NASResult,
    examples: SearchDataset,
    store: str,
    many: int,
    epochs: int,
    processes: int | None,
) -> RandomComparison | None:
    from effnet.cli.printing import note, progress_bar
    from effnet.lab.search.random_baseline import compare_with_random

    if found.answer.number is None:
        note("the base itself came out best: random networks have nothing to be compared with")
        return None
    arch = plan.space.arch(found.candidates_by_number[found.answer.number].choices)
    with progress_bar("random networks") as step:
        return compare_with_random(plan, arch, examples, store, many, epochs, processes, step)


def _describe_network_plan(
    plan: NASConfig, ahead: NASEstimate, examples: SearchDataset, trials: int, minutes: float | None, store: str
) -> list[str]:
    from effnet.cli.printing import format_duration
    from effnet.lab.search.job_store import hide_password
    from effnet.lab.search.nas import weights_folder
    from effnet.lab.search.scoring import format_cost

    first = min(ahead.candidates_seconds, 60 * minutes) if minutes is not None else ahead.candidates_seconds
    most = "at most " if minutes is not None else ""
    return [
        f"{plan.base.name} has {ahead.combinations:,} networks around it; {ahead.affordable_fraction:.0%} of them are near enough to "
        f"the target of {format_cost(plan.target, plan.cost)} to be trained",
        f"{most}{trials} candidates of {plan.epochs} epochs of {len(examples.train):,} pictures take about "
        f"{format_duration(first)}, the finals {format_duration(ahead.finals_seconds)}; "
        f"together {format_duration(first + ahead.finals_seconds)} where nothing else runs",
        describe_resolution(examples),
        f"kept: {hide_password(store)}, and tensors of all candidates in {weights_folder(store)} (about "
        f"{ahead.stored_bytes / 1e6:,.0f} MB)",
    ]


@contextmanager
def _search_progress(plan: NASConfig) -> Iterator[tuple[Callable[[NASProgress], None], Callable[[int, int], None]]]:
    """How a search goes on: its candidates with the front so far, then its finals."""
    with status_line() as say:
        yield (
            lambda standing: say(_describe_progress(standing, plan), standing.seconds_left == 0),
            lambda done, total: say(f"finals: {done} of {total} trainings", done == total),
        )


def _describe_progress(standing: NASProgress, plan: NASConfig) -> str:
    from effnet.cli.printing import format_duration
    from effnet.lab.search.nas import pareto_front, trained_candidates
    from effnet.lab.search.scoring import format_cost

    done = trained_candidates(standing.candidates)
    parts = [f"{len(done)} of {max(standing.trials, len(done))} candidates"]
    if standing.seconds_left:
        parts.append(f"{format_duration(standing.seconds_left)} left")
    if done:
        best, edge = max(done, key=lambda one: one.reward), pareto_front(done)
        parts.append(f"best {best.accuracy:.1%} at {format_cost(best.cost, plan.cost)} (reward {best.reward:.3f})")
        parts.append(
            "front " + ", ".join(f"{one.accuracy:.1%} at {format_cost(one.cost, plan.cost)}" for one in edge[-3:])
        )
    return "; ".join(parts)


def _print_network(plan: NASConfig, found: NASResult, compared: RandomComparison | None) -> None:
    from effnet.cli.printing import new_table, print_results
    from effnet.lab.search.scoring import format_cost

    rows = new_table("", "network", "cost", "reward", "chosen by", "unseen pictures", left=("network",))
    for place, one in enumerate(found.finalists, start=1):
        name = "the base" if one.number is None else f"candidate {one.number}"
        figures = f"{one.reward:.4f}", f"{one.selection_accuracy:.2%}", f"{one.test_accuracy:.2%}"
        rows.add_row(str(place), name, format_cost(one.cost, plan.cost), *figures)
    skipped: dict[str, int] = {}
    for candidate in found.candidates:
        if candidate.accuracy is None:
            fate = "the same network as another" if candidate.status.startswith("the same") else candidate.status
            skipped[fate] = skipped.get(fate, 0) + 1
    told = "; ".join(f"{many} {fate}" for fate, many in sorted(skipped.items()))
    lines = [
        f"Not trained of {len(found.candidates)} proposed: {told or 'none'}.",
        f"Rank correlation of the untrained networks' score with accuracy: {found.score_correlation.describe()}.",
    ]
    if compared:
        lines.append(compared.verdict())
    print_results(rows, *lines)


def _network_to_dict(plan: NASConfig, found: NASResult, compared: RandomComparison | None) -> dict[str, Any]:
    from effnet.lab.search.nas import pareto_front

    return {
        "answer": found.answer.arch.to_dict(),
        "target": plan.target,
        "cost": plan.cost,
        "finalists": [
            {name: value for name, value in asdict(one).items() if name != "arch"} | {"arch": one.arch.to_dict()}
            for one in found.finalists
        ],
        "front": [asdict(one) for one in pareto_front(found.candidates)],
        "trained": sum(one.accuracy is not None for one in found.candidates),
        "proposed": len(found.candidates),
        "score": asdict(found.score_correlation),
        "random": compared.to_dict() if compared else None,
    }
