"""Training compared with timm's ``train.py``: same network, initial weights, epochs and hyperparameters, three seeds.

    python benchmarks/train_vs_timm.py photos FOLDER --weights LITE0     (fine-tuning; FOLDER has train/ and val/)
    python benchmarks/train_vs_timm.py scratch FOLDER --epochs 8         (from random weights, on small images)

timm's side is the loop of its script, built from its package's functions: ``create_dataset``, ``create_loader`` with
two workers, ``create_optimizer_v2``, ``create_scheduler_v2``, ``ModelEmaV3``, ``LabelSmoothingCrossEntropy``,
channels-last and validation after every epoch. effnet's side is `effnet.train` with a recipe of the same
hyperparameters, including its check of every image, its report and its ONNX file. Both select their epoch on the
validation set, as the script does, so the two accuracies can only be compared with each other. ``--defaults`` adds
effnet with default settings, which do not look at the validation set: the linear probe alone, and a whole run. Every
run is a new process, sides interleaved; seconds exclude imports, memory is the peak resident size of the training
process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from effnet.timing import Stopwatch, describe_machine, installed_versions, peak_memory

SETTINGS = {
    "photos": {
        "name": "lite0",
        "epochs": 6,
        "batch_size": 32,
        "lr": 3e-4,
        "size": 224,
        "min_crop_area": 0.35,
        "warmup": 1,
    },
    "scratch": {
        "name": "lite0",
        "epochs": 8,
        "batch_size": 64,
        "lr": 2e-3,
        "size": 32,
        "min_crop_area": 0.6,
        "warmup": 1,
    },
}
WEIGHT_DECAY, LABEL_SMOOTHING, EMA_DECAY = 0.05, 0.1, 0.98
SIDES = ("timm", "effnet", "effnet, checkpointing")
PROBE, DEFAULTS = "effnet, defaults, --epochs 0", "effnet, defaults"


def train_timm(data: Path, weights: Path | None, seed: int, settings: dict[str, Any]) -> float:
    """Run timm's loop and return its best validation top-1, a fraction."""
    from effnet.data.torchvision_compat import declare_operators

    declare_operators()
    import timm
    import torch
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import ModelEmaV3, random_seed

    random_seed(seed, 0)
    classes = len([folder for folder in (data / "train").iterdir() if folder.is_dir()])
    model = timm.create_model(f"tf_efficientnet_{settings['name']}", num_classes=classes)
    if weights:
        timm.models.load_checkpoint(model, str(weights), strict=False)
    model = model.to(memory_format=torch.channels_last)
    pixel_mean, pixel_std = model.default_cfg["mean"], model.default_cfg["std"]
    optimizer = create_optimizer_v2(model, "adamw", lr=settings["lr"], weight_decay=WEIGHT_DECAY)
    ema = ModelEmaV3(model, decay=EMA_DECAY, use_warmup=True)
    datasets = {split: create_dataset("", root=str(data), split=split) for split in ("train", "val")}
    common = {"input_size": (3, settings["size"], settings["size"]), "use_prefetcher": False, "num_workers": 2}
    common |= {"mean": pixel_mean, "std": pixel_std, "interpolation": model.default_cfg["interpolation"]}
    train = create_loader(
        datasets["train"],
        batch_size=settings["batch_size"],
        is_training=True,
        scale=(settings["min_crop_area"], 1.0),
        color_jitter=None,
        persistent_workers=True,
        **common,
    )
    val = create_loader(
        datasets["val"], batch_size=settings["batch_size"], crop_pct=model.default_cfg["crop_pct"], **common
    )
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=settings["epochs"],
        warmup_epochs=settings["warmup"],
        warmup_lr=1e-6,
        min_lr=0,
        step_on_epochs=False,
        updates_per_epoch=len(train),
    )
    criterion, best, updates = LabelSmoothingCrossEntropy(LABEL_SMOOTHING), 0.0, 0
    for _ in range(epochs):
        model.train()
        for images, targets in train:
            images = images.contiguous(memory_format=torch.channels_last)
            loss = criterion(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            ema.update(model, step=updates)
            scheduler.step_update(updates)
            loss.item()
        ema.module.eval()
        correct = total = 0
        with torch.inference_mode():
            for images, targets in val:
                predicted = ema.module(images.contiguous(memory_format=torch.channels_last)).argmax(1)
                correct, total = correct + int((predicted == targets).sum()), total + len(targets)
        best = max(best, correct / total)
    return best


def train_effnet(data: Path, weights: Path | None, seed: int, settings: dict[str, Any], side: str, out: Path) -> float:
    """Run `effnet.train` and return its validation top-1, a fraction."""
    import effnet
    from effnet.data.augment import Augment
    from effnet.training.config import Resources
    from effnet.training.recipes import Recipe

    if side in (PROBE, DEFAULTS):
        epochs = 0 if side == PROBE else None
        result = effnet.train(
            data, out=out, model=str(settings["name"]), weights=weights or "none", seed=seed, epochs=epochs
        )
        return result.evaluations["val"].top1
    recipe = Recipe(
        name="as timm",
        epochs=int(settings["epochs"]),
        batch_size=int(settings["batch_size"]),
        lr_reference_batch=int(settings["batch_size"]),
        learning_rate=settings["lr"],
        warmup_epochs=settings["warmup"],
        weight_decay=WEIGHT_DECAY,
        label_smoothing=LABEL_SMOOTHING,
        ema_decay=EMA_DECAY,
        bn_momentum=0.1,
        dropout=0.0,
        drop_path=0.0,
        augment=Augment(min_crop_area=settings["min_crop_area"]),
    )
    result = effnet.train(
        data,
        recipe,
        out=out,
        model=str(settings["name"]),
        weights=(weights and use_timm_interpolation(weights, out.with_name("start.safetensors"))) or "none",
        seed=seed,
        image_size=int(settings["size"]),
        select_on="val",
        resources=Resources(workers=2, gradient_checkpointing=side.endswith("checkpointing")),
    )
    return max(epoch.selection_metric for epoch in result.history)


def use_timm_interpolation(weights: Path, path: Path) -> Path:
    """Save a copy with timm's interpolation for Lite0: bicubic, where the official code has bilinear."""
    import effnet

    model = effnet.load(weights)
    model.preprocess = replace(model.preprocess, interpolation="bicubic")
    return effnet.save(model, path)


def run_side(side: str, data: Path, weights: Path | None, seed: int, settings: dict[str, Any]) -> None:
    """Train in this process and print top-1, seconds and peak memory as JSON."""
    import torch

    torch.set_num_threads(2)
    with TemporaryDirectory() as temporary:
        os.environ["EFFNET_HOME"] = f"{temporary}/home"
        import effnet.training.train  # imports are not timed on either side

        del effnet
        watch = Stopwatch()
        top1 = (
            train_timm(data, weights, seed, settings)
            if side == "timm"
            else train_effnet(data, weights, seed, settings, side, Path(temporary, "out"))
        )
        print(json.dumps({"top1": top1, "seconds": watch.seconds, "bytes": peak_memory()}))


def main() -> None:
    """Run every side with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=SETTINGS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--defaults", action="store_true", help="add effnet with default settings")
    parser.add_argument(
        "--sides", nargs="+", choices=(*SIDES, PROBE, DEFAULTS), help="sides to run; timm must be one of them"
    )
    parser.add_argument("--single-run", nargs=2, metavar=("SIDE", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings: dict[str, Any] = dict(SETTINGS[options.task])
    if options.epochs:
        settings["epochs"] = options.epochs
    if options.single_run:
        run_side(options.single_run[0], options.data, options.weights, int(options.single_run[1]), settings)
        return
    sides = options.sides or [*SIDES, *((PROBE, DEFAULTS) if options.defaults else ())]
    print(
        f"{describe_machine().describe()}; {installed_versions(('torch', 'timm', 'torchvision'))}; {settings}\n",
        flush=True,
    )
    results: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for seed in range(options.seeds):
        for side in sides:
            command = [sys.executable, __file__, *sys.argv[1:], "--single-run", side, str(seed)]
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode:
                raise SystemExit(process.stderr)
            results[side].append(json.loads(process.stdout.splitlines()[-1]))
            print(side, seed, results[side][-1], file=sys.stderr, flush=True)
    reference = results["timm"]
    print(
        "| | top-1 % (mean ± sd) | seconds | relative to timm | peak MB | relative to timm |\n|---|--:|--:|--:|--:|--:|"
    )
    for side, runs in results.items():
        top1 = [100 * run["top1"] for run in runs]
        spread = stdev(top1) if len(top1) > 1 else 0.0
        seconds, memory = mean(run["seconds"] for run in runs), mean(run["bytes"] for run in runs)
        print(
            f"| {side} | {mean(top1):.2f} ± {spread:.2f} | {seconds:.1f} "
            f"| {seconds / mean(run['seconds'] for run in reference):.2f} | {memory / 1e6:.0f} "
            f"| {memory / mean(run['bytes'] for run in reference):.2f} |"
        )


if __name__ == "__main__":
    main()
