"""Exponential moving average (EMA) of the weights, with a decay that warms up."""

import copy

import torch

from effnet.net import EfficientNet


class ExponentialMovingAverage:
    """Exponential moving average of the weights and of batch norm's statistics, which is what is evaluated.

    Source: ``tf.train.ExponentialMovingAverage`` with ``num_updates``, applied after the optimizer's step, as in the
    official code. torch's `AveragedModel` can be made to compute the same, but collects the tensors at every step,
    which took four times as long as averaging them (B0 on a CPU), and copies the counter from the GPU.
    """

    def __init__(self, model: EfficientNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0
        self._ema_tensors = _float_tensors(self.model)
        self._source: tuple[EfficientNet, list[torch.Tensor]] | None = None

    @torch.no_grad()
    def update(self, model: EfficientNet) -> None:
        """Average in the current weights of ``model``."""
        self.updates += 1
        decay = ema_decay_at(self.decay, self.updates)
        if self._source is None or self._source[0] is not model:
            self._source = model, _float_tensors(model)
        torch._foreach_lerp_(self._ema_tensors, self._source[1], 1 - decay)

    @property
    def is_finite(self) -> bool:
        """Whether all values are finite; one that is not never recovers."""
        return all(bool(value.isfinite().all()) for value in self._ema_tensors)


def ema_decay_at(decay: float, step: int) -> float:
    """Return the decay of the average at ``step``, counted from 1: at first lower than ``decay``."""
    return min(decay, (1 + step) / (10 + step))


def _float_tensors(model: EfficientNet) -> list[torch.Tensor]:
    return [value for value in model.state_dict().values() if value.is_floating_point()]
