"""Training compared with timm's ``train.py``: the same network, initial weights, epochs and settings, three seeds.

    python benchmarks/training.py photos FOLDER --weights LITE0     (fine-tuning; FOLDER has train/ and val/)
    python benchmarks/training.py scratch FOLDER --epochs 8         (from random weights, on small images)

timm's side is the loop of its script, built from its package's functions: ``create_dataset``, ``create_loader`` with
two workers, ``create_optimizer_v2``, ``create_scheduler_v2``, ``ModelEmaV3``, ``LabelSmoothingCrossEntropy``,
channels-last and its own validation after every epoch. effnet's is `effnet.train` with a recipe of the same settings,
including its check of every image, its report and its ONNX file. Both select their epoch on the validation set, as the
script does, so the two accuracies can be compared with each other only. With ``--defaults`` also effnet with default
settings (which never use the validation set): linear probe only, and the whole run. Each run is a fresh process,
interleaved; seconds exclude imports, memory is the resident peak of the training process.
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

from effnet.timing import Stopwatch, describe_machine, installed_versions, peak_memory

SETTINGS = {
    "photos": {"epochs": 6, "batch_size": 32, "learning_rate": 3e-4, "size": 224, "crop": 0.35},
    "scratch": {"epochs": 8, "batch_size": 64, "learning_rate": 2e-3, "size": 32, "crop": 0.6},
}
COMMON_SETTINGS = {"name": "lite0", "warmup_epochs": 1}
WEIGHT_DECAY, LABEL_SMOOTHING, EMA_DECAY = 0.05, 0.1, 0.98
SIDES = ("timm", "effnet", "effnet, checkpointing")
PROBE, DEFAULTS = "effnet, defaults, --epochs 0", "effnet, defaults"


def theirs(data: Path, weights: Path | None, seed: int, settings: dict[str, float]) -> float:
    """Return the best top-1 of timm's loop, a fraction."""
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
    classes = len([one for one in (data / "train").iterdir() if one.is_dir()])
    model = timm.create_model(f"tf_efficientnet_{settings['name']}", num_classes=classes)
    if weights:
        timm.models.load_checkpoint(model, str(weights), strict=False)
    model = model.to(memory_format=torch.channels_last)
    mean_, std = model.default_cfg["mean"], model.default_cfg["std"]
    optimizer = create_optimizer_v2(model, "adamw", lr=settings["learning_rate"], weight_decay=WEIGHT_DECAY)
    ema = ModelEmaV3(model, decay=EMA_DECAY, use_warmup=True)
    sets = {split: create_dataset("", root=str(data), split=split) for split in ("train", "val")}
    common = {"input_size": (3, settings["size"], settings["size"]), "use_prefetcher": False, "num_workers": 2}
    common |= {"mean": mean_, "std": std, "interpolation": model.default_cfg["interpolation"]}
    train = create_loader(
        sets["train"],
        batch_size=settings["batch_size"],
        is_training=True,
        scale=(settings["crop"], 1.0),
        color_jitter=None,
        persistent_workers=True,
        **common,
    )
    val = create_loader(
        sets["val"], batch_size=settings["batch_size"], crop_pct=model.default_cfg["crop_pct"], **common
    )
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=settings["epochs"],
        warmup_epochs=settings["warmup_epochs"],
        warmup_lr=1e-6,
        min_lr=0,
        step_on_epochs=False,
        updates_per_epoch=len(train),
    )
    loss_of, best, updates = LabelSmoothingCrossEntropy(LABEL_SMOOTHING), 0.0, 0
    for _ in range(epochs):
        model.train()
        for images, targets in train:
            images = images.contiguous(memory_format=torch.channels_last)
            loss = loss_of(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            ema.update(model, step=updates)
            scheduler.step_update(updates)
            loss.item()
        ema.module.eval()
        right = total = 0
        with torch.inference_mode():
            for images, targets in val:
                found = ema.module(images.contiguous(memory_format=torch.channels_last)).argmax(1)
                right, total = right + int((found == targets).sum()), total + len(targets)
        best = max(best, right / total)
    return best


def ours(data: Path, weights: Path | None, seed: int, settings: dict[str, float], side: str, out: Path) -> float:
    """Return effnet's top-1 on the validation set, a fraction."""
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
        learning_rate=settings["learning_rate"],
        warmup_epochs=settings["warmup_epochs"],
        weight_decay=WEIGHT_DECAY,
        label_smoothing=LABEL_SMOOTHING,
        ema_decay=EMA_DECAY,
        bn_momentum=0.1,
        dropout=0.0,
        drop_path=0.0,
        augment=Augment(min_crop_area=settings["crop"]),
    )
    result = effnet.train(
        data,
        recipe,
        out=out,
        model=str(settings["name"]),
        weights=(weights and with_timm_interpolation(weights, out.with_name("start.safetensors"))) or "none",
        seed=seed,
        image_size=int(settings["size"]),
        select_on="val",
        resources=Resources(workers=2, gradient_checkpointing=side.endswith("checkpointing")),
    )
    return max(line.selection_metric for line in result.history)


