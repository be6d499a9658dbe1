"""Against timm, given the same weights: the small networks always, the whole family in the sweep."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from effnet.metadata import PADDINGS
from tests.parity import twins

SMALL = ("b0", "lite0", "edge_s", "v2_b0", "v2_s")

needs_photos = pytest.mark.skipif(
    not twins.PHOTOS.is_dir(), reason=f"no real pictures in {'/'.join(twins.PHOTOS.parts[-3:])}"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """float64 convolutions are many small ones: threads that wait for each other make them slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def quick_questions() -> dict[str, torch.Tensor]:
    """Even and odd, square and not, with enough samples a channel for batch statistics."""
    return {
        "eval native": twins.random_pictures(1, (48, 48), 1),
        "eval odd": twins.random_pictures(1, (37, 59), 2),
        "train odd": twins.random_pictures(2, (37, 59), 3),
        "gradients": twins.random_pictures(2, (48, 48), 4),
    }


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", SMALL)
def test_outputs_and_gradients_are_timms_in_float64(name: str, padding: str) -> None:
    pictures = twins.random_pictures(4, (64, 64))
    figures = twins.measure(name, padding, pictures, quick_questions(), narrow=False)
    assert set(figures) == {*quick_questions()}
    assert twins.excesses(name, figures) == []
    # In another memory format the sums run in another order: a difference of 0 there too would mean nothing compared.
    assert figures["eval native"][1] > 0


@pytest.mark.parametrize("name", ["b0", "lite0", "edge_s", "v2_b0"])
def test_outputs_are_timms_for_plainly_random_statistics_too(name: str) -> None:
    questions = {key: x for key, x in quick_questions().items() if key.startswith("eval")}
    assert twins.excesses(name, twins.measure(name, "same", None, questions, narrow=False)) == []


@needs_photos
@pytest.mark.parametrize("padding", PADDINGS)
def test_float32_on_real_pictures(padding: str) -> None:
    questions = {"eval native": twins.photos(2, (224, 224))}
    figures = twins.measure("b0", padding, twins.photos(8, (160, 160)), questions, narrow=True)
    assert twins.excesses("b0", figures) == []
    assert 0 < figures["timm's own float32"][0] < twins.FLOAT32


@pytest.mark.parametrize(("ours", "theirs"), [PADDINGS, PADDINGS[::-1]])
def test_the_comparison_sees_the_wrong_padding(ours: str, theirs: str) -> None:
    model, peer = twins.build("b0", ours), twins.build_peer("b0", theirs)
    twins.randomise(model, twins.random_pictures(8, (96, 96)))
    twins.copy_weights(model, peer)
    questions = {"eval even": twins.random_pictures(1, (64, 64))}
    found = [twins.ask(network.double(), questions).logits["eval even"] for network in (model, peer)]
    assert twins.apart(*found) > 1e-3


@pytest.mark.sweep
@needs_photos
@pytest.mark.parametrize(("name", "padding"), list(twins.every()))
def test_the_whole_family(name: str, padding: str) -> None:
    assert twins.excesses(name, twins.sweep(name, padding)) == []
