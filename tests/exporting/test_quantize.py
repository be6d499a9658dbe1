"""Quantization: the files, calibration, sensitivity, max_drop, invalid arguments."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet import ARCHS
from effnet.data.preprocessing import normalize
from effnet.exporting.calibration import QuantizationRange, calibrate, equalize, measure_channel_scales, traced_forward
from effnet.exporting.quantize import find_float_layers, measure_sensitivity, quantize, sample_by_class
from effnet.exporting.sensitivity import format_sensitivities
from effnet.metadata import Labels, Preprocess
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.base import open_exported
from effnet.runtime.io_spec import IOSpec

FORMATS = (".onnx", ".xml", ".tflite")
CLASSES = ("ant", "bee", "cat")


def network(activation: str, squeeze: float, padding: str = "same") -> EfficientNet:
    """A small network with different predictions for different images."""
    torch.manual_seed(0)
    stages = tuple(replace(stage, squeeze=squeeze) for stage in ARCHS["nano"].stages)
    arch = replace(ARCHS["nano"], stages=stages, activation=activation)
    model = EfficientNet(arch, 3, preprocess=Preprocess((32, 32), crop_fraction=1.0), labels=Labels(CLASSES)).eval()
    model.numerics = replace(model.numerics, padding=padding)
    model = EfficientNet(arch, 3, numerics=model.numerics, preprocess=model.preprocess, labels=model.labels).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a cumulative mean
            torch.nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():  # statistics of real feature maps, so that predictions differ
        blobs = torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=(32, 32), mode="bicubic")
        model.train()(blobs)
        model.classifier.weight *= 5  # type: ignore[operator]
    return model.eval()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of six images: colored blobs with noise."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for index in range(6):
            blobs = Image.fromarray(random.integers(0, 256, (3, 4, 3), np.uint8)).resize((40, 36))
            noise = np.clip(np.asarray(blobs) + random.normal(0, 20, (36, 40, 3)), 0, 255)
            Image.fromarray(noise.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


def stack(images: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file).resize((32, 32))) for file in sorted(images.rglob("*.png"))])


def float_logits(model: EfficientNet, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(normalize(torch.from_numpy(pixels), model.preprocess)).numpy()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("activation", "squeeze"), [("relu6", 0.0), ("silu", 0.25)])
def test_agrees_with_float(suffix: str, activation: str, squeeze: float, images: Path, tmp_path: Path) -> None:
    model = network(activation, squeeze)
    path = tmp_path / f"net{suffix}"
    found = quantize(model, path, images, IOSpec(output="logits", size=(32, 32)), threads=1)
    engine = open_exported(path, threads=1)
    pixels = stack(images)
    got, expected = engine.run(pixels), float_logits(model, pixels)
    assert engine.precision == "int8"
    assert engine.metadata.to_json() == model.metadata.to_json()
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.98
    assert (got.argmax(1) == expected.argmax(1)).mean() > 0.8
    assert found.metric == "top-1"
    assert found.images == 18
    assert found.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert all("squeeze_excite" in name for name in found.float_layers)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        {"net.xml": ["net.xml", "net.bin"]}.get(path.name, [path.name])
    )


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_inputs_and_padding(suffix: str, padding: str, images: Path, tmp_path: Path) -> None:
    model = network("relu6", 0.0, padding)
    pixels = stack(images)
    for input_kind in ("floats", "normalized"):
        path = tmp_path / f"{input_kind}{suffix}"
        io_spec = IOSpec(input_kind, "probabilities", embedding=True, size=(32, 32))
        quantize(model, path, images, io_spec, threads=1)
        engine = open_exported(path, threads=1)
        assert np.corrcoef(engine.run(pixels).ravel(), float_logits(model, pixels).ravel())[0, 1] > 0.9
        with torch.inference_mode():
            expected = model.embed(normalize(torch.from_numpy(pixels), model.preprocess)).numpy()
        assert np.corrcoef(engine.embed(pixels).ravel(), expected.ravel())[0, 1] > 0.95


def test_onnx_at_any_size(images: Path, tmp_path: Path) -> None:
    model, path = network("relu6", 0.0), tmp_path / "any.onnx"
    quantize(model, path, images, IOSpec("floats", "logits", size=None), threads=1)
    larger = np.stack([np.asarray(Image.fromarray(one).resize((51, 44))) for one in stack(images)])
    got = open_exported(path, threads=1).run(larger.astype(np.float32))
    assert np.corrcoef(got.ravel(), float_logits(model, larger).ravel())[0, 1] > 0.95


def test_keep_float_in_onnx(images: Path, tmp_path: Path) -> None:
    import onnx

    model, path = network("silu", 0.25), tmp_path / "net.onnx"
    keep_float = ("stem", "stage2.0.project", "classifier")
    found = quantize(model, path, images, keep_float=keep_float)
    assert set(keep_float) < set(found.float_layers)
    graph = onnx.load(path).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    weights = {node.name: maker.get(node.input[1], "float") for node in graph.node if node.op_type in ("Conv", "Gemm")}
    assert {name.replace("logits", "classifier") for name, how in weights.items() if how == "float"} == set(
        found.float_layers
    )
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    assert stored["head.conv.weight.quantized"].dtype == np.int8
    assert len(stored["head.conv.weight.scale"]) == model.head.conv.out_channels


def test_keep_float_in_tflite(images: Path, tmp_path: Path) -> None:
    from effnet.weights.formats.tflite_schema import decode_tflite

    model, path = network("silu", 0.25), tmp_path / "net.tflite"
    found = quantize(model, path, images, keep_float=("stem",))
    graph = decode_tflite(path.read_bytes())
    convolutions = [each for each in graph.operators if each.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    floats = {
        graph.tensors[each.outputs[0]].name for each in convolutions if graph.tensors[each.inputs[1]].type == "FLOAT32"
    }
    assert floats == set(found.float_layers)
    assert Counter(graph.tensors[each.outputs[0]].type for each in convolutions)["INT8"] == found.layers - 1 - len(
        floats
    )


def test_keep_float_in_openvino(images: Path, tmp_path: Path) -> None:
    import openvino

    model, path = network("relu6", 0.0), tmp_path / "net.xml"
    found = quantize(model, path, images, keep_float=("stem", "head"))
    graph = openvino.Core().read_model(path)
    stored = Counter(
        str(each.get_element_type())
        for each in graph.get_ops()
        if each.get_type_name() == "Constant" and each.get_output_size() and len(each.shape) == 4 and each.shape[0] > 1
    )
    assert sum(count for kind, count in stored.items() if "int8_t" in kind) == found.layers - 1 - 2


def test_other_labels_are_scored_by_agreement(images: Path, tmp_path: Path) -> None:
    model = network("relu6", 0.0)
    model.labels = Labels(("oak", "elm", "fir"))
    found = quantize(model, tmp_path / "net.onnx", images, threads=1)
    assert (found.metric, found.float_score) == ("agreement", 1.0)
    assert found.int8_score > 0.8
    assert "agreement" in found.describe()


def test_unreadable_images(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "some")
    (tmp_path / "some" / CLASSES[0] / "damaged.png").write_bytes(b"no image")
    found = quantize(network("relu6", 0.0), tmp_path / "net.onnx", tmp_path / "some", threads=1)
    assert (found.images, found.unreadable) == (18, 1)
    assert found.describe().endswith("on 18 images; skipped 1 unreadable")


def test_traced_forward() -> None:
    model = network("silu", 0.25)
    x = torch.randn(2, 3, 33, 32)
    with torch.inference_mode():
        torch.testing.assert_close(traced_forward(fold_batch_norm(model), x), model(x), rtol=1e-4, atol=1e-5)


def test_calibrate() -> None:
    model = fold_batch_norm(network("silu", 0.25))
    found = calibrate(model, [torch.randn(8, 3, 32, 32)])
    for name, range_ in found.ranges.items():
        assert range_.low <= 0 <= range_.high, name
        assert not range_.fake_quantize(torch.zeros(1, 1, 1, 1)).any(), name
    assert found.ranges["stem"].low > -30
    assert set(found.shifts) == {
        name.rsplit(".", 1)[0].removesuffix(".conv") for name in model.state_dict() if name.endswith("weight")
    }
    assert QuantizationRange(0, 0).fake_quantize(torch.zeros(3)).abs().sum() == 0


@pytest.mark.parametrize("name", ["nano", "b0", "v2_s"])
def test_equalize(name: str) -> None:
    """SiLUs with a divided input get it multiplied back, and their output is divided again."""
    arch = ARCHS[name]
    torch.manual_seed(0)
    model = fold_batch_norm(EfficientNet(replace(arch, activation="silu"), 3, preprocess=Preprocess((32, 32))).eval())
    scales = measure_channel_scales(model, [5 * torch.randn(2, 3, 32, 32)])
    assert scales
    assert "head" not in scales
    scales = {name: torch.rand_like(scale) + 0.5 for name, scale in scales.items()}

    def rescale(map_name: str, x: torch.Tensor) -> torch.Tensor:
        layer = map_name.removesuffix(".silu")
        if layer not in scales:
            return x
        scale = scales[layer].view(1, -1, 1, 1)
        return x / scale if map_name.endswith(".silu") else x * scale

    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(traced_forward(equalize(model, scales), x, rescale), model(x), rtol=1e-4, atol=1e-5)


def test_sensitivity(images: Path) -> None:
    model = network("silu", 0.25)
    with torch.no_grad():  # one irrelevant channel takes most of the range
        model.head.norm.bias[0] = 500.0
        model.classifier.weight[:, 0] = 0  # type: ignore[index]
    table = measure_sensitivity(model, images, count=12)
    assert [row.layer for row in table][:2] == ["stem", "stage1.0.fused"]
    assert all(row.divergence >= 0 and 0 <= row.agreement <= 1 and row.accuracy_drop is not None for row in table)
    worst = max(table, key=lambda row: row.divergence)
    assert worst.layer in ("head", "classifier")
    assert format_sensitivities(table).splitlines()[1].startswith(worst.layer)
    assert type(worst).from_json(worst.to_json()) == worst


class Drops:
    """In place of writing and scoring files: the drop for each number of float layers."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.losses, self.asked = losses, list[int]()

    def __call__(self, floats: frozenset[str]) -> float:
        assert floats == frozenset("abcdefghijklmnop"[: len(floats)]), "the most sensitive first"
        self.asked.append(len(floats))
        return self.losses[len(floats)]