def with_timm_interpolation(weights: Path, start: Path) -> Path:
    """Return the initial weights with timm's interpolation for Lite0: bicubic, where the official code has bilinear."""
    import effnet

    model = effnet.load(weights)
    model.preprocess = replace(model.preprocess, interpolation="bicubic")
    effnet.save(model, start)
    return start


def run_one(side: str, data: Path, weights: Path | None, seed: int, settings: dict[str, float]) -> None:
    """Run one side in this process; print its results as JSON."""
    import torch

    torch.set_num_threads(2)
    with TemporaryDirectory() as place:
        os.environ["EFFNET_HOME"] = f"{place}/home"
        import effnet.training.train  # imports are not timed, as with timm

        del effnet
        watch = Stopwatch()
        top1 = (
            theirs(data, weights, seed, settings)
            if side == "timm"
            else ours(data, weights, seed, settings, side, Path(place, "out"))
        )
        print(json.dumps({"top1": top1, "seconds": watch.seconds, "bytes": peak_memory()}))


def main() -> None:
    """Run every side with every seed, and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("job", choices=SETTINGS)
    options.add_argument("data", type=Path)
    options.add_argument("--weights", type=Path)
    options.add_argument("--epochs", type=int)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--defaults", action="store_true", help="also effnet with default settings")
    options.add_argument("--sides", nargs="+", choices=(*SIDES, PROBE, DEFAULTS), help="only these, timm among them")
    options.add_argument("--one", nargs=2, metavar=("SIDE", "SEED"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    settings = COMMON_SETTINGS | SETTINGS[chosen.job]
    if chosen.epochs:
        settings["epochs"] = chosen.epochs
    if chosen.one:
        run_one(chosen.one[0], chosen.data, chosen.weights, int(chosen.one[1]), settings)
        return
    sides = chosen.sides or [*SIDES, *((PROBE, DEFAULTS) if chosen.defaults else ())]
    print(
        f"{describe_machine().describe()}; {installed_versions(('torch', 'timm', 'torchvision'))}; {settings}\n",
        flush=True,
    )
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for seed in range(chosen.seeds):
        for side in sides:
            words = [sys.executable, __file__, *sys.argv[1:], "--one", side, str(seed)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(side, seed, found[side][-1], file=sys.stderr, flush=True)
    base = found["timm"]
    print("| | top-1 % (mean ± sd) | seconds | / timm | peak MB | / timm |\n|---|--:|--:|--:|--:|--:|")
    for side, runs in found.items():
        top1 = [100 * run["top1"] for run in runs]
        spread = stdev(top1) if len(top1) > 1 else 0.0
        seconds, memory = mean(run["seconds"] for run in runs), mean(run["bytes"] for run in runs)
        print(
            f"| {side} | {mean(top1):.2f} ± {spread:.2f} | {seconds:.1f} "
            f"| {seconds / mean(run['seconds'] for run in base):.2f} | {memory / 1e6:.0f} "
            f"| {memory / mean(run['bytes'] for run in base):.2f} |"
        )


if __name__ == "__main__":
    main()
