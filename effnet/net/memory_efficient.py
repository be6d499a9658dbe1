"""Memory-efficient batch norm + activation: half of the maps that a convolution block keeps for the backward pass.

Batch norm needs the convolution's output for its gradients, the next convolution the activated map, and SiLU a third
one in between. The latter two are the first, normalized and activated: two cheap passes. Here only the first is kept,
and the others are recomputed in the backward pass: the same gradients in about half of the memory.
(The idea of In-Place Activated BatchNorm, arXiv:1712.02616, reversed: nothing has to be inverted.)

An activated map carries a function that recomputes it as its attribute ``recompute``; an operation that would keep the
map for its backward pass uses it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Recompute = Callable[[], Tensor]


def recompute_of(x: Tensor) -> Recompute | None:
    """Return the function that recomputes ``x``, or None if ``x`` must be kept."""
    recompute: Recompute | None = getattr(x, "recompute", None)
    return recompute


def with_recomputed_input(make: Callable[[], Tensor], x: Tensor, recompute: Recompute) -> Tensor:
    """Return ``make()``, which reads ``x``; its backward pass recomputes ``x`` instead of keeping it."""
    address = x.data_ptr()  # not ``x`` itself: the hooks live as long as the graph

    def pack(saved: Tensor) -> Tensor | None:
        return None if saved.data_ptr() == address else saved

    def unpack(saved: Tensor | None) -> Tensor:
        return recompute() if saved is None else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return make()


def can_recompute(norm: nn.Module, activation: nn.Module, x: Tensor) -> bool:
    """Whether `norm_activation` can replace ``activation(norm(x))``."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.momentum is not None
        and isinstance(activation, (nn.SiLU, nn.ReLU, nn.ReLU6))
        and x.requires_grad
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def norm_activation(x: Tensor, norm: nn.BatchNorm2d, activation: nn.Module) -> Tensor:
    """Return ``activation(norm(x))``, (N, C, H, W), keeping only ``x``; it can be differentiated once."""
    recompute = _RecomputedActivation(x.detach(), norm, activation)
    out: Tensor = _NormActivationFunction.apply(x, norm.weight, norm.bias, recompute)  # type: ignore[no-untyped-call]
    out.recompute = recompute  # type: ignore[attr-defined]
    return out


class _RecomputedActivation:
    """Computes, recomputes and differentiates the normalized, activated output ``x`` of a convolution."""

    def __init__(self, x: Tensor, norm: nn.BatchNorm2d, activation: nn.Module) -> None:
        self.norm, self.activation = norm, activation
        self._x: Tensor | None = x
        self.uses_batch_stats = norm.training
        self.mean = self.inverse_std = x.new_empty(0)  # of the batch: (C,), and 1 / √(variance + ε)
        self._normalized: Tensor | None = None

    @property
    def x(self) -> Tensor:
        """The convolution's output; a ``RuntimeError`` after its gradients have been computed."""
        if self._x is None:
            raise RuntimeError(
                "a memory-efficient network supports one backward pass per forward pass: "
                "set model.memory_efficient = False for several"
            )
        return self._x

    def forward(self) -> Tensor:
        """Compute the activated map for the first time, updating batch norm's statistics in training mode."""
        norm, x = self.norm, self.x
        if self.uses_batch_stats and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        momentum = norm.momentum
        assert momentum is not None
        normalized, self.mean, self.inverse_std = torch.native_batch_norm(
            x, norm.weight, norm.bias, norm.running_mean, norm.running_var, self.uses_batch_stats, momentum, norm.eps
        )
        return self._activate(normalized)

    def __call__(self) -> Tensor:
        """Recompute the activated map."""
        normalized = self.normalized()
        if isinstance(self.activation, nn.SiLU):  # its gradient needs the map before it
            return F.silu(normalized)
        return self._activate(normalized)  # a clamp's gradient can use the map after it

    def normalized(self) -> Tensor:
        """The normalized map, which `backward` needs next; or the activated one, if that serves as well."""
        if self._normalized is None:
            norm = self.norm
            mean, variance = norm.running_mean, norm.running_var
            if self.uses_batch_stats:
                mean, variance = self.mean, self.inverse_std.pow(-2) - norm.eps
            self._normalized = F.batch_norm(self.x, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
        return self._normalized

    def backward(self, grad_output: Tensor, needs_grad: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``x``, batch norm's weight and its bias, if needed."""
        norm, x, normalized = self.norm, self.x, self.normalized()
        self._normalized = self._x = None  # the graph keeps this object until it is freed
        if isinstance(self.activation, nn.SiLU):
            grad_output = torch.ops.aten.silu_backward(grad_output, normalized)
        elif isinstance(self.activation, nn.ReLU6):
            grad_output = torch.ops.aten.hardtanh_backward(grad_output, normalized, 0.0, 6.0)
        else:
            grad_output = torch.ops.aten.threshold_backward(grad_output, normalized, 0.0)
        del normalized
        running, batch = (norm.running_mean, norm.running_var), (self.mean, self.inverse_std)
        gradients: tuple[Tensor | None, ...] = torch.ops.aten.native_batch_norm_backward(
            grad_output, x, norm.weight, *running, *batch, self.uses_batch_stats, norm.eps, needs_grad
        )
        return gradients

    def _activate(self, normalized: Tensor) -> Tensor:
        if isinstance(self.activation, nn.SiLU):
            return F.silu(normalized, inplace=True)
        if isinstance(self.activation, nn.ReLU6):
            return normalized.clamp_(0.0, 6.0)
        return normalized.relu_()


class _NormActivationFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, recompute: _RecomputedActivation) -> Tensor:
        ctx.recompute = recompute
        ctx.save_for_backward(x)  # kept by ``recompute`` too; here tools that inspect saved tensors find it
        return recompute.forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.recompute.backward(grad_output, ctx.needs_input_grad[:3]), None)