def test_float_layers_not_needed() -> None:
    drop = Drops([0.4])
    assert find_float_layers(0.5, drop, lambda: pytest.fail("not needed"), 16) == frozenset()


@pytest.mark.parametrize("enough", range(1, 9))
def test_fewest_float_layers(enough: int) -> None:
    drop = Drops([5.0] * enough + [0.2] * 20)
    assert find_float_layers(0.5, drop, lambda: "abcdefghijklmnop", 16) == frozenset("abcdefghijklmnop"[:enough])
    assert drop.asked[-1] == enough, "the last file written is the one that is kept"


def test_too_many_float_layers() -> None:
    with pytest.raises(ValueError, match=r"int8 loses 5\.00 percentage points, and 5\.00 with the 8 most"):
        find_float_layers(0.5, Drops([5.0] * 20), lambda: "abcdefghijklmnop", 16)


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_file_if_max_drop_is_exceeded(
    suffix: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"before")
    monkeypatch.setattr(
        "effnet.exporting.quantize._float_logits", lambda model, pixels: np.full((len(pixels), 3), np.arange(3.0))
    )
    model = network("relu6", 0.0)
    model.labels = Labels(("oak", "elm", "fir"))
    with torch.no_grad():
        model.classifier.bias[0] = 1e3  # never what `_float_logits` predicts
    with pytest.raises(ValueError, match="int8 loses 100"):
        quantize(model, path, images, max_drop=0.5, threads=1)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"before"


