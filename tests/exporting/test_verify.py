"""The comparison sees what is wrong with a file, and by how much."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from effnet.data.image_io import InputImage
from effnet.data.preprocessing import normalize
from effnet.exporting.verify import FileRunner, compare_outputs, sample_images
from effnet.metadata import Numerics, Preprocess
from effnet.net import EfficientNet
from effnet.runtime.io_spec import IOSpec
from tests.exporting.networks import SYMMETRIC, network

PICTURES = [sample_images(Preprocess((32, 32))), sample_images(Preprocess((33, 40)))[:3]]


def faithful(
    model: EfficientNet, output: str = "probabilities", asked: list[tuple[int, ...]] | None = None
) -> FileRunner:
    """The network itself behind the interface "pixels"."""

    @torch.inference_mode()
    def run(pictures: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        assert pictures.dtype == np.uint8
        if asked is not None:
            asked.append(pictures.shape)
        logits = model(normalize(torch.from_numpy(pictures), model.preprocess))
        return {output: (logits.softmax(1) if output == "probabilities" else logits).numpy()}

    return run


@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_a_faithful_file(output: str) -> None:
    model, asked = network(), list[tuple[int, ...]]()
    found = compare_outputs(faithful(model, output, asked), model, IOSpec(output=output), PICTURES)
    assert found.difference < 1e-6
    assert (found.images, found.same_predictions) == (9, 9)
    assert [shape[:3] for shape in asked] == [(1, 32, 32), (3, 32, 32), (3, 32, 32), (1, 33, 40), (3, 33, 40)]


@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize(("pictures", "least"), [(PICTURES, 1e-3), (PICTURES[1:], 0.0)])
def test_other_padding_is_seen_at_even_sizes(output: str, pictures: list[InputImage], least: float) -> None:
    model, other = network(classes=1000), network(classes=1000, numerics=SYMMETRIC)
    other.load_state_dict(model.state_dict())
    found = compare_outputs(faithful(other, output), model, IOSpec(output=output), pictures)
    assert found.difference > least


def test_of_a_thousand_unlikely_classes_the_logits_count() -> None:
    model, other = network(classes=1000), network(classes=1000)
    with torch.no_grad():
        other.classifier.bias[7] += 0.01  # type: ignore[index, union-attr]
    largest = float(model(normalize(torch.from_numpy(PICTURES[0]), model.preprocess)).detach().abs().max())
    for output in ("probabilities", "logits"):
        found = compare_outputs(faithful(other, output), model, IOSpec(output=output), PICTURES[:1])
        assert found.difference == pytest.approx(0.01 / largest, rel=0.02)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"logits": np.zeros((1, 5), np.float32)},
        {"probabilities": np.zeros((1, 4), np.float32)},
        {"probabilities": np.full((1, 5), np.nan, np.float32)},
        {"probabilities": np.full((1, 5), 0.2, np.float32), "embedding": np.zeros((1, 3), np.float32)},
    ],
)
def test_other_outputs_and_no_numbers_are_no_agreement(answer: dict[str, NDArray[np.float32]]) -> None:
    found = compare_outputs(
        lambda pictures: {name: one.repeat(len(pictures), 0) for name, one in answer.items()},
        network(),
        IOSpec(),
        PICTURES,
    )
    assert math.isnan(found.difference)


def test_the_embedding_alone() -> None:
    model = network(classes=0)

    @torch.inference_mode()
    def run(pictures: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {"embedding": model(normalize(torch.from_numpy(pictures), model.preprocess)).numpy()}

    found = compare_outputs(run, model, IOSpec(embedding=True), PICTURES)
    assert (found.difference, found.same_predictions) == (0, None)


def test_tensorflows_resampling_is_rounded_for_pixels() -> None:
    model = network(numerics=Numerics())
    pictures = [each.astype(np.float32) + 0.3 for each in PICTURES]
    assert compare_outputs(faithful(model), model, IOSpec(), pictures).difference < 1e-6


@torch.inference_mode()
def test_the_tiny_logits_of_an_untrained_network() -> None:
    model = network(classes=1000)
    model.classifier.weight.data.mul_(1e-7)  # type: ignore[union-attr, operator]
    model.classifier.bias.data.zero_()  # type: ignore[union-attr, operator]
    assert compare_outputs(faithful(model), model, IOSpec(), PICTURES).difference < 1e-5
