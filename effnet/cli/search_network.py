"""``effnet search network``: MnasNet's search for a network, on one's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.limits import how_many, seconds
from effnet.cli.options import Json
from effnet.cli.search import Base, Data, DryRun, Out, Processes, Seed, Side, Store, base, decoded, saying, told_apart

if TYPE_CHECKING:
    from effnet.search.candidates import Plan
    from effnet.search.chance import Compared
    from effnet.search.examples import Examples
    from effnet.search.network import Found, Standing
    from effnet.search.prospect import Prospect


def network(
    data: Data,
    base_network: Base = None,
    size: Side = None,
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
    processes: Processes = None,
    store: Store = None,
    out: Out = Path("network"),
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Find a network for your own pictures.

    MnasNet's search, which found B0: each stage of a base may become an MBConv, a Fused-MBConv, a depthwise separable
    or a plain convolution, with another kernel, squeeze-excite, residual, channels and layers. Candidates inherit the
    tensors of the nearest one before and are trained shortly; the reward is accuracy x (cost / target)^-0.07. The best
    are trained longer from random weights, and the best of these is written as an arch that every verb takes. The same
    command again goes on where it was stopped, and takes part where it still runs.
    """
    from effnet.arch.record import choice
    from effnet.cli.printing import note, show, show_json
    from effnet.search.candidates import Plan
    from effnet.search.found import write_comparison, write_network
    from effnet.search.network import search
    from effnet.search.prospect import prospect
    from effnet.search.reward import COSTS, Cost, amount

    choice("cost", cost, COSTS)
    start = base(base_network, size)
    wanted = None if target is None else (seconds if cost == "latency" else how_many)(target)
    examples = decoded(data, start.resolution, seed)
    goal = Cost(cost, len(examples.names))(start) if wanted is None else wanted
    if wanted is None and cost == "latency":  # measured again it would be another target, and another search
        why = f"say how long a network may take: {start.name} takes {amount(goal, cost)} on one core here"
        raise typer.BadParameter(why, param_hint="--target")
    plan = Plan(start, goal, cost, pareto, epochs, seed)
    ahead = prospect(plan, examples, trials, final, final_epochs, processes)
    where = store or str(out / "search.db")
    if dry_run:
        if as_json:
            show_json(
                asdict(ahead) | {"seconds": ahead.candidates + ahead.finals, "trials": trials, "target": plan.target}
            )
        else:
            show(*_planned(plan, ahead, examples, trials, minutes, where))
        return
    for line in _planned(plan, ahead, examples, trials, minutes, where):
        note(line)
    with _following(plan) as (told, told_finals):
        limit = None if minutes is None else 60 * minutes
        found = search(plan, examples, where, trials, limit, processes, final, final_epochs, told, told_finals)
    written = write_network(found, plan, len(examples.names), out)
    compared = None
    if random:
        compared = _compared(plan, found, examples, where, random, final_epochs, processes)
        if compared:
            written.append(write_comparison(compared, out))
    if as_json:
        show_json(_plain(plan, found, compared))
    else:
        _print(plan, found, compared)
    note(f"{', '.join(path.name for path in written)} are written to {out}")


def _compared(
    plan: Plan, found: Found, examples: Examples, store: str, many: int, epochs: int, processes: int | None
) -> Compared | None:
    from effnet.cli.printing import note, progress
    from effnet.search.chance import against_random

    if found.answer.number is None:
        note("the base itself came out best: random networks have nothing to be compared with")
        return None
    arch = plan.space.arch(found.candidates_by_number[found.answer.number].choices)
    with progress("random networks") as step:
        return against_random(plan, arch, examples, store, many, epochs, processes, step)


