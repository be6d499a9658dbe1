"""Training against timm's ``train.py``: the same network, numbers to start from, epochs and settings, three seeds.

    python benchmarks/training.py photos FOLDER --weights LITE0     (fine-tuning; FOLDER has train/ and val/)
    python benchmarks/training.py scratch FOLDER --epochs 8         (from random weights, on small pictures)

timm's side is its script's loop made of its package's functions: ``create_dataset``, ``create_loader`` with two
workers, ``create_optimizer_v2``, ``create_scheduler_v2``, ``ModelEmaV3``, ``LabelSmoothingCrossEntropy``, channels-last
and its own validation after every epoch. Ours is `effnet.train` with a recipe of the same settings, its check of every
picture, its report and its ONNX file included. Both choose their epoch by the validation set, as the script does, so
the two accuracies are to be compared with each other and with nothing else. With ``--defaults`` ours by default
settings as well (no look at the validation set): the probe alone, and the whole run. Each run is a fresh process, sides
in turns; seconds are without imports, memory is the resident peak of the process that trains.
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
    "photos": {"name": "lite0", "epochs": 6, "batch": 32, "rate": 3e-4, "size": 224, "crop": 0.35, "warm_up": 1},
    "scratch": {"name": "lite0", "epochs": 8, "batch": 64, "rate": 2e-3, "size": 32, "crop": 0.6, "warm_up": 1},
}
DECAY, SMOOTHING, AVERAGE = 0.05, 0.1, 0.98
SIDES = ("timm", "effnet", "effnet, checkpointing")
PROBED, DEFAULTS = "effnet, defaults, --epochs 0", "effnet, defaults"


def theirs(data: Path, weights: Path | None, seed: int, asked: dict[str, float]) -> float:
    """The best top-1 of timm's loop, a fraction."""
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
    model = timm.create_model(f"tf_efficientnet_{asked['name']}", num_classes=classes)
    if weights:
        timm.models.load_checkpoint(model, str(weights), strict=False)
    model = model.to(memory_format=torch.channels_last)
    mean_, std = model.default_cfg["mean"], model.default_cfg["std"]
    optimiser = create_optimizer_v2(model, "adamw", lr=asked["rate"], weight_decay=DECAY)
    ema = ModelEmaV3(model, decay=AVERAGE, use_warmup=True)
    sets = {split: create_dataset("", root=str(data), split=split) for split in ("train", "val")}
    common = {"input_size": (3, asked["size"], asked["size"]), "use_prefetcher": False, "num_workers": 2}
    common |= {"mean": mean_, "std": std, "interpolation": model.default_cfg["interpolation"]}
    train = create_loader(
        sets["train"],
        batch_size=asked["batch"],
        is_training=True,
        scale=(asked["crop"], 1.0),
        color_jitter=None,
        persistent_workers=True,
        **common,
    )
    val = create_loader(sets["val"], batch_size=asked["batch"], crop_pct=model.default_cfg["crop_pct"], **common)
    scheduler, epochs = create_scheduler_v2(
        optimiser,
        "cosine",
        num_epochs=asked["epochs"],
        warmup_epochs=asked["warm_up"],
        warmup_lr=1e-6,
        min_lr=0,
        step_on_epochs=False,
        updates_per_epoch=len(train),
    )
    loss_of, best, updates = LabelSmoothingCrossEntropy(SMOOTHING), 0.0, 0
    for _ in range(epochs):
        model.train()
        for pictures, targets in train:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            loss = loss_of(model(pictures), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            updates += 1
            ema.update(model, step=updates)
            scheduler.step_update(updates)
            loss.item()
        ema.module.eval()
        right = total = 0
        with torch.inference_mode():
            for pictures, targets in val:
                found = ema.module(pictures.contiguous(memory_format=torch.channels_last)).argmax(1)
                right, total = right + int((found == targets).sum()), total + len(targets)
        best = max(best, right / total)
    return best


def ours(data: Path, weights: Path | None, seed: int, asked: dict[str, float], side: str, out: Path) -> float:
    """The top-1 of our run on the validation set, a fraction."""
    import effnet
    from effnet.data.augment import Augment
    from effnet.training.config import Resources
    from effnet.training.recipes import Recipe

    if side in (PROBED, DEFAULTS):
        epochs = 0 if side == PROBED else None
        result = effnet.train(
            data, out=out, model=str(asked["name"]), weights=weights or "none", seed=seed, epochs=epochs
        )
        return result.evaluations["val"].top1
    recipe = Recipe(
        name="as timm",
        epochs=int(asked["epochs"]),
        batch_size=int(asked["batch"]),
        lr_reference_batch=int(asked["batch"]),
        learning_rate=asked["rate"],
        warmup_epochs=asked["warm_up"],
        weight_decay=DECAY,
        label_smoothing=SMOOTHING,
        ema_decay=AVERAGE,
        bn_momentum=0.1,
        dropout=0.0,
        drop_path=0.0,
        augment=Augment(min_crop_area=asked["crop"]),
    )
    result = effnet.train(
        data,
        recipe,
        out=out,
        model=str(asked["name"]),
        weights=(weights and seen_as_timm_sees(weights, out.with_name("start.safetensors"))) or "none",
        seed=seed,
        image_size=int(asked["size"]),
        select_on="val",
        resources=Resources(workers=2, gradient_checkpointing=side.endswith("checkpointing")),
    )
    return max(line.selection_metric for line in result.history)


def seen_as_timm_sees(weights: Path, start: Path) -> Path:
    """The numbers to start from, with timm's interpolation for Lite0: bicubic, where the official code has bilinear."""
    import effnet

    model = effnet.load(weights)
    model.preprocess = replace(model.preprocess, interpolation="bicubic")
    effnet.save(model, start)
    return start


def one(side: str, data: Path, weights: Path | None, seed: int, asked: dict[str, float]) -> None:
    """A run, in this process; prints its figures as JSON."""
    import torch

    torch.set_num_threads(2)
    with TemporaryDirectory() as place:
        os.environ["EFFNET_HOME"] = f"{place}/home"
        import effnet.training.train  # its imports are not timed, as timm's are not

        del effnet
        watch = Stopwatch()
        top1 = (
            theirs(data, weights, seed, asked)
            if side == "timm"
            else ours(data, weights, seed, asked, side, Path(place, "out"))
        )
        print(json.dumps({"top1": top1, "seconds": watch.seconds, "bytes": peak_memory()}))


def main() -> None:
    """Runs every side with every seed, and prints a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("job", choices=SETTINGS)
    options.add_argument("data", type=Path)
    options.add_argument("--weights", type=Path)
    options.add_argument("--epochs", type=int)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--defaults", action="store_true", help="ours by default settings as well")
    options.add_argument("--sides", nargs="+", choices=(*SIDES, PROBED, DEFAULTS), help="only these, timm among them")
    options.add_argument("--one", nargs=2, metavar=("SIDE", "SEED"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    asked = dict(SETTINGS[chosen.job])
    if chosen.epochs:
        asked["epochs"] = chosen.epochs
    if chosen.one:
        one(chosen.one[0], chosen.data, chosen.weights, int(chosen.one[1]), asked)
        return
    sides = chosen.sides or [*SIDES, *((PROBED, DEFAULTS) if chosen.defaults else ())]
    print(
        f"{describe_machine().describe()}; {installed_versions(('torch', 'timm', 'torchvision'))}; {asked}\n",
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
