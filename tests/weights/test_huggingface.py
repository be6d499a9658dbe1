"""Folders of transformers: what their two JSON files say is kept, and ours open with ``from_pretrained``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from effnet.arch import ARCHS
from effnet.data.class_names import imagenet_labels
from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import EfficientNet, create
from effnet.weights import load, save
from effnet.weights.formats.huggingface import config_files, depthwise_padding

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# As google/efficientnet-b0 states it on the hub
GOOGLES = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": False,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "EfficientNetImageProcessor",
    "image_std": [0.47853944, 0.4732864, 0.47434163],
    "include_top": True,
    "resample": 0,
    "rescale_factor": 0.00392156862745098,
    "rescale_offset": False,
    "size": {"height": 224, "width": 224},
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    """The package, where it is installed."""
    declare_operators()
    return pytest.importorskip("transformers")


@pytest.fixture
def model() -> EfficientNet:
    """A network in which what is written differs from the default."""
    torch.manual_seed(0)
    network = create("b1", classes=3, numerics=Numerics(bn_eps=2e-3)).eval()
    network.labels = Labels(("Ameise", "蜂", "crane"))
    network.preprocess = Preprocess((64, 64), 0.8, "crop", "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    return network


def test_our_folder_opens_there(model: EfficientNet, tmp_path: Path, transformers: Any) -> None:
    save(model, tmp_path / "model.safetensors", "huggingface")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    theirs, content = transformers.EfficientNetForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not content["unexpected_keys"]
    assert all(name.endswith("num_batches_tracked") for name in content["missing_keys"])
    assert theirs.config.id2label == {0: "Ameise", 1: "蜂", 2: "crane"}
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.double()(x.double())
        answer = theirs.double().eval()(x.double()).logits
    assert ((answer - expected).abs().max() / expected.abs().max()).item() < 1e-12


def test_our_pictures_are_prepared_there_as_here(model: EfficientNet, tmp_path: Path, transformers: Any) -> None:
    picture = Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype="uint8"))
    high, wide = 80, 106
    resized = picture.resize((wide, high), Image.Resampling.BILINEAR).crop((21, 8, 85, 72))
    save(model, tmp_path / "model.safetensors", "huggingface")
    inputs = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)(picture, return_tensors="np")
    pixels = numpy.asarray(resized, dtype="float64") / 255
    expected = ((pixels - model.preprocess.mean) / model.preprocess.std).transpose(2, 0, 1)[None]
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert abs(inputs["pixel_values"] - expected).max() < 0.05  # a pixel may round another way: 1 / 255 / 0.2


def test_what_we_write_we_read_again(model: EfficientNet, tmp_path: Path) -> None:
    found = load(save(model, tmp_path / "model.safetensors", "huggingface"))
    for record in ("arch", "numerics", "preprocess", "labels", "classes"):
        assert getattr(found, record) == getattr(model, record), record


def test_a_squashed_picture_too(model: EfficientNet, tmp_path: Path) -> None:
    model.preprocess = Preprocess((64, 96), 1.0, "squash", "nearest")
    assert load(save(model, tmp_path / "pytorch_model.bin", "huggingface")).preprocess == model.preprocess


def test_a_folder_of_theirs_is_read(tmp_path: Path, transformers: Any) -> None:
    from tests.parity.peers import huggingface

    huggingface.create_network("b0").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(GOOGLES))
    found = load(tmp_path)
    assert (found.arch.name, found.classes, found.labels) == ("b0", 1000, imagenet_labels())
    assert found.numerics == Numerics("same", 1e-3)
    assert found.preprocess == Preprocess((224, 224), 1.0, "squash", "nearest", MEAN, STD)


def test_a_network_without_its_classifier(tmp_path: Path, transformers: Any) -> None:
    from tests.parity.peers import huggingface

    theirs = transformers.EfficientNetModel(huggingface.config("b0")).eval()
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert (ours.arch.name, ours.classes, ours.provenance.layout) == ("b0", 0, "huggingface")
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).pooler_output)
    again = save(ours, tmp_path / "again" / "model.safetensors", "huggingface").parent
    with torch.no_grad():
        opened = transformers.EfficientNetModel.from_pretrained(again).eval()
        assert torch.equal(opened(x).pooler_output, theirs(x).pooler_output)


@pytest.mark.parametrize("name", ["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "l2"])
def test_padding_is_listed_as_transformers_lists_it(name: str) -> None:
    from tests.parity.peers.huggingface import CONFIGURED

    assert depthwise_padding(ARCHS[name], ARCHS[name].resolution) == CONFIGURED[name][1]


@pytest.mark.parametrize("size", [(197, 197), (224, 197), (224, 240)])
def test_sizes_that_transformers_cannot_pad_for(size: tuple[int, int], model: EfficientNet, tmp_path: Path) -> None:
    model.preprocess = Preprocess(size)
    with pytest.raises(ValueError, match=f"cannot pad images of {size[0]}×{size[1]} pixels"):
        save(model, tmp_path / "model.safetensors", "huggingface")
    assert not list(tmp_path.iterdir())
    assert not config_files(tmp_path / "other.safetensors", model)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"rescale_offset": True, "rescale_factor": 1 / 127.5, "do_normalize": False, "include_top": False},
            (0.5, 0.5),
        ),
        ({"include_top": False, "image_std": [0.25] * 3}, (0.485, 0.25)),
        ({"do_normalize": False, "image_std": [0.25] * 3}, (0.0, 0.25)),
        ({"do_rescale": False, "image_std": [127.5] * 3, "image_mean": [127.5] * 3, "include_top": False}, (0.5, 0.5)),
    ],
)
def test_ways_to_scale(change: dict[str, Any], expected: tuple[float, float], tmp_path: Path) -> None:
    save(create("b0"), tmp_path / "model.safetensors", "huggingface")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**GOOGLES, **change}))
    found = load(tmp_path).preprocess
    assert (found.mean[0], found.std[0]) == pytest.approx(expected, abs=1e-6)


def test_a_middle_that_is_cut_out(tmp_path: Path) -> None:
    save(create("b0"), tmp_path / "model.safetensors", "huggingface")
    change = {"do_center_crop": True, "size": {"height": 320, "width": 320}, "crop_size": {"height": 256, "width": 256}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**GOOGLES, **change}))
    found = load(tmp_path).preprocess
    assert (found.size, found.crop_fraction, found.resize, found.resize_size) == ((256, 256), 0.8, "squash", (320, 320))


def test_names_that_come_twice_get_their_numbers(model: EfficientNet, tmp_path: Path) -> None:
    save(model, tmp_path / "model.safetensors", "huggingface")
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "crane", "1": "bee", "2": "crane"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).labels.names == ("crane (0)", "bee", "crane (2)")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda content: "{"),
        ("config.json", lambda content: "[]"),
        ("config.json", lambda content: json.dumps({**content, "batch_norm_eps": "small"})),
        ("config.json", lambda content: json.dumps({**content, "id2label": {"1": "ant"}})),
        ("config.json", lambda content: json.dumps({**content, "id2label": ["ant"]})),
        ("preprocessor_config.json", lambda content: json.dumps({**content, "size": {"side": 224}})),
        ("preprocessor_config.json", lambda content: json.dumps({**content, "resample": 17})),
        ("preprocessor_config.json", lambda content: json.dumps({**content, "image_std": 3})),
        ("preprocessor_config.json", lambda content: json.dumps({**content, "rescale_factor": 0})),
    ],
)
def test_files_that_make_no_sense(
    file: str, change: Callable[[dict[str, Any]], str], model: EfficientNet, tmp_path: Path
) -> None:
    save(model, tmp_path / "model.safetensors", "huggingface")
    (tmp_path / file).write_text(change(json.loads((tmp_path / file).read_text())))
    with pytest.raises(ValueError, match=r"config\.json"):
        load(tmp_path)


def test_files_of_others_beside_it_are_left_alone(model: EfficientNet, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "efficientnet", "batch_norm_eps": 0.5}')
    assert load(save(model, tmp_path / "model.safetensors")).numerics == model.numerics  # ours says it itself
    assert load(save(model, tmp_path / "b1.safetensors", "huggingface")).numerics == Numerics()
