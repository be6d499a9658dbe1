"""What is measured before a run."""

from __future__ import annotations

from pathlib import Path

from effnet.net import create
from effnet.training import autotune
from effnet.training.callbacks import Callback
from effnet.training.config import TrainConfig
from effnet.training.data_plan import DataPlan
from effnet.training.distributed import Distributed
from effnet.training.loop import TrainSetup
from effnet.training.losses import TrainingLoss
from effnet.training.recipes import Recipe
from tests.squares import squares


def test_no_compiling_on_a_cpu() -> None:
    images, distributed, recipe = squares(4, seed=0), Distributed("cpu"), Recipe(name="test", epochs=1, batch_size=32)
    loss = TrainingLoss(images, recipe, distributed.device)
    config, plan = TrainConfig(data="", out=Path()), DataPlan(images, images, {})
    setup = TrainSetup(config, recipe, plan, create("nano", 5), loss, distributed, Callback())
    assert not autotune.compiling_pays_off(setup, epochs=10**6)
