"""``effnet reproduce``: the paper's tables and figures again, each figure computed, measured or quoted."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import Json, Offline, vacant
from effnet.cli.reproduce_scaling import (
    Asked,
    Base,
    Coefficients,
    DryRun,
    Epochs,
    Processes,
    Seeds,
    Size,
    Store,
)

if TYPE_CHECKING:
    from rich.table import Table as Shown

    from effnet.compare.table import Table
    from effnet.draw.figure import Drawing

UNTRAINED = (
    "No weights of the four scaled networks were published. To make one: effnet scale b0 --phi 1 --alpha 4 --beta 1 "
    "--gamma 1 --out d4.json (alpha is the depth, beta the width, gamma the resolution), then effnet train IMAGENET "
    "--model d4.json --weights none --recipe paper_b0 --out runs/d4. Where they look: effnet reproduce fig7 PICTURES "
    "--models b0,runs/d4 --out FOLDER."
)


class Place(StrEnum):
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
        Place,
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
    base: Base = None,
    size: Size = None,
    coefficients: Coefficients = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    processes: Processes = None,
    store: Store = None,
    dry_run: DryRun = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write Markdown, CSV and JSON, and figures as SVG and PNG, into this folder."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in that folder.")] = False,
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """Reproduce a table or a figure of the paper.

    Each figure is computed (from the architecture), measured (here, now) or quoted (from which version of which paper),
    and never mixed; where computed and quoted disagree, it says so and why. table4 measures for some minutes, or half
    an hour where memory suffices for GPipe's network; scaling trains networks on PICTURES for an hour or more; all
    others take seconds.
    """
    listed = [each.strip() for each in models.split(",") if each.strip()] if models else []
    asked = Asked(base, size, coefficients, seeds, epochs, processes, store, dry_run)
    _asked(what, pictures or [], listed, data, out, asked)
    from effnet.compare.writing import paths

    panel = out / "fig7.png" if out and listed and what is Place.fig7 else None
    if out and not dry_run:
        for path in (*paths(what.value, out, what in (Place.fig1, Place.scaling)), *([panel] if panel else [])):
            vacant(path, force)
    made: tuple[Table, Drawing | None] | None
    if what is Place.scaling:
        from effnet.cli.reproduce_scaling import scaling

        made = scaling((pictures or [])[0], asked, out, as_json)
    else:
        made = _made(what, listed, data, runs, core)
    if made is None:
        return  # it was a dry run
    table, drawing = made
    written: list[Path] = []
    if panel:
        _panel(listed, pictures or [], panel)
        written.append(panel)
    if out:
        from effnet.compare.writing import write

        written = [*write(table, out, drawing), *written]
    _told(table, as_json, ("" if listed or what is not Place.fig7 else UNTRAINED))
    if written:
        from effnet.cli.printing import note

        note(f"{', '.join(path.name for path in written)} are written to {out}")


def _asked(
    what: Place, pictures: list[str], models: list[str], data: str | None, out: Path | None, asked: Asked
) -> None:
    """Raises ``typer.BadParameter`` for what does not go together."""
    if pictures and what not in (Place.fig7, Place.scaling):
        raise typer.BadParameter(
            f"only fig7 and scaling look at pictures, {what.value} does not", param_hint="PICTURES"
        )
    if what is Place.scaling and len(pictures) != 1:
        raise typer.BadParameter("give one source of labelled pictures: a folder, a table …", param_hint="PICTURES")
    if asked.given() and what is not Place.scaling:
        raise typer.BadParameter(f"only scaling has it, {what.value} does not", param_hint=", ".join(asked.given()))
    if models and what not in (Place.fig7, Place.table8):
        raise typer.BadParameter(f"only fig7 and table8 take models, {what.value} does not", param_hint="--models")
    if data and what is not Place.table8:
        raise typer.BadParameter(f"only table8 is measured on data, {what.value} is not", param_hint="--data")
    if what is Place.table8 and bool(models) != bool(data):
        raise typer.BadParameter("to measure, give both --models and --data", param_hint="--models")
    if what is Place.fig7 and bool(models) != bool(pictures):
        raise typer.BadParameter("for the panel, give both PICTURES and --models", param_hint="--models")
    if what is Place.fig7 and models and out is None:
        raise typer.BadParameter("say where the panel goes: --out FOLDER", param_hint="--out")


def _made(
    what: Place, models: list[str], data: str | None, runs: int, core: int | None
) -> tuple[Table, Drawing | None]:
    from effnet.cli.printing import progress

    match what:
        case Place.table1:
            from effnet.compare.tables.table1 import table1

            return table1(), None
        case Place.table2 | Place.fig1:
            from effnet.compare.tables.table2 import table2

            with progress("counting networks") as step:
                table = table2(step)
            if what is Place.table2:
                return table, None
            from effnet.compare.figures import figure1

            return figure1(table)
        case Place.table3:
            from effnet.compare.tables.table3 import table3

            return table3(), None
        case Place.table4:
            return _timed(runs, core), None
        case Place.table5:
            from effnet.compare.tables.table5 import table5

            with progress("counting networks") as step:
                return table5(step), None
        case Place.table8:
            from effnet.compare.tables.table8 import table8

            return table8(_accuracies(models, data)), None
        case Place.fig7:
            from effnet.compare.tables.table3 import table7

            return table7(), None
        case Place.scaling:
            raise AssertionError("made by itself")


def _timed(runs: int, core: int | None) -> Table:
    from effnet.bench.table4 import table4
    from effnet.cli.printing import bars, note

    note("measuring takes two minutes, and half an hour more where memory suffices for GPipe; fewer --runs take less")
    with bars() as bar:
        task = bar.add_task("building networks", total=None)

        def hear(pair: str, done: int, total: int) -> None:
            bar.update(task, description=pair, completed=done, total=total)

        return table4(runs=runs, core=core, progress=hear)


def _accuracies(models: list[str], data: str | None) -> dict[str, tuple[float, float]]:
    """Top-1 and top-5 of each model on ``data``, by the name of its network."""
    if data is None:
        return {}
    from effnet.cli.printing import progress
    from effnet.compare.tables.table8 import table8
    from effnet.evaluation import Evaluation, evaluate
    from effnet.weights import load

    found: dict[str, tuple[float, float]] = {}
    for each in models:
        model = load(each)
        table8({model.arch.name: (0.0, 0.0)})  # a network that is not in it is refused now, not after an hour
        if model.arch.name in found:
            raise ValueError(f"two of the models are {model.arch.name}: Table 8 has one line for each network")
        with progress(f"evaluating {each}") as step:
            judged = evaluate(model, data, progress=step)
        if not isinstance(judged, Evaluation):
            raise ValueError(f"{each} does not tell one class of several: Table 8 is of ImageNet's classes")
        found[model.arch.name] = judged.top1, judged.top5
    return found


def _panel(models: list[str], pictures: list[str], path: Path) -> None:
    """Where each of the models looks, as one picture."""
    from effnet.data.gather import gather
    from effnet.data.pixels import PictureError
    from effnet.explanation.panel import panel
    from effnet.weights import load
    from effnet.weights.atomic import replacing

    seen = []
    for _, picture in gather(pictures):
        if isinstance(picture, PictureError):
            raise picture
        seen.append(picture)
    made = panel([(_name(each), load(each)) for each in models], seen)
    with replacing(path) as beside:
        made.save(beside, format="png")


def _name(model: str) -> str:
    """What stands above the column: a file's name, or its folder's where all runs call theirs the same."""
    path = Path(model)
    return (path.parent.name or path.stem) if path.name == "model.safetensors" else path.stem


def _told(table: Table, as_json: bool, more: str) -> None:
    from effnet.cli.printing import show, show_json

    if as_json:
        show_json(table.to_dict() | ({"more": more} if more else {}))
        return
    remarks = [*table.remarks(), *([more] if more else [])]
    show(table.title, f"Quoted figures: {table.source}.", *_as_wide_as_the_terminal(table), *remarks)


def _as_wide_as_the_terminal(table: Table) -> list[Shown]:
    """The table; in a terminal that is too narrow for it several, each with the rows' names in front."""
    from effnet.cli import printing

    headings = [f"{column.title}\n{kind}" for column, kind in table.parts()]
    lines = list(table.lines())
    across = zip(headings, *(line[1:] for line in lines), strict=True)
    wide = [2 + max(len(part) for text in texts for part in text.split("\n")) for texts in across]
    first = 2 + max(len(line[0]) for line in lines)
    room = get_terminal_size().columns if sys.stdout.isatty() else first + sum(wide)
    groups: list[list[int]] = [[]]
    for place, needed in enumerate(wide):
        if groups[-1] and first + sum(wide[other] for other in groups[-1]) + needed > room:
            groups.append([])
        groups[-1].append(place)
    wordy = {text for text, (column, _) in zip(headings, table.parts(), strict=True) if table.words(column)}
    shown = []
    for group in groups:
        made = printing.table("", *(headings[place] for place in group), left=("", *wordy))
        for line in lines:
            made.add_row(line[0], *(line[1 + place] for place in group))
        shown.append(made)
    return shown
