"""Int8 files of every format: what is in them, how they answer, what they lose, and what is refused."""

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
    """A small network whose answers differ from picture to picture."""
    torch.manual_seed(0)
    stages = tuple(replace(stage, squeeze=squeeze) for stage in ARCHS["nano"].stages)
    arch = replace(ARCHS["nano"], stages=stages, activation=activation)
    model = EfficientNet(arch, 3, preprocess=Preprocess((32, 32), crop_fraction=1.0), labels=Labels(CLASSES)).eval()
    model.numerics = replace(model.numerics, padding=padding)
    model = EfficientNet(arch, 3, numerics=model.numerics, preprocess=model.preprocess, labels=model.labels).eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all that it sees
        torch.nn.init.normal_(norm.bias, 0, 0.3)
    with torch.no_grad():  # statistics of real maps, so that answers differ from picture to picture
        blots = torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=(32, 32), mode="bicubic")
        model.train()(blots)
        model.classifier.weight *= 5  # type: ignore[operator]
    return model.eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of six pictures: blots of colour, and noise."""
    root, dice = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for index in range(6):
            blots = Image.fromarray(dice.integers(0, 256, (3, 4, 3), np.uint8)).resize((40, 36))
            noise = np.clip(np.asarray(blots) + dice.normal(0, 20, (36, 40, 3)), 0, 255)
            Image.fromarray(noise.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


def stack(pictures: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file).resize((32, 32))) for file in sorted(pictures.rglob("*.png"))])


def float_answers(model: EfficientNet, given: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(normalize(torch.from_numpy(given), model.preprocess)).numpy()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("activation", "squeeze"), [("relu6", 0.0), ("silu", 0.25)])
def test_answers_as_float_does(suffix: str, activation: str, squeeze: float, pictures: Path, tmp_path: Path) -> None:
    model = network(activation, squeeze)
    path = tmp_path / f"net{suffix}"
    found = quantize(model, path, pictures, IOSpec(output="logits", size=(32, 32)), threads=1)
    engine = open_exported(path, threads=1)
    given = stack(pictures)
    got, wanted = engine.run(given), float_answers(model, given)
    assert engine.precision == "int8"
    assert engine.metadata.to_json() == model.metadata.to_json()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.98
    assert (got.argmax(1) == wanted.argmax(1)).mean() > 0.8
    assert found.metric == "top-1"
    assert found.images == 18
    assert found.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert all("squeeze_excite" in name for name in found.float_layers)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        {"net.xml": ["net.xml", "net.bin"]}.get(path.name, [path.name])
    )


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_interface_and_padding(suffix: str, padding: str, pictures: Path, tmp_path: Path) -> None:
    model = network("relu6", 0.0, padding)
    given = stack(pictures)
    for taken in ("floats", "normalized"):
        path = tmp_path / f"{taken}{suffix}"
        interface = IOSpec(taken, "probabilities", embedding=True, size=(32, 32))
        quantize(model, path, pictures, interface, threads=1)
        engine = open_exported(path, threads=1)
        assert np.corrcoef(engine.run(given).ravel(), float_answers(model, given).ravel())[0, 1] > 0.9
        with torch.inference_mode():
            wanted = model.embed(normalize(torch.from_numpy(given), model.preprocess)).numpy()
        assert np.corrcoef(engine.embed(given).ravel(), wanted.ravel())[0, 1] > 0.95


def test_onnx_at_any_size(pictures: Path, tmp_path: Path) -> None:
    model, path = network("relu6", 0.0), tmp_path / "any.onnx"
    quantize(model, path, pictures, IOSpec("floats", "logits", size=None), threads=1)
    larger = np.stack([np.asarray(Image.fromarray(one).resize((51, 44))) for one in stack(pictures)])
    got = open_exported(path, threads=1).run(larger.astype(np.float32))
    assert np.corrcoef(got.ravel(), float_answers(model, larger).ravel())[0, 1] > 0.95


def test_what_is_kept_in_float_is_float_in_the_onnx_file(pictures: Path, tmp_path: Path) -> None:
    import onnx

    model, path = network("silu", 0.25), tmp_path / "net.onnx"
    kept = ("stem", "stage2.0.project", "classifier")
    found = quantize(model, path, pictures, keep_float=kept)
    assert set(kept) < set(found.float_layers)
    graph = onnx.load(path).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    weights = {node.name: maker.get(node.input[1], "float") for node in graph.node if node.op_type in ("Conv", "Gemm")}
    assert {name.replace("logits", "classifier") for name, how in weights.items() if how == "float"} == set(
        found.float_layers
    )
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    assert stored["head.conv.weight.quantized"].dtype == np.int8
    assert len(stored["head.conv.weight.scale"]) == model.head.conv.out_channels


def test_what_is_kept_in_float_is_float_in_the_tflite_file(pictures: Path, tmp_path: Path) -> None:
    from effnet.weights.formats.tflite_schema import decode_tflite

    model, path = network("silu", 0.25), tmp_path / "net.tflite"
    found = quantize(model, path, pictures, keep_float=("stem",))
    graph = decode_tflite(path.read_bytes())
    convolutions = [each for each in graph.operators if each.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    floats = {
        graph.tensors[each.outputs[0]].name for each in convolutions if graph.tensors[each.inputs[1]].type == "FLOAT32"
    }
    assert floats == set(found.float_layers)
    assert Counter(graph.tensors[each.outputs[0]].type for each in convolutions)["INT8"] == found.layers - 1 - len(
        floats
    )


def test_what_is_kept_in_float_is_float_in_the_openvino_file(pictures: Path, tmp_path: Path) -> None:
    import openvino

    model, path = network("relu6", 0.0), tmp_path / "net.xml"
    found = quantize(model, path, pictures, keep_float=("stem", "head"))
    graph = openvino.Core().read_model(path)
    stored = Counter(
        str(each.get_element_type())
        for each in graph.get_ops()
        if each.get_type_name() == "Constant" and each.get_output_size() and len(each.shape) == 4 and each.shape[0] > 1
    )
    assert sum(count for kind, count in stored.items() if "int8_t" in kind) == found.layers - 1 - 2


def test_pictures_without_the_networks_labels_are_judged_by_agreement(pictures: Path, tmp_path: Path) -> None:
    model = network("relu6", 0.0)
    model.labels = Labels(("oak", "elm", "fir"))
    found = quantize(model, tmp_path / "net.onnx", pictures, threads=1)
    assert (found.metric, found.float_score) == ("agreement", 1.0)
    assert found.int8_score > 0.8
    assert "agreement" in found.describe()


def test_unreadable_pictures_are_counted(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "some")
    (tmp_path / "some" / CLASSES[0] / "damaged.png").write_bytes(b"no picture")
    found = quantize(network("relu6", 0.0), tmp_path / "net.onnx", tmp_path / "some", threads=1)
    assert (found.images, found.unreadable) == (18, 1)
    assert found.describe().endswith("on 18 images; skipped 1 unreadable")


def test_walk_is_the_network() -> None:
    model = network("silu", 0.25)
    x = torch.randn(2, 3, 33, 32)
    with torch.inference_mode():
        torch.testing.assert_close(traced_forward(fold_batch_norm(model), x), model(x), rtol=1e-4, atol=1e-5)


def test_ranges_hold_zero_exactly_and_shifts_are_what_rounding_does() -> None:
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
def test_evened_channels_leave_the_network_as_it_is(name: str) -> None:
    """Each SiLU whose map is divided is given it whole, and its answer is divided again."""
    arch = ARCHS[name]
    torch.manual_seed(0)
    model = fold_batch_norm(EfficientNet(replace(arch, activation="silu"), 3, preprocess=Preprocess((32, 32))).eval())
    found = measure_channel_scales(model, [5 * torch.randn(2, 3, 32, 32)])
    assert found
    assert not {"head"} & set(found)
    by = {each: torch.rand_like(size) + 0.5 for each, size in found.items()}

    def whole(each: str, x: torch.Tensor) -> torch.Tensor:  # between the convolution and its SiLU, and after it
        layer = each.removesuffix(".silu")
        if layer not in by:
            return x
        size = by[layer].view(1, -1, 1, 1)
        return x / size if each.endswith(".silu") else x * size

    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(traced_forward(equalize(model, by), x, whole), model(x), rtol=1e-4, atol=1e-5)


def test_sensitivity_has_a_row_a_layer(pictures: Path) -> None:
    model = network("silu", 0.25)
    with torch.no_grad():  # one channel that says nothing takes the range from all others
        model.head.norm.bias[0] = 500.0
        model.classifier.weight[:, 0] = 0  # type: ignore[index]
    table = measure_sensitivity(model, pictures, count=12)
    assert [row.layer for row in table][:2] == ["stem", "stage1.0.fused"]
    assert all(row.divergence >= 0 and 0 <= row.agreement <= 1 and row.accuracy_drop is not None for row in table)
    worst = max(table, key=lambda row: row.divergence)
    assert worst.layer in ("head", "classifier")
    assert format_sensitivities(table).splitlines()[1].startswith(worst.layer)
    assert type(worst).from_json(worst.to_json()) == worst


class Losses:
    """Stands for writing and running files: what is lost with so many layers in float."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.losses, self.asked = losses, list[int]()

    def __call__(self, floats: frozenset[str]) -> float:
        assert floats == frozenset("abcdefghijklmnop"[: len(floats)]), "the most harmful first"
        self.asked.append(len(floats))
        return self.losses[len(floats)]


