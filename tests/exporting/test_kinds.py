"""Where any label may be right files end in a sigmoid, of values in nothing: in every format, and back in engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from effnet.contract import Labels
from effnet.data.normalise import normalise
from effnet.engines.filed import as_logits
from effnet.engines.interface import Interface
from effnet.engines.opening import open_file
from effnet.exporting import choose, onnx
from effnet.exporting.check import Run, compare
from effnet.exporting.export import export
from effnet.exporting.pictures import own
from effnet.net import EfficientNet
from effnet.weights import load

from .networks import network

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("ai_edge_litert")

NAMES = ("cat", "dog", "night", "rain", "snow")
OUTPUTS = {"one": "probabilities", "any": "probabilities", "value": "values"}


def of_kind(kind: str) -> EfficientNet:
    """A network whose logits differ by several units."""
    model = network()
    model.labels = Labels(NAMES, kind)
    with torch.no_grad():
        seen = model(normalise(torch.from_numpy(own(model.preprocess)), model.preprocess))
        model.classifier.weight *= 4 / float(seen.abs().max())  # type: ignore[operator]
    return model


def meant(logits: torch.Tensor, kind: str) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = {"one": logits.softmax(1), "any": logits.sigmoid(), "value": logits}[kind].numpy()
    return found


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@torch.inference_mode()
def logits(model: EfficientNet, pictures: NDArray[np.uint8]) -> torch.Tensor:
    return model(normalise(torch.from_numpy(pictures), model.preprocess))


@pytest.mark.parametrize("kind", ["any", "value"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite", ".pt2"])
def test_bare_files_answer_as_their_labels_mean(
    suffix: str, kind: str, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = of_kind(kind)
    done = export(model, tmp_path / f"m{suffix}")
    assert (done.interface.output, done.kind) == (OUTPUTS[kind], kind)
    assert done.same_top1 == (None if kind == "value" else 6)
    assert done.difference < 1e-5
    from effnet.exporting import litert, openvino, torch_export

    opened: Any = {".onnx": onnx, ".xml": openvino, ".tflite": litert, ".pt2": torch_export}[suffix]
    (answer,) = opened.opened(done.path)(pictures).items()
    expected = meant(logits(model, pictures), kind)
    assert answer[0] == OUTPUTS[kind]
    np.testing.assert_allclose(answer[1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["any", "value"])
@pytest.mark.parametrize(("suffix", "engine"), [(".onnx", "onnxruntime"), (".onnx", "openvino"), (".tflite", "litert")])
@pytest.mark.parametrize("output", [None, "logits"])
def test_engines_give_logits_whatever_the_file_gives(
    suffix: str, engine: str, output: str | None, kind: str, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = of_kind(kind)
    made = open_file(export(model, tmp_path / f"m{suffix}", output=output).path, engine, threads=1)
    assert made.contract.labels == model.labels
    assert made.classes == 5
    np.testing.assert_allclose(made.run(pictures), logits(model, pictures), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["any", "value"])
def test_the_cached_file_of_an_engine_serves_every_kind(kind: str, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    model = of_kind(kind)
    for engine in ("onnxruntime", "openvino", "litert", "eager"):
        made = choose.engine(model, engine, threads=1)
        assert made.contract.labels.kind == kind
        np.testing.assert_allclose(made.run(pictures), logits(model, pictures), rtol=1e-4, atol=1e-4)


def test_an_exported_tflite_is_read_back_as_weights(tmp_path: Path) -> None:
    for kind in ("any", "value"):
        model = of_kind(kind)
        found = load(export(model, tmp_path / f"{kind}.tflite").path)
        assert found.labels == model.labels
        assert torch.allclose(found.classifier.weight, model.classifier.weight)  # type: ignore[arg-type]


def test_the_exact_probability_is_turned_back() -> None:
    interface, shares = Interface(), np.array([[0.5, 1e-6, 0.999, 0, 1]], np.float32)
    found = as_logits(shares, interface, "any")[0]
    np.testing.assert_allclose(found[:3], [0, np.log(1e-6), np.log(999)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[3:], [-24 * np.log(2), 24 * np.log(2)], rtol=1e-6)
    values = np.array([[-3.5, 1e9]], np.float32)
    assert as_logits(values, Interface(output="values"), "value") is values


@pytest.mark.parametrize(("kind", "output"), [("value", "probabilities"), ("any", "values"), ("one", "values")])
def test_an_output_that_the_labels_do_not_have(kind: str, output: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"this network gives {OUTPUTS[kind]}, no {output}: ask for {OUTPUTS[kind]}"):
        export(of_kind(kind), tmp_path / "m.onnx", output=output)
    assert not list(tmp_path.iterdir())


def answering(model: EfficientNet, how: str, output: str) -> Run:
    def run(given: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {output: meant(logits(model, given), how)}

    return run


def test_the_comparison_sees_a_softmax_where_a_sigmoid_belongs() -> None:
    model = of_kind("any")
    seen = [own(model.preprocess)]
    right, wrong = (compare(answering(model, how, "probabilities"), model, Interface(), seen) for how in ("any", "one"))
    assert right.difference < 1e-5
    assert right.same_top1 == 6
    assert wrong.difference > 0.1
    other = of_kind("any")
    with torch.no_grad():
        other.classifier.bias[2] += 0.05  # type: ignore[index, operator]
    assert compare(answering(other, "any", "probabilities"), model, Interface(), seen).difference > 1e-3
    off = compare(answering(other, "value", "values"), of_kind("value"), Interface(output="values"), seen)
    assert off.difference > 1e-3
    assert off.same_top1 is None


def test_logits_that_a_probability_cannot_tell_are_not_held_against_a_file(tmp_path: Path) -> None:
    model = of_kind("any")
    with torch.no_grad():
        model.classifier.weight *= 15  # type: ignore[operator]
    for suffix in (".onnx", ".xml", ".tflite"):
        assert export(model, tmp_path / f"m{suffix}").same_top1 == 6


def test_a_faster_engine_may_change_so_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    given = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    for kind, said in (("any", "changes the answer to .* % of the labels"), ("value", "changes the values by .* % of")):
        model, off = of_kind(kind), of_kind(kind)
        with torch.no_grad():
            off.classifier.weight *= -1  # type: ignore[operator]
        from effnet.engines.eager import Eager
        from effnet.exporting.alike import answer

        expected = answer(Eager(model, "cpu").run(given), kind)
        held: Any = choose._held
        assert held(lambda model=model: Eager(model, "cpu"), given, expected, 0.5)
        with pytest.raises(ValueError, match=said):
            held(lambda off=off: Eager(off, "cpu"), given, expected, 0.5)
