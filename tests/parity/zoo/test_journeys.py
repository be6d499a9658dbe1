"""What must survive when a network goes on: its preprocessing into exported files and other layouts, its names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import effnet
from tests.parity.zoo import checks, networks


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return an image with sharp edges, next to which a bicubic resize goes beyond 0 … 255."""
    pixels = numpy.random.default_rng(0).integers(0, 2, (23, 31, 3), numpy.uint8) * 255
    Image.fromarray(pixels.repeat(7, 0).repeat(7, 1)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def tensorflow_network(folder: Path, resampling: str) -> Path:
    """Save a network whose images are resized as by TensorFlow."""
    torch.manual_seed(0)
    model = effnet.create("nano", classes=networks.CLASSES).eval()
    model.preprocess = replace(model.preprocess, resampling=resampling)
    model.labels = effnet.Labels(networks.LABELS)
    return effnet.save(model, folder / "model.safetensors")


def first_label(run: checks.Run, photo: Path, model: Path) -> tuple[str, float]:
    done = run("predict", photo, "--model", model, "--json")
    assert done.status == 0, done.err
    first = json.loads(done.out)[0]["labels"][0]
    return first["label"], first["probability"]


@pytest.mark.parametrize("resampling", ["tensorflow", "tensorflow1"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_exported_files_predict(suffix: str, resampling: str, run: checks.Run, photo: Path, tmp_path: Path) -> None:
    model = tensorflow_network(tmp_path, resampling)
    exported = tmp_path / f"model{suffix}"
    done = run("export", model, exported)
    assert done.status == 0, done.err
    label, probability = first_label(run, photo, model)
    exported_label, exported_probability = first_label(run, photo, exported)
    assert exported_label == label
    assert exported_probability == pytest.approx(probability, abs=0.01)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_int8_files_predict(suffix: str, run: checks.Run, photo: Path, tmp_path: Path) -> None:
    model = tensorflow_network(tmp_path, "tensorflow1")
    (tmp_path / "photos").mkdir()
    for index in range(16):
        pixels = numpy.random.default_rng(index).integers(0, 256, (5, 7, 3), numpy.uint8)
        Image.fromarray(pixels.repeat(9, 0).repeat(9, 1)).save(tmp_path / "photos" / f"{index}.png")
    words = ("--precision", "int8", "--images", tmp_path / "photos")
    done = run("export", model, tmp_path / f"model{suffix}", *words)
    assert done.status == 0, done.err
    label, probability = first_label(run, photo, model)
    exported_label, exported_probability = first_label(run, photo, tmp_path / f"model{suffix}")
    assert exported_label == label
    assert exported_probability == pytest.approx(probability, abs=0.1)


def test_preprocessing_through_another_layout(run: checks.Run, photo: Path, tmp_path: Path) -> None:
    model = tensorflow_network(tmp_path, "tensorflow1")
    there = run("convert", model, tmp_path / "timm.safetensors", "--to", "timm")
    words = ("--to", "effnet", "--arch", "nano")
    back = run("convert", tmp_path / "timm.safetensors", tmp_path / "back.safetensors", *words)
    assert (there.status, back.status) == (0, 0)
    kept = effnet.load(tmp_path / "back.safetensors").preprocess == effnet.load(model).preprocess
    assert kept or "resampling" in there.err + there.out


@pytest.mark.parametrize("source", [networks.torchvision, networks.lukemelas, networks.timm])
def test_thousand_classes_are_those_of_imagenet(source: object, tmp_path: Path) -> None:
    network = source(classes=1000)  # type: ignore[operator]
    torch.save(networks.state(network), tmp_path / "model.pth")
    names = effnet.load(tmp_path / "model.pth").labels.names
    assert len(names) == 1000
    assert [names[index].lower().replace(" ", "") for index in (0, 934)] == ["tench", "hotdog"]
