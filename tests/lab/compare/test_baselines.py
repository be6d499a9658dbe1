"""Every baseline against Table 2 of arXiv:1905.11946 and its own paper, with the reasons for differences."""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import cache

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from effnet.arch import count
from effnet.lab.compare.baselines import BASELINES, MACS_NOTES, PARAMS_NOTES, ModelCost, count_module
from effnet.net import create


def count_operators(model: nn.Module, size: int) -> ModelCost:
    """Count params and MACs by torch's own counter, which sees operators instead of modules."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device="meta"))
    params = sum(value.numel() for name, value in model.state_dict().items() if name.endswith(("weight", "bias")))
    return ModelCost(params, counter.get_total_flops() // 2)  # it counts multiplications and additions


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


def test_count_module_by_hand() -> None:
    params = (3 * 9 * 8 + 8) + 2 * 8 + 2 * 5 * 8 + (8 * 10 + 10)
    macs = 3 * 9 * 8 * 25 + 2 * 5 * 8 * 25 + 8 * 10
    assert count_module(small(), 9) == ModelCost(params, macs)


def test_counting_does_not_change_the_model() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = model[0].weight.requires_grad_(False)
    counted = count_module(model, 9)
    assert counted.params == sum(parameter.numel() for parameter in model.parameters())  # including the frozen ones
    assert model[0].weight is frozen
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["b0", "edge_s", "v2_b0", "nano"])
def test_the_family_costs_what_count_says(name: str) -> None:
    with torch.device("meta"):
        model = create(name).eval()
    for size in (64, 37):
        rows = count(name, size)
        assert count_module(model, size) == ModelCost(rows.params, rows.macs)


def test_resnet50_agrees_with_torchvision() -> None:
    published = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta
    with torch.device("meta"):
        found = count_module(BASELINES["resnet50"].build(), 224)
    assert found == ModelCost(25_557_032, 4_089_184_256)
    assert found.params == published["num_params"]
    assert round(found.macs / 1e9, 3) == published["_ops"]


@pytest.mark.parametrize("key", ["inception_v3", "senet154", "resnet_rs50"])
def test_count_module_agrees_with_torchs_counter(key: str) -> None:
    baseline = BASELINES[key]
    with torch.device("meta"):
        model = baseline.build()
    assert count_module(model, baseline.size) == count_operators(model, baseline.size)


def test_counting_refuses_training_mode_and_empty_images() -> None:
    with pytest.raises(ValueError, match=r"training mode: .* eval\(\)"):
        count_module(small().train(), 9)
    with pytest.raises(ValueError, match="size must be"):
        count_module(small(), 0)


# Table 2: params in millions, "FLOPs" in billions, as printed; and the resolution in each network's own paper
TABLE2 = {
    "resnet50": ("26", "4.1", 224),
    "densenet169": ("14", "3.5", 224),
    "resnet152": ("60", "11", 224),
    "densenet264": ("34", "6.0", 224),
    "inception_v3": ("24", "5.7", 299),
    "xception": ("23", "8.4", 299),
    "inception_v4": ("48", "13", 299),
    "inception_resnet_v2": ("56", "13", 299),
    "resnext101": ("84", "32", 320),
    "polynet": ("92", "35", 331),
    "senet154": ("146", "42", 320),
    "nasnet_a": ("89", "24", 331),
    "amoebanet_a": ("87", "23", 331),
    "pnasnet5": ("86", "23", 331),
    "amoebanet_c": ("155", "41", 331),
    "gpipe": ("557", "", 480),
}


RESNET_RS = {50: 36, 101: 64, 152: 87, 200: 93, 270: 130, 350: 164, 420: 192}  # millions, arXiv:2103.07579


@cache
def build(key: str) -> nn.Module:
    with torch.device("meta"):
        return BASELINES[key].build()


@cache
def counted(key: str) -> ModelCost:
    return count_module(build(key), BASELINES[key].size)


def agrees(found: float, printed: str, within: float) -> bool:
    """Return whether ``found`` rounds to the printed figure, or is within a relative tolerance of it."""
    digits = len(printed.partition(".")[2])
    return abs(found / float(printed) - 1) <= within or f"{found:.{digits}f}" == printed


def test_all_baselines_exist() -> None:
    assert list(BASELINES) == [*TABLE2, *(f"resnet_rs{depth}" for depth in RESNET_RS)]
    assert all(baseline.source.startswith("arXiv:") for baseline in BASELINES.values())
    assert {key for key in TABLE2 if BASELINES[key].size != TABLE2[key][2]} == set()
    assert set(PARAMS_NOTES) | set(MACS_NOTES) <= set(BASELINES)


@pytest.mark.parametrize("key", TABLE2)
def test_costs_agree_with_the_paper_or_have_a_note(key: str) -> None:
    params, macs, _ = TABLE2[key]
    found = counted(key)
    assert agrees(found.params / 1e6, params, 0.01) == (key not in PARAMS_NOTES)
    assert (macs == "" or agrees(found.macs / 1e9, macs, 0.03)) == (key not in MACS_NOTES)


@pytest.mark.parametrize(
    ("key", "params", "macs"),
    [
        ("nasnet_a", 88.9, 23.8),  # arXiv:1707.07012
        ("pnasnet5", 86.1, 25.0),  # arXiv:1712.00559
        ("amoebanet_a", 86.7, 23.1),  # arXiv:1802.01548
        ("inception_resnet_v2", 55.8, 13.2),  # this and the next in Table 2 of arXiv:1802.01548
        ("resnext101", 83.6, 31.5),
        ("amoebanet_c", 155, 41),  # arXiv:1905.11946, as the next
        ("gpipe", 557, None),
    ],
)
def test_costs_agree_with_the_original_papers(key: str, params: float, macs: float | None) -> None:
    found = counted(key)
    assert found.params / 1e6 == pytest.approx(params, rel=0.002)
    assert macs is None or found.macs / 1e9 == pytest.approx(macs, rel=0.004)


@pytest.mark.parametrize("depth", RESNET_RS)
def test_resnet_rs(depth: int) -> None:
    assert round(sum(value.numel() for value in build(f"resnet_rs{depth}").parameters()) / 1e6) == RESNET_RS[depth]


def test_resnet_rs50_agrees_with_its_paper() -> None:
    assert round(2 * counted("resnet_rs50").macs / 1e9, 1) == pytest.approx(4.6, abs=0.1)  # there a MAC is two FLOPs


@pytest.mark.parametrize("key", BASELINES)
def test_baselines_build_on_the_meta_device(key: str) -> None:
    model = build(key)
    assert not model.training
    assert {value.device.type for value in (*model.parameters(), *model.buffers())} == {"meta"}
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert last.out_features == 1000


class TestNotes:
    """The arithmetic in the notes."""

    def test_senet_with_a_classifier_on_every_position(self) -> None:
        one, sixteen = ((positions * 2048 + 1) * 1000 for positions in (1, 16))
        assert round((counted("senet154").params - one + sixteen) / 1e6, 1) == 145.8
        features = torch.empty(1, 2048, 10, 10)  # 320 / 32
        assert nn.functional.avg_pool2d(features, 7, 1).numel() == 16 * 2048
        assert "115.09 + 30.72 = 145.81 M" in PARAMS_NOTES["senet154"]

    def test_resnet152_with_the_stride_of_its_paper(self) -> None:
        model = deepcopy(build("resnet152"))
        for module in model.modules():
            if getattr(getattr(module, "conv2", None), "stride", None) == (2, 2):
                module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)
        assert round(count_module(model, 224).macs / 1e9, 2) == 11.28
        assert "11.28 G" in MACS_NOTES["resnet152"]

    def test_densenet264_with_running_statistics(self) -> None:
        running = sum(value.numel() for name, value in build("densenet264").named_buffers() if "running" in name)
        assert round((counted("densenet264").params + running) / 1e6, 2) == 33.74
        assert "33.74 M" in PARAMS_NOTES["densenet264"]

    def test_inception_v4_with_and_without_its_classifiers(self) -> None:
        params = counted("inception_v4").params
        auxiliary = 1024 * 128 + 128 * 768 * 5 * 5 + 2 * (128 + 768) + 768 * 1000 + 1000
        assert round((params + auxiliary) / 1e6, 1) == 46.0
        assert round((params - 1536 * 1000 - 1000) / 1e6, 2) == 41.14

    def test_both_densenets_deviate_equally(self) -> None:
        off = [float(TABLE2[key][1]) / (counted(key).macs / 1e9) for key in ("densenet169", "densenet264")]
        assert off[0] == pytest.approx(off[1], abs=0.002)

    def test_the_counts_in_the_notes(self) -> None:
        assert f"{counted('polynet').macs / 1e9:.2f} G" in PARAMS_NOTES["polynet"]
        assert f"{counted('polynet').params / 1e6:.1f} M" in PARAMS_NOTES["polynet"]
        assert f"{counted('inception_resnet_v2').macs / 1e9:.2f} G" in MACS_NOTES["inception_v4"]
        for key in ("densenet169", "densenet264", "inception_v4"):
            assert f"{counted(key).macs / 1e9:.2f} G" in MACS_NOTES[key]


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'^the baseline resnet50 requires timm: pip install "effnet\[peers\]"$'):
        BASELINES["resnet50"].build()
    with torch.device("meta"):
        assert isinstance(BASELINES["amoebanet_a"].build(), nn.Module)
