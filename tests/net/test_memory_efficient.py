"""Lean networks: the same answers, gradients and statistics, from about half of the maps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effnet
from effnet.net import EfficientNet
from effnet.net.surgery import freeze
from tests.net.live import LiveBytes


def random_network(name: str) -> EfficientNet:
    torch.manual_seed(0)
    model = effnet.create(name, 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return model.to(torch.float64, memory_format=torch.channels_last)


def trained(model: EfficientNet, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The answers, the gradients and the statistics after a step's two passes."""
    torch.manual_seed(1)
    answers = model(images)
    answers.pow(2).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return answers.detach(), gradients, list(model.buffers())


# Every activation, squeeze-excite, fused blocks, and sizes at which 'same' padding is lopsided
@pytest.mark.parametrize("name", ["nano", "lite0", "b0", "v2_b0", "edge_s"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_same_numbers(name: str, frozen: bool) -> None:
    usual = random_network(name)
    usual.frozen_batch_norm = frozen
    lean = copy.deepcopy(usual)
    lean.memory_efficient = True
    images = torch.randn(3, 3, 65, 64, dtype=torch.float64)
    for found, wanted in zip(trained(lean, images), trained(usual, images), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_frozen_parts_stay_frozen() -> None:
    usual = random_network("b0")
    freeze(usual, "stage3")
    lean = copy.deepcopy(usual)
    lean.memory_efficient = True
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    found, wanted = trained(lean, images), trained(usual, images)
    assert len(found[1]) == len(wanted[1]) < len(list(usual.parameters()))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_half_of_the_maps() -> None:
    def kept(model: EfficientNet) -> int:
        with LiveBytes() as live:
            answers = model(torch.randn(2, 3, 64, 64, dtype=torch.float64))
            now = sum(size for ref, size in live.alive.values() if not ref.expired())
        del answers
        return now

    for name, share in (("lite0", 0.55), ("b0", 0.5)):
        usual = random_network(name)
        lean = copy.deepcopy(usual)
        lean.memory_efficient = True
        assert kept(lean) < share * kept(usual)


def test_maps_are_freed_in_the_backward_pass() -> None:
    model = random_network("lite0")
    model.memory_efficient = True
    loss = model(torch.randn(2, 3, 64, 64, dtype=torch.float64)).sum()
    nodes = [node.recompute for node in walk(loss.grad_fn) if hasattr(node, "recompute")]
    assert len(nodes) == sum(isinstance(module, nn.ReLU6) for module in model.modules())
    loss.backward(retain_graph=True)
    assert all(node._x is None for node in nodes)
    with pytest.raises(RuntimeError, match="memory_efficient = False"):
        loss.backward()


def walk(node: Any) -> Iterator[Any]:
    seen, left = set(), [node]
    while left:
        one = left.pop()
        if one is not None and one not in seen:
            seen.add(one)
            yield one
            left.extend(following for following, _ in one.next_functions)


def test_evaluation_is_as_it_was() -> None:
    model = random_network("b0").eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        usual = model(images)
        model.memory_efficient = True
        assert torch.equal(model(images), usual)


def test_beside_checkpointing_the_numbers_stay() -> None:
    model = random_network("nano")
    usual = trained(copy.deepcopy(model), torch.ones(2, 3, 32, 32, dtype=torch.float64))
    model.memory_efficient = model.gradient_checkpointing = True
    found = trained(model, torch.ones(2, 3, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(found, usual, rtol=1e-9, atol=1e-9)
