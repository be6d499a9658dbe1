"""``effnet train``: train a classifier on labeled images, preview a recipe, or average trained models."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from effnet.arch import serde
from effnet.cli import options, printing
from effnet.cli.weights_options import AS_STATED, WeightsOptions, with_weights_options
from effnet.training.callbacks import Callback

if TYPE_CHECKING:
    from rich.progress import Progress

    from effnet.data import Splits
    from effnet.training import recipes, run_dir
    from effnet.training.dry_run import DryRun

MAX_EPOCH_ROWS = 40  # of a dry run, evenly spaced


class ProgressCallback(Callback):
    """Shows training progress on standard error, a bar with messages above it."""

    def __init__(self, bars: "Progress") -> None:
        self._bars, self._phase = bars, ""
        self._task = bars.add_task("", total=None, visible=False)

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Move the bar of ``phase``."""
        if phase != self._phase:
            self._bars.reset(self._task, description=phase, total=total, visible=True)
            self._phase = phase
        self._bars.update(self._task, completed=done)

    def on_message(self, text: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(printing.printable(text, keep_lines=True), markup=False)


@with_weights_options("prefix", "padding", "bn_eps")
def train(
    data: Annotated[
        str | None,
        Argument(
            metavar="DATA",
            help="A folder with one subfolder per class, a .csv, WebDataset shards, hub:NAME, a torchvision dataset, "
            "or digits.",
        ),
    ] = None,
    model: Annotated[
        str | None, Option("--model", "-m", metavar="NAME", help="The network, such as b0 (default) or lite0.")
    ] = None,
    weights: Annotated[
        str | None,
        Option(metavar="FILE", help="Initial weights: a file, a published name (default), or none for random."),
    ] = None,
    part: WeightsOptions = AS_STATED,
    recipe: Annotated[
        str | None,
        Option(metavar="NAME", help="finetune (default with weights), scratch (default without), paper_b0, …"),
    ] = None,
    out: Annotated[Path | None, options.output("FOLDER", "Run directory (default: runs/NAME).")] = None,
    name: Annotated[
        str | None, Option(metavar="NAME", help="Name of the run directory in runs/ (default: DATA's name).")
    ] = None,
    epochs: Annotated[
        int | None, options.number("Number of epochs (default: the recipe's).", min=0, max=serde.MAX_EPOCHS)
    ] = None,
    minutes: Annotated[
        float | None,
        options.real(
            "Train for as many epochs as take about this long.", max=serde.MAX_MINUTES, positive=True, metavar="M"
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        options.number(
            "Global batch size; the learning rate is scaled linearly with it.",
            *options.BATCH_SIZE,
            max=serde.MAX_BATCH_SIZE,
        ),
    ] = None,
    learning_rate: Annotated[
        str | None,
        Option("--learning-rate", "--lr", metavar="LR", help="Peak learning rate, or find to search for it."),
    ] = None,
    image_size: options.ImageSizeOption = None,
    color: options.ColorOption = None,
    bits: options.BitsOption = None,
    folds: Annotated[
        int | None, options.number("Cross-validation: train N models, each tested on its fold.", min=2, max=1_000)
    ] = None,
    task: Annotated[
        str | None,
        Option(metavar="TASK", help="Of a .csv: classification, multilabel or regression (default: detected)."),
    ] = None,
    seed: Annotated[
        int, options.number("Random seed; a run is reproducible on the same machine.", min=0, max=serde.MAX_SEED)
    ] = 0,
    select_on: Annotated[
        str, Option(metavar="SPLIT", help="Split used for model selection: holdout (part of the training set) or val.")
    ] = "holdout",
    change: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help="Override a recipe setting: balance=sampler, …; repeatable."),
    ] = None,
    teacher: Annotated[str | None, Option(metavar="MODEL", help="Distill from this model of the same classes.")] = None,
    soup: Annotated[
        str | None, Option(metavar="RUNS", help="Average the weights of finished runs a,b,c instead of training.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Resume the run in --output, or start it.")] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show every epoch's settings without training; --output adds a plot.")
    ] = False,
    precision: Annotated[
        str | None, Option(metavar="DTYPE", help="float32, bfloat16 or float16 (default: the device's fastest).")
    ] = None,
    accumulation_steps: Annotated[
        int,
        options.number(
            "Gradient accumulation steps (default: as many as needed to fit in memory).",
            *("--accumulation-steps", "--accumulate"),
            min=0,
            max=serde.MAX_BATCH_SIZE,
        ),
    ] = 0,
    checkpointing: Annotated[
        bool, Option("--checkpointing", help="Activation checkpointing: half the memory, up to twice the time.")
    ] = False,
    compiled: Annotated[
        bool | None, Option("--compile/--no-compile", help="Use torch.compile (default: where it pays off).")
    ] = None,
    workers: Annotated[int | None, options.number("Data loading processes.", min=0, max=serde.MAX_PROCESSES)] = None,
    cache: Annotated[bool, Option("--cache", help="Cache decoded images on disk while they fit.")] = False,
    track: Annotated[
        str | None, Option(metavar="LIST", help="Experiment trackers: tensorboard (default), wandb, mlflow, … or none.")
    ] = None,
    strict: options.StrictOption = False,
    csv_cells: options.CsvCellsOption = None,
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """Train a classifier on your images.

    On several GPUs or machines: torchrun --nproc-per-node N -m effnet train …
    """
    if weights in (None, "none"):
        part.refuse("requires --weights FILE: it says how that file is read")
    if out and name:
        raise options.UsageError("--name cannot be combined with --output")
    from effnet.training import recipes

    settings: str | recipes.Recipe | None = recipe
    if change:
        settings = recipes.override_settings(recipes.get_recipe(recipe, pretrained=weights != "none"), change)
    peak_learning_rate = None if learning_rate is None else _parse_learning_rate(learning_rate)
    if dry_run:
        resolved = recipes.resolve_recipe(settings, weights, epochs, batch_size, peak_learning_rate)
        _dry_run(resolved, data, model or "b0", epochs, options.parse_image_size(image_size), out, as_json)
        return
    if data is None:
        raise options.UsageError("Missing argument 'DATA': pass a folder, a .csv, shards or digits")
    from effnet.data import open_data
    from effnet.data.tables import table
    from effnet.training import cross_validation
    from effnet.training.config import Resources, TrainConfig
    from effnet.training.train import run_training

    if task and not table.is_table(data):
        raise options.UsageError("--task requires a table of images and labels (.csv)")
    dataset = open_data(data, task) if task else data
    if soup:
        _make_soup(soup.split(","), dataset, out or Path("runs") / (name or "soup"), device)
        return
    with printing.progress_bars() as bars:
        config = TrainConfig(
            data=dataset,
            recipe=settings,
            out=out or Path("runs") / (name or Path(data).resolve().name),
            model=model,
            weights=weights,
            **part.keywords,
            epochs=epochs,
            minutes=minutes,
            batch_size=batch_size,
            learning_rate=peak_learning_rate,
            seed=seed,
            image_size=options.parse_image_size(image_size),
            color=color,
            bits=bits,
            select_on=select_on,
            teacher=teacher,
            resume=resume,
            strict=strict,
            resources=Resources(device, precision, accumulation_steps, checkpointing, compiled, workers, cache),
            loggers=track if track is None else () if track == "none" else tuple(track.split(",")),
            command=shlex.join(["effnet", *sys.argv[1:]]),
            callback=ProgressCallback(bars),
        )
        result = cross_validation.run_folds(config, folds) if folds else run_training(config)
    if os.environ.get("RANK", "0") != "0":  # with torchrun, one of the processes prints
        return
    if as_json:
        printing.print_json(result.to_dict())
    elif isinstance(result, cross_validation.CrossValidationResult):
        printing.print_results(result.summary())
        printing.print_results(f"try:    effnet predict test.csv --ensemble {result.out} --output submission.csv")
    else:
        _print_result(result)


