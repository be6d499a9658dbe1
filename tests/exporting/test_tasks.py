"""Exported files for multi-label and regression: activations in every format, and logits again in engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from effnet.data.preprocessing import normalize
from effnet.exporting.export import export
from effnet.exporting.verify import OPEN_RUNNER, FileRunner, compare_outputs, sample_images
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.runtime import autotune
from effnet.runtime.base import open_exported
from effnet.runtime.io_spec import IOSpec, to_logits
from effnet.runtime.torch import EagerEngine
from effnet.tasks import task_of
from effnet.weights import load
from tests.exporting.networks import network

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("ai_edge_litert")

NAMES = ("cat", "dog", "night", "rain", "snow")
OUTPUTS = {"classification": "probabilities", "multilabel": "probabilities", "regression": "values"}


def network_for(task: str) -> EfficientNet:
    """A network whose logits differ by several units."""
    model = network()
    model.labels = Labels(NAMES, task)
    with torch.no_grad():
        outputs = model(normalize(torch.from_numpy(sample_images(model.preprocess)), model.preprocess))
        model.classifier.weight *= 4 / float(outputs.abs().max())  # type: ignore[operator]
    return model


def activate(logits: torch.Tensor, task: str) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = {
            "classification": logits.softmax(1),
            "multilabel": logits.sigmoid(),
            "regression": logits,
        }[task].numpy()
    return found


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@torch.inference_mode()
def logits(model: EfficientNet, images: NDArray[np.uint8]) -> torch.Tensor:
    return model(normalize(torch.from_numpy(images), model.preprocess))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite", ".pt2"])
def test_bare_runtimes(suffix: str, task: str, images: NDArray[np.uint8], tmp_path: Path) -> None:
    model = network_for(task)
    exported = export(model, tmp_path / f"m{suffix}")
    assert (exported.io_spec.output, exported.task) == (OUTPUTS[task], task)
    assert exported.same_predictions == (None if task == "regression" else 6)
    assert exported.difference < 1e-5
    outputs = OPEN_RUNNER[exported.format](exported.path)(images)
    assert list(outputs) == [OUTPUTS[task]]
    np.testing.assert_allclose(outputs[OUTPUTS[task]], activate(logits(model, images), task), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize(("suffix", "kind"), [(".onnx", "onnxruntime"), (".onnx", "openvino"), (".tflite", "litert")])
@pytest.mark.parametrize("output", [None, "logits"])
def test_engines_return_logits(
    suffix: str, kind: str, output: str | None, task: str, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = network_for(task)
    engine = open_exported(export(model, tmp_path / f"m{suffix}", output=output).path, kind, threads=1)
    assert engine.metadata.labels == model.labels
    assert engine.classes == 5
    np.testing.assert_allclose(engine.run(images), logits(model, images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_cached_files(task: str, images: NDArray[np.uint8], tmp_path: Path) -> None:
    model = network_for(task)
    for kind in ("onnxruntime", "openvino", "litert", "eager"):
        engine = autotune.engine(model, kind, threads=1)
        assert engine.metadata.labels.task == task
        np.testing.assert_allclose(engine.run(images), logits(model, images), rtol=1e-4, atol=1e-4)


def test_load_exported_tflite(tmp_path: Path) -> None:
    for task in ("multilabel", "regression"):
        model = network_for(task)
        found = load(export(model, tmp_path / f"{task}.tflite").path)
        assert found.labels == model.labels
        assert torch.allclose(found.classifier.weight, model.classifier.weight)  # type: ignore[arg-type]


def test_to_logits() -> None:
    io_spec, probabilities = IOSpec(), np.array([[0.5, 1e-6, 0.999, 0, 1]], np.float32)
    found = to_logits(probabilities, io_spec, "multilabel")[0]
    np.testing.assert_allclose(found[:3], [0, np.log(1e-6), np.log(999)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[3:], [-24 * np.log(2), 24 * np.log(2)], rtol=1e-6)
    values = np.array([[-3.5, 1e9]], np.float32)
    assert to_logits(values, IOSpec(output="values"), "regression") is values


@pytest.mark.parametrize(
    ("task", "output"), [("regression", "probabilities"), ("multilabel", "values"), ("classification", "values")]
)
def test_wrong_output(task: str, output: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"this network outputs {OUTPUTS[task]}, not {output}: use output='{OUTPUTS[task]}'"
    ):
        export(network_for(task), tmp_path / "m.onnx", output=output)
    assert not list(tmp_path.iterdir())


def runner(model: EfficientNet, activation: str, output: str) -> FileRunner:
    def run(pixels: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {output: activate(logits(model, pixels), activation)}

    return run


def test_wrong_activation_is_detected() -> None:
    model = network_for("multilabel")
    images = [sample_images(model.preprocess)]
    right, wrong = (
        compare_outputs(runner(model, activation, "probabilities"), model, IOSpec(), images)
        for activation in ("multilabel", "classification")
    )
    assert right.difference < 1e-5
    assert right.same_predictions == 6
    assert wrong.difference > 0.1
    other = network_for("multilabel")
    with torch.no_grad():
        other.classifier.bias[2] += 0.05  # type: ignore[index, operator]
    assert compare_outputs(runner(other, "multilabel", "probabilities"), model, IOSpec(), images).difference > 1e-3
    values = compare_outputs(
        runner(other, "regression", "values"), network_for("regression"), IOSpec(output="values"), images
    )
    assert values.difference > 1e-3
    assert values.same_predictions is None


def test_large_logits(tmp_path: Path) -> None:
    model = network_for("multilabel")
    with torch.no_grad():
        model.classifier.weight *= 15  # type: ignore[operator]
    for suffix in (".onnx", ".xml", ".tflite"):
        assert export(model, tmp_path / f"m{suffix}").same_predictions == 6


def test_max_drop() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    for task, message in (("multilabel", "changes .* % of the labels"), ("regression", "changes .* % of the variance")):
        model, other = network_for(task), network_for(task)
        with torch.no_grad():
            other.classifier.weight *= -1  # type: ignore[operator]
        expected = task_of(task).predict(EagerEngine(model, "cpu").run(pixels))
        open_within_drop: Any = autotune._open_within_drop
        assert open_within_drop(lambda model=model: EagerEngine(model, "cpu"), pixels, expected, 0.5)
        with pytest.raises(ValueError, match=message):
            open_within_drop(lambda other=other: EagerEngine(other, "cpu"), pixels, expected, 0.5)
