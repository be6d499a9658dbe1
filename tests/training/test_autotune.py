"""What training is expected to cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from effnet.net import create
from effnet.timing.memory import available_memory
from effnet.training import autotune, memory
from effnet.training.callbacks import Callback
from effnet.training.config import TrainConfig
from effnet.training.data_plan import DataPlan
from effnet.training.distributed import Distributed
from effnet.training.loop import TrainSetup
from effnet.training.losses import TrainingLoss
from effnet.training.recipes import Recipe
from tests.squares import squares
from tests.training.conftest import Recorder

RECIPE = Recipe(name="test", epochs=1, batch_size=32)


def make_setup(callback: Callback) -> TrainSetup:
    images, distributed = squares(4, seed=0), Distributed("cpu")
    loss = TrainingLoss(images, RECIPE, distributed.device)
    config, plan = TrainConfig(data="", out=Path()), DataPlan(images, images, {})
    return TrainSetup(config, RECIPE, plan, create("nano", 5), loss, distributed, callback)


def test_activation_bytes_are_per_image_and_proportional_to_area() -> None:
    model, distributed = create("nano", 5), Distributed("cpu")
    small, large = (memory.activation_bytes_per_image(model, RECIPE, (side, side), distributed) for side in (32, 64))
    assert large / small == pytest.approx(4, rel=0.1)
    model.gradient_checkpointing = True
    assert memory.activation_bytes_per_image(model, RECIPE, (64, 64), distributed) < 0.3 * large
    assert all(parameter.grad is None for parameter in model.parameters())


def test_accumulation_steps_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    model, distributed = create("nano", 5), Distributed("cpu")
    given = (model, RECIPE, distributed, recorder)
    assert memory.choose_accumulation_steps(*given) == 1
    assert not recorder.messages
    image_bytes = memory.activation_bytes_per_image(model, RECIPE, (32, 32), distributed)
    need = 32 * image_bytes * memory.MEMORY_MARGIN
    monkeypatch.setattr("effnet.timing.memory.available_memory", lambda: int(need / 3.5))
    assert memory.choose_accumulation_steps(*given) == 4
    assert recorder.messages[0].endswith("using 4 gradient accumulation steps")
    monkeypatch.setattr("effnet.timing.memory.available_memory", lambda: 0)  # nobody knows
    assert memory.choose_accumulation_steps(*given) == 1


def test_free_memory_of_this_machine() -> None:
    assert 0 < available_memory() < 2**50
    assert memory.free_memory(torch.device("cpu")) > 0


def test_no_compiling_on_a_cpu() -> None:
    assert not autotune.compiling_pays_off(make_setup(Callback()), epochs=10**6)
