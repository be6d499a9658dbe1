"""Progress on stderr: a bar where somebody is looking, plain lines where nobody is."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from effnet.cli.options import DeviceOption, JsonOption, OfflineOption, StrictOption, refuse_existing
from effnet.cli.printing import progress_bars
from effnet.training.callbacks import Callback

if TYPE_CHECKING:
    from effnet.data import Splits
    from effnet.training.dry_run import DryRun
    from effnet.training.recipes import Recipe
    from effnet.training.run_dir import TrainResult


class ProgressCallback(Callback):
    """Shows what a `Watch` hears; use as a context."""

    def __init__(self) -> None:
        self._progress = progress_bars()
        self._phase: str | None = None
        self._task = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Moves the bar of ``stage``."""
        if phase != self._phase:
            self._progress.reset(self._task, description=phase, total=total, visible=True)
            self._phase = phase
        self._progress.update(self._task, completed=done)

    def on_message(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False)


# ``effnet train``: from labelled pictures to a model.


MAX_EPOCH_ROWS = 40  # epochs that a rehearsal lists, evenly spread


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
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="What the labels of a .csv mean: classification, multilabel or regression."),
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
    strict: StrictOption = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Train a classifier on your pictures.

    On several GPUs or machines: torchrun --nproc-per-node N -m effnet train …
    """
    settings: str | Recipe | None = recipe
    if change:
        from effnet.training.recipes import get_recipe, override_settings

        settings = override_settings(get_recipe(recipe, pretrained=weights != "none"), change)
    if dry_run:
        from effnet.arch import resolve_arch
        from effnet.cli.printing import print_json
        from effnet.data.storage.atomic_write import atomic_write
        from effnet.training.dry_run import IMAGENET_TRAIN_IMAGES, simulate_recipe
        from effnet.training.recipes import resolve_recipe

        asked = resolve_recipe(settings, weights, epochs, batch, _parse_learning_rate(lr))
        rehearsal = simulate_recipe(
            asked, resolve_arch(model or "b0"), _count_training_images(data) if data else IMAGENET_TRAIN_IMAGES, epochs
        )
        if out:
            with atomic_write(out / "schedule.svg") as beside:
                beside.write_text(rehearsal.to_svg(), encoding="utf-8")
        print_json(rehearsal.to_dict()) if as_json else _print_dry_run(rehearsal, out)
        return
    if data is None:
        raise typer.BadParameter("say what to learn from: a folder, a .csv, shards, or digits", param_hint="DATA")
    from effnet.cli.printing import print_json
    from effnet.data.table import is_table, open_table
    from effnet.training.config import Resources
    from effnet.training.cross_validation import CrossValidationResult, train_folds
    from effnet.training.train import train as run

    if task and not is_table(data):
        raise typer.BadParameter("is for a table of pictures and labels (.csv)", param_hint="--task")
    given = open_table(data, task) if task else data
    if soup:
        _make_soup(soup.split(","), given, out or Path("runs") / "soup", device)
        return
    trained = partial(train_folds, folds=folds) if folds else run
    with ProgressCallback() as watch:
        result = trained(
            given,
            settings,
            out=out or Path("runs") / Path(data).resolve().name,
            model=model,
            weights=weights,
            epochs=epochs,
            minutes=minutes,
            batch_size=batch,
            learning_rate=_parse_learning_rate(lr),
            seed=seed,
            image_size=size,
            select_on=select_on,
            teacher=teacher,
            resume=resume,
            strict=strict,
            resources=Resources(device, precision, accumulate, checkpointing, compiled, workers, cache),
            loggers=track if track is None else [] if track == "none" else track.split(","),
            callback=watch,
            command=shlex.join(["effnet", *sys.argv[1:]]),
        )
    if os.environ.get("RANK", "0") != "0":  # of torchrun: one of the processes tells
        return
    if as_json:
        print_json(result.to_dict())
    elif isinstance(result, CrossValidationResult):
        print(result.in_words())
        print(f"try:    effnet predict test.csv --ensemble {result.out} --out submission.csv")
    else:
        _print_result(result)


def _make_soup(runs: list[str], data: str | Splits, out: Path, device: str | None) -> None:
    """Leaves the soup of ``runs`` in ``out``, and says how it came to be."""
    from effnet.data import Splits, open_data
    from effnet.evaluation import evaluate
    from effnet.training.model_soup import soup_runs
    from effnet.weights import save

    refuse_existing(out / "model.safetensors", force=False)
    model, found = soup_runs(runs, data, device=device)
    out.mkdir(parents=True, exist_ok=True)
    path = save(model, out / "model.safetensors")
    print(found.in_words())
    splits = data if isinstance(data, Splits) else open_data(data)
    for name in splits.available.keys() - {"train"}:
        judged = evaluate(model, splits.available[name], device=device)
        print(f"{name}: {judged.summary()}, {judged.images} pictures")
    print(f"model:  {path}")


def _parse_learning_rate(text: str | None) -> float | str | None:
    """The learning rate as a number, or "find". Raises ``typer.BadParameter`` for anything else."""
    if text is None or text == "find":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number: write 0.001, or find", param_hint="--lr") from None


def _count_training_images(data: str) -> int:
    """How many pictures there are to learn from."""
    from effnet.data import open_data
    from effnet.training.data_plan import training_images

    return len(training_images(open_data(data)))


def _print_dry_run(rehearsal: DryRun, out: Path | None) -> None:
    from effnet.cli.printing import new_table, print_results

    recipe = rehearsal.recipe
    shown = new_table("epoch", "step", "rate from", "to", "average", "size", "dropout", "augment", left=("augment",))
    every = max(1, -(-len(rehearsal.epochs) // MAX_EPOCH_ROWS))
    for one in (*rehearsal.epochs[:-1:every], rehearsal.epochs[-1]):
        changes = one.augment
        told = [f"crop {changes.min_crop_area:g}"]
        if changes.policy != "none":
            strength = (
                f" {changes.randaugment_ops}×{changes.randaugment_magnitude:.3g}"
                if changes.policy == "randaugment"
                else ""
            )
            told.append(changes.policy + strength)
        told += [f"{name} {getattr(changes, name):g}" for name in ("mixup", "cutmix") if getattr(changes, name)]
        shown.add_row(
            *(
                str(one.epoch),
                f"{one.step:,}",
                f"{one.first_learning_rate:.4g}",
                f"{one.last_learning_rate:.4g}",
                f"{one.ema_decay:.5f}",
            ),
            *(
                str(one.image_size),
                f"{one.dropout:.2f}",
                ", ".join(told) + (f"; {one.frozen_up_to} frozen" if one.frozen_up_to else ""),
            ),
        )
    drops = rehearsal.drop_path
    print_results(
        f"{recipe.name}: {rehearsal.network} on {rehearsal.images:,} pictures, {recipe.epochs} epochs of "
        f"{rehearsal.steps_per_epoch:,} batches of {recipe.batch_size:,}",
        f"{recipe.optimizer}, peak rate {rehearsal.peak_learning_rate:.4g}, {recipe.schedule}; weight decay {recipe.weight_decay:g}; "
        f"labels smoothed by {recipe.label_smoothing:g}; {recipe.selection_fraction:.1%} of the pictures to choose by",
        f"stochastic depth from {drops[0][1]:.3f} ({drops[0][0]}) to {drops[-1][1]:.3f} ({drops[-1][0]})",
        shown,
        *([f"one epoch in {every} is shown, and the last; --json has all"] if every > 1 else []),
        *([f"drawn in {out / 'schedule.svg'}"] if out else []),
    )


def _print_result(result: TrainResult) -> None:
    """The figures on what no choice has seen, and where everything lies."""
    for name, found in result.evaluations.items():
        print(f"{name}: {found.summary()}, {found.images} pictures")
    print(f"model:  {result.model}")
    print(f"report: {result.model.with_name('report.html')}")
    print(f"try:    effnet predict PICTURE --model {result.model}")
