"""``effnet reproduce scaling``: a base grown in one dimension, or in all, to equal MACs, and trained here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.search import following, told_apart

if TYPE_CHECKING:
    from rich.table import Table as Shown

    from effnet.compare.table import Table
    from effnet.data import Pictures
    from effnet.draw.figure import Drawing
    from effnet.search.examples import Examples
    from effnet.search.grid import Point
    from effnet.search.study import Study

Base = Annotated[
    str | None,
    typer.Option(metavar="NETWORK", help="Of scaling: what is grown, without dropout; a small nano if not given."),
]
Size = Annotated[
    int | None, typer.Option(min=4, metavar="PIXELS", help="Of scaling: what the base sees; by default its own size.")
]
Coefficients = Annotated[
    str | None, typer.Option(metavar="LIST", help="Of scaling: alpha, beta, gamma; the paper's are 1.2,1.1,1.15.")
]
Seeds = Annotated[int | None, typer.Option(min=1, metavar="N", help="Of scaling: trainings of each network.")]
Epochs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Of scaling: of each training.")]
Processes = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of scaling: networks trained at once; by default one a core.")
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL", help="Of scaling: where results are kept, to go on after a stop; scaling.db in --out."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Of scaling: say what would be trained, how long, and what it could tell.")
]


@dataclass(frozen=True)
class Asked:
    """The options that only scaling has; None, or False, where they were not given."""

    base: str | None = None
    size: int | None = None
    coefficients: str | None = None
    seeds: int | None = None
    epochs: int | None = None
    processes: int | None = None
    store: str | None = None
    dry_run: bool = False

    def given(self) -> list[str]:
        """The names of the options that were given."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return [f"--{name.replace('_', '-')}" for name, value in every.items() if value not in (None, False)]


def scaling(data: str, asked: Asked, out: Path | None, as_json: bool) -> tuple[Table, Drawing] | None:
    """The study on ``data`` as a table and a plot; None after a dry run, which is told here."""
    from effnet.cli.printing import note, show, show_json
    from effnet.search.ledger import shown
    from effnet.search.study import run

    study, examples, own = _prepared(data, asked)
    plan = _planned(study, examples, own, asked.processes)
    if asked.dry_run:
        if as_json:
            show_json(plan)
        else:
            show(_networks(study), *_told(plan, study, examples))
        return None
    for line in _told(plan, study, examples):
        note(line)
    store = asked.store or str((out or Path()) / "scaling.db")
    note(f"results are kept in {shown(store)}: the same command again goes on from there")
    with following(study.jobs) as told:
        found = run(study, examples, store, asked.processes, told)
    from effnet.clock.machine import machine
    from effnet.search.figure8 import plot, table

    return table(found, plan["pictures"], {"machine": machine().to_dict()}), plot(found)


def _prepared(data: str, asked: Asked) -> tuple[Study, Examples, int]:
    """The study, its pictures, and how many pixels a side these have of themselves."""
    from effnet.arch import Arch
    from effnet.cli.networks import opened
    from effnet.cli.printing import progress
    from effnet.data import open_data
    from effnet.search.enough import verdict_possible
    from effnet.search.examples import examples
    from effnet.search.grid import PAPER
    from effnet.search.study import EPOCHS, SEEDS, SMALL, Study

    base: Arch = replace(opened(asked.base).arch, dropout=0.0, drop_path=0.0) if asked.base else SMALL
    if asked.size and asked.size != base.resolution:
        base = replace(base, name=f"{base.name}_{asked.size}px", resolution=asked.size)
    point = _triple(asked.coefficients) if asked.coefficients else PAPER
    splits = open_data(data)
    judged = splits.val or splits.test
    if splits.train and judged:
        verdict_possible(len(judged))  # too few are refused before any is decoded
    classes = len(splits.train.labels.names) if splits.train else 1
    study = Study.of(base, classes, asked.epochs or EPOCHS, asked.seeds or SEEDS, point=point)
    own = _own_side(splits.train) if splits.train else study.side
    with progress("reading pictures") as step:
        found = examples(splits, min(study.side, own), progress=step)
    return study, found, own


def _own_side(pictures: Pictures) -> int:
    """The shorter side of most pictures."""
    from statistics import median_low

    from effnet.data.pixels import read

    return int(median_low(min(read(item.picture).size) for item in pictures.items[:25]))


def _triple(text: str) -> Point:
    from effnet.search.grid import Point

    try:
        point = Point.of(*(each.strip() for each in text.split(",")))
    except (TypeError, ValueError):
        raise typer.BadParameter(
            f"{text!r}: write three numbers as 1.2,1.1,1.15", param_hint="--coefficients"
        ) from None
    if min(point.alpha, point.beta, point.gamma) < 1:
        raise typer.BadParameter("none may be below 1 (equation 3): nothing shrinks", param_hint="--coefficients")
    return point


def _planned(study: Study, examples: Examples, own: int, processes: int | None) -> dict[str, Any]:
    from effnet.clock.machine import cores
    from effnet.search.enough import verdict_possible
    from effnet.search.estimate import estimate

    return {
        "networks": [
            {"way": one.way, "times": one.times, "macs": one.macs, "off": one.off, "arch": one.arch.to_dict()}
            for one in study.networks
        ],
        "trainings": len(study.jobs),
        "epochs": study.epochs,
        "seeds": study.seeds,
        "pictures": {"fit": len(examples.fit), "judge": len(examples.judge), "side": own},
        "difference_told": verdict_possible(len(examples.judge)),
        "processes": processes or cores(),
        "seconds": estimate(study.jobs, examples, processes=processes),
    }


def _told(plan: Mapping[str, Any], study: Study, examples: Examples) -> Iterator[str]:
    """The plan in sentences."""
    from effnet.cli.printing import duration
    from effnet.search.study import enlarged

    pictures = plan["pictures"]
    yield (
        f"{plan['trainings']} trainings of {plan['epochs']} epochs of {pictures['fit']:,} pictures: about "
        f"{duration(plan['seconds'])} with {plan['processes']} at once"
    )
    yield told_apart(examples, chooses=False)
    if study.seeds == 1:
        yield "one seed shows no spread, and so gives no verdict: --seeds 3"
    if remark := enlarged(study, pictures["side"]):
        yield remark


def _networks(study: Study) -> Shown:
    from effnet.arch.spec import stage_layers
    from effnet.cli.printing import short, table

    shown = table("", "layers", "channels ×", "size (px)", "MACs", "off", left=("",))
    for one in study.networks:
        name = one.way if one.way == "base" else f"{one.way} ×{one.times:g}"
        layers, width = str(sum(stage_layers(one.arch))), f"{one.arch.width / study.base.width:.2f}"
        shown.add_row(name, layers, width, str(one.arch.resolution), short(one.macs), f"{one.off:+.1%}")
    return shown
