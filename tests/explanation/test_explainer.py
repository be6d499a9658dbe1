"""Explanations, compared with independent ways to compute the same."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet import EfficientNet, Labels, Preprocess
from effnet.data import ImageError
from effnet.data.preprocessing import normalize
from effnet.explanation import Explanation, explain
from effnet.explanation.explainer import scale_photo
from tests.explanation.test_attribution import random_images, random_network

PHOTO = random_images(60, 90, 3)
NAMES = ("ant", "bee", "7", "cat, small", "dog", "elk", "fox")


@pytest.fixture(scope="module")
def nano() -> EfficientNet:
    model = random_network("nano")
    model.labels = Labels(NAMES)
    model.preprocess = replace(model.preprocess, size=(40, 48))
    return model


def logits_of(model: EfficientNet, seen: Any) -> Any:
    """Logits (N, classes) of images (N, H, W, 3), by the network itself."""
    with torch.inference_mode():
        x = normalize(torch.from_numpy(np.array(seen)), model.preprocess)
        return model(x.to(next(model.parameters()).dtype)).double().numpy()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("nano", (33, 47)),
        ("b0", (96, 65)),
        ("b1", (64, 64)),
        ("lite1", (65, 99)),
        ("edge_s", (64, 97)),
        ("v2_b1", (97, 65)),
    ],
    ids=str,
)
def test_map_sums_to_its_logit_without_the_bias(name: str, size: tuple[int, int]) -> None:
    model = random_network(name)
    model.preprocess = replace(model.preprocess, size=size)
    found = explain(model, PHOTO, top=7)
    (logits,) = logits_of(model, found.input_image[None])
    assert sorted(found.classes) == list(range(7))
    assert found.maps.shape[1] * found.maps.shape[2] > 1
    order, bias = list(found.classes), model.classifier.bias
    assert isinstance(bias, torch.Tensor)
    assert found.logits == pytest.approx(logits[order], rel=1e-5, abs=1e-5)
    assert found.maps.astype(float).sum((1, 2)) == pytest.approx(
        logits[order] - bias.detach().numpy()[order], rel=1e-4, abs=1e-4
    )
    assert found.maps.astype(float).sum((1, 2)) + found.biases == pytest.approx(found.logits, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ["nano", "b0", "b1", "lite1", "edge_s", "v2_b1"])
def test_map_is_exact_in_float64(name: str) -> None:
    """In float64, with logits of usual size, it sums to the logit to 1e-4."""
    model = random_network(name).double()
    model.preprocess = replace(model.preprocess, size=(65, 97))
    assert isinstance(model.classifier, torch.nn.Linear)
    model.classifier.weight.data *= (
        20 / np.abs(logits_of(model, random_images(1, 65, 97, 3))).max()
    )  # a million of random ones
    found = explain(model, PHOTO, top=7)
    (logits,) = logits_of(model, found.input_image[None])
    bias = model.classifier.bias
    assert isinstance(bias, torch.Tensor)
    expected = (logits - bias.detach().numpy())[list(found.classes)]
    assert found.maps.astype(float).sum((1, 2)) == pytest.approx(expected, rel=0, abs=1e-4)


def test_same_prediction_as_the_predictor(nano: EfficientNet) -> None:
    (expected,) = effnet.Predictor(nano, decode="exact")([PHOTO], top=3)
    for way in ({}, {"method": "gradcam"}, {"method": "occlusion", "patch": 20}):
        found = explain(nano, PHOTO, **way)
        assert found.prediction.labels == expected.labels == found.names
        assert found.scores == pytest.approx(expected.probabilities, rel=1e-4)
        assert found.prediction.probabilities == pytest.approx(expected.probabilities, rel=1e-4)


def test_gradcam_of_the_head_is_the_positive_part_of_cam(nano: EfficientNet) -> None:
    cam, gradient = (explain(nano, PHOTO, NAMES, method=method) for method in ("cam", "gradcam"))
    assert (cam.maps < 0).any()
    assert gradient.maps == pytest.approx(cam.maps.clip(0), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("layer", ["stem", "stage2", "stage3"])
def test_gradcam_by_hooks(nano: EfficientNet, layer: str) -> None:
    found = explain(nano, PHOTO, ["bee", "fox"], method="gradcam", layer=layer)
    kept: dict[str, torch.Tensor] = {}

    def keep(module: object, given: object, out: torch.Tensor) -> None:
        out.retain_grad()
        kept["map"] = out

    part = nano.get_submodule(layer)
    last_block = part[-1] if isinstance(part, torch.nn.Sequential) else part
    hook = last_block.register_forward_hook(keep)
    try:
        for index, one in enumerate((1, 6)):
            nano.zero_grad()
            nano(normalize(torch.from_numpy(found.input_image[None]), nano.preprocess))[0, one].backward()
            slope = kept["map"].grad
            assert slope is not None
            weight, last = slope[0].double().mean((1, 2)).numpy(), kept["map"][0].detach().double().numpy()
            expected = np.maximum(np.tensordot(weight, last, 1), 0)
            assert found.maps[index] == pytest.approx(expected, rel=1e-3, abs=1e-6)
            assert expected.max() > 0
    finally:
        hook.remove()
        nano.zero_grad(set_to_none=True)
    assert found.layer == layer


@pytest.mark.parametrize("drop", ["logit", "probability"])
def test_occlusion_by_hand(nano: EfficientNet, drop: str) -> None:
    found = explain(nano, PHOTO, [4, 1], method="occlusion", patch=16, stride=10, drop=drop, batch_size=5)
    color = np.array(nano.preprocess.mean, np.float32) * 255

    def answer(seen: Any) -> Any:
        logits = logits_of(nano, seen[None].astype(np.float32))[0]
        return (logits if drop == "logit" else np.exp(logits) / np.exp(logits).sum())[[4, 1]]

    total, times = np.zeros((2, 40, 48)), np.zeros((40, 48))
    for top in (0, 10, 20, 24):
        for left in (0, 10, 20, 30, 32):
            painted = found.input_image.astype(np.float32)
            painted[top : top + 16, left : left + 16] = color
            total[:, top : top + 16, left : left + 16] += (answer(found.input_image) - answer(painted))[:, None, None]
            times[top : top + 16, left : left + 16] += 1
    assert times.min() > 0
    assert found.maps == pytest.approx(total / times, rel=1e-3, abs=1e-5)
    assert found.layer == "input"


def test_occluding_the_mean_color_changes_nothing(nano: EfficientNet) -> None:
    plain = replace(nano.preprocess, mean=(100 / 255,) * 3, std=(0.25,) * 3, size=(48, 48), crop_fraction=1.0)
    spotted = np.full((48, 48, 3), 100, np.uint8)
    spotted[32:, :16] = random_images(16, 16, 3)
    before, nano.preprocess = nano.preprocess, plain
    try:
        (lost,) = explain(nano, spotted, ["ant"], method="occlusion", patch=8, stride=8).maps
    finally:
        nano.preprocess = before
    assert np.abs(lost[32:, :16]).min() > 1e-4
    lost[32:, :16] = 0
    assert np.abs(lost).max() < 1e-5


def test_multilabel(nano: EfficientNet) -> None:
    before, nano.labels = nano.labels, Labels(NAMES, "multilabel")
    try:
        found = explain(nano, PHOTO, top=7)
        assert found.scores == pytest.approx(1 / (1 + np.exp(-np.array(found.logits))))
        assert list(found.scores) == sorted(found.scores, reverse=True)
        assert found.prediction.labels == tuple(
            name for name, p in zip(found.names, found.scores, strict=True) if p >= 0.5
        )
    finally:
        nano.labels = before


def test_regression(nano: EfficientNet) -> None:
    before, nano.labels = nano.labels, Labels(("age", "height"), "regression")
    classes, nano.classes = nano.classes, 7
    try:
        found = explain(nano, PHOTO, top=1)
        assert found.names[:2] == ("age", "height")  # all of them, in their order
        assert len(found.names) == 7
        assert found.scores == found.logits
        assert found.format_score(0) == f"{found.logits[0]:.4g}"
        assert found.map_maximum(1) == found.maps[1].max()  # values have units of their own
        assert explain(nano, PHOTO, ["height"]).classes == (1,)
        with pytest.raises(ValueError, match="values have no probability"):
            explain(nano, PHOTO, method="occlusion", drop="probability")
    finally:
        nano.labels, nano.classes = before, classes


def test_classes_by_name_and_index(nano: EfficientNet) -> None:
    found = explain(nano, PHOTO, ["cat, small", 0, "5", "7"])
    assert found.classes == (3, 0, 5, 2)  # "7" is a name here
    assert found.names == ("cat, small", "ant", "elk", "7")
    assert len(found.prediction.labels) == 3
    assert found.maps == pytest.approx(explain(nano, PHOTO, range(7)).maps[[3, 0, 5, 2]], rel=1e-4, abs=1e-6)


def test_image_sources(nano: EfficientNet, tmp_path: Path) -> None:
    path, file = tmp_path / "photo.png", BytesIO()
    Image.fromarray(PHOTO).save(path)
    Image.fromarray(PHOTO).save(file, "PNG")
    weights = effnet.save(nano, tmp_path / "model.safetensors")
    expected = explain(nano, PHOTO)
    assert expected.image == "image 1"
    for image in (path, str(path), Image.fromarray(PHOTO), file.getvalue()):
        assert np.array_equal(explain(nano, image).maps, expected.maps)
    found = explain(weights, path)
    assert found.maps == pytest.approx(expected.maps, rel=1e-4, abs=1e-6)
    assert found.image == str(path)
    assert explain(nano, PHOTO, name="mine").image == "mine"


def test_network_is_left_as_it_was(nano: EfficientNet) -> None:
    ways: list[dict[str, Any]] = [{}, {"method": "gradcam", "layer": "stage1"}, {"method": "occlusion", "patch": 20}]
    expected = [explain(nano, PHOTO, **way).maps for way in ways]
    nano.train()
    state = {name: value.clone() for name, value in nano.state_dict().items()}
    try:
        for way, maps in zip(ways, expected, strict=True):
            with torch.inference_mode():  # Grad-CAM needs gradients nevertheless
                assert np.array_equal(explain(nano, PHOTO, **way).maps, maps)
        assert all(module.training for module in nano.modules())
        assert all(torch.equal(value, state[name]) for name, value in nano.state_dict().items())
        assert all(one.grad is None for one in nano.parameters())
    finally:
        nano.eval()


def overlaid(found: Explanation, side: int | None) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """How far each pixel of the overlay is from gray."""
    shown: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = np.ptp(np.asarray(found.overlay(0, side)).astype(int), 2)
    return shown


def test_overlay_darkens_what_was_cropped(nano: EfficientNet) -> None:
    photo = random_images(300, 600, 3)
    before, nano.preprocess = nano.preprocess, Preprocess((64, 64), crop_fraction=0.5)
    try:
        found = explain(nano, photo)
    finally:
        nano.preprocess = before
    assert found.box == (225, 75, 375, 225)  # the middle half of the short side
    found.maps[0] = 1.0
    for side, times in ((None, 1.0), (300, 0.5)):
        strength = overlaid(found, side)
        assert strength.shape == (300 * times, 600 * times)
        left, top, right, bottom = (int(one * times) for one in found.box)
        assert strength[top + 1 : bottom - 1, left + 1 : right - 1].min() > 20
        strength[top - 1 : bottom + 1, left - 1 : right + 1] = 0
        assert strength.max() == 0
    outside = np.isnan(found.map_on_photo(0))
    assert outside.shape == (300, 600)
    assert (~outside).sum() == 150 * 150
    assert np.nanmin(found.map_on_photo(0)) == pytest.approx(1)
    with pytest.raises(ValueError, match="there is no map 3"):
        found.overlay(3)


def test_rotated_photo(nano: EfficientNet) -> None:
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise
    Image.fromarray(random_images(60, 90, 3)).save(file, "JPEG", exif=exif)
    found = explain(nano, file.getvalue())
    assert found.photo.size == (60, 90)
    assert found.overlay(0, None).size == (2 * 60, 2 * 90)


def test_scale_photo() -> None:
    assert scale_photo(Image.new("RGB", (8, 4)), 1024).size == (256, 128)
    assert scale_photo(Image.new("RGB", (8, 4)), 100).size == (96, 48)
    assert scale_photo(Image.new("RGB", (300, 2)), 1024).size == (300, 2)
    assert scale_photo(Image.new("RGB", (4000, 2)), 1024).size == (1024, 1)
    assert scale_photo(Image.new("RGB", (4000, 2)), None).size == (4000, 2)


def test_to_dict(nano: EfficientNet) -> None:
    found = explain(nano, PHOTO, ["fox"], name="photo")
    data = found.to_dict()
    assert data["image"] == "photo"
    assert [one["label"] for one in data["labels"]] == list(found.prediction.labels)
    assert data["explained"] == [{"label": "fox", "class": 6, "probability": found.scores[0], "logit": found.logits[0]}]
    assert data["size"] == [60, 90]
    assert data["box"] == pytest.approx(found.box, abs=0.01)
    assert (data["method"], data["layer"]) == ("cam", "head")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"classes": ["ants"]}, "there is no class 'ants'; did you mean ant"),
        ({"classes": [7]}, "there is no class 7: the network has 7, from 0 to 6"),
        ({"classes": ["12"]}, "there is no class 12"),
        ({"top": 0}, "top must be"),
        ({"method": "saliency"}, "method must be"),
        ({"layer": "stage2"}, 'layer requires method="gradcam", not cam'),
        ({"method": "occlusion", "layer": "stem"}, 'layer requires method="gradcam", not occlusion'),
        (
            {"method": "gradcam", "layer": "stage9"},
            "there is no layer 'stage9': nano has stem, stage1, stage2, stage3, head",
        ),
        ({"patch": 8}, 'patch, stride and drop require method="occlusion", not cam'),
        ({"method": "occlusion", "patch": 41}, "too small for a patch of 41"),
        ({"method": "occlusion", "patch": 0}, "patch must be"),
        ({"method": "occlusion", "patch": 8, "stride": 9}, "would leave gaps"),
        ({"method": "occlusion", "drop": "loss"}, "drop must be"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_invalid_arguments(nano: EfficientNet, words: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        explain(nano, PHOTO, **words)


def test_errors(nano: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no classifier"):
        explain(effnet.create("nano", 0), PHOTO)
    with pytest.raises(ValueError, match="takes 5 channels"):
        explain(effnet.create("nano", 2, 5), PHOTO)
    with pytest.raises(ImageError, match="does not exist"):
        explain(nano, tmp_path / "no.jpg")
    with pytest.raises(ValueError, match=r"model\.onnx is an exported file"):
        explain(tmp_path / "model.onnx", PHOTO)
    damaged = random_network("nano")
    damaged.get_parameter("classifier.bias").data[0] = torch.nan
    with pytest.raises(ValueError, match="NaN or Inf"):
        explain(damaged, PHOTO)
