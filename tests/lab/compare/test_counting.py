from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from effnet.arch import count
from effnet.lab.compare.baselines import BASELINES
from effnet.lab.compare.counting import ModelCost, count_module
from effnet.net import create


def by_operators(model: nn.Module, size: int) -> ModelCost:
    """Params and MACs another way: by torch's own counter, which sees operators and no modules."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device="meta"))
    params = sum(value.numel() for name, value in model.state_dict().items() if name.endswith(("weight", "bias")))
    return ModelCost(params, counter.get_total_flops() // 2)  # it counts the multiplication and the addition


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 9 -> 5
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=4, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()


def test_by_hand() -> None:
    params = (3 * 9 * 8 + 8) + 2 * 8 + 2 * 5 * 8 + (8 * 10 + 10)
    macs = 3 * 9 * 8 * 25 + 2 * 5 * 8 * 25 + 8 * 10
    assert count_module(small(), 9) == ModelCost(params, macs)


def test_the_model_stays_as_it_is() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = model[0].weight.requires_grad_(False)
    counted = count_module(model, 9)
    assert counted.params == sum(parameter.numel() for parameter in model.parameters())  # the frozen ones too
    assert model[0].weight is frozen
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["b0", "edge_s", "v2_b0", "nano"])
def test_the_family_costs_what_its_rows_say(name: str) -> None:
    with torch.device("meta"):
        model = create(name).eval()
    for size in (64, 37):
        rows = count(name, size)
        assert count_module(model, size) == ModelCost(rows.params, rows.macs)


def test_resnet50_is_what_torchvision_says() -> None:
    published = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta
    with torch.device("meta"):
        found = count_module(BASELINES["resnet50"].build(), 224)
    assert found == ModelCost(25_557_032, 4_089_184_256)
    assert found.params == published["num_params"]
    assert round(found.macs / 1e9, 3) == published["_ops"]


@pytest.mark.parametrize("key", ["inception_v3", "senet154", "resnet_rs50"])
def test_another_way_of_counting_agrees(key: str) -> None:
    rival = BASELINES[key]
    with torch.device("meta"):
        model = rival.build()
    assert count_module(model, rival.size) == by_operators(model, rival.size)


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match=r"training mode .* eval\(\)"):
        count_module(small().train(), 9)
    with pytest.raises(ValueError, match="size must be"):
        count_module(small(), 0)
