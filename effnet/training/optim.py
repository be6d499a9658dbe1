"""Optimizers and their parameter groups."""

from typing import Any

import torch

from effnet.net import EfficientNet
from effnet.training.recipes import Recipe


def make_optimizer(model: EfficientNet, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer, with one parameter group per learning rate multiplier (``lr_scale``).

    AdamW decays convolutions and the classifier; the others add L2 to the loss of everything but batch norm, biases
    included, as the official code does.
    """
    normed = {
        id(p) for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d) for p in module.parameters()
    }
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 if recipe.optimizer == "adamw" else id(parameter) not in normed
        groups.setdefault((lr_scale(model, recipe, name), decays), []).append(parameter)
    param_groups = [
        {"params": parameters, "lr_scale": scale, "weight_decay": recipe.weight_decay if decays else 0.0}
        for (scale, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    peak = recipe.peak_learning_rate
    match recipe.optimizer:
        case "rmsprop":
            return RMSProp(param_groups, peak, recipe.momentum, recipe.rmsprop_alpha, recipe.rmsprop_eps)
        case "sgd":
            return torch.optim.SGD(param_groups, peak, recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(param_groups, peak, fused=next(model.parameters()).device.type in ("cpu", "cuda"))


def lr_scale(model: EfficientNet, recipe: Recipe, parameter: str) -> float:
    """Return the learning rate multiplier of ``parameter``: smaller, the further it is from the classifier."""
    stage = parameter.partition(".")[0]
    if stage == "classifier":
        return 1.0
    stages = model.feature_names()
    return float(recipe.backbone_lr_mult * recipe.layer_lr_decay ** (len(stages) - stages.index(stage)))


class RMSProp(torch.optim.Optimizer):
    """RMSProp as in TensorFlow, by which the official recipes were tuned: ``tf.compat.v1.train.RMSPropOptimizer``.

        square ← α · square + (1 − α) · g²                    (starts at one, not at zero)
        momentum ← μ · momentum + lr · g / √(square + ε)      (ε inside the root, lr inside the momentum)
        weight ← weight − momentum

    torch's own differs in these three, which makes it another optimizer at ε = 0.001. ``weight_decay`` is L2 in the
    loss: weight_decay · weight is added to g.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.256,
        momentum: float = 0.9,
        alpha: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"momentum": momentum, "alpha": alpha, "eps": eps}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **settings})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step; parameters without a gradient stay."""
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
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, grads, grads, 1 - group["alpha"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_addcdiv_(momenta, grads, roots, group["lr"])
            torch._foreach_sub_(weights, momenta)