def _parse_learning_rate(text: str) -> float | str:
    hint = "'--learning-rate'"
    try:
        rate = text if text == "find" else float(text)
    except ValueError:
        raise BadParameter(f"{text!r} is not a number such as 0.001, nor find", param_hint=hint) from None
    if isinstance(rate, float) and not 0 < rate <= serde.MAX_LEARNING_RATE:  # nan too
        raise BadParameter(f"{text} is not above 0 and at most {serde.MAX_LEARNING_RATE}", param_hint=hint)
    return rate


def _dry_run(
    recipe: "recipes.Recipe",
    data: str | None,
    model: str,
    epochs: int | None,
    image_size: tuple[int, int] | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from effnet.arch import resolve_arch
    from effnet.data import open_data
    from effnet.data.storage.atomic_write import write_text
    from effnet.training.data_plan import training_images
    from effnet.training.dry_run import IMAGENET_TRAIN_IMAGES, simulate_recipe

    images = len(training_images(open_data(data))) if data else IMAGENET_TRAIN_IMAGES
    simulation = simulate_recipe(recipe, resolve_arch(model), images, epochs, image_size)
    if out:
        write_text(out / "schedule.svg", simulation.to_svg())
    printing.print_json(simulation.to_dict()) if as_json else _print_dry_run(simulation, out)


def _print_dry_run(simulation: "DryRun", out: Path | None) -> None:
    recipe = simulation.recipe
    headings = ("epoch", "step", "lr from", "to", "EMA decay", "size", "dropout", "augmentation")
    table = printing.new_table(*headings, left=("augmentation",))
    every = max(1, -(-len(simulation.epochs) // MAX_EPOCH_ROWS))
    for epoch in (*simulation.epochs[:-1:every], simulation.epochs[-1]):
        augment = epoch.augment
        parts = [f"crop {augment.min_crop_area:g}"]
        if augment.policy == "randaugment":
            parts.append(f"randaugment {augment.randaugment_ops}×{augment.randaugment_magnitude:.3g}")
        elif augment.policy != "none":
            parts.append(augment.policy)
        parts += [f"{name} {getattr(augment, name):g}" for name in ("mixup", "cutmix") if getattr(augment, name)]
        size = str(epoch.image_size) if isinstance(epoch.image_size, int) else printing.format_size(epoch.image_size)
        frozen = f"; {epoch.frozen_until} frozen" if epoch.frozen_until else ""
        table.add_row(
            *(str(epoch.epoch), f"{epoch.step:,}"),
            *(f"{epoch.first_learning_rate:.4g}", f"{epoch.last_learning_rate:.4g}", f"{epoch.ema_decay:.5f}"),
            *(size, f"{epoch.dropout:.2f}", ", ".join(parts) + frozen),
        )
    (first_block, first_rate), (last_block, last_rate) = simulation.drop_path[0], simulation.drop_path[-1]
    printing.print_results(
        f"{recipe.name}: {simulation.network} on {simulation.images:,} images, {recipe.epochs} epochs of "
        f"{simulation.steps_per_epoch:,} steps, batch size {recipe.batch_size:,}",
        f"{recipe.optimizer}, peak learning rate {simulation.peak_learning_rate:.4g}, {recipe.schedule} schedule, "
        f"weight decay {recipe.weight_decay:g}, label smoothing {recipe.label_smoothing:g}, "
        f"{recipe.selection_fraction:.1%} of the images for model selection",
        f"stochastic depth from {first_rate:.3f} ({first_block}) to {last_rate:.3f} ({last_block})",
        table,
        *([f"every {every}th epoch and the last are shown; --json prints all"] if every > 1 else []),
        *([f"wrote {out / 'schedule.svg'}"] if out else []),
    )


def _make_soup(runs: list[str], data: "str | Splits", out: Path, device: str | None) -> None:
    from effnet.data import Splits, open_data
    from effnet.evaluation import evaluate
    from effnet.training.model_soup import soup_runs
    from effnet.weights import save

    options.refuse_existing(out / "model.safetensors", force=False)
    model, soup = soup_runs(runs, data, device=device)
    out.mkdir(parents=True, exist_ok=True)
    path = save(model, out / "model.safetensors")
    printing.print_results(soup.summary())
    splits = data if isinstance(data, Splits) else open_data(data)
    for split in splits.available.keys() - {"train"}:
        evaluation = evaluate(model, splits.available[split], device=device)
        printing.print_results(f"{split}: {evaluation.summary()}, {evaluation.images} images")
    printing.print_results(f"model:  {path}")


def _print_result(result: "run_dir.TrainResult") -> None:
    for split, evaluation in result.evaluations.items():
        printing.print_results(f"{split}: {evaluation.summary()}, {evaluation.images} images")
    printing.print_results(f"model:  {result.model}")
    printing.print_results(f"report: {result.model.with_name('report.html')}")
    printing.print_results(f"try:    effnet predict IMAGE --model {result.model}")
