"""Random weights for other packages' PyTorch networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.parity import timm_comparison


@torch.no_grad()
def randomize(model: nn.Module, images: Tensor | None = None, seed: int = 0) -> nn.Module:
    """Set random affine parameters and biases, and perturbed statistics of random images; switch to eval mode."""
    torch.manual_seed(seed)
    images = timm_comparison.random_images(8, (96, 96)) if images is None else images
    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for module in model.modules():
        if module in norms:
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
        elif isinstance(getattr(module, "bias", None), nn.Parameter):
            module.bias.normal_(0, 0.1)
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images.float())
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    return model.eval()
