"""``effnet search coefficients``: the paper's α, β, γ on one's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import JsonOption
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
    training_progress,
)

if TYPE_CHECKING:
    from effnet.lab.search.dataset import SearchDataset
    from effnet.lab.search.grid_search import GridSearch, GridSearchResult, GridSearchStanding

MAX_NETWORKS_SHOWN = 10  # networks in the terminal; all are in points.csv


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
    from effnet.lab.search.coefficients import coefficient_grid
    from effnet.lab.search.cost_estimate import estimate_seconds
    from effnet.lab.search.grid_search import GridSearch, run_grid_search

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
            print_json(_plan_to_dict(search, examples, seconds))
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
        _print_results(found)
    note(f"{', '.join(path.name for path in written)} are written to {out}")


def _parse_epochs(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise typer.BadParameter(f"{text!r}: write whole numbers as 1,3,9", param_hint="--epochs")
    return found


def _plan_to_dict(search: GridSearch, examples: SearchDataset, seconds: float) -> dict[str, Any]:
    from effnet.lab.search.statistics import detectable_difference

    jobs = search.halving.expected_jobs()
    return {
        "points": len(search.coefficients),
        "networks": len(search.halving.candidates),
        "trainings": len(jobs),
        "epochs": sum(job.epochs for job in jobs),
        "pictures": {"fit": len(examples.train), "select": len(examples.selection), "judge": len(examples.test)},
        "seconds": seconds,
        "difference_told": detectable_difference(len(examples.test)),
    }


def _print_results(found: GridSearchResult) -> None:
    from effnet.cli.printing import new_table, print_results

    rows = new_table("", "depth / width / resolution", "MACs", "epochs", "seeds", "accuracy", "± sd", "at equal MACs")
    for place, stand in enumerate(found.standings[:MAX_NETWORKS_SHOWN], start=1):
        rows.add_row(str(place), *_table_row(stand))
    finals = new_table("depth / width / resolution", "fully trained", "± sd", "against the paper's")
    for stand, difference in found.finalists:
        against = difference.in_words() if difference else "is the paper's"
        finals.add_row(stand.label(), f"{stand.accuracies.mean:.2%}", f"{stand.accuracies.spread:.2%}", against)
    print_results(*([rows, finals] if found.finalists else [rows]), *found.notes())


def _table_row(stand: GridSearchStanding) -> tuple[str, ...]:
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
