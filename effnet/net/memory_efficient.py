"""Training in less memory: what a convolution, batch norm and an activation keep for the backward pass, halved.

Batch norm wants the convolution's map for its gradients; the next convolution wants the activated one, and SiLU a third
in between. The latter are the first, normalised and activated: two cheap passes. Here the first alone is kept, and the
others are made again when the backward pass comes by: the same numbers, about half of the memory.
(The idea of In-Place Activated BatchNorm, arXiv:1712.02616, turned round: nothing has to be inverted.)

An activated map carries how it is made again, as its attribute ``again``; whoever would keep the map asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Recompute = Callable[[], Tensor]


def recompute_of(x: Tensor) -> Recompute | None:
    """How ``x`` is made again, where it need not be kept; None where it must be."""
    found: Recompute | None = getattr(x, "again", None)
    return found


def with_recomputed_input(make: Callable[[], Tensor], x: Tensor, recompute: Recompute) -> Tensor:
    """What ``make`` computes from ``x``; for its backward pass, ``how`` gives ``x`` again, which is not kept."""
    place = x.data_ptr()  # not ``x`` itself: the hooks live as long as the graph

    def pack(kept: Tensor) -> Tensor | None:
        return None if kept.data_ptr() == place else kept

    def unpack(kept: Tensor | None) -> Tensor:
        return recompute() if kept is None else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return make()


def can_recompute(norm: nn.Module, activation: nn.Module, x: Tensor) -> bool:
    """Whether `activated` may stand for ``activation(norm(x))``."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.momentum is not None
        and isinstance(activation, (nn.SiLU, nn.ReLU, nn.ReLU6))
        and x.requires_grad
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def norm_activation(x: Tensor, norm: nn.BatchNorm2d, activation: nn.Module) -> Tensor:
    """``activation(norm(x))``, (N, C, H, W), of which nothing but ``x`` is kept; it can be differentiated once."""
    made = _RecomputedActivation(x.detach(), norm, activation)
    out: Tensor = _NormActivationFunction.apply(x, norm.weight, norm.bias, made)  # type: ignore[no-untyped-call]
    out.again = made  # type: ignore[attr-defined]
    return out


class _RecomputedActivation:
    """A map that is made again: the convolution's ``x`` normalised, and activated."""

    def __init__(self, x: Tensor, norm: nn.BatchNorm2d, activation: nn.Module) -> None:
        self.norm, self.activation = norm, activation
        self._x: Tensor | None = x
        self.uses_batch_stats = norm.training
        self.mean = self.inverse = x.new_empty(0)  # of the batch: (C,), and 1 / √(variance + ε)
        self._normalized: Tensor | None = None

    @property
    def x(self) -> Tensor:
        """The map of the convolution; gone once its gradients are known: ``RuntimeError`` where it is wanted again."""
        if self._x is None:
            raise RuntimeError("a lean network goes back through its maps once: set its lean = False to do it again")
        return self._x

    def forward(self) -> Tensor:
        """The activated map, the first time: the batch is measured, where batch norm is in training."""
        norm, x = self.norm, self.x
        if self.uses_batch_stats and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        momentum = norm.momentum
        assert momentum is not None
        normalised, self.mean, self.inverse = torch.native_batch_norm(
            x, norm.weight, norm.bias, norm.running_mean, norm.running_var, self.uses_batch_stats, momentum, norm.eps
        )
        return self._activate(normalised)

    def __call__(self) -> Tensor:
        """The activated map, once more."""
        normalised = self.normalized()
        if isinstance(self.activation, nn.SiLU):  # its gradient wants the map before it
            return F.silu(normalised)
        return self._activate(normalised)  # that of a clamp is content with the one after it

    def normalized(self) -> Tensor:
        """The normalised map, which `gradients` will want next; or the activated one, where that does as well."""
        if self._normalized is None:
            norm = self.norm
            mean, variance = norm.running_mean, norm.running_var
            if self.uses_batch_stats:
                mean, variance = self.mean, self.inverse.pow(-2) - norm.eps
            self._normalized = F.batch_norm(self.x, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
        return self._normalized

    def backward(self, of_output: Tensor, wanted: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        """Of ``x``, batch norm's weight and its bias, as far as ``wanted``."""
        norm, x, normalised = self.norm, self.x, self.normalized()
        self._normalized = self._x = None  # the graph holds on to this object to its own end
        if isinstance(self.activation, nn.SiLU):
            of_output = torch.ops.aten.silu_backward(of_output, normalised)
        elif isinstance(self.activation, nn.ReLU6):
            of_output = torch.ops.aten.hardtanh_backward(of_output, normalised, 0.0, 6.0)
        else:
            of_output = torch.ops.aten.threshold_backward(of_output, normalised, 0.0)
        del normalised
        found: tuple[Tensor | None, ...] = torch.ops.aten.native_batch_norm_backward(
            of_output,
            x,
            norm.weight,
            norm.running_mean,
            norm.running_var,
            self.mean,
            self.inverse,
            self.uses_batch_stats,
            norm.eps,
            wanted,
        )
        return found

    def _activate(self, normalised: Tensor) -> Tensor:
        if isinstance(self.activation, nn.SiLU):
            return F.silu(normalised, inplace=True)
        if isinstance(self.activation, nn.ReLU6):
            return normalised.clamp_(0.0, 6.0)
        return normalised.relu_()


class _NormActivationFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, made: _RecomputedActivation) -> Tensor:
        ctx.made = made
        ctx.save_for_backward(x)  # held by ``made`` as well; here is where those look who count what is kept
        return made.forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.made.gradients(of_output, ctx.needs_input_grad[:3]), None)
