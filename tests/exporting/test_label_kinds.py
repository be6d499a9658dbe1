"""Where any label may be right files end in a sigmoid, of values in nothing: in every format, and back in engines."""

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
from effnet.weights import load
from tests.exporting.networks import network

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("ai_edge_litert")

NAMES = ("cat", "dog", "night", "rain", "snow")
OUTPUTS = {"classification": "probabilities", "multilabel": "probabilities", "regression": "values"}


def of_kind(kind: str) -> EfficientNet:
    """A network whose logits differ by several units."""
    model = network()
    model.labels = Labels(NAMES, kind)
    with torch.no_grad():
        seen = model(normalize(torch.from_numpy(sample_images(model.preprocess)), model.preprocess))
        model.classifier.weight *= 4 / float(seen.abs().max())  # type: ignore[operator]
    return model


def meant(logits: torch.Tensor, kind: str) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = {
            "classification": logits.softmax(1),
            "multilabel": logits.sigmoid(),
            "regression": logits,
        }[kind].numpy()
    return found


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@torch.inference_mode()
def logits(model: EfficientNet, pictures: NDArray[np.uint8]) -> torch.Tensor:
    return model(normalize(torch.from_numpy(pictures), model.preprocess))


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite", ".pt2"])
def test_bare_files_answer_as_their_labels_mean(
    suffix: str, kind: str, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = of_kind(kind)
    done = export(model, tmp_path / f"m{suffix}")
    assert (done.io_spec.output, done.task) == (OUTPUTS[kind], kind)
    assert done.same_predictions == (None if kind == "regression" else 6)
    assert done.difference < 1e-5
    (answer,) = OPEN_RUNNER[done.format](done.path)(pictures).items()
    expected = meant(logits(model, pictures), kind)
    assert answer[0] == OUTPUTS[kind]
    np.testing.assert_allclose(answer[1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
@pytest.mark.parametrize(("suffix", "engine"), [(".onnx", "onnxruntime"), (".onnx", "openvino"), (".tflite", "litert")])
@pytest.mark.parametrize("output", [None, "logits"])
def test_engines_give_logits_whatever_the_file_gives(
    suffix: str, engine: str, output: str | None, kind: str, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = of_kind(kind)
    made = open_exported(export(model, tmp_path / f"m{suffix}", output=output).path, engine, threads=1)
    assert made.metadata.labels == model.labels
    assert made.classes == 5
    np.testing.assert_allclose(made.run(pictures), logits(model, pictures), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_the_cached_file_of_an_engine_serves_every_kind(kind: str, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    model = of_kind(kind)
    for engine in ("onnxruntime", "openvino", "litert", "eager"):
        made = autotune.engine(model, engine, threads=1)
        assert made.metadata.labels.task == kind
        np.testing.assert_allclose(made.run(pictures), logits(model, pictures), rtol=1e-4, atol=1e-4)


def test_an_exported_tflite_is_read_back_as_weights(tmp_path: Path) -> None:
    for kind in ("multilabel", "regression"):
        model = of_kind(kind)
        found = load(export(model, tmp_path / f"{kind}.tflite").path)
        assert found.labels == model.labels
        assert torch.allclose(found.classifier.weight, model.classifier.weight)  # type: ignore[arg-type]


def test_the_exact_probability_is_turned_back() -> None:
    interface, shares = IOSpec(), np.array([[0.5, 1e-6, 0.999, 0, 1]], np.float32)
    found = to_logits(shares, interface, "multilabel")[0]
    np.testing.assert_allclose(found[:3], [0, np.log(1e-6), np.log(999)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[3:], [-24 * np.log(2), 24 * np.log(2)], rtol=1e-6)
    values = np.array([[-3.5, 1e9]], np.float32)
    assert to_logits(values, IOSpec(output="values"), "regression") is values


@pytest.mark.parametrize(
    ("kind", "output"), [("regression", "probabilities"), ("multilabel", "values"), ("classification", "values")]
)
def test_an_output_that_the_labels_do_not_have(kind: str, output: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"this network outputs {OUTPUTS[kind]}, not {output}: use output='{OUTPUTS[kind]}'"
    ):
        export(of_kind(kind), tmp_path / "m.onnx", output=output)
    assert not list(tmp_path.iterdir())


def answering(model: EfficientNet, how: str, output: str) -> FileRunner:
    def run(given: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {output: meant(logits(model, given), how)}

    return run


def test_the_comparison_sees_a_softmax_where_a_sigmoid_belongs() -> None:
    model = of_kind("multilabel")
    seen = [sample_images(model.preprocess)]
    right, wrong = (
        compare_outputs(answering(model, how, "probabilities"), model, IOSpec(), seen)
        for how in ("multilabel", "classification")
    )
    assert right.difference < 1e-5
    assert right.same_predictions == 6
    assert wrong.difference > 0.1
    other = of_kind("multilabel")
    with torch.no_grad():
        other.classifier.bias[2] += 0.05  # type: ignore[index, operator]
    assert compare_outputs(answering(other, "multilabel", "probabilities"), model, IOSpec(), seen).difference > 1e-3
    off = compare_outputs(
        answering(other, "regression", "values"), of_kind("regression"), IOSpec(output="values"), seen
    )
    assert off.difference > 1e-3
    assert off.same_predictions is None


def test_logits_that_a_probability_cannot_tell_are_not_held_against_a_file(tmp_path: Path) -> None:
    model = of_kind("multilabel")
    with torch.no_grad():
        model.classifier.weight *= 15  # type: ignore[operator]
    for suffix in (".onnx", ".xml", ".tflite"):
        assert export(model, tmp_path / f"m{suffix}").same_predictions == 6


def test_a_faster_engine_may_change_so_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    given = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    for kind, said in (
        ("multilabel", "changes .* % of the labels"),
        ("regression", "changes .* % of the variance"),
    ):
        model, off = of_kind(kind), of_kind(kind)
        with torch.no_grad():
            off.classifier.weight *= -1  # type: ignore[operator]
        from effnet.runtime.torch import EagerEngine
        from effnet.tasks import task_of

        expected = task_of(kind).predict(EagerEngine(model, "cpu").run(given))
        held: Any = autotune._open_within_drop
        assert held(lambda model=model: EagerEngine(model, "cpu"), given, expected, 0.5)
        with pytest.raises(ValueError, match=said):
            held(lambda off=off: EagerEngine(off, "cpu"), given, expected, 0.5)
