"""``effnet search``: find scaling coefficients or a network by training many small networks on your own images."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from effnet.arch import serde
from effnet.cli import options, printing

if TYPE_CHECKING:
    from effnet.arch import Arch
    from effnet.lab.search import cost_estimate, grid_search, job_store, nas, proxy_task, random_baseline

PROGRESS_LINE_SECONDS = 30.0  # between two lines where standard error is not a terminal
MAX_NETWORKS_SHOWN = 10  # all of them are in points.csv

DataArgument = Annotated[str, Argument(metavar="DATA", help="Labeled images: any data source of `effnet train`.")]
BaseOption = Annotated[
    str | None,
    Option("--base", metavar="NETWORK", help="Network to start from, without dropout (default: a small nano)."),
]
SquareSizeOption = Annotated[
    int | None,
    options.number(
        "Input resolution of --base.", *options.IMAGE_SIZE, min=4, max=serde.MAX_IMAGE_SIDE, metavar="PIXELS"
    ),
]
ProcessesOption = Annotated[
    int | None, options.number("Networks trained in parallel (default: one per core).", max=serde.MAX_PROCESSES)
]
StoreOption = Annotated[
    str | None,
    Option(
        metavar="FILE|URL",
        help="Storage of results (default: a .db file in --output); postgresql://… for several machines.",
    ),
]
DryRunOption = Annotated[
    bool, Option("--dry-run", help="Show what would be trained, for how long, and what it could detect.")
]
OutOption = Annotated[Path, options.output("FOLDER", "Folder for the results; a search in it is resumed.")]


def resolve_base(name: str | None, side: int | None) -> "Arch":
    """Return the network that a search starts from."""
    from effnet.lab.search.proxy_task import BASE_ARCH

    arch = BASE_ARCH if name is None else replace(options.resolve_network(name).arch, dropout=0.0, drop_path=0.0)
    return arch if side is None else replace(arch, name=f"{arch.name}_{side}", resolution=side)


def load_data(data: str, side: int, seed: int) -> "proxy_task.SearchDataset":
    """Load the images of ``data``, with a progress bar."""
    from effnet.lab.search.proxy_task import load_dataset

    with printing.progress_bar("reading images") as step:
        return load_dataset(data, side, seed, step)


def describe_detectable_difference(dataset: "proxy_task.SearchDataset", selects: bool = True) -> str:
    """Say which differences the test images can detect; refuse too few, also for a search that ``selects``."""
    from effnet.lab.search.statistics import detectable_difference

    if selects:
        detectable_difference(len(dataset.selection))
    points = 100 * detectable_difference(len(dataset.test))
    text = (
        f"tested on {len(dataset.test):,} images: differences below {points:.1f} points may be due to chance, though "
        "less so between networks tested on the same images"
    )
    if selects and not dataset.has_test:
        text += "; without a val or test split, these are the images used for selection"
    return text


@contextmanager
def status_line() -> Iterator[Callable[[str, bool], None]]:
    """Yield a function of (text, whether it is the last): one updated line in a terminal, else one now and then."""
    from rich.console import Console

    console, last_time, last_text = Console(stderr=True, highlight=False), -PROGRESS_LINE_SECONDS, ""
    is_terminal = sys.stderr.isatty()

    def print_status(text: str, last: bool) -> None:
        nonlocal last_time, last_text
        if is_terminal:
            status.update(text)
        elif text != last_text and (last or time.monotonic() - last_time > PROGRESS_LINE_SECONDS):
            last_time, last_text = time.monotonic(), text
            printing.note(text)

    with console.status("", spinner="dots") as status:
        if not is_terminal:
            status.stop()
        yield print_status


@contextmanager
def training_progress(
    expected: "Sequence[job_store.TrainingJob]",
) -> "Iterator[Callable[[Mapping[str, Any], Sequence[job_store.TrainingJob]], None]]":
    """Yield a function of (results, jobs) that prints how many trainings are done, and the time left."""
    total, start, first = sum(job.epochs for job in expected), time.monotonic(), -1
    with status_line() as print_status:

        def on_results(results: Mapping[str, Any], jobs: "Sequence[job_store.TrainingJob]") -> None:
            nonlocal first
            done = [job.epochs for job in jobs if job.key in results]
            first = sum(done) if first < 0 else first
            left = max(total, sum(job.epochs for job in jobs)) - sum(done)
            pace = (time.monotonic() - start) / (sum(done) - first) if sum(done) > first else 0.0
            remaining = f", about {printing.format_duration(pace * left)} left" if pace and left else ""
            print_status(f"{len(done)} of {max(len(expected), len(jobs))} trainings{remaining}", not left)

        yield on_results


def coefficients(
    data: DataArgument,
    base: BaseOption = None,
    image_size: SquareSizeOption = None,
    step: Annotated[str, Option(metavar="DECIMAL", help="Step of the grid from 1 to 2.")] = "0.05",
    within: Annotated[str, Option(metavar="DECIMAL", help="Tolerance of alpha·beta²·gamma² around 2.")] = "0.1",
    epochs: Annotated[str, Option(metavar="LIST", help="Epochs per round; each round keeps the best third.")] = "1,3,9",
    seeds: Annotated[int, options.number("Trainings per network and round.")] = 3,
    final: Annotated[int, options.number("Number of best networks trained fully, next to the paper's.")] = 3,
    final_epochs: Annotated[int, options.number("Epochs of a full training.", max=serde.MAX_EPOCHS)] = 27,
    final_seeds: Annotated[int, options.number("Full trainings per network.")] = 5,
    processes: ProcessesOption = None,
    store: StoreOption = None,
    out: OutOption = Path("coefficients"),
    seed: options.SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Find alpha, beta and gamma on your own images.

    Step 1 of the paper (section 3.3): every triple from 1 to 2 by 0.05 whose alpha·beta²·gamma² is within 0.1 of 2
    scales a small base to twice its MACs. The networks are trained briefly, the better third longer, and so on; the
    best are trained fully and compared with the paper's 1.2 / 1.1 / 1.15 on images not used for selection. Running the
    same command again resumes the search, or joins it while it runs.
    """
    from effnet.lab.search import cost_estimate, grid_search, report

    rounds = options.parse_int_list(epochs, "--epochs", serde.MAX_EPOCHS)
    arch = resolve_base(base, image_size)
    grid = grid_search.coefficient_grid(step, tolerance=within)
    dataset = load_data(data, 2 * arch.resolution, seed)
    search = grid_search.GridSearch.create(
        arch, grid, len(dataset.class_names), rounds, seeds, final, final_epochs, final_seeds, seed
    )
    jobs = search.halving.expected_jobs()
    seconds = cost_estimate.estimate_seconds(jobs, dataset, processes=processes)
    plan = [
        f"{len(search.coefficients)} triples scale {arch.name} to {len(search.halving.candidates)} different networks: "
        f"{len(jobs)} trainings, {sum(job.epochs for job in jobs):,} epochs of {len(dataset.train):,} images in total, "
        f"about {printing.format_duration(seconds)} without interruption",
        describe_detectable_difference(dataset),
    ]
    if dry_run:
        printing.print_json(_plan_to_dict(search, dataset, seconds)) if as_json else printing.print_results(*plan)
        return
    printing.note(*plan)
    with training_progress(jobs) as on_results:
        result = grid_search.run_grid_search(search, dataset, store or out / "search.db", processes, on_results)
    written = report.write_grid_search(result, out)
    printing.print_json(result.to_dict()) if as_json else _print_coefficients(result)
    printing.note_written(written)