def test_budget_keeps_nothing_in_float_where_nothing_is_lost() -> None:
    drop = Losses([0.4])
    assert find_float_layers(0.5, drop, lambda: pytest.fail("no table is needed"), 16) == frozenset()


@pytest.mark.parametrize("enough", range(1, 9))
def test_budget_keeps_as_few_in_float_as_suffice(enough: int) -> None:
    drop = Losses([5.0] * enough + [0.2] * 20)
    assert find_float_layers(0.5, drop, lambda: "abcdefghijklmnop", 16) == frozenset("abcdefghijklmnop"[:enough])
    assert drop.asked[-1] == enough, "the last file that was written is the one that is kept"


def test_budget_that_cannot_be_kept_says_so() -> None:
    with pytest.raises(ValueError, match=r"int8 loses 5\.00 percentage points, and 5\.00 with the 8 most"):
        find_float_layers(0.5, Losses([5.0] * 20), lambda: "abcdefghijklmnop", 16)


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_file_is_left_where_the_budget_is_not_kept(
    suffix: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"before")
    monkeypatch.setattr(
        "effnet.exporting.quantize._float_logits", lambda model, given: np.full((len(given), 3), np.arange(3.0))
    )
    model = network("relu6", 0.0)
    model.labels = Labels(("oak", "elm", "fir"))
    with torch.no_grad():
        model.classifier.bias[0] = 1e3  # never what `_answers` says
    with pytest.raises(ValueError, match="int8 loses 100"):
        quantize(model, path, pictures, max_drop=0.5, threads=1)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"before"


