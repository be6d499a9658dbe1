"""How a file of weights is read, said in the same options in every command that opens one."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import effnet
from effnet.cli.options import UsageError
from effnet.cli.weights_options import parse_preprocess
from effnet.weights import loading
from tests.cli.conftest import Run

COMMANDS = ["predict", "evaluate", "explain", "export", "doctor", "convert", "serve", "show", "draw", "scale", "bench"]
COMMANDS += ["train"]
RUNNING = [command for command in COMMANDS if command not in ("train", "bench")]  # the others take seconds
IMAGES = ("ant/1.jpg", "ant/[2].png", "bee/3.jpg", "bee/deep/4.jpg")  # of the folder `photos`
NOT_OF_TRAIN = ("head", "preprocess", "task")  # its images have labels of their own


@pytest.fixture(autouse=True)
def no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops as soon as it would answer."""
    stopped = SimpleNamespace(run=lambda sockets: None, should_exit=False, handle_exit=lambda *_: None)
    monkeypatch.setattr("effnet.serve.server.make_server", lambda *_: stopped)


@pytest.fixture
def two_heads(tmp_path: Path) -> Path:
    """A backbone with two linear layers, of two and of three classes."""
    torch.manual_seed(0)
    tensors = {f"backbone.{name}": value for name, value in effnet.create("nano", classes=0).state_dict().items()}
    for name, classes in (("species", 2), ("color", 3)):
        tensors |= {f"{name}.{part}": value for part, value in nn.Linear(192, classes).state_dict().items()}
    torch.save(tensors, tmp_path / "two_heads.pth")
    return tmp_path / "two_heads.pth"


@pytest.fixture
def two_networks(tmp_path: Path) -> Path:
    """Two networks of equal rank, both of two classes."""
    torch.manual_seed(0)
    networks = {name: effnet.create("nano", classes=2) for name in ("left", "right")}
    tensors = {f"{name}.{key}": value for name, each in networks.items() for key, value in each.state_dict().items()}
    torch.save(tensors, tmp_path / "two_networks.pth")
    return tmp_path / "two_networks.pth"


@pytest.fixture
def value(tmp_path: Path) -> Path:
    """A network with one output, saved without a word on what that means."""
    torch.manual_seed(0)
    path = tmp_path / "value" / "tf_efficientnet_b0.pth"
    path.parent.mkdir()
    torch.save(effnet.create("nano", classes=1).state_dict(), path)
    return path


