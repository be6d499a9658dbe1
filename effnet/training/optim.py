"""RMSProp as TensorFlow computes it, which is what the official recipes were tuned with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from effnet.net import EfficientNet
from effnet.training.recipes import Recipe


class RMSProp(Optimizer):
    """``tf.compat.v1.train.RMSPropOptimizer``.

        square ← ρ · square + (1 − ρ) · g²                    (it starts at one, not at zero)
        momentum ← μ · momentum + lr · g / √(square + ε)      (ε inside the root, lr inside the momentum)
        weight ← weight − momentum

    torch's own has these three otherwise, which at ε = .001 is another optimiser. ``weight_decay``: L2 in the loss,
    that is, weight_decay · weight is added to g.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.256,
        momentum: float = 0.9,
        alpha: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"momentum": momentum, "square_decay": alpha, "epsilon": eps}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **settings})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step along the gradients; parameters without one stay."""
        assert closure is None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            grads = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight] = {"square": torch.ones_like(weight), "momentum": torch.zeros_like(weight)}
            squares = [self.state[weight]["square"] for weight in weights]
            momenta = [self.state[weight]["momentum"] for weight in weights]
            if group["weight_decay"]:
                grads = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
            torch._foreach_mul_(squares, group["square_decay"])
            torch._foreach_addcmul_(squares, grads, grads, 1 - group["square_decay"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_addcdiv_(momenta, grads, roots, group["lr"])
            torch._foreach_sub_(weights, momenta)


# What moves the weights: an optimiser over groups with their own rates, and the weights' running average.


def make_optimizer(model: EfficientNet, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser. Each group has a ``share`` of the learning rate, by how deep its part lies.

    AdamW decays convolutions and the classifier; the others add L2 to the loss of all but batch norm, biases included,
    as the official code does.
    """
    normed = {id(p) for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 if recipe.optimizer == "adamw" else id(parameter) not in normed
        groups.setdefault((lr_scale(model, recipe, name), decays), []).append(parameter)
    listed = [
        {"params": parameters, "share": share, "weight_decay": recipe.weight_decay if decays else 0.0}
        for (share, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    match recipe.optimizer:
        case "rmsprop":
            return RMSProp(listed, recipe.peak_learning_rate, recipe.momentum, recipe.rmsprop_alpha, recipe.rmsprop_eps)
        case "sgd":
            return SGD(listed, recipe.peak_learning_rate, recipe.momentum, nesterov=recipe.momentum > 0)
    return AdamW(listed, recipe.peak_learning_rate, fused=next(model.parameters()).device.type in ("cpu", "cuda"))


def lr_scale(model: EfficientNet, recipe: Recipe, parameter: str) -> float:
    """The part of the learning rate that ``parameter`` gets: less, the further it lies from the classifier."""
    part = parameter.partition(".")[0]
    if part == "classifier":
        return 1.0
    parts = model.feature_names()
    return float(recipe.backbone_lr_mult * recipe.layer_lr_decay ** (len(parts) - parts.index(part)))
