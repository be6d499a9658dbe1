"""Comparison with timm, given the same weights: small networks always, the whole family in the sweep."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from effnet.arch import ARCHS
from effnet.metadata import PADDINGS
from effnet.weights import defaults
from tests.parity import timm_comparison

SMALL = ("b0", "lite0", "edge_s", "v2_b0", "v2_s")
# One of every table of rows that relatives have
SMALL_RELATIVES = ("v2_rw_t", "v2_rw_s", "tinynet_e", "mobilenetv2_035", "mobilenetv2_110d", "mnasnet_050")
SMALL_RELATIVES += ("semnasnet_075", "mnasnet_small", "b1_pruned", "test_efficientnet")

needs_photos = pytest.mark.skipif(
    not timm_comparison.PHOTOS.is_dir(), reason=f"no photos in {'/'.join(timm_comparison.PHOTOS.parts[-3:])}"
)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Small float64 convolutions are slower with several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_inputs() -> dict[str, torch.Tensor]:
    """Return even and odd, square and oblong images, large enough for batch statistics."""
    return {
        "eval native": timm_comparison.random_images(1, (48, 48), 1),
        "eval odd": timm_comparison.random_images(1, (37, 59), 2),
        "train odd": timm_comparison.random_images(2, (37, 59), 3),
        "gradients": timm_comparison.random_images(2, (48, 48), 4),
    }


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", SMALL)
def test_outputs_and_gradients_in_float64(name: str, padding: str) -> None:
    images = timm_comparison.random_images(4, (64, 64))
    differences = timm_comparison.compare(name, padding, images, small_inputs(), float32=False)
    assert set(differences) == set(small_inputs())
    assert timm_comparison.exceeded_limits(name, differences) == []
    # channels_last adds up in another order: a difference of 0 would mean that nothing was compared
    assert differences["eval native"][1] > 0


@pytest.mark.parametrize("name", ["b0", "lite0", "edge_s", "v2_b0"])
def test_outputs_with_random_statistics(name: str) -> None:
    inputs = {key: x for key, x in small_inputs().items() if key.startswith("eval")}
    assert (
        timm_comparison.exceeded_limits(name, timm_comparison.compare(name, "same", None, inputs, float32=False)) == []
    )


@pytest.mark.parametrize("name", SMALL_RELATIVES)
def test_relatives_in_float64(name: str) -> None:
    images = timm_comparison.random_images(4, (64, 64))
    padding = defaults.timm_numerics(ARCHS[name]).padding
    differences = timm_comparison.compare(name, padding, images, small_inputs(), float32=False)
    assert timm_comparison.exceeded_limits(name, differences) == []


@needs_photos
@pytest.mark.parametrize("padding", PADDINGS)
def test_float32_on_photos(padding: str) -> None:
    inputs = {"eval native": timm_comparison.load_photos(2, (224, 224))}
    differences = timm_comparison.compare(
        "b0", padding, timm_comparison.load_photos(8, (160, 160)), inputs, float32=True
    )
    assert timm_comparison.exceeded_limits("b0", differences) == []
    assert 0 < differences["timm's own float32"][0] < timm_comparison.FLOAT32_LIMIT


@pytest.mark.parametrize(("ours", "theirs"), [PADDINGS, PADDINGS[::-1]])
def test_wrong_padding_is_detected(ours: str, theirs: str) -> None:
    model, timm_model = timm_comparison.build("b0", ours), timm_comparison.build_timm("b0", theirs)
    timm_comparison.randomize(model, timm_comparison.random_images(8, (96, 96)))
    timm_comparison.copy_weights(model, timm_model)
    inputs = {"eval even": timm_comparison.random_images(1, (64, 64))}
    logits = [
        timm_comparison.compute_outputs(network.double(), inputs).logits["eval even"] for network in (model, timm_model)
    ]
    assert timm_comparison.relative_difference(*logits) > 1e-3


@pytest.mark.sweep
@needs_photos
@pytest.mark.parametrize(("name", "padding"), list(timm_comparison.all_cases()))
def test_family(name: str, padding: str) -> None:
    assert timm_comparison.exceeded_limits(name, timm_comparison.compare_variant(name, padding)) == []
