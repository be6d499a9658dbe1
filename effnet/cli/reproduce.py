"""``effnet reproduce scaling``: a base grown in one dimension, or in all, to equal MACs, and trained here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.options import JsonOption, OfflineOption, refuse_existing
from effnet.cli.search import describe_resolution, training_progress

if TYPE_CHECKING:
    from rich.table import Table as Shown

    from effnet.data import ImageDataset
    from effnet.draw.figure import RenderedPlot
    from effnet.lab.compare.table import Table
    from effnet.lab.search.grid_search import CompoundCoefficients
    from effnet.lab.search.proxy_task import SearchDataset
    from effnet.lab.search.scaling_study import ScalingStudy

ScalingBase = Annotated[
    str | None,
    typer.Option(metavar="NETWORK", help="Of scaling: what is grown, without dropout; a small nano if not given."),
]


ScalingImageSize = Annotated[
    int | None, typer.Option(min=4, metavar="PIXELS", help="Of scaling: what the base sees; by default its own size.")
]


ScalingCoefficients = Annotated[
    str | None, typer.Option(metavar="LIST", help="Of scaling: alpha, beta, gamma; the paper's are 1.2,1.1,1.15.")
]


ScalingSeeds = Annotated[int | None, typer.Option(min=1, metavar="N", help="Of scaling: trainings of each network.")]


ScalingEpochs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Of scaling: of each training.")]


ScalingProcesses = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of scaling: networks trained at once; by default one a core.")
]


ScalingStore = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL", help="Of scaling: where results are kept, to go on after a stop; scaling.db in --out."
    ),
]


ScalingDryRun = Annotated[
    bool, typer.Option("--dry-run", help="Of scaling: say what would be trained, how long, and what it could tell.")
]


@dataclass(frozen=True)
class ScalingOptions:
    """The options that only scaling has; None, or False, where they were not given."""

    base: str | None = None
    size: int | None = None
    coefficients: str | None = None
    seeds: int | None = None
    epochs: int | None = None
    processes: int | None = None
    store: str | None = None
    dry_run: bool = False

    def given_options(self) -> list[str]:
        """The names of the options that were given."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return [f"--{name.replace('_', '-')}" for name, value in every.items() if value not in (None, False)]


def run_scaling(data: str, asked: ScalingOptions, out: Path | None, as_json: bool) -> tuple[Table, RenderedPlot] | None:
    """The study on ``data`` as a table and a plot; None after a dry run, which is told here."""
    from effnet.cli.printing import note, print_json, print_results
    from effnet.lab.search.job_store import hide_password
    from effnet.lab.search.scaling_study import run_study

    study, examples, own = _prepare_study(data, asked)
    plan = _plan_to_dict(study, examples, own, asked.processes)
    if asked.dry_run:
        if as_json:
            print_json(plan)
        else:
            print_results(_networks_table(study), *_describe_plan(plan, study, examples))
        return None
    for line in _describe_plan(plan, study, examples):
        note(line)
    store = asked.store or str((out or Path()) / "scaling.db")
    note(f"results are kept in {hide_password(store)}: the same command again goes on from there")
    with training_progress(study.jobs) as told:
        found = run_study(study, examples, store, asked.processes, told)
    from effnet.lab.search.scaling_study import plot_study, study_table
    from effnet.timing.machine import describe_machine

    return study_table(found, plan["images"], {"machine": describe_machine().to_dict()}), plot_study(found)


def _prepare_study(data: str, asked: ScalingOptions) -> tuple[ScalingStudy, SearchDataset, int]:
    """The study, its pictures, and how many pixels a side these have of themselves."""
    from effnet.arch import Arch
    from effnet.cli.options import resolve_network
    from effnet.cli.printing import progress_bar
    from effnet.data import open_data
    from effnet.lab.search.grid_search import PAPER_COEFFICIENTS
    from effnet.lab.search.proxy_task import load_dataset
    from effnet.lab.search.scaling_study import EPOCHS, SEEDS, SMALL_BASE, ScalingStudy
    from effnet.lab.search.statistics import detectable_difference

    base: Arch = replace(resolve_network(asked.base).arch, dropout=0.0, drop_path=0.0) if asked.base else SMALL_BASE
    if asked.size and asked.size != base.resolution:
        base = replace(base, name=f"{base.name}_{asked.size}px", resolution=asked.size)
    point = _parse_coefficients(asked.coefficients) if asked.coefficients else PAPER_COEFFICIENTS
    splits = open_data(data)
    judged = splits.val or splits.test
    if splits.train and judged:
        detectable_difference(len(judged))  # too few are refused before any is decoded
    classes = len(splits.train.labels.names) if splits.train else 1
    study = ScalingStudy.create(base, classes, asked.epochs or EPOCHS, asked.seeds or SEEDS, coefficients=point)
    own = _typical_side(splits.train) if splits.train else study.max_image_size
    with progress_bar("reading pictures") as step:
        found = load_dataset(splits, min(study.max_image_size, own), progress=step)
    return study, found, own


