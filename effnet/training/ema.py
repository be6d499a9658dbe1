"""What moves the weights: an optimiser over groups with their own rates, and the weights' running average."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from effnet.net import EfficientNet


def ema_decay_at(decay: float, steps: int) -> float:
    """The average's decay after ``steps`` steps."""
    return min(decay, (1 + steps) / (10 + steps))


def _float_tensors(model: EfficientNet) -> list[Tensor]:
    """Weights and statistics, which are moved in place: found once, since finding them takes as long as moving them."""
    return [value for value in model.state_dict().values() if value.is_floating_point()]


class ExponentialMovingAverage:
    """A running average of the weights and of batch norm's statistics, young at first: min(decay, (1+n)/(10+n)).

    n is the number of steps taken, the present one among them. Source: ``tf.train.ExponentialMovingAverage`` with
    ``num_updates``, applied after the step, as in the official code.
    """

    def __init__(self, model: EfficientNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0
        self._ema_tensors = _float_tensors(self.model)
        self._source: tuple[EfficientNet, list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, model: EfficientNet) -> None:
        """Takes in the present weights of ``model``."""
        self.updates += 1
        decay = ema_decay_at(self.decay, self.updates)
        if self._source is None or self._source[0] is not model:
            self._source = model, _float_tensors(model)
        torch._foreach_lerp_(self._ema_tensors, self._source[1], 1 - decay)

    @property
    def is_finite(self) -> bool:
        """Whether all of it is finite: what is not never will be again, whatever is taken in."""
        return all(bool(value.isfinite().all()) for value in self._ema_tensors)