@pytest.fixture
def hard() -> EfficientNet:
    """One channel of a block's input has 1,000 times its size, and the weights that read it a 1,000th of theirs."""
    model = fold_batch_norm(network("relu6", 0.0))
    writer, reader = model.stage2[-1].project.conv, model.stage3[0].expand.conv
    with torch.no_grad():
        writer.weight[0] *= 1000
        writer.bias[0] *= 1000
        reader.weight[:, 0] /= 1000
    model.labels = Labels(("oak", "elm", "fir"))
    return model


def test_budget_finds_the_layers_that_cannot_be_in_int8(hard: EfficientNet, pictures: Path, tmp_path: Path) -> None:
    loose = quantize(hard, tmp_path / "loose.onnx", pictures, threads=1)
    tight = quantize(hard, tmp_path / "tight.onnx", pictures, max_drop=6.0, threads=1)
    assert loose.drop > 20
    assert tight.drop <= 6
    assert 1 <= len(tight.float_layers) <= 4
    assert {"stage2.0.project", "stage3.0.expand"} & set(tight.float_layers)
    assert tight.sensitivities
    assert open_exported(tmp_path / "tight.onnx", threads=1).run(stack(pictures)).shape == (18, 3)


def test_refusals(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("relu6", 0.0)
    with pytest.raises(ValueError, match="does not exist"):
        quantize(model, tmp_path / "a.onnx", tmp_path / "nothing")
    (tmp_path / "few").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "few" / "one.png")
    (tmp_path / "few" / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="has 1 readable images, but calibration requires 8"):
        quantize(model, tmp_path / "a.onnx", tmp_path / "few")
    with pytest.raises(ValueError, match=r"int8 files end in \.onnx, \.xml, \.tflite"):
        quantize(model, tmp_path / "a.pt2", pictures)
    with pytest.raises(ValueError, match="keep_float must be one of stem"):
        quantize(model, tmp_path / "a.onnx", pictures, keep_float=("stage9",))
    with pytest.raises(ValueError, match="max_drop must be"):
        quantize(model, tmp_path / "a.onnx", pictures, max_drop=-1)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for suffix in (".onnx", ".xml"):
        with pytest.raises(ImportError, match="pip install"):
            quantize(model, tmp_path / f"a{suffix}", pictures)
    assert [file.name for file in tmp_path.iterdir()] == ["few"]


def test_pictures_are_spread_over_the_classes() -> None:
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
