"""Random weights for networks of torch that are not ours."""

from __future__ import annotations

import torch
from torch import nn

from tests.parity import twins


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random affine parameters and biases; statistics measured on pictures, then perturbed; in evaluation mode."""
    torch.manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
        elif isinstance(getattr(module, "bias", None), nn.Parameter):
            module.bias.normal_(0, 0.1)
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(twins.random_pictures(8, (96, 96)).float())
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    return model.eval()
