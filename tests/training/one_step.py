"""One step of training in float64, for `test_many_processes`: leaves the gradients, and the shares of the images."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from effnet.data.augment import Augment
from effnet.data.dataset import ImageDataset, Item
from effnet.metadata import Labels
from effnet.net import create
from effnet.training.callbacks import Callback
from effnet.training.config import Resources, TrainConfig
from effnet.training.data_plan import DataPlan
from effnet.training.distributed import Distributed
from effnet.training.loop import TrainSetup, TrainStep
from effnet.training.losses import TrainingLoss
from effnet.training.recipes import Recipe

COUNT = 13  # no multiple of two: the last batch is not even


def main(out: Path, pieces: int = 1) -> None:
    rng = np.random.default_rng(0)
    items = tuple(
        Item(rng.integers(0, 256, (32, 32, 3), np.uint8), index % 3, str(index), weight=1 + index % 2)
        for index in range(COUNT)
    )
    images = ImageDataset(items, Labels(("a", "b", "c")))
    torch.manual_seed(1)
    model = create("nano", 3).double()
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    augment = Augment(min_crop_area=0.8)
    recipe = Recipe(
        name="test", epochs=1, batch_size=COUNT, batch_norm="frozen", dropout=0.0, drop_path=0.0, augment=augment
    )
    distributed = Distributed("cpu")
    loss = TrainingLoss(images, recipe, distributed.device)
    config = TrainConfig(data="", recipe=recipe, out=out, weights="none", resources=Resources(workers=0))
    plan = DataPlan(images, images, {})
    (phase,) = recipe.phases(1)
    step = TrainStep(model, recipe, loss, distributed, accumulation_steps=pieces)
    model.dropout.p = 0
    setup = TrainSetup(config, recipe, plan, model, loss, distributed, Callback())
    batch_loss = step(*next(setup.make_loader(phase).epoch(0)))
    shard = distributed.shard(list(range(COUNT)))
    gathered = distributed.gather(shard)
    if distributed.is_main:
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        torch.save({"loss": batch_loss, "gradients": gradients, "gathered": gathered, "shard": shard}, out / "step.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