def words(command: str, model: Path, photos: Path, out: Path) -> tuple[object, ...]:
    return {
        "predict": (photos / "ant" / "1.jpg", "--model", model, "--json"),
        "evaluate": (model, photos, "--json"),
        "explain": (model, photos / "ant" / "1.jpg", "--output", out),
        "export": (model, out.with_suffix(".onnx")),
        "doctor": (model,),
        "convert": (model, out.with_suffix(".safetensors"), "--to", "effnet"),
        "serve": (model, "--port", "0", "--engine", "eager", "--batch-size", "1"),
        "show": (model,),
        "draw": (model,),
        "scale": (model, "--phi", "1"),
        "bench": (model, "--runs", "3", "--against", "none"),
        "train": (photos, "--weights", model, "--output", out),
    }[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_reaches_the_file(
    command: str, run: Run, two_heads: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    names = list(signature(loading.read_weights).parameters)

    def read(*arguments: Any, **more: Any) -> None:
        given.update(zip(names, arguments, strict=False), **more)
        raise ValueError("read as asked")

    monkeypatch.setattr(loading, "read_weights", read)
    options = {"prefix": "net", "head": "fc", "padding": "same", "bn_eps": 0.002, "task": "regression"}
    options = {name: value for name, value in options.items() if command != "train" or name not in NOT_OF_TRAIN}
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = run(command, *words(command, two_heads, photos, tmp_path / "out"), *flags)
    assert done.status == 1, done.err
    assert done.err.splitlines()[-1] == "effnet: read as asked"
    assert given["path"] == two_heads
    assert {name: given[name] for name in options} == options


@pytest.mark.parametrize("command", RUNNING)
def test_a_head_is_chosen(command: str, run: Run, two_heads: Path, photos: Path, tmp_path: Path) -> None:
    done = run(command, *words(command, two_heads, photos, tmp_path / "out"), "--head", "species")
    assert done.status == 0, done.err
    assert "its classifier is species" in done.err
    if command == "predict":
        assert len(json.loads(done.out)[0]["labels"]) == 2
    missing = run(command, *words(command, two_heads, photos, tmp_path / "other"), "--head", "size")
    assert missing.status == 1
    assert "size is no linear layer of 192 inputs: --head takes the name of one" in missing.err


@pytest.mark.parametrize("command", RUNNING)
def test_a_network_is_chosen(command: str, run: Run, two_networks: Path, photos: Path, tmp_path: Path) -> None:
    refused = run(command, *words(command, two_networks, photos, tmp_path / "out"))
    assert refused.status == 1
    assert "contains 2 networks, left, right: choose one with --prefix" in refused.err
    done = run(command, *words(command, two_networks, photos, tmp_path / "out"), "--prefix", "right")
    assert done.status == 0, done.err
    assert "using the network under right, not that under left" in done.err


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain"])
def test_without_a_classifier(command: str, run: Run, two_heads: Path, photos: Path, tmp_path: Path) -> None:
    done = run(command, *words(command, two_heads, photos, tmp_path / "out"))
    assert done.status == 1
    assert "species or color could be it, choose with --head" in done.err
    last = done.err.splitlines()[-1]
    assert "this network has no classifier" in last
    assert "--head" in last
    assert "effnet train" in last
    assert "--embeddings" in last


def test_conflicts(run: Run, two_heads: Path, photos: Path) -> None:
    for option in ("--prefix", "--head"):
        done = run("predict", photos, "--ensemble", two_heads, option, "x")
        assert done.status == 2
        assert f"{option} cannot be combined with --ensemble" in done.err
    done = run("train", photos, "--prefix", "x", "--output", photos / "run")
    assert done.status == 2
    assert "--prefix requires --weights" in done.err
    for command, more in (("bench", "b0"), ("serve", "b0"), ("draw", "mbconv"), ("show", "b0"), ("scale", "b0")):
        several = [two_heads, more] if command in ("bench", "serve") else [more]
        done = run(command, *several, "--head", "species", *(["--phi", "1"] if command == "scale" else []))
        assert done.status == 2, done.err
        assert "--head applies to" in done.err


@pytest.mark.parametrize("command", RUNNING)
def test_one_output_is_a_value(command: str, run: Run, value: Path, photos: Path, tmp_path: Path) -> None:
    if command == "evaluate":
        table = tmp_path / "grams.csv"
        table.write_text("image,grams\n" + "".join(f"photos/{name},{index}.5\n" for index, name in enumerate(IMAGES)))
        (tmp_path / "label.txt").write_text("grams\n")
        arguments: tuple[object, ...] = (value, table, "--json", "--labels", tmp_path / "label.txt")
    else:
        arguments = words(command, value, photos, tmp_path / "out")
    done = run(command, *arguments, "--task", "regression")
    if command in ("explain", "doctor") and done.status:  # what they do needs classes
        assert "regression" in done.err
        return
    assert done.status == 0, done.err
    assert "two classes" not in done.err
    if command == "predict":
        [row] = json.loads(done.out)
        network = effnet.load(value, task="regression")
        expected = effnet.Predictor(network)([photos / "ant" / "1.jpg"])[0].values
        assert row["values"] == pytest.approx(expected, rel=1e-4)
    if command == "convert":
        assert effnet.load(tmp_path / "out.safetensors").labels.task == "regression"
    if command == "export":
        assert effnet.Predictor(tmp_path / "out.onnx").labels.task == "regression"


def test_one_output_is_taken_for_two_classes(run: Run, value: Path, photos: Path) -> None:
    done = run("predict", photos / "ant" / "1.jpg", "--model", value, "--json")
    assert len(json.loads(done.out)[0]["labels"]) == 2
    assert "if it is a value, pass --task regression" in done.err
    done = run("predict", photos / "ant" / "1.jpg", "--model", value, "--task", "values")
    assert done.status == 1
    assert "task must be one of classification, multilabel, regression, got 'values'" in done.err.splitlines()[-1]


@pytest.mark.parametrize("outputs", [1, 3])
def test_outputs_are_labels(run: Run, tmp_path: Path, photos: Path, outputs: int) -> None:
    model = effnet.create("nano", classes=outputs)
    torch.nn.init.constant_(model.classifier.bias, 5.0)
    torch.save(model.state_dict(), tmp_path / "tf_efficientnet_b0.pth")
    arguments = ("predict", photos / "ant" / "1.jpg", "--model", tmp_path / "tf_efficientnet_b0.pth", "--json")
    [row] = json.loads(run(*arguments, "--task", "multilabel").out)
    assert sorted(label["label"] for label in row["labels"]) == [f"class {each}" for each in range(outputs)]
    assert all(label["probability"] > 0.9 for label in row["labels"])


def test_padding_reaches_a_training(run: Run, tmp_path: Path, photos: Path) -> None:
    torch.save(effnet.create("nano", classes=2).state_dict(), tmp_path / "x.pth")
    (photos / "ant" / "notes.txt").rename(photos / "notes.txt")
    for index in range(6):
        for name in ("ant", "bee"):
            Image.new("RGB", (40, 40), (40 * index, 0, 90)).save(photos / name / f"{index}.png")
    arguments = ("train", photos, "--weights", tmp_path / "x.pth", "--output", tmp_path / "run", "--epochs", "0")
    done = run(*arguments, "--padding", "symmetric", "--bn-eps", "0.002", "--track", "none", "--image-size", "32")
    assert done.status == 0, done.err
    assert effnet.load(tmp_path / "run").numerics == effnet.Numerics("symmetric", 0.002)
    again = run(*arguments, "--resume", "--padding", "same", "--track", "none", "--image-size", "32")
    assert again.status == 1


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("size=240,crop=0.9", {"size": (240, 240), "crop_fraction": 0.9}),
        ("mean=0.5/0.4/0.3, std=0.2", {"mean": (0.5, 0.4, 0.3), "std": (0.2,)}),
        ("resize=squash,interpolation=bilinear", {"resize": "squash", "interpolation": "bilinear"}),
    ],
)
def test_preprocessing(text: str, fields: dict[str, Any]) -> None:
    assert parse_preprocess(text) == fields


@pytest.mark.parametrize("text", ["mean", "sides=3", "mean=a", "mean=0.5/b/0.5", "crop="])
def test_wrong_preprocessing(text: str) -> None:
    with pytest.raises(UsageError, match="--preprocess"):
        parse_preprocess(text)
