"""``effnet reproduce``: the tables and figures of the paper; every value computed, measured or quoted."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from effnet.arch import serde
from effnet.cli import explain, options, printing, search

if TYPE_CHECKING:
    from rich.table import Table as PrintedTable

    from effnet.draw.plotting import RenderedPlot
    from effnet.lab.compare.comparison_table import Table
    from effnet.lab.search import grid_search, proxy_task, scaling_study

NO_PUBLISHED_WEIGHTS = (
    "The weights of the four scaled networks were not published. To train one: effnet scale b0 --phi 1 --alpha 4 "
    "--beta 1 --gamma 1 --output d4.json (alpha is depth, beta width, gamma resolution), then effnet train IMAGENET "
    "--model d4.json --weights none --recipe paper_b0 --output runs/d4. To see where they look: effnet reproduce fig7 "
    "IMAGES --models b0,runs/d4 --output FOLDER."
)


# The tables and figures of the paper (arXiv:1905.11946)
PaperItem = StrEnum(
    "PaperItem", ["table1", "table2", "table3", "table4", "table5", "table8", "fig1", "fig7", "scaling"]
)


@dataclass(frozen=True)
class ScalingOptions:
    """The options that only scaling has; None or False if they were not passed."""

    base: str | None = None
    image_size: int | None = None
    coefficients: str | None = None
    seeds: int | None = None
    epochs: int | None = None
    processes: int | None = None
    store: str | None = None
    dry_run: bool = False

    def passed(self) -> list[str]:
        """Return the names of the options that were passed."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, False)]


