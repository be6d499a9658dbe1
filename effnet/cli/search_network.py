"""``effnet search network``: MnasNet's search for a network, on one's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import JsonOption, parse_count, parse_seconds
from effnet.cli.search import (
    BaseOption,
    DataArgument,
    DryRunOption,
    ImageSizeOption,
    OutOption,
    ProcessesOption,
    SeedOption,
    StoreOption,
    describe_resolution,
    load_examples,
    resolve_base,
    status_line,
)

if TYPE_CHECKING:
    from effnet.lab.search.cost_estimate import NASEstimate
    from effnet.lab.search.dataset import SearchDataset
    from effnet.lab.search.nas import NASConfig, NASProgress, NASResult
    from effnet.lab.search.random_baseline import RandomComparison


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
            print_results(*_describe_plan(plan, ahead, examples, trials, minutes, where))
        return
    for line in _describe_plan(plan, ahead, examples, trials, minutes, where):
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
        print_json(_results_to_dict(plan, found, compared))
    else:
        _print_results(plan, found, compared)
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


def _describe_plan(
    plan: NASConfig, ahead: NASEstimate, examples: SearchDataset, trials: int, minutes: float | None, store: str
) -> list[str]:
    from effnet.cli.printing import format_duration
    from effnet.lab.search.nas import weights_folder
    from effnet.lab.search.scoring import format_cost
    from effnet.lab.search.store import hide_password

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


def _print_results(plan: NASConfig, found: NASResult, compared: RandomComparison | None) -> None:
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
        f"Rank correlation of the untrained networks' score with accuracy: {found.score_correlation.in_words()}.",
    ]
    if compared:
        lines.append(compared.verdict())
    print_results(rows, *lines)


def _results_to_dict(plan: NASConfig, found: NASResult, compared: RandomComparison | None) -> dict[str, Any]:
    from effnet.lab.search.nas import pareto_front
    from effnet.lab.search.report import comparison_to_dict

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
        "random": comparison_to_dict(compared) if compared else None,
    }
