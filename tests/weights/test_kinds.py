"""What the outputs mean is kept with the weights, and said to other ecosystems in their words."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

import effnet
from effnet import EfficientNet, Labels
from effnet.weights import load, save
from effnet.weights.key_maps import LAYOUTS

NAMES = ("cat", "dog", "night")
PROBLEMS = {"multilabel": "multi_label_classification", "regression": "regression"}


def network(kind: str, arch: str = "nano") -> EfficientNet:
    model = effnet.create(arch, classes=3).eval()
    model.labels = Labels(NAMES, kind)
    return model


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_our_files(kind: str, tmp_path: Path) -> None:
    for name, layout in (("m.safetensors", "effnet"), ("m.tflite", "tflite")):
        assert load(save(network(kind), tmp_path / name, layout)).labels == Labels(NAMES, kind)


def test_a_file_that_says_no_kind_is_of_classes(tmp_path: Path) -> None:
    # As ours were before there were others
    path = save(network("classification"), tmp_path / "m.safetensors")
    field, before = rb", \"task\": \"classification\"", path.read_bytes()
    assert before.count(field) == 1
    length = int.from_bytes(before[:8], "little")
    header = before[8 : 8 + length].replace(field, b"").replace(b"effnet-sha256:", b"")  # nor was there a digest
    path.write_bytes(len(header).to_bytes(8, "little") + header + before[8 + length :])
    assert load(path).labels == Labels(NAMES, "classification")


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_transformers_files(kind: str, tmp_path: Path) -> None:
    save(network(kind, "b0"), tmp_path / "model.safetensors", "huggingface")
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == PROBLEMS[kind]
    assert load(tmp_path / "model.safetensors").labels == Labels(NAMES, kind)
    unnamed = network(kind, "b0")
    unnamed.labels = Labels(task=kind)
    save(unnamed, tmp_path / "model.safetensors", "huggingface")
    assert load(tmp_path / "model.safetensors").labels == unnamed.labels


def test_transformers_files_of_classes_say_what_they_did(tmp_path: Path) -> None:
    save(network("classification", "b0"), tmp_path / "model.safetensors", "huggingface")
    assert "problem_type" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    ("kind", "activation"), [("classification", "softmax"), ("multilabel", "sigmoid"), ("regression", "linear")]
)
def test_keras_models_end_as_their_labels_mean(kind: str, activation: str, tmp_path: Path) -> None:
    assert ".keras" in LAYOUTS["keras"].suffixes
    save(network(kind, "b0"), tmp_path / "m.keras", "keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert layers[-1]["config"]["activation"] == activation
