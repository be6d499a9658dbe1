"""`effnet.export`: a verified file, or none and an error."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from effnet.data import image_io
from effnet.exporting import verify
from effnet.exporting.export import ExportedFile, export
from effnet.exporting.verify import Agreement
from effnet.metadata import Labels, Preprocess
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.base import open_exported
from effnet.runtime.io_spec import IOSpec, read_metadata
from effnet.runtime.torch import EagerEngine
from effnet.weights import save
from tests.exporting.networks import network

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("ai_edge_litert")

FILES = ("m.onnx", "m.xml", "m.tflite")  # .pt2 takes seconds, and has its own tests


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    return network()


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(("name", "to"), [*zip(FILES, ("onnx", "openvino", "litert"), strict=True), ("m.pt2", "torch")])
def test_formats(name: str, to: str, model: EfficientNet, tmp_path: Path) -> None:
    exported = export(model, tmp_path / "new" / name)
    files = ["m.bin", "m.xml"] if to == "openvino" else [name]
    assert files_in(tmp_path / "new") == files
    assert exported.difference < 1e-5
    assert replace(exported, difference=0) == ExportedFile(
        path=tmp_path / "new" / name,
        format=to,
        io_spec=IOSpec(size=(32, 32)),
        bytes=sum((tmp_path / "new" / file).stat().st_size for file in files),
        difference=0,
        images=6,
        same_predictions=6,
    )


@pytest.mark.parametrize("resampling", ["tensorflow", "tensorflow1"])
def test_rounding_of_tensorflows_resampling(resampling: str, tmp_path: Path) -> None:
    model = network()
    model.preprocess = replace(model.preprocess, resampling=resampling)
    edges = np.random.default_rng(0).integers(0, 2, (9, 11, 3), np.uint8).repeat(9, 0).repeat(9, 1) * 255
    image = image_io.load_input(edges, model.preprocess)
    assert image.min() < 0  # a cubic overshoots
    assert image.max() > 255
    for name in FILES:
        exported = export(model, tmp_path / name, input="pixels", output="logits", images=[edges])
        assert exported.difference < 1e-4
        assert exported.rounding is not None
        assert 1e-5 < exported.rounding.difference < 0.2
        assert (exported.rounding.images, exported.rounding.same_predictions) == (1, 1)
        whole = np.rint(image).clip(0, 255)
        engine = open_exported(tmp_path / name)
        assert engine.run(image[None]) == pytest.approx(engine.run(whole[None].astype(np.uint8)))
        floats = export(model, tmp_path / f"floats-{name}", output="logits", images=[edges])
        assert (floats.io_spec.input, floats.rounding) == ("floats", None)
        expected = EagerEngine(model, "cpu").run(image[None])
        assert open_exported(tmp_path / f"floats-{name}").run(image[None]) == pytest.approx(
            expected, rel=1e-3, abs=1e-4
        )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", ["any", None])
def test_any_size(name: str, size: str | None, model: EfficientNet, tmp_path: Path) -> None:
    exported = export(model, tmp_path / name, input="floats", output="logits", size=size, embedding=True)
    assert (exported.io_spec, exported.images) == (IOSpec("floats", "logits", True, None), 12)


def test_size(model: EfficientNet, tmp_path: Path) -> None:
    export(model, tmp_path / "m.onnx", size=(41, 30))
    import onnxruntime

    metadata = onnxruntime.InferenceSession(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map
    model_metadata, io_spec = read_metadata(metadata, "m.onnx")
    assert model_metadata.preprocess.size == io_spec.size == (41, 30)
    assert model.preprocess.size == (32, 32)
    assert export(model, tmp_path / "m.onnx", size=24).io_spec.size == (24, 24)


def modified(model: EfficientNet, modification: str) -> EfficientNet:
    match modification:
        case "folded":
            return fold_batch_norm(model)
        case "training":
            return network().train()
        case "float16":
            return network().half()
        case "bfloat16":
            return network().bfloat16()
        case "without a classifier":
            return network(classes=0)
        case "one channel":
            return network(channels=1)
    return network(channels=4)


@pytest.mark.parametrize(
    "modification",
    ["folded", "training", "float16", "bfloat16", "without a classifier", "one channel", "four channels"],
)
@pytest.mark.parametrize("name", FILES)
def test_networks(modification: str, name: str, model: EfficientNet, tmp_path: Path) -> None:
    modified_model = modified(model, modification)
    state = {parameter.dtype for parameter in modified_model.parameters()}, modified_model.training
    exported = export(modified_model, tmp_path / name)
    assert exported.difference < 1e-5
    assert exported.images == (4 if modification.endswith(("channel", "channels")) else 6)
    assert exported.same_predictions == (None if modification == "without a classifier" else exported.images)
    assert exported.io_spec.embedding == (modification == "without a classifier")
    assert ({parameter.dtype for parameter in modified_model.parameters()}, modified_model.training) == state


def test_weights_file_and_run_directory(model: EfficientNet, tmp_path: Path) -> None:
    weights = save(model, tmp_path / "run" / "model.safetensors")
    assert export(weights, tmp_path / "a.onnx").same_predictions == 6
    assert export(tmp_path / "run", tmp_path / "b.onnx").same_predictions == 6
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_images(model: EfficientNet, tmp_path: Path) -> None:
    photos, noise = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for index in range(5):
        Image.fromarray(noise.integers(0, 256, (40, 50, 3), np.uint8)).save(photos / f"{index}.png")
    (photos / "damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    exported = export(model, tmp_path / "m.onnx", images=photos)
    assert (exported.images, exported.same_predictions) == (5, 5)
    sources = [photos / "1.png", noise.integers(0, 256, (60, 60, 3), np.uint8)]
    assert export(model, tmp_path / "m.onnx", images=sources, size="any").images == 4
    many = [photos / "1.png"] * 100
    assert export(model, tmp_path / "m.onnx", images=many).images == 25  # evenly spread, at most 32
    with pytest.raises(ValueError, match="none of the images to compare on is readable"):
        export(model, tmp_path / "m.onnx", images=[photos / "damaged.jpg"])
    with pytest.raises(ValueError, match="no images to compare on"):
        export(model, tmp_path / "m.onnx", images=[])
    assert export(network(channels=4), tmp_path / "m.onnx", images=photos).images == 5  # read as RGBA


def test_float16(model: EfficientNet, tmp_path: Path) -> None:
    for name in ("m.xml", "m.tflite"):
        assert 1e-6 < export(model, tmp_path / name, precision="float16").difference < 1e-2
    with pytest.raises(ValueError, match=r"m\.tflite is not written: in litert .* \(tolerance 1e-06\)"):
        export(model, tmp_path / "m.tflite", precision="float16", tolerance=1e-6)
    with pytest.raises(ValueError, match="float16 weights are supported by openvino and litert, not by onnx"):
        export(model, tmp_path / "m.onnx", precision="float16")


@pytest.mark.parametrize("name", FILES)
def test_disagreeing_file_is_removed(
    name: str, model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effnet.exporting.verify.compare_outputs", lambda *_: Agreement(0.0123, 6, 0))
    with pytest.raises(ValueError, match=rf"{name} is not written: in \w+ the outputs differ by 1\.2e-02"):
        export(model, tmp_path / name)
    monkeypatch.setattr("effnet.exporting.verify.compare_outputs", lambda *_: Agreement(float("nan"), 6, 0))
    with pytest.raises(ValueError, match="the outputs have other names or shapes, or contain NaN or Inf"):
        export(model, tmp_path / name, tolerance=1)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("name", FILES)
def test_existing_file_is_kept_on_failure(
    name: str, model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(model, tmp_path / name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="tolerance 0"):
        export(network(classes=7), tmp_path / name, tolerance=0)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    export(network(classes=7), tmp_path / name)
    assert files_in(tmp_path) == sorted(before)
    assert (tmp_path / name).read_bytes() != before[name]


@pytest.mark.parametrize("name", ["m.onnx", "m.tflite", "m.pt2"])
def test_full_disk(name: str, model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / name).write_text("mine")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        OSError, match=rf"{name} could not be written: the disk is full; the previous file is unchanged"
    ):
        export(model, tmp_path / name)
    assert files_in(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_full_disk_in_openvino(model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(graph: Any, path: Path, **_: Any) -> None:
        Path(path).write_text("half of it")
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("openvino.save_model", full)
    monkeypatch.setattr("effnet.runtime.openvino.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"m\.xml could not be written: the disk is full"):
        export(model, tmp_path / "m.xml")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "to"), [("m.h5", None), ("model", None), ("m.onnx", "litert"), ("m.ir", "openvino"), ("m.onnx.gz", None)]
)
def test_unknown_suffix(name: str, to: str | None, model: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.onnx \(onnx\), \.xml \(openvino\), \.tflite \(litert\), \.pt2 \(torch\)"):
        export(model, tmp_path / name, to)
    assert files_in(tmp_path) == []


def test_no_suffix(model: EfficientNet, tmp_path: Path) -> None:
    assert export(model, tmp_path / "model", "onnx").format == "onnx"
    assert files_in(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "coreml"}, "to must be one of onnx, openvino, litert, torch"),
        ({"input": "bytes"}, "input must be one of pixels, floats, normalized"),
        ({"output": "classes"}, "output must be one of probabilities, logits"),
        ({"precision": "float8"}, "precision must be one of float32, float16"),
        ({"size": 0}, "size must be"),
        ({"size": (32, -1)}, "size must be"),
        ({"size": (32, 32, 3)}, r"size must be a side in pixels or \(height, width\)"),
        ({"size": 10_000}, "size must be at most 8192 pixels per side"),
        ({"size": "large"}, 'size must be "own", "any"'),
        ({"tolerance": -1.0}, "tolerance must be at least 0"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str, model: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "m.onnx", **options)
    assert files_in(tmp_path) == []


def test_path_is_a_folder(model: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder: name the file to write, such as .*model\.onnx"):
        export(model, tmp_path, "onnx")


def test_modified_network(tmp_path: Path) -> None:
    model = network()
    model.classifier = nn.Sequential(nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5))
    for name in FILES:
        with pytest.raises(
            ValueError, match=r"cannot hold this network: classifier\.0\.bias, .*; use a \.pt2, which holds any"
        ):
            export(model, tmp_path / name)
    model = network()
    for block in model.modules():
        if isinstance(block, nn.SiLU):
            block.forward = torch.tanh  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="in onnx the outputs differ"):
        export(model, tmp_path / "m.onnx")
    assert files_in(tmp_path) == []


def test_channels_of_preprocessing(tmp_path: Path) -> None:
    model = network(channels=4)
    model.preprocess = Preprocess((32, 32))
    with pytest.raises(ValueError, match=r"has 4 input channels, but its preprocessing has mean and std for 3: set"):
        export(model, tmp_path / "m.onnx")


@pytest.mark.parametrize("name", FILES)
def test_not_installed(name: str, model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "openvino", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match="pip install"):
        export(model, tmp_path / name)
    assert files_in(tmp_path) == []


def test_special_characters_in_labels(tmp_path: Path) -> None:
    model = network(classes=3)
    model.labels = Labels(("蜂", 'a "quoted"\nname', "<&>"))
    for name, opened in (
        ("m.onnx", verify.open_onnx_runner),
        ("m.xml", verify.open_openvino_runner),
        ("m.tflite", verify.open_litert_runner),
    ):
        export(model, tmp_path / name)
        assert opened(tmp_path / name)
    import openvino as runtime

    read = runtime.Core().read_model(tmp_path / "m.xml").get_rt_info("effnet").astype(str)
    assert read_metadata({"effnet": read, "effnet.interface": "{}"}, "")[0].labels == model.labels
    shutil.rmtree(tmp_path)