def _typical_side(pictures: ImageDataset) -> int:
    """The shorter side of most pictures."""
    from statistics import median_low

    from effnet.data.image_io import read_image

    return int(median_low(min(read_image(item.image).size) for item in pictures.items[:25]))


def _parse_coefficients(text: str) -> CompoundCoefficients:
    from effnet.lab.search.grid_search import CompoundCoefficients

    try:
        point = CompoundCoefficients.parse(*(each.strip() for each in text.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter(
            f"{text!r}: write three numbers as 1.2,1.1,1.15", param_hint="--coefficients"
        ) from None
    if min(point.alpha, point.beta, point.gamma) < 1:
        raise typer.BadParameter("none may be below 1 (equation 3): nothing shrinks", param_hint="--coefficients")
    return point


def _plan_to_dict(study: ScalingStudy, examples: SearchDataset, own: int, processes: int | None) -> dict[str, Any]:
    from effnet.lab.search.cost_estimate import estimate_seconds
    from effnet.lab.search.statistics import detectable_difference
    from effnet.timing.machine import count_cores

    return {
        "networks": [
            {
                "method": one.method,
                "macs_factor": one.macs_factor,
                "macs": one.macs,
                "macs_error": one.macs_error,
                "arch": one.arch.to_dict(),
            }
            for one in study.networks
        ],
        "trainings": len(study.jobs),
        "epochs": study.epochs,
        "seeds": study.seeds,
        "images": {"train": len(examples.train), "test": len(examples.test), "size": own},
        "detectable_difference": detectable_difference(len(examples.test)),
        "processes": processes or count_cores(),
        "seconds": estimate_seconds(study.jobs, examples, processes=processes),
    }


def _describe_plan(plan: Mapping[str, Any], study: ScalingStudy, examples: SearchDataset) -> Iterator[str]:
    """The plan in sentences."""
    from effnet.cli.printing import format_duration
    from effnet.lab.search.scaling_study import upsampling_warning

    pictures = plan["images"]
    yield (
        f"{plan['trainings']} trainings of {plan['epochs']} epochs of {pictures['train']:,} pictures: about "
        f"{format_duration(plan['seconds'])} with {plan['processes']} at once"
    )
    yield describe_resolution(examples, chooses=False)
    if study.seeds == 1:
        yield "one seed shows no spread, and so gives no verdict: --seeds 3"
    if remark := upsampling_warning(study, pictures["size"]):
        yield remark


def _networks_table(study: ScalingStudy) -> Shown:
    from effnet.arch.spec import stage_depths
    from effnet.cli.printing import format_si, new_table

    shown = new_table("", "layers", "channels ×", "size (px)", "MACs", "off", left=("",))
    for one in study.networks:
        name = one.title
        layers, width = str(sum(stage_depths(one.arch))), f"{one.arch.width / study.base.width:.2f}"
        shown.add_row(name, layers, width, str(one.arch.resolution), format_si(one.macs), f"{one.macs_error:+.1%}")
    return shown


# ``effnet reproduce``: the paper's tables and figures again, each figure computed, measured or quoted.


NO_PUBLISHED_WEIGHTS = (
    "No weights of the four scaled networks were published. To make one: effnet scale b0 --phi 1 --alpha 4 --beta 1 "
    "--gamma 1 --out d4.json (alpha is the depth, beta the width, gamma the resolution), then effnet train IMAGENET "
    "--model d4.json --weights none --recipe paper_b0 --out runs/d4. Where they look: effnet reproduce fig7 PICTURES "
    "--models b0,runs/d4 --out FOLDER."
)


class PaperItem(StrEnum):
    """A place in the paper (arXiv:1905.11946)."""

    table1 = "table1"
    table2 = "table2"
    table3 = "table3"
    table4 = "table4"
    table5 = "table5"
    table8 = "table8"
    fig1 = "fig1"
    fig7 = "fig7"
    scaling = "scaling"


def reproduce(
    what: Annotated[
        PaperItem,
        typer.Argument(metavar="WHAT", help="table1, table2, table3, table4, table5, table8, fig1, fig7 or scaling."),
    ],
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURES", help="Of fig7: what the models look at. Of scaling: labelled pictures to train on."
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Of fig7 and table8: files, folders of runs or names, as b0,runs/d4."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Of table8: labelled pictures to measure --models on.")
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of table4: rounds in which all networks take turns.")
    ] = 20,
    core: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of table4: the number of the core to stay on.")
    ] = None,
    base: ScalingBase = None,
    size: ScalingImageSize = None,
    coefficients: ScalingCoefficients = None,
    seeds: ScalingSeeds = None,
    epochs: ScalingEpochs = None,
    processes: ScalingProcesses = None,
    store: ScalingStore = None,
    dry_run: ScalingDryRun = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write Markdown, CSV and JSON, and figures as SVG and PNG, into this folder."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in that folder.")] = False,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Reproduce a table or a figure of the paper.

    Each figure is computed (from the architecture), measured (here, now) or quoted (from which version of which paper),
    and never mixed; where computed and quoted disagree, it says so and why. table4 measures for some minutes, or half
    an hour where memory suffices for GPipe's network; scaling trains networks on PICTURES for an hour or more; all
    others take seconds.
    """
    listed = [each.strip() for each in models.split(",") if each.strip()] if models else []
    asked = ScalingOptions(base, size, coefficients, seeds, epochs, processes, store, dry_run)
    _check_arguments(what, pictures or [], listed, data, out, asked)
    from effnet.lab.compare.table import table_paths

    panel = out / "fig7.png" if out and listed and what is PaperItem.fig7 else None
    if out and not dry_run:
        for path in (
            *table_paths(what.value, out, what in (PaperItem.fig1, PaperItem.scaling)),
            *([panel] if panel else []),
        ):
            refuse_existing(path, force)
    made: tuple[Table, RenderedPlot | None] | None
    if what is PaperItem.scaling:
        made = run_scaling((pictures or [])[0], asked, out, as_json)
    else:
        made = _make_table(what, listed, data, runs, core)
    if made is None:
        return  # it was a dry run
    table, drawing = made
    written: list[Path] = []
    if panel:
        _write_cam_panel(listed, pictures or [], panel)
        written.append(panel)
    if out:
        from effnet.lab.compare.table import write_table

        written = [*write_table(table, out, drawing), *written]
    _print_table(table, as_json, ("" if listed or what is not PaperItem.fig7 else NO_PUBLISHED_WEIGHTS))
    if written:
        from effnet.cli.printing import note

        note(f"{', '.join(path.name for path in written)} are written to {out}")


def _check_arguments(
    what: PaperItem, pictures: list[str], models: list[str], data: str | None, out: Path | None, asked: ScalingOptions
) -> None:
    """Raises ``typer.BadParameter`` for what does not go together."""
    if pictures and what not in (PaperItem.fig7, PaperItem.scaling):
        raise typer.BadParameter(
            f"only fig7 and scaling look at pictures, {what.value} does not", param_hint="PICTURES"
        )
    if what is PaperItem.scaling and len(pictures) != 1:
        raise typer.BadParameter("give one source of labelled pictures: a folder, a table …", param_hint="PICTURES")
    if asked.given_options() and what is not PaperItem.scaling:
        raise typer.BadParameter(
            f"only scaling has it, {what.value} does not", param_hint=", ".join(asked.given_options())
        )
    if models and what not in (PaperItem.fig7, PaperItem.table8):
        raise typer.BadParameter(f"only fig7 and table8 take models, {what.value} does not", param_hint="--models")
    if data and what is not PaperItem.table8:
        raise typer.BadParameter(f"only table8 is measured on data, {what.value} is not", param_hint="--data")
    if what is PaperItem.table8 and bool(models) != bool(data):
        raise typer.BadParameter("to measure, give both --models and --data", param_hint="--models")
    if what is PaperItem.fig7 and bool(models) != bool(pictures):
        raise typer.BadParameter("for the panel, give both PICTURES and --models", param_hint="--models")
    if what is PaperItem.fig7 and models and out is None:
        raise typer.BadParameter("say where the panel goes: --out FOLDER", param_hint="--out")


def _make_table(
    what: PaperItem, models: list[str], data: str | None, runs: int, core: int | None
) -> tuple[Table, RenderedPlot | None]:
    from effnet.cli.printing import progress_bar

    match what:
        case PaperItem.table1:
            from effnet.lab.compare.paper_tables import table1

            return table1(), None
        case PaperItem.table2 | PaperItem.fig1:
            from effnet.lab.compare.paper_tables import table2

            with progress_bar("counting networks") as step:
                table = table2(step)
            if what is PaperItem.table2:
                return table, None
            from effnet.lab.compare.paper_tables import figure1

            return figure1(table)
        case PaperItem.table3:
            from effnet.lab.compare.paper_tables import table3

            return table3(), None
        case PaperItem.table4:
            return _time_table4(runs, core), None
        case PaperItem.table5:
            from effnet.lab.compare.paper_tables import table5

            with progress_bar("counting networks") as step:
                return table5(step), None
        case PaperItem.table8:
            from effnet.lab.compare.paper_tables import table8

            return table8(_measure_accuracies(models, data)), None
        case PaperItem.fig7:
            from effnet.lab.compare.paper_tables import table7

            return table7(), None
        case PaperItem.scaling:
            raise AssertionError("made by itself")


def _time_table4(runs: int, core: int | None) -> Table:
    from effnet.cli.printing import note, progress_bars
    from effnet.lab.bench.paper_table4 import table4

    note("measuring takes two minutes, and half an hour more where memory suffices for GPipe; fewer --runs take less")
    with progress_bars() as bar:
        task = bar.add_task("building networks", total=None)

        def hear(pair: str, done: int, total: int) -> None:
            bar.update(task, description=pair, completed=done, total=total)

        return table4(runs=runs, core=core, progress=hear)


def _measure_accuracies(models: list[str], data: str | None) -> dict[str, tuple[float, float]]:
    """Top-1 and top-5 of each model on ``data``, by the name of its network."""
    if data is None:
        return {}
    from effnet.cli.printing import progress_bar
    from effnet.evaluation import Evaluation, evaluate
    from effnet.lab.compare.paper_tables import table8
    from effnet.weights import load

    found: dict[str, tuple[float, float]] = {}
    for each in models:
        model = load(each)
        table8({model.arch.name: (0.0, 0.0)})  # a network that is not in it is refused now, not after an hour
        if model.arch.name in found:
            raise ValueError(f"two of the models are {model.arch.name}: Table 8 has one line for each network")
        with progress_bar(f"evaluating {each}") as step:
            judged = evaluate(model, data, progress=step)
        if not isinstance(judged, Evaluation):
            raise ValueError(f"{each} does not tell one class of several: Table 8 is of ImageNet's classes")
        found[model.arch.name] = judged.top1, judged.top5
    return found


def _write_cam_panel(models: list[str], pictures: list[str], path: Path) -> None:
    """Where each of the models looks, as one picture."""
    from effnet.data.image_io import ImageError
    from effnet.data.inputs import open_inputs
    from effnet.data.storage.atomic_write import atomic_write
    from effnet.explanation.panel import draw_panel
    from effnet.weights import load

    seen = []
    for _, picture in open_inputs(pictures):
        if isinstance(picture, ImageError):
            raise picture
        seen.append(picture)
    made = draw_panel([(_column_name(each), load(each)) for each in models], seen)
    with atomic_write(path) as beside:
        made.save(beside, format="png")


def _column_name(model: str) -> str:
    """What stands above the column: a file's name, or its folder's where all runs call theirs the same."""
    path = Path(model)
    return (path.parent.name or path.stem) if path.name == "model.safetensors" else path.stem


def _print_table(table: Table, as_json: bool, more: str) -> None:
    from effnet.cli.printing import print_json, print_results

    if as_json:
        print_json(table.to_dict() | ({"more": more} if more else {}))
        return
    remarks = [*table.footnotes(), *([more] if more else [])]
    print_results(table.title, f"Quoted figures: {table.source}.", *_fit_to_terminal(table), *remarks)


def _fit_to_terminal(table: Table) -> list[Shown]:
    """The table; in a terminal that is too narrow for it several, each with the rows' names in front."""
    from effnet.cli import printing

    headings = [f"{column.title}\n{kind}" for column, kind in table.printed_columns()]
    lines = list(table.format_rows())
    across = zip(headings, *(line[1:] for line in lines), strict=True)
    wide = [2 + max(len(part) for text in texts for part in text.split("\n")) for texts in across]
    first = 2 + max(len(line[0]) for line in lines)
    room = get_terminal_size().columns if sys.stdout.isatty() else first + sum(wide)
    groups: list[list[int]] = [[]]
    for place, needed in enumerate(wide):
        if groups[-1] and first + sum(wide[other] for other in groups[-1]) + needed > room:
            groups.append([])
        groups[-1].append(place)
    wordy = {
        text
        for text, (column, _) in zip(headings, table.printed_columns(), strict=True)
        if table.is_text_column(column)
    }
    shown = []
    for group in groups:
        made = printing.new_table("", *(headings[place] for place in group), left=("", *wordy))
        for line in lines:
            made.add_row(line[0], *(line[1 + place] for place in group))
        shown.append(made)
    return shown