def _plan_to_dict(
    search: "grid_search.GridSearch", dataset: "proxy_task.SearchDataset", seconds: float
) -> dict[str, Any]:
    from effnet.lab.search.statistics import detectable_difference

    jobs = search.halving.expected_jobs()
    counts = {"points": len(search.coefficients), "networks": len(search.halving.candidates)}
    counts |= {"trainings": len(jobs), "epochs": sum(job.epochs for job in jobs)}
    images = {"train": len(dataset.train), "selection": len(dataset.selection), "test": len(dataset.test)}
    detectable = detectable_difference(len(dataset.test))
    return {**counts, "images": images, "seconds": seconds, "detectable_difference": detectable}


def _print_coefficients(result: "grid_search.GridSearchResult") -> None:
    headings = ("", "depth / width / resolution", "MACs", "epochs", "seeds", "accuracy", "± sd", "at equal MACs")
    table = printing.new_table(*headings)
    for rank, standing in enumerate(result.standings[:MAX_NETWORKS_SHOWN], start=1):
        accuracies = standing.accuracies
        table.add_row(
            *(str(rank), standing.label(), printing.format_si(standing.macs), str(standing.epochs)),
            *(str(len(accuracies)), f"{accuracies.mean:.2%}", f"{accuracies.spread:.2%}"),
            f"{standing.equal_macs_accuracy:.2%}",
        )
    finals = printing.new_table("depth / width / resolution", "fully trained", "± sd", "compared with the paper's")
    for standing, difference in result.finalists:
        texts = f"{standing.accuracies.mean:.2%}", f"{standing.accuracies.spread:.2%}"
        finals.add_row(standing.label(), *texts, difference.describe() if difference else "is the paper's")
    printing.print_results(*([table, finals] if result.finalists else [table]), *result.notes())