@pytest.fixture
def hard() -> EfficientNet:
    """One channel of a block's input is 1,000 times as large, and the weights that read it are a 1,000th."""
    model = fold_batch_norm(network("relu6", 0.0))
    writer, reader = model.stage2[-1].project.conv, model.stage3[0].expand.conv
    with torch.no_grad():
        writer.weight[0] *= 1000
        writer.bias[0] *= 1000
        reader.weight[:, 0] /= 1000
    model.labels = Labels(("oak", "elm", "fir"))
    return model


def test_max_drop_finds_sensitive_layers(hard: EfficientNet, images: Path, tmp_path: Path) -> None:
    loose = quantize(hard, tmp_path / "loose.onnx", images, threads=1)
    tight = quantize(hard, tmp_path / "tight.onnx", images, max_drop=6.0, threads=1)
    assert loose.drop > 20
    assert tight.drop <= 6
    assert 1 <= len(tight.float_layers) <= 4
    assert {"stage2.0.project", "stage3.0.expand"} & set(tight.float_layers)
    assert tight.sensitivities
    assert open_exported(tmp_path / "tight.onnx", threads=1).run(stack(images)).shape == (18, 3)


def test_invalid_arguments(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("relu6", 0.0)
    with pytest.raises(ValueError, match="does not exist"):
        quantize(model, tmp_path / "a.onnx", tmp_path / "nothing")
    (tmp_path / "few").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "few" / "one.png")
    (tmp_path / "few" / "damaged.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="has 1 readable images, but calibration requires 8"):
        quantize(model, tmp_path / "a.onnx", tmp_path / "few")
    with pytest.raises(ValueError, match=r"int8 files end in \.onnx, \.xml, \.tflite"):
        quantize(model, tmp_path / "a.pt2", images)
    with pytest.raises(ValueError, match="keep_float must be one of stem"):
        quantize(model, tmp_path / "a.onnx", images, keep_float=("stage9",))
    with pytest.raises(ValueError, match="max_drop must be"):
        quantize(model, tmp_path / "a.onnx", images, max_drop=-1)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for suffix in (".onnx", ".xml"):
        with pytest.raises(ImportError, match="pip install"):
            quantize(model, tmp_path / f"a{suffix}", images)
    assert [file.name for file in tmp_path.iterdir()] == ["few"]


def test_sample_by_class() -> None:
    from effnet.data.dataset import Item

    items = [
        Item(Path(f"{label}/{index}"), label, f"{label}/{index}")
        for label, many in enumerate((2, 50, 50))
        for index in range(many)
    ]
    chosen = sample_by_class(items, 20)
    assert Counter(item.label for item in chosen) == {0: 2, 1: 9, 2: 9}
    assert [item.name for item in chosen if item.label == 1][:2] == ["1/0", "1/5"]
    assert sample_by_class(items, 500) == items
