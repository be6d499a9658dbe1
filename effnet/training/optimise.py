"""What moves the weights: an optimiser over groups with their own rates, and the weights' running average."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from effnet.net import EfficientNet
from effnet.training.recipe import Recipe
from effnet.training.rmsprop import RMSProp


def optimiser(model: EfficientNet, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser. Each group has a ``share`` of the learning rate, by how deep its part lies.

    AdamW decays convolutions and the classifier; the others add L2 to the loss of all but batch norm, biases included,
    as the official code does.
    """
    normed = {id(p) for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 if recipe.optimiser == "adamw" else id(parameter) not in normed
        groups.setdefault((share(model, recipe, name), decays), []).append(parameter)
    listed = [
        {"params": parameters, "share": share, "weight_decay": recipe.weight_decay if decays else 0.0}
        for (share, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    match recipe.optimiser:
        case "rmsprop":
            return RMSProp(listed, recipe.peak, recipe.momentum, recipe.square_decay, recipe.epsilon)
        case "sgd":
            return SGD(listed, recipe.peak, recipe.momentum, nesterov=recipe.momentum > 0)
    return AdamW(listed, recipe.peak)


def share(model: EfficientNet, recipe: Recipe, parameter: str) -> float:
    """The part of the learning rate that ``parameter`` gets: less, the further it lies from the classifier."""
    part = parameter.partition(".")[0]
    if part == "classifier":
        return 1.0
    parts = model.parts()
    return float(recipe.backbone_rate * recipe.layer_rate ** (len(parts) - parts.index(part)))


def set_rate(optimiser: Optimizer, rate: float) -> None:
    """Sets the learning rate of every group, each by its share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


class Average:
    """A running average of the weights and of batch norm's statistics, young at first: min(decay, (1+n)/(10+n)).

    n is the number of steps taken, the present one among them. Source: ``tf.train.ExponentialMovingAverage`` with
    ``num_updates``, applied after the step, as in the official code.
    """

    def __init__(self, model: EfficientNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: EfficientNet) -> None:
        """Takes in the present weights of ``model``."""
        self.updates += 1
        decay = young(self.decay, self.updates)
        mine, theirs = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floating], [theirs[name] for name in floating], 1 - decay)


def young(decay: float, steps: int) -> float:
    """The average's decay after ``steps`` steps."""
    return min(decay, (1 + steps) / (10 + steps))
