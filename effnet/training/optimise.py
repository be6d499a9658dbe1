"""What moves the weights: AdamW over groups, a schedule, and their running average."""

from __future__ import annotations

import copy
from math import cos, pi

import torch
from torch import nn
from torch.optim import AdamW

from effnet.net import EfficientNet
from effnet.training.recipe import Recipe


def optimiser(model: EfficientNet, recipe: Recipe) -> AdamW:
    """AdamW with weight decay on convolutions and the classifier only, and the backbone's own rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("classifier"), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "share": 1.0 if head else recipe.backbone_rate,
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
            for (head, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=recipe.learning_rate,
    )


def schedule(progress: float, epochs: int, warm_up: float) -> float:
    """The share of the learning rate after ``progress`` epochs: a linear rise, then a cosine to zero."""
    warm_up = min(warm_up, epochs / 2)
    if progress < warm_up:
        return progress / warm_up
    return (1 + cos(pi * (progress - warm_up) / (epochs - warm_up))) / 2


def set_rate(optimiser: AdamW, rate: float) -> None:
    """Sets the learning rate of every group, each by its share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


class Average:
    """A running average of the weights and of batch norm's statistics, young at first: min(decay, (1+n)/(10+n)).

    Source: ``tf.train.ExponentialMovingAverage`` with ``num_updates``, as in the official recipe.
    """

    def __init__(self, model: EfficientNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: EfficientNet) -> None:
        """Takes in the present weights of ``model``."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        mine, theirs = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
