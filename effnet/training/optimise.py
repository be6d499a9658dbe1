"""What moves the weights: an optimiser over groups with their own rates, and the weights' running average."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
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
    return AdamW(listed, recipe.peak, fused=next(model.parameters()).device.type in ("cpu", "cuda"))


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
        self._mine = _floating(self.model)
        self._theirs: tuple[EfficientNet, list[Tensor]] | None = None

    @torch.no_grad()
    def update(self, model: EfficientNet) -> None:
        """Takes in the present weights of ``model``."""
        self.updates += 1
        decay = young(self.decay, self.updates)
        if self._theirs is None or self._theirs[0] is not model:
            self._theirs = model, _floating(model)
        torch._foreach_lerp_(self._mine, self._theirs[1], 1 - decay)

    @property
    def sound(self) -> bool:
        """Whether all of it is finite: what is not never will be again, whatever is taken in."""
        return all(bool(value.isfinite().all()) for value in self._mine)


def _floating(model: EfficientNet) -> list[Tensor]:
    """Weights and statistics, which are moved in place: found once, since finding them takes as long as moving them."""
    return [value for value in model.state_dict().values() if value.is_floating_point()]


def young(decay: float, steps: int) -> float:
    """The average's decay after ``steps`` steps."""
    return min(decay, (1 + steps) / (10 + steps))
