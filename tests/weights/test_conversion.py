"""From any layout to any other: tensors by name, and files."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from effnet.arch import ARCHS, tensor_shapes
from effnet.metadata import Numerics
from effnet.net import EfficientNet, create
from effnet.weights import convert, load, save
from effnet.weights.conversion import drop_batch_counters, key_map, layout_shapes
from effnet.weights.detect import detect_layouts
from effnet.weights.key_maps import LAYOUTS

OTHERS = [name for name in LAYOUTS if name != "effnet"]
EXACT = [name for name in LAYOUTS if not LAYOUTS[name].folds_batch_norm]
FOLDED = [name for name in LAYOUTS if LAYOUTS[name].folds_batch_norm]


def drawn(arch: str, classes: int, channels: int = 3) -> dict[str, Tensor]:
    """Random tensors under our names; no two values are alike, as a mistake in the order of axes shows only then."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) + 0.5
        for name, shape in tensor_shapes(ARCHS[arch], classes, channels).items()
    }


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(value, other[name]) for name, value in one.items())


PAIRS = [
    (first, second, arch)
    for first, second in permutations(EXACT, 2)
    for arch in ("b0", "v2_b0", "lite0", "edge_s")
    if LAYOUTS[first].supports(ARCHS[arch]) and LAYOUTS[second].supports(ARCHS[arch])
]


@pytest.mark.parametrize(("first", "second", "arch"), PAIRS)
def test_a_round_trip_through_any_two_layouts_gives_back_the_same_bits(first: str, second: str, arch: str) -> None:
    ours = drawn(arch, classes=7)
    there = convert(convert(ours, ARCHS[arch], "effnet", first), ARCHS[arch], first, second)
    assert {name: tuple(value.shape) for name, value in there.items()} == layout_shapes(second, ARCHS[arch], 7)
    assert equal(convert(there, ARCHS[arch], second, "effnet"), ours)


@pytest.mark.parametrize("layout", FOLDED)
@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_a_folded_layout_is_stable_after_the_first_time(layout: str, eps: float) -> None:
    numerics, arch = Numerics(bn_eps=eps), ARCHS["lite0"]
    once = convert(drawn("lite0", classes=7), arch, "effnet", layout, numerics)
    again = convert(convert(once, arch, layout, "effnet", numerics), arch, "effnet", layout, numerics)
    assert equal(again, once)


@pytest.mark.parametrize("layout", OTHERS)
@pytest.mark.parametrize(("classes", "channels"), [(7, 3), (0, 3), (5, 4)])
def test_any_number_of_classes_and_channels(layout: str, classes: int, channels: int) -> None:
    arch = ARCHS[(LAYOUTS[layout].archs or ("b0",))[0]]
    theirs = convert(drawn(arch.name, classes, channels), arch, "effnet", layout)
    (found,) = detect_layouts(theirs)
    assert (found.layout, found.arch, found.classes, found.channels) == (layout, arch, classes, channels)


@pytest.mark.parametrize("layout", OTHERS)
def test_every_variant_has_names_of_its_own(layout: str) -> None:
    for arch in ARCHS.values():
        if LAYOUTS[layout].supports(arch):
            theirs = key_map(layout, arch)
            assert len(set(theirs.values())) == len(theirs)
            assert set(theirs) <= set(tensor_shapes(arch))


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    """B0 whose every number is random, and whose statistics keep its answers finite."""
    torch.manual_seed(0)
    network = create("b0", classes=7).eval()
    with torch.no_grad():
        for name, value in drop_batch_counters(network.state_dict()).items():
            if ".norm." in name or name.endswith("bias"):
                value.uniform_(0.8, 1.2)
    return network


@pytest.mark.parametrize("layout", OTHERS)
@torch.no_grad()
def test_a_file_of_every_kind_comes_back(layout: str, model: EfficientNet, tmp_path: Path) -> None:
    x = torch.rand(1, 3, 64, 96)
    for suffix in LAYOUTS[layout].suffixes:
        found = load(save(model, tmp_path / f"model{suffix}", layout), numerics=model.numerics)
        assert (found.arch, found.classes) == (model.arch, 7)
        carried = layout == "tflite"  # with the whole contract in its metadata
        assert found.provenance == model.provenance if carried else found.provenance.layout == layout
        if LAYOUTS[layout].folds_batch_norm:
            torch.testing.assert_close(found(x), model(x), rtol=1e-4, atol=1e-4)
        else:
            assert equal(drop_batch_counters(dict(found.state_dict())), drop_batch_counters(dict(model.state_dict())))
