"""The comparison detects what is wrong with a file, and by how much."""

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

IMAGES = [sample_images(Preprocess((32, 32))), sample_images(Preprocess((33, 40)))[:3]]


def exact_runner(
    model: EfficientNet, output: str = "probabilities", shapes: list[tuple[int, ...]] | None = None
) -> FileRunner:
    """The network itself, with pixels as input."""

    @torch.inference_mode()
    def run(images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        assert images.dtype == np.uint8
        if shapes is not None:
            shapes.append(images.shape)
        logits = model(normalize(torch.from_numpy(images), model.preprocess))
        return {output: (logits.softmax(1) if output == "probabilities" else logits).numpy()}

    return run


@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_exact_file(output: str) -> None:
    model, shapes = network(), list[tuple[int, ...]]()
    found = compare_outputs(exact_runner(model, output, shapes), model, IOSpec(output=output), IMAGES)
    assert found.difference < 1e-6
    assert (found.images, found.same_predictions) == (9, 9)
    assert [shape[:3] for shape in shapes] == [(1, 32, 32), (3, 32, 32), (3, 32, 32), (1, 33, 40), (3, 33, 40)]


@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize(("images", "minimum"), [(IMAGES, 1e-3), (IMAGES[1:], 0.0)])
def test_padding_is_detected_at_even_sizes(output: str, images: list[InputImage], minimum: float) -> None:
    model, other = network(classes=1000), network(classes=1000, numerics=SYMMETRIC)
    other.load_state_dict(model.state_dict())
    found = compare_outputs(exact_runner(other, output), model, IOSpec(output=output), images)
    assert found.difference > minimum


def test_unlikely_classes() -> None:
    model, other = network(classes=1000), network(classes=1000)
    with torch.no_grad():
        other.classifier.bias[7] += 0.01  # type: ignore[index, union-attr]
    largest = float(model(normalize(torch.from_numpy(IMAGES[0]), model.preprocess)).detach().abs().max())
    for output in ("probabilities", "logits"):
        found = compare_outputs(exact_runner(other, output), model, IOSpec(output=output), IMAGES[:1])
        assert found.difference == pytest.approx(0.01 / largest, rel=0.02)


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"logits": np.zeros((1, 5), np.float32)},
        {"probabilities": np.zeros((1, 4), np.float32)},
        {"probabilities": np.full((1, 5), np.nan, np.float32)},
        {"probabilities": np.full((1, 5), 0.2, np.float32), "embedding": np.zeros((1, 3), np.float32)},
    ],
)
def test_other_outputs_and_nan(outputs: dict[str, NDArray[np.float32]]) -> None:
    found = compare_outputs(
        lambda images: {name: one.repeat(len(images), 0) for name, one in outputs.items()}, network(), IOSpec(), IMAGES
    )
    assert math.isnan(found.difference)


def test_embedding_only() -> None:
    model = network(classes=0)

    @torch.inference_mode()
    def run(images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {"embedding": model(normalize(torch.from_numpy(images), model.preprocess)).numpy()}

    found = compare_outputs(run, model, IOSpec(embedding=True), IMAGES)
    assert (found.difference, found.same_predictions) == (0, None)


def test_pixels_are_rounded() -> None:
    model = network(numerics=Numerics())
    images = [each.astype(np.float32) + 0.3 for each in IMAGES]
    assert compare_outputs(exact_runner(model), model, IOSpec(), images).difference < 1e-6


@torch.inference_mode()
def test_untrained_network() -> None:
    model = network(classes=1000)
    model.classifier.weight.data.mul_(1e-7)  # type: ignore[union-attr, operator]
    model.classifier.bias.data.zero_()  # type: ignore[union-attr, operator]
    assert compare_outputs(exact_runner(model), model, IOSpec(), IMAGES).difference < 1e-5