def network(
    data: DataArgument,
    base: BaseOption = None,
    image_size: SquareSizeOption = None,
    target: Annotated[
        str | None,
        Option(metavar="AMOUNT", help="Target cost of a network: 4M, or of latency 2ms (default: the base's)."),
    ] = None,
    cost: Annotated[str, Option(metavar="KIND", help="Cost: macs, params, or latency, measured here.")] = "macs",
    pareto: Annotated[
        bool, Option("--pareto", help="Search the whole Pareto front of accuracy and cost, not only the target.")
    ] = False,
    trials: Annotated[int, options.number("Number of candidates to train.")] = 150,
    minutes: Annotated[
        float | None, options.real("Time limit for training candidates.", max=serde.MAX_MINUTES, metavar="M")
    ] = None,
    epochs: Annotated[int, options.number("Epochs per candidate.", max=serde.MAX_EPOCHS)] = 3,
    final: Annotated[int, options.number("Number of best networks trained longest.")] = 3,
    final_epochs: Annotated[int, options.number("Epochs of these.", max=serde.MAX_EPOCHS)] = 20,
    random: Annotated[
        int, options.number("Also compare with the best of N random networks of the same MACs.", min=0)
    ] = 0,
    processes: ProcessesOption = None,
    store: StoreOption = None,
    out: OutOption = Path("network"),
    seed: options.SeedOption = 0,
    dry_run: DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Find a network for your own images.

    MnasNet's search, which found B0: each stage of a base may become MBConv, Fused-MBConv, depthwise separable or plain
    convolution, with another kernel, squeeze-excite, residual, width and depth. Candidates inherit the weights of the
    nearest earlier one and are trained briefly; the reward is accuracy x (cost / target)^-0.07. The best are trained
    longer from random weights, and the winner is written as JSON that every command accepts. Running the same command
    again resumes the search, or joins it while it runs.
    """
    from effnet.arch.serde import check_choice
    from effnet.lab.search import cost_estimate, nas, report, scoring

    check_choice("cost", cost, scoring.COST_KINDS)
    arch = resolve_base(base, image_size)
    parsed = None if target is None else (options.parse_seconds if cost == "latency" else options.parse_count)(target)
    dataset = load_data(data, arch.resolution, seed)
    target_cost = scoring.CostFunction(cost, len(dataset.class_names))(arch) if parsed is None else parsed
    if parsed is None and cost == "latency":  # another measurement would be another target, and another search
        base_cost = scoring.format_cost(target_cost, cost)
        raise options.UsageError(
            f"Missing option '--target': pass a latency; {arch.name} takes {base_cost} on one core here"
        )
    config = nas.NASConfig(arch, target_cost, cost, pareto, epochs, seed)
    estimate = cost_estimate.estimate_nas(config, dataset, trials, final, final_epochs, processes)
    storage = store or str(out / "search.db")
    plan = _describe_network_plan(config, estimate, dataset, trials, minutes, storage)
    if dry_run:
        seconds = estimate.candidates_seconds + estimate.finals_seconds
        planned = asdict(estimate) | {"seconds": seconds, "trials": trials, "target": config.target}
        printing.print_json(planned) if as_json else printing.print_results(*plan)
        return
    printing.note(*plan)
    limit = None if minutes is None else 60 * minutes
    with status_line() as print_status:
        result = nas.run_nas(
            *(config, dataset, storage, trials, limit, processes, final, final_epochs),
            lambda progress: print_status(_describe_progress(progress, cost), progress.seconds_left == 0),
            lambda done, total: print_status(f"finals: {done} of {total} trainings", done == total),
        )
    written = report.write_nas(result, config, len(dataset.class_names), out)
    comparison = None
    if random and result.answer.number is not None:
        from effnet.lab.search.random_baseline import compare_with_random

        best = result.answer.arch
        with printing.progress_bar("random networks") as step:
            comparison = compare_with_random(config, best, dataset, storage, random, final_epochs, processes, step)
        written.append(report.write_random_comparison(comparison, out))
    elif random:
        printing.note("the base itself is the best: there is nothing to compare random networks with")
    shown = (config, result, comparison)
    printing.print_json(_network_to_dict(*shown)) if as_json else _print_network(*shown)
    printing.note_written(written)


def _describe_network_plan(
    config: "nas.NASConfig",
    estimate: "cost_estimate.NASEstimate",
    dataset: "proxy_task.SearchDataset",
    trials: int,
    minutes: float | None,
    storage: str,
) -> list[str]:
    from effnet.lab.search import job_store, nas, scoring

    candidates, finals = estimate.candidates_seconds, estimate.finals_seconds
    at_most = "" if minutes is None else "at most "
    candidates = candidates if minutes is None else min(candidates, 60 * minutes)
    return [
        f"the search space around {config.base.name} has {estimate.combinations:,} networks; "
        f"{estimate.affordable_fraction:.0%} of them are close enough to the target of "
        f"{scoring.format_cost(config.target, config.cost)} to be trained",
        f"{at_most}{trials} candidates, {config.epochs} epochs of {len(dataset.train):,} images each: about "
        f"{printing.format_duration(candidates)}; finals: {printing.format_duration(finals)}; total: "
        f"{printing.format_duration(candidates + finals)} on an idle machine",
        describe_detectable_difference(dataset),
        f"results are stored in {job_store.hide_password(storage)}, weights of all candidates in "
        f"{nas.weights_folder(storage)} (about {estimate.stored_bytes / 1e6:,.0f} MB)",
    ]


def _describe_progress(progress: "nas.NASProgress", cost: str) -> str:
    from effnet.lab.search import nas, scoring

    done = nas.trained_candidates(progress.candidates)
    parts = [f"{len(done)} of {max(progress.trials, len(done))} candidates"]
    if progress.seconds_left:
        parts.append(f"{printing.format_duration(progress.seconds_left)} left")
    if done:
        best, *front = (
            f"{each.accuracy:.1%} at {scoring.format_cost(each.cost, cost)}"
            for each in (max(done, key=lambda each: each.reward), *nas.pareto_front(done)[-3:])
        )
        parts += [f"best {best} (reward {max(each.reward for each in done):.3f})", f"front {', '.join(front)}"]
    return "; ".join(parts)


def _print_network(
    config: "nas.NASConfig", result: "nas.NASResult", comparison: "random_baseline.RandomComparison | None"
) -> None:
    from effnet.lab.search.scoring import format_cost

    table = printing.new_table("", "network", "cost", "reward", "selection", "test", left=("network",))
    for rank, finalist in enumerate(result.finalists, start=1):
        name = "the base" if finalist.number is None else f"candidate {finalist.number}"
        scores = f"{finalist.reward:.4f}", f"{finalist.selection_accuracy:.2%}", f"{finalist.test_accuracy:.2%}"
        table.add_row(str(rank), name, format_cost(finalist.cost, config.cost), *scores)
    skipped = Counter(
        "the same network as another" if candidate.status.startswith("the same") else candidate.status
        for candidate in result.candidates
        if candidate.accuracy is None
    )
    counts = "; ".join(f"{count} {status}" for status, count in sorted(skipped.items()))
    lines = [
        f"Not trained, of {len(result.candidates)} proposed candidates: {counts or 'none'}.",
        f"Rank correlation of the training-free score with accuracy: {result.score_correlation.describe()}.",
    ]
    if comparison:
        lines.append(comparison.verdict())
    printing.print_results(table, *lines)


def _network_to_dict(
    config: "nas.NASConfig", result: "nas.NASResult", comparison: "random_baseline.RandomComparison | None"
) -> dict[str, Any]:
    from effnet.lab.search.nas import pareto_front

    return {
        "answer": result.answer.arch.to_dict(),
        "target": config.target,
        "cost": config.cost,
        "finalists": [asdict(each) | {"arch": each.arch.to_dict()} for each in result.finalists],
        "front": [asdict(each) for each in pareto_front(result.candidates)],
        "trained": sum(each.accuracy is not None for each in result.candidates),
        "proposed": len(result.candidates),
        "score": asdict(result.score_correlation),
        "random": comparison.to_dict() if comparison else None,
    }
