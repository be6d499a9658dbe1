"""What training is expected to cost."""

from __future__ import annotations

import pytest
import torch

from effnet.clock import memory
from effnet.net import create
from effnet.training import trial
from effnet.training.place import Place
from effnet.training.recipe import Recipe
from effnet.training.watch import Watch

RECIPE = Recipe(name="test", epochs=1, batch=32)


class Heard(Watch):
    lines: tuple[str, ...] = ()

    def say(self, text: str) -> None:
        self.lines += (text,)


def test_bytes_are_counted_by_the_picture_and_its_area() -> None:
    model, place = create("nano", 5), Place("cpu")
    small, large = (trial.kept_bytes(model, RECIPE, side, place) for side in (32, 64))
    assert large / small == pytest.approx(4, rel=0.1)
    model.gradient_checkpointing = True
    assert trial.kept_bytes(model, RECIPE, 64, place) < 0.3 * large
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_is_parted_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    model, place, heard = create("nano", 5), Place("cpu"), Heard()
    assert trial.parts_that_fit(model, RECIPE, place, heard) == 1
    assert not heard.lines
    need = 32 * trial.kept_bytes(model, RECIPE, 32, place) * trial.MARGIN
    monkeypatch.setattr(trial, "available", lambda: int(need / 3.5))
    assert trial.parts_that_fit(model, RECIPE, place, heard) == 4
    assert heard.lines[0].endswith("it is computed in 4 parts")
    monkeypatch.setattr(trial, "available", lambda: 0)  # nobody knows
    assert trial.parts_that_fit(model, RECIPE, place, heard) == 1


def test_free_memory_of_this_machine() -> None:
    assert 0 < memory.available() < 2**50
    assert trial.free_memory(torch.device("cpu")) > 0


def test_compiling_is_not_tried_on_a_cpu() -> None:
    assert not trial.compiling_pays(create("nano", 5), RECIPE, 100, 10**6, Place("cpu"), Watch())