def reproduce(
    what: Annotated[
        PaperItem,
        Argument(metavar="WHAT", help="table1, table2, table3, table4, table5, table8, fig1, fig7 or scaling."),
    ],
    images: Annotated[
        list[str] | None,
        Argument(metavar="IMAGES", help="fig7: images to explain. scaling: labeled images to train on."),
    ] = None,
    models: Annotated[
        str | None, Option(metavar="LIST", help="fig7 and table8: files, run directories or names, such as b0,runs/d4.")
    ] = None,
    data: Annotated[
        str | None, Option(metavar="FOLDER", help="table8: labeled images to evaluate --models on.")
    ] = None,
    runs: Annotated[int, options.number("table4: rounds in which all networks take turns.")] = 20,
    core: Annotated[int | None, options.number("table4: CPU core to pin to.", min=0, max=serde.MAX_PROCESSES)] = None,
    base: search.BaseOption = None,
    image_size: search.SquareSizeOption = None,
    coefficients: Annotated[
        str | None, Option(metavar="LIST", help="scaling: alpha,beta,gamma (default: the paper's 1.2,1.1,1.15).")
    ] = None,
    seeds: Annotated[int | None, options.number("scaling: trainings per network.")] = None,
    epochs: Annotated[int | None, options.number("scaling: epochs per training.", max=serde.MAX_EPOCHS)] = None,
    processes: search.ProcessesOption = None,
    store: search.StoreOption = None,
    dry_run: search.DryRunOption = False,
    out: Annotated[
        Path | None, options.output("FOLDER", "Write Markdown, CSV, JSON, and figures as SVG and PNG.")
    ] = None,
    force: options.ForceOption = False,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Reproduce a table or figure of the paper.

    Every value is computed (from the architecture), measured (on this machine) or quoted (with paper and version);
    where computed and quoted values differ, the reason is given. table4 takes minutes, or half an hour if memory
    suffices for GPipe's network; scaling trains networks on IMAGES for an hour or more, with the options --base,
    --image-size, --coefficients, --seeds, --epochs, --processes, --store and --dry-run; all others take seconds.
    """
    sources, names = images or [], list(options.split_list(models)) if models else []
    scaling = ScalingOptions(base, image_size, coefficients, seeds, epochs, processes, store, dry_run)
    _check_arguments(what, sources, names, data, out, scaling)
    from effnet.lab.compare.comparison_table import table_paths, write_table

    panels = [out / "fig7.png"] if out and names and what is PaperItem.fig7 else []
    if out and not dry_run:
        for path in (*table_paths(what.value, out, what in (PaperItem.fig1, PaperItem.scaling)), *panels):
            options.refuse_existing(path, force)
    is_scaling = what is PaperItem.scaling
    result = (
        _run_scaling(sources[0], scaling, out, as_json) if is_scaling else _make_table(what, names, data, runs, core)
    )
    if result is None:
        return  # a dry run
    table, plot = result
    for path in panels:
        _write_cam_panel(names, sources, path)
    written = [*write_table(table, out, plot), *panels] if out else []
    _print_table(table, as_json, NO_PUBLISHED_WEIGHTS if what is PaperItem.fig7 and not names else "")
    printing.note_written(written)


def _check_arguments(
    what: PaperItem, images: list[str], models: list[str], data: str | None, out: Path | None, scaling: ScalingOptions
) -> None:
    for passed, phrase, items in (
        (images, "IMAGES apply to", ("fig7", "scaling")),
        (models, "--models applies to", ("fig7", "table8")),
        (data, "--data applies to", ("table8",)),
        (scaling.passed(), f"{''.join(scaling.passed()[:1])} applies to", ("scaling",)),
    ):
        if passed and what.value not in items:
            raise options.UsageError(f"{phrase} {' and '.join(items)}, not to {what.value}")
    if what is PaperItem.scaling and len(images) != 1:
        raise options.UsageError(f"scaling takes one source of labeled images, got {len(images)}")
    if what is PaperItem.table8 and bool(models) != bool(data):
        raise options.UsageError(f"{'--models' if models else '--data'} requires {'--data' if models else '--models'}")
    if what is PaperItem.fig7 and bool(models) != bool(images):
        raise options.UsageError("--models requires IMAGES" if models else "IMAGES require --models")
    if what is PaperItem.fig7 and models and out is None:
        raise options.UsageError("Missing option '--output': pass the folder to write the panel to")


def _make_table(
    what: PaperItem, models: list[str], data: str | None, runs: int, core: int | None
) -> "tuple[Table, RenderedPlot | None]":
    from effnet.lab.compare import paper_tables

    match what:
        case PaperItem.table2 | PaperItem.table5 | PaperItem.fig1:
            with printing.progress_bar("counting networks") as step:
                table = paper_tables.table5(step) if what is PaperItem.table5 else paper_tables.table2(step)
            return paper_tables.figure1(table) if what is PaperItem.fig1 else (table, None)
        case PaperItem.table4:
            return _time_table4(runs, core), None
        case PaperItem.table8:
            return paper_tables.table8(_measure_accuracies(models, data)), None
    others = {PaperItem.table1: paper_tables.table1, PaperItem.table3: paper_tables.table3}
    return others.get(what, paper_tables.table7)(), None  # Figure 7 is of the networks of Table 7


def _time_table4(runs: int, core: int | None) -> "Table":
    from effnet.lab.bench.paper_table4 import table4

    printing.note("measuring takes two minutes, half an hour more if memory suffices for GPipe; fewer --runs take less")
    with printing.progress_bars() as bars:
        task = bars.add_task("building networks", total=None)

        def update(pair: str, done: int, total: int) -> None:
            bars.update(task, description=pair, completed=done, total=total)

        return table4(runs=runs, core=core, progress=update)


def _measure_accuracies(models: list[str], data: str | None) -> dict[str, tuple[float, float]]:
    if data is None:
        return {}
    from effnet.evaluation import Evaluation, evaluate
    from effnet.lab.compare.paper_tables import table8
    from effnet.weights import load

    accuracies: dict[str, tuple[float, float]] = {}
    for name in models:
        model = load(name)
        table8({model.arch.name: (0.0, 0.0)})  # refuse a network that is not in it now, not after an hour
        if model.arch.name in accuracies:
            raise ValueError(f"two of the models are {model.arch.name}: Table 8 has one row per network")
        with printing.progress_bar(f"evaluating {name}") as step:
            evaluation = evaluate(model, data, progress=step)
        if not isinstance(evaluation, Evaluation):
            raise ValueError(f"{name} is not a single-label classifier: Table 8 is about ImageNet's classes")
        accuracies[model.arch.name] = evaluation.top1, evaluation.top5
    return accuracies


def _write_cam_panel(models: list[str], images: list[str], path: Path) -> None:
    from effnet.data import image_io, prediction_inputs
    from effnet.weights import load

    sources = []
    for _, image in prediction_inputs.open_inputs(images):
        if isinstance(image, image_io.ImageError):
            raise image
        sources.append(image)
    explain.write_panel(path, [(options.display_name(name), load(name)) for name in models], sources)


def _print_table(table: "Table", as_json: bool, more: str) -> None:
    if as_json:
        printing.print_json(table.to_dict() | ({"more": more} if more else {}))
        return
    notes = [*table.footnotes(), *([more] if more else [])]
    printing.print_results(table.title, f"Quoted values: {table.source}.", *_fit_to_terminal(table), *notes)


def _fit_to_terminal(table: "Table") -> "list[PrintedTable]":
    """Return the table; in a terminal that is too narrow several ones, each with the names of the rows."""
    columns, lines = list(table.printed_columns()), list(table.format_rows())
    headings = [f"{column.title}\n{kind}" for column, kind in columns]
    cells = zip(headings, *(line[1:] for line in lines), strict=True)
    widths = [2 + max(len(part) for text in texts for part in text.split("\n")) for texts in cells]
    first_width = 2 + max(len(line[0]) for line in lines)
    terminal_width = get_terminal_size().columns if sys.stdout.isatty() else first_width + sum(widths)
    groups: list[list[int]] = [[]]
    for index, width in enumerate(widths):
        if groups[-1] and first_width + sum(widths[other] for other in groups[-1]) + width > terminal_width:
            groups.append([])
        groups[-1].append(index)
    left = [heading for heading, (column, _) in zip(headings, columns, strict=True) if table.is_text_column(column)]
    printed = []
    for group in groups:
        rows = ((line[0], *(line[1 + index] for index in group)) for line in lines)
        printed.append(printing.new_table("", *(headings[index] for index in group), left=("", *left), rows=rows))
    return printed


def _run_scaling(
    data: str, scaling: ScalingOptions, out: Path | None, as_json: bool
) -> "tuple[Table, RenderedPlot] | None":
    """Return the scaling study on ``data`` as a table and a plot; None after a dry run, which is printed."""
    from effnet.lab.search import job_store, scaling_study
    from effnet.timing import machine

    study, dataset, own_size = _prepare_study(data, scaling)
    plan = _plan_to_dict(study, dataset, own_size, scaling.processes or machine.count_cores())
    warning = scaling_study.upsampling_warning(study, own_size)
    lines = [*_describe_plan(plan, study, dataset), *([warning] if warning else [])]
    if scaling.dry_run:
        printing.print_json(plan) if as_json else printing.print_results(_networks_table(study), *lines)
        return None
    printing.note(*lines)
    storage = scaling.store or str((out or Path()) / "scaling.db")
    printing.note(f"results are stored in {job_store.hide_password(storage)}: the same command resumes from there")
    with search.training_progress(study.jobs) as on_results:
        result = scaling_study.run_study(study, dataset, storage, scaling.processes, on_results)
    environment = {"machine": machine.describe_machine().to_dict()}
    return scaling_study.study_table(result, plan["images"], environment), scaling_study.plot_study(result)


def _prepare_study(
    data: str, scaling: ScalingOptions
) -> "tuple[scaling_study.ScalingStudy, proxy_task.SearchDataset, int]":
    from effnet.data import open_data, read_image
    from effnet.lab.search import grid_search, proxy_task, scaling_study, statistics

    base = search.resolve_base(scaling.base, None) if scaling.base else scaling_study.SMALL_BASE
    if scaling.image_size and scaling.image_size != base.resolution:
        base = replace(base, name=f"{base.name}_{scaling.image_size}px", resolution=scaling.image_size)
    coefficients = _parse_coefficients(scaling.coefficients) if scaling.coefficients else grid_search.PAPER_COEFFICIENTS
    splits = open_data(data)
    test = splits.val or splits.test
    if splits.train and test:
        statistics.detectable_difference(len(test))  # refuse too few images before any is decoded
    classes = len(splits.train.labels.names) if splits.train else 1
    epochs, seeds = scaling.epochs or scaling_study.EPOCHS, scaling.seeds or scaling_study.SEEDS
    study = scaling_study.ScalingStudy(base, classes, epochs, seeds, coefficients=coefficients)
    sides = sorted(min(read_image(item.image).size) for item in (splits.train.items[:25] if splits.train else ()))
    own_size = sides[(len(sides) - 1) // 2] if sides else study.max_image_size  # the median
    with printing.progress_bar("reading images") as step:
        dataset = proxy_task.load_dataset(splits, min(study.max_image_size, own_size), progress=step)
    return study, dataset, own_size


def _parse_coefficients(text: str) -> "grid_search.CompoundCoefficients":
    from effnet.lab.search import grid_search

    hint = "'--coefficients'"
    try:
        coefficients = grid_search.CompoundCoefficients.parse(*options.split_list(text))
    except (TypeError, ValueError):
        raise BadParameter(f"{text!r} is not three numbers such as 1.2,1.1,1.15", param_hint=hint) from None
    if not all(1 <= each <= 10 for each in coefficients.triple):
        raise BadParameter("none may be below 1 (equation 3 of the paper) or above 10", param_hint=hint)
    return coefficients


def _plan_to_dict(
    study: "scaling_study.ScalingStudy", dataset: "proxy_task.SearchDataset", own_size: int, processes: int
) -> dict[str, Any]:
    from effnet.lab.search import cost_estimate, statistics

    return {
        "networks": [
            {name: getattr(each, name) for name in ("method", "macs_factor", "macs", "macs_error")}
            | {"arch": each.arch.to_dict()}
            for each in study.networks
        ],
        "trainings": len(study.jobs),
        "epochs": study.epochs,
        "seeds": study.seeds,
        "images": {"train": len(dataset.train), "test": len(dataset.test), "size": own_size},
        "detectable_difference": statistics.detectable_difference(len(dataset.test)),
        "processes": processes,
        "seconds": cost_estimate.estimate_seconds(study.jobs, dataset, processes=processes),
    }


def _describe_plan(
    plan: Mapping[str, Any], study: "scaling_study.ScalingStudy", dataset: "proxy_task.SearchDataset"
) -> Iterator[str]:
    images = plan["images"]
    yield (
        f"{plan['trainings']} trainings, {plan['epochs']} epochs of {images['train']:,} images each: about "
        f"{printing.format_duration(plan['seconds'])} with {plan['processes']} in parallel"
    )
    yield search.describe_detectable_difference(dataset, selects=False)
    if study.seeds == 1:
        yield "a single seed gives no spread, and so no verdict: pass --seeds 3"


def _networks_table(study: "scaling_study.ScalingStudy") -> "PrintedTable":
    from effnet.arch.rounding_rules import stage_depths

    table = printing.new_table("", "layers", "channels ×", "size (px)", "MACs", "off", left=("",))
    for each in study.networks:
        layers, width = str(sum(stage_depths(each.arch))), f"{each.arch.width / study.base.width:.2f}"
        size, macs = str(each.arch.resolution), printing.format_si(each.macs)
        table.add_row(each.title, layers, width, size, macs, f"{each.macs_error:+.1%}")
    return table
