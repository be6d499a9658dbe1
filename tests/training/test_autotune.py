"""What training is expected to cost."""

from __future__ import annotations

import pytest
import torch

from effnet.net import create
from effnet.timing import memory
from effnet.training import autotune
from effnet.training.callbacks import Callback
from effnet.training.distributed import Distributed
from effnet.training.recipes import Recipe

RECIPE = Recipe(name="test", epochs=1, batch_size=32)


class Heard(Callback):
    lines: tuple[str, ...] = ()

    def say(self, text: str) -> None:
        self.lines += (text,)


def test_bytes_are_counted_by_the_picture_and_its_area() -> None:
    model, place = create("nano", 5), Distributed("cpu")
    small, large = (autotune.activation_bytes_per_image(model, RECIPE, side, place) for side in (32, 64))
    assert large / small == pytest.approx(4, rel=0.1)
    model.gradient_checkpointing = True
    assert autotune.activation_bytes_per_image(model, RECIPE, 64, place) < 0.3 * large
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_is_parted_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    model, place, heard = create("nano", 5), Distributed("cpu"), Heard()
    assert autotune.choose_accumulation_steps(model, RECIPE, place, heard) == 1
    assert not heard.lines
    need = 32 * autotune.activation_bytes_per_image(model, RECIPE, 32, place) * autotune.MEMORY_MARGIN
    monkeypatch.setattr(autotune, "available", lambda: int(need / 3.5))
    assert autotune.choose_accumulation_steps(model, RECIPE, place, heard) == 4
    assert heard.lines[0].endswith("it is computed in 4 parts")
    monkeypatch.setattr(autotune, "available", lambda: 0)  # nobody knows
    assert autotune.choose_accumulation_steps(model, RECIPE, place, heard) == 1


def test_free_memory_of_this_machine() -> None:
    assert 0 < memory.available_memory() < 2**50
    assert autotune.free_memory(torch.device("cpu")) > 0


def test_compiling_is_not_tried_on_a_cpu() -> None:
    assert not autotune.compiling_pays_off(create("nano", 5), RECIPE, 100, 10**6, Distributed("cpu"), Callback())
