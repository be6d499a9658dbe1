"""Networks near the family that are refused by name, and timm's tensors by which they are told."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest
import torch

from effnet.arch.outsiders import explain_outside
from effnet.data.torchvision_compat import declare_operators


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    declare_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip("timm")
    return module


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("efficientnet_b0_gn", "this is efficientnet_b0_gn: group norm is outside the family"),
        ("runs/Test-EfficientNet-GN.pth", "this is test_efficientnet_gn: group norm is outside the family"),
        ("efficientnet_blur_b0.untrained", "this is efficientnet_blur_b0: blur pooling is outside the family"),
        ("hf-hub:timm/tf_mixnet_xl.in1k", "this is tf_mixnet_xl: a depthwise convolution of mixed kernels is outside"),
        ("efficientnet_x_b3", "this is efficientnet_x_b3: space-to-depth is outside the family"),
    ],
)
def test_names(name: str, says: str) -> None:
    assert (explain_outside(name) or "").startswith(says)


@pytest.mark.parametrize(
    "name", ["", "efficientnet_b0", "b0_signs", "tf_efficientnet_b0_gnome", "mobilenetv2_100", "x_b3"]
)
def test_names_of_the_family(name: str) -> None:
    assert explain_outside(name) is None


OUTSIDE = (
    "*efficientnet*_gn",
    "*efficientnet*_ln",
    "*evos",
    "*efficientnet_cc*",
    "*mixnet*",
    "efficientnet_[xh]_*",
    "gc_eff*",
)


def test_every_such_network_of_timm_is_told_by_its_tensors(timm: ModuleType) -> None:
    names = timm.list_models(list(OUTSIDE), module="efficientnet")
    assert len(names) > 20
    for name in names:
        assert f"this is {name}: " in (explain_outside(name) or "")
        with torch.device("meta"):
            network = timm.create_model(name, num_classes=7, in_chans=1)
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        said = explain_outside(tensors=shapes)
        assert said is not None
        assert name.removeprefix("tf_") in said
        assert said.endswith("outside the family")


def test_what_is_left_of_timms_efficientnets_is_known(timm: ModuleType) -> None:
    """Every network that timm builds from this class is in the tables or refused by name."""
    from effnet.arch import canonical_name

    for name in timm.list_models(module="efficientnet"):
        try:
            canonical_name(name)
        except ValueError as error:
            assert str(error).startswith(f"this is {name}: "), name  # noqa: PT017


def test_blurred_tensors_tell_nothing(timm: ModuleType) -> None:
    with torch.device("meta"):
        network = timm.create_model("efficientnet_blur_b0")
    assert explain_outside(tensors={key: tuple(value.shape) for key, value in network.state_dict().items()}) is None
