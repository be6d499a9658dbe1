"""``effnet search coefficients``: the paper's α, β, γ on one's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import Json
from effnet.cli.search import (
    Base,
    Data,
    DryRun,
    Out,
    Processes,
    Seed,
    Side,
    Store,
    base,
    decoded,
    following,
    told_apart,
)

if TYPE_CHECKING:
    from effnet.search.coefficients import Coefficients, Found, Stand
    from effnet.search.examples import Examples

SHOWN = 10  # networks in the terminal; all are in points.csv


def coefficients(
    data: Data,
    base_network: Base = None,
    size: Side = None,
    step: Annotated[str, typer.Option(metavar="DECIMAL", help="Of the grid, which goes from 1 to 2.")] = "0.05",
    within: Annotated[str, typer.Option(metavar="DECIMAL", help="How near α·β²·γ² comes to 2.")] = "0.1",
    epochs: Annotated[str, typer.Option(metavar="LIST", help="Of each round; it keeps a third.")] = "1,3,9",
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings of each network a round.")] = 3,
    final: Annotated[
        int, typer.Option(min=1, metavar="N", help="Best networks trained fully, beside the paper's triple.")
    ] = 3,
    final_epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Of a full training.")] = 27,
    final_seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Full trainings of each.")] = 5,
    processes: Processes = None,
    store: Store = None,
    out: Out = Path("coefficients"),
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Find alpha, beta and gamma on your own pictures.

    The paper's step 1 (section 3.3): every triple from 1 to 2 by .05 whose alpha·beta²·gamma² is within .1 of 2 grows a
    small base to twice its MACs. The networks are trained shortly, the better third longer, and so on; the best are
    trained fully and compared with the paper's 1.2 / 1.1 / 1.15 on pictures that nothing was chosen by. The same
    command again goes on where it was stopped, and takes part where it still runs.
    """
    from effnet.cli.printing import duration, note, show, show_json
    from effnet.search.coefficients import Coefficients, run
    from effnet.search.estimate import estimate
    from effnet.search.grid import grid

    arch = base(base_network, size)
    points = grid(step, within=within)
    examples = decoded(data, 2 * arch.resolution, seed)
    search = Coefficients.of(
        arch, points, len(examples.names), _numbers(epochs), seeds, final, final_epochs, final_seeds, seed
    )
    jobs = search.halving.expected()
    seconds = estimate(jobs, examples, processes=processes)
    plan = (
        f"{len(search.points)} triples grow {arch.name} to {len(search.halving.candidates)} different networks, which "
        f"take {len(jobs)} trainings, together {sum(job.epochs for job in jobs):,} epochs of "
        f"{len(examples.fit):,} pictures: about {duration(seconds)} without interruption"
    )
    limit = told_apart(examples)
    if dry_run:
        if as_json:
            show_json(_planned(search, examples, seconds))
        else:
            show(plan, limit)
        return
    note(plan)
    note(limit)
    with following(jobs) as told:
        found = run(search, examples, store or out / "search.db", processes, told)
    from effnet.search.writing import write_coefficients

    written = write_coefficients(found, out)
    if as_json:
        show_json(found.to_dict())
    else:
        _print(found)
    note(f"{', '.join(path.name for path in written)} are written to {out}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise typer.BadParameter(f"{text!r}: write whole numbers as 1,3,9", param_hint="--epochs")
    return found


def _planned(search: Coefficients, examples: Examples, seconds: float) -> dict[str, Any]:
    from effnet.search.enough import verdict_possible

    jobs = search.halving.expected()
    return {
        "points": len(search.points),
        "networks": len(search.halving.candidates),
        "trainings": len(jobs),
        "epochs": sum(job.epochs for job in jobs),
        "pictures": {"fit": len(examples.fit), "select": len(examples.select), "judge": len(examples.judge)},
        "seconds": seconds,
        "difference_told": verdict_possible(len(examples.judge)),
    }


def _print(found: Found) -> None:
    from effnet.cli.printing import show, table

    rows = table("", "depth / width / resolution", "MACs", "epochs", "seeds", "accuracy", "± sd", "at equal MACs")
    for place, stand in enumerate(found.stands[:SHOWN], start=1):
        rows.add_row(str(place), *_row(stand))
    finals = table("depth / width / resolution", "fully trained", "± sd", "against the paper's")
    for stand, difference in found.finals:
        against = difference.in_words() if difference else "is the paper's"
        finals.add_row(stand.called(), f"{stand.accuracies.mean:.2%}", f"{stand.accuracies.spread:.2%}", against)
    show(*([rows, finals] if found.finals else [rows]), *found.remarks())


def _row(stand: Stand) -> tuple[str, ...]:
    from effnet.cli.printing import short

    return (
        stand.called(),
        short(stand.macs),
        str(stand.epochs),
        str(len(stand.accuracies)),
        f"{stand.accuracies.mean:.2%}",
        f"{stand.accuracies.spread:.2%}",
        f"{stand.worth:.2%}",
    )
