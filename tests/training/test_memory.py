"""How much memory a batch needs, and gradient accumulation where there is less."""

from __future__ import annotations

import pytest
import torch

from effnet.net import create
from effnet.timing.memory import available_memory
from effnet.training import memory
from effnet.training.distributed import SingleProcess
from effnet.training.recipes import Recipe
from tests.training.conftest import Recorder

RECIPE = Recipe(name="test", epochs=1, batch_size=32)
CPU = SingleProcess(torch.device("cpu"))


def test_activation_bytes_are_per_image_and_proportional_to_area() -> None:
    model = create("nano", 5)
    small, large = (memory.activation_bytes_per_image(model, RECIPE, (side, side), CPU) for side in (32, 64))
    assert large / small == pytest.approx(4, rel=0.1)
    model.gradient_checkpointing = True
    assert memory.activation_bytes_per_image(model, RECIPE, (64, 64), CPU) < 0.3 * large
    assert all(parameter.grad is None for parameter in model.parameters())


def test_accumulation_steps_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, model = Recorder(), create("nano", 5)

    def choose_steps() -> int:
        return memory.choose_accumulation_steps(model, RECIPE, CPU, recorder)

    assert choose_steps() == 1
    assert not recorder.messages
    need = 32 * memory.activation_bytes_per_image(model, RECIPE, (32, 32), CPU) * memory.MEMORY_MARGIN
    monkeypatch.setattr("effnet.timing.memory.available_memory", lambda: int(need / 3.5))
    assert choose_steps() == 4
    assert recorder.messages[0].endswith("using 4 gradient accumulation steps")
    monkeypatch.setattr("effnet.timing.memory.available_memory", lambda: 0)  # nobody knows
    assert choose_steps() == 1


def test_free_memory_of_this_machine() -> None:
    assert 0 < available_memory() < 2**50
    assert memory.free_memory(torch.device("cpu")) > 0
