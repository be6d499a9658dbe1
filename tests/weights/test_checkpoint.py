"""What training scripts wrap around the weights: taken off, whatever else they keep beside."""

from __future__ import annotations

import argparse
import collections
import datetime
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from effnet.arch import ARCHS
from effnet.net import create
from effnet.weights import convert, load
from effnet.weights.conversion import drop_batch_counters

State = dict[str, Tensor]


@pytest.fixture
def timm_state() -> State:
    """A small network under timm's names."""
    torch.manual_seed(0)
    return convert(drop_batch_counters(create("nano", classes=5).state_dict()), ARCHS["nano"], "effnet", "timm")


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "m.pth")
    return folder / "m.pth"


def prefixed(prefix: str) -> Callable[[State], dict[str, object]]:
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {}}, "args": None},
        lambda state: {"model_state_dict": state},
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        prefixed("model."),
        prefixed("net.backbone."),
        prefixed("encoder."),
        lambda state: {"state_dict": prefixed("module.")(state)},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": state, "state_dict_ema": None, "model_ema": {}},
        lambda state: {"params": state},
    ],
)
def test_wrappers_are_taken_off(wrap: Callable[[State], object], timm_state: State, tmp_path: Path) -> None:
    torch.save(wrap(timm_state), tmp_path / "m.pth")
    model = load(tmp_path / "m.pth")
    assert (model.arch.name, model.classes) == ("nano", 5)
    assert torch.equal(model.stem.conv.weight, timm_state["conv_stem.weight"])


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("plain", ["state_dict", "model"])
def test_an_average_is_preferred(
    average: str, plain: str, timm_state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    averaged = {name: value + 1 for name, value in timm_state.items()}
    torch.save({plain: timm_state, average: averaged}, tmp_path / "m.pth")
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(tmp_path / "m.pth")
    assert torch.equal(model.stem.conv.weight, averaged["conv_stem.weight"])
    assert f"m.pth: using the averaged weights under {average}" in caplog.text


def test_prefixes_in_the_other_order(timm_state: State, tmp_path: Path) -> None:
    """A compiled module around a distributed one."""
    torch.save(prefixed("_orig_mod.module.")(timm_state), tmp_path / "m.pth")
    assert load(tmp_path / "m.pth").arch.name == "nano"


def test_torchs_own_average_is_opened(tmp_path: Path) -> None:
    """torchvision's training scripts save one; it counts its updates in a tensor beside the weights."""
    averaged = torch.optim.swa_utils.AveragedModel(create("nano")).state_dict()
    assert "n_averaged" in averaged
    torch.save({"model_ema": averaged}, tmp_path / "m.pth")
    assert load(tmp_path / "m.pth").arch.name == "nano"


def test_a_checkpoint_of_timms_training_script(timm_state: State, tmp_path: Path) -> None:
    """Its arguments and scores are objects, which are left out."""
    content = {
        "epoch": 3,
        "arch": "tf_efficientnet_b0",
        "state_dict": timm_state,
        "state_dict_ema": prefixed("module.")(timm_state),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "args": argparse.Namespace(lr=0.1, output=tmp_path, mean=None, device=torch.device("cpu")),
        "metric": numpy.float64(77.1),
        "history": collections.defaultdict(list, {"top1": [numpy.float32(1)]}),
        "curve": numpy.arange(3),
        "started": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC).replace(tzinfo=None),
        "amp_scaler": {"scale": 65536.0},
    }
    assert load(saved(content, tmp_path)).arch.name == "nano"


def test_a_checkpoint_of_lightnings(timm_state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hyperparameters are a dictionary of a class that need not be installed."""
    module = types.ModuleType("lightning_fabric.utilities.data")
    AttributeDict = type("AttributeDict", (dict,), {"__module__": module.__name__})
    module.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    with monkeypatch.context() as installed:
        for name in ("lightning_fabric", "lightning_fabric.utilities", module.__name__):
            installed.setitem(sys.modules, name, module)
        content = {
            "pytorch-lightning_version": "2.5.0",
            "epoch": 3,
            "state_dict": prefixed("model.")(timm_state),
            "callbacks": {
                "ModelCheckpoint": {"best_model_path": Path("best.ckpt"), "best_model_score": torch.tensor(1)}
            },
            "hyper_parameters": AttributeDict(lr=0.1, data=Path("data")),
            "lr_schedulers": [{"milestones": collections.Counter([3, 5])}],
        }
        saved(content, tmp_path).rename(tmp_path / "last.ckpt")
    assert load(tmp_path / "last.ckpt").arch.name == "nano"


def test_a_file_that_holds_itself(timm_state: State, tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    with pytest.raises(ValueError, match="no tensors by name"):
        load(saved(content, tmp_path))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_it_is_said(
    kind: torch.dtype, timm_state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved({name: value.to(kind) for name, value in timm_state.items()}, tmp_path)
    with caplog.at_level(logging.WARNING, "effnet"):
        model = load(path)
    assert torch.equal(model.stem.conv.weight, timm_state["conv_stem.weight"].to(kind).float())
    assert f"m.pth: weights are {str(kind).removeprefix('torch.')}; computing in float32" in caplog.text


def test_values_that_are_no_numbers_are_told(
    timm_state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    timm_state["bn1.weight"][3] = torch.nan
    with caplog.at_level(logging.WARNING, "effnet"):
        load(saved(timm_state, tmp_path))
    assert "m.pth: NaN or infinite values in stem.norm.weight: " in caplog.text


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, "text", 7, None, {"state_dict": {"a": "b"}}])
def test_no_tensors_in_it(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth: no tensors by name in it"):
        load(tmp_path / "m.pth")