def _planned(
    plan: Plan, ahead: Prospect, examples: Examples, trials: int, minutes: float | None, store: str
) -> list[str]:
    from effnet.cli.printing import duration
    from effnet.search.ledger import shown
    from effnet.search.network import weights_beside
    from effnet.search.reward import amount

    first = min(ahead.candidates, 60 * minutes) if minutes is not None else ahead.candidates
    most = "at most " if minutes is not None else ""
    return [
        f"{plan.base.name} has {ahead.combinations:,} networks around it; {ahead.share:.0%} of them are near enough to "
        f"the target of {amount(plan.target, plan.cost)} to be trained",
        f"{most}{trials} candidates of {plan.epochs} epochs of {len(examples.fit):,} pictures take about "
        f"{duration(first)}, the finals {duration(ahead.finals)}; "
        f"together {duration(first + ahead.finals)} where nothing else runs",
        told_apart(examples),
        f"kept: {shown(store)}, and tensors of all candidates in {weights_beside(store)} (about "
        f"{ahead.kept / 1e6:,.0f} MB)",
    ]


@contextmanager
def _following(plan: Plan) -> Iterator[tuple[Callable[[Standing], None], Callable[[int, int], None]]]:
    """How a search goes on: its candidates with the front so far, then its finals."""
    with saying() as say:
        yield (
            lambda standing: say(_standing(standing, plan), standing.left == 0),
            lambda done, total: say(f"finals: {done} of {total} trainings", done == total),
        )


def _standing(standing: Standing, plan: Plan) -> str:
    from effnet.cli.printing import duration
    from effnet.search.candidates import front, trained
    from effnet.search.reward import amount

    done = trained(standing.found)
    parts = [f"{len(done)} of {max(standing.trials, len(done))} candidates"]
    if standing.left:
        parts.append(f"{duration(standing.left)} left")
    if done:
        best, edge = max(done, key=lambda one: one.reward), front(done)
        parts.append(f"best {best.accuracy:.1%} at {amount(best.cost, plan.cost)} (reward {best.reward:.3f})")
        parts.append("front " + ", ".join(f"{one.accuracy:.1%} at {amount(one.cost, plan.cost)}" for one in edge[-3:]))
    return "; ".join(parts)


def _print(plan: Plan, found: Found, compared: Compared | None) -> None:
    from effnet.cli.printing import show, table
    from effnet.search.reward import amount

    rows = table("", "network", "cost", "reward", "chosen by", "unseen pictures", left=("network",))
    for place, one in enumerate(found.finalists, start=1):
        name = "the base" if one.number is None else f"candidate {one.number}"
        figures = f"{one.reward:.4f}", f"{one.accuracy:.2%}", f"{one.judged:.2%}"
        rows.add_row(str(place), name, amount(one.cost, plan.cost), *figures)
    skipped: dict[str, int] = {}
    for candidate in found.candidates:
        if candidate.accuracy is None:
            fate = "the same network as another" if candidate.fate.startswith("the same") else candidate.fate
            skipped[fate] = skipped.get(fate, 0) + 1
    told = "; ".join(f"{many} {fate}" for fate, many in sorted(skipped.items()))
    lines = [
        f"Not trained of {len(found.candidates)} proposed: {told or 'none'}.",
        f"Rank correlation of the untrained networks' score with accuracy: {found.trust.in_words()}.",
    ]
    if compared:
        lines.append(compared.verdict())
    show(rows, *lines)


def _plain(plan: Plan, found: Found, compared: Compared | None) -> dict[str, Any]:
    from effnet.search.candidates import front
    from effnet.search.found import comparison

    return {
        "answer": found.answer.arch.to_dict(),
        "target": plan.target,
        "cost": plan.cost,
        "finalists": [
            {name: value for name, value in asdict(one).items() if name != "arch"} | {"arch": one.arch.to_dict()}
            for one in found.finalists
        ],
        "front": [asdict(one) for one in front(found.candidates)],
        "trained": sum(one.accuracy is not None for one in found.candidates),
        "proposed": len(found.candidates),
        "score": asdict(found.trust),
        "random": comparison(compared) if compared else None,
    }
