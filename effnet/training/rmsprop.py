"""RMSProp as TensorFlow computes it, which is what the official recipes were tuned with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


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
        square_decay: float = 0.9,
        epsilon: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"momentum": momentum, "square_decay": square_decay, "epsilon": epsilon}
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
