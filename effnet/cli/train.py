"""``effnet train``: from labelled pictures to a model."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import Device, Json, Offline, Strict, vacant

if TYPE_CHECKING:
    from effnet.data import Splits
    from effnet.training.folder import Result
    from effnet.training.recipe import Recipe
    from effnet.training.rehearsal import Rehearsal

ROWS_MOST = 40  # epochs that a rehearsal lists, evenly spread


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder with one folder of pictures a class, a .csv, shards, hub:NAME, a set's name, or digits.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="The network, such as b0 or lite0.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A file or a card to start from (default: the model's own), or none: random."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="finetune (default with weights), scratch (default without), paper_b0 …"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the results go; by default runs/NAME-OF-DATA.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs, in place of the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(metavar="M", help="As many epochs as take about this long.")] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Pictures a batch, on all devices together; the rate follows.")
    ] = None,
    lr: Annotated[
        str | None, typer.Option(metavar="RATE", help="Peak learning rate, in place of the recipe's; or find.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of the pictures, if not the network's.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Train N networks, each judged on the part it has not seen.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Of a .csv's labels: one, any (of several) or value (numbers).")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same model on this machine.")] = 0,
    select_on: Annotated[
        str,
        typer.Option(metavar="SPLIT", help="What choices are made on: holdout (a part of the training set) or val."),
    ] = "holdout",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any of the recipe: balance=sampler, augment.mixup=0.2 …"),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model of the same classes to learn from as well.")
    ] = None,
    soup: Annotated[
        str | None, typer.Option(metavar="RUNS", help="Train nothing: average the models of runs a,b,c where it helps.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, or start it.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what every epoch would be; with --out also as a drawing.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(metavar="TYPE", help="float32, bfloat16, float16: by default the device's fastest.")
    ] = None,
    accumulate: Annotated[
        int, typer.Option(min=0, metavar="N", help="Parts that a batch is computed in; by default what memory needs.")
    ] = 0,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute blocks: half the memory, up to twice the time.")
    ] = False,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile; by default where it pays.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, metavar="N", help="Processes that read pictures.")] = None,
    cache: Annotated[bool, typer.Option("--cache", help="Keep decoded pictures on disk while they fit.")] = False,
    track: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="tensorboard (default), wandb, mlflow …, or none: who is told each epoch."),
    ] = None,
    strict: Strict = False,
    device: Device = None,
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """Train a classifier on your pictures.

    On several GPUs or machines: torchrun --nproc-per-node N -m effnet train …
    """
    settings: str | Recipe | None = recipe
    if change:
        from effnet.training.recipes import changed, named

        settings = changed(named(recipe, pretrained=weights != "none"), change)
    if dry_run:
        from effnet.arch import resolve
        from effnet.cli.printing import show_json
        from effnet.training.rehearsal import IMAGENET, rehearse
        from effnet.training.run import settled
        from effnet.weights.atomic import replacing

        asked = settled(settings, weights, epochs, batch, _rate(lr))
        rehearsal = rehearse(asked, resolve(model or "b0"), _count(data) if data else IMAGENET, epochs)
        if out:
            with replacing(out / "schedule.svg") as beside:
                beside.write_text(rehearsal.to_svg(), encoding="utf-8")
        show_json(rehearsal.to_dict()) if as_json else _print_rehearsal(rehearsal, out)
        return
    if data is None:
        raise typer.BadParameter("say what to learn from: a folder, a .csv, shards, or digits", param_hint="DATA")
    from effnet.cli.printing import show_json
    from effnet.cli.progress import Shown
    from effnet.data.columns import is_table
    from effnet.data.table import open_table
    from effnet.training.folds import FoldsResult, train_folds
    from effnet.training.resources import Resources
    from effnet.training.run import train as run

    if kind and not is_table(data):
        raise typer.BadParameter("is for a table of pictures and labels (.csv)", param_hint="--kind")
    given = open_table(data, kind) if kind else data
    if soup:
        _cook(soup.split(","), given, out or Path("runs") / "soup", device)
        return
    trained = partial(train_folds, folds=folds) if folds else run
    with Shown() as watch:
        result = trained(
            given,
            settings,
            out=out or Path("runs") / Path(data).resolve().name,
            model=model,
            weights=weights,
            epochs=epochs,
            minutes=minutes,
            batch=batch,
            learning_rate=_rate(lr),
            seed=seed,
            size=size,
            select_on=select_on,
            teacher=teacher,
            resume=resume,
            strict=strict,
            resources=Resources(device, precision, accumulate, checkpointing, compiled, workers, cache),
            track=track if track is None else [] if track == "none" else track.split(","),
            watch=watch,
            command=shlex.join(["effnet", *sys.argv[1:]]),
        )
    if os.environ.get("RANK", "0") != "0":  # of torchrun: one of the processes tells
        return
    if as_json:
        show_json(result.to_dict())
    elif isinstance(result, FoldsResult):
        print(result.in_words())
        print(f"try:    effnet predict test.csv --ensemble {result.out} --out submission.csv")
    else:
        _print(result)


def _cook(runs: list[str], data: str | Splits, out: Path, device: str | None) -> None:
    """Leaves the soup of ``runs`` in ``out``, and says how it came to be."""
    from effnet.data import Splits, open_data
    from effnet.evaluation import evaluate
    from effnet.training.brew import soup_of_runs
    from effnet.weights import save

    vacant(out / "model.safetensors", force=False)
    model, found = soup_of_runs(runs, data, device=device)
    out.mkdir(parents=True, exist_ok=True)
    path = save(model, out / "model.safetensors")
    print(found.in_words())
    splits = data if isinstance(data, Splits) else open_data(data)
    for name in splits.given.keys() - {"train"}:
        judged = evaluate(model, splits.given[name], device=device)
        print(f"{name}: {judged.in_words()}, {judged.pictures} pictures")
    print(f"model:  {path}")


def _rate(text: str | None) -> float | str | None:
    """The learning rate as a number, or "find". Raises ``typer.BadParameter`` for anything else."""
    if text is None or text == "find":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number: write 0.001, or find", param_hint="--lr") from None


def _count(data: str) -> int:
    """How many pictures there are to learn from."""
    from effnet.data import open_data
    from effnet.training.plan import training_pictures

    return len(training_pictures(open_data(data)))


def _print_rehearsal(rehearsal: Rehearsal, out: Path | None) -> None:
    from effnet.cli.printing import show, table

    recipe = rehearsal.recipe
    shown = table("epoch", "step", "rate from", "to", "average", "size", "dropout", "augment", left=("augment",))
    every = max(1, -(-len(rehearsal.epochs) // ROWS_MOST))
    for one in (*rehearsal.epochs[:-1:every], rehearsal.epochs[-1]):
        changes = one.augment
        told = [f"crop {changes.crop:g}"]
        if changes.policy != "none":
            strength = f" {changes.layers}×{changes.magnitude:.3g}" if changes.policy == "randaugment" else ""
            told.append(changes.policy + strength)
        told += [f"{name} {getattr(changes, name):g}" for name in ("mixup", "cutmix") if getattr(changes, name)]
        shown.add_row(
            *(str(one.epoch), f"{one.step:,}", f"{one.first_rate:.4g}", f"{one.last_rate:.4g}", f"{one.average:.5f}"),
            *(str(one.size), f"{one.dropout:.2f}", ", ".join(told) + (f"; {one.frozen} frozen" if one.frozen else "")),
        )
    drops = rehearsal.drop_path
    show(
        f"{recipe.name}: {rehearsal.network} on {rehearsal.pictures:,} pictures, {recipe.epochs} epochs of "
        f"{rehearsal.batches:,} batches of {recipe.batch:,}",
        f"{recipe.optimiser}, peak rate {rehearsal.peak:.4g}, {recipe.schedule}; weight decay {recipe.weight_decay:g}; "
        f"labels smoothed by {recipe.label_smoothing:g}; {recipe.select_share:.1%} of the pictures to choose by",
        f"stochastic depth from {drops[0][1]:.3f} ({drops[0][0]}) to {drops[-1][1]:.3f} ({drops[-1][0]})",
        shown,
        *([f"one epoch in {every} is shown, and the last; --json has all"] if every > 1 else []),
        *([f"drawn in {out / 'schedule.svg'}"] if out else []),
    )


def _print(result: Result) -> None:
    """The figures on what no choice has seen, and where everything lies."""
    for name, found in result.evaluations.items():
        print(f"{name}: {found.in_words()}, {found.pictures} pictures")
    print(f"model:  {result.model}")
    print(f"report: {result.model.with_name('report.html')}")
    print(f"try:    effnet predict PICTURE --model {result.model}")
