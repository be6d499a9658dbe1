"""Test-time augmentation: the views, and that predictions are their mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import effnet
from effnet import EfficientNet, Predictor
from effnet.data import load_input
from effnet.data.preprocessing import normalize
from effnet.metadata import Preprocess
from effnet.prediction.tta import tta_preprocess, tta_views
from effnet.tasks import softmax

BILINEAR = Preprocess((32, 32), 0.875, "crop", "bilinear")


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = effnet.create("nano", classes=4)
    made.labels = effnet.Labels(tuple("abcd"))
    made.preprocess = BILINEAR
    return made.eval()


def noise(count: int = 3, height: int = 50) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, 60, 3), np.uint8) for _ in range(count)]


def test_mirror() -> None:
    images = np.stack([load_input(array, BILINEAR) for array in noise()])
    assert tta_preprocess(BILINEAR, "mirror") == tta_preprocess(BILINEAR, "none") == BILINEAR
    (alone,) = tta_views(images, BILINEAR, "none")
    plain, mirrored = tta_views(images, BILINEAR, "mirror")
    assert alone is plain is images
    assert (mirrored[:, :, 0] == images[:, :, -1]).all()
    assert mirrored.flags.c_contiguous


def test_first_crop_is_the_center_crop() -> None:
    image = noise(1)[0]
    wide = tta_preprocess(BILINEAR, "crops")
    assert (wide.size, wide.crop_fraction) == ((37, 37), 1.0)  # 8/7 of 32: a little more than 32 / 0.875 floored
    room = replace(BILINEAR, crop_fraction=0.8)
    wide = tta_preprocess(room, "crops")
    assert wide.size == room.resize_size == (40, 40)
    middle, *corners = tta_views(load_input(image, wide)[None], room, "crops")
    assert (middle[0] == load_input(image, room)).all()
    assert [corner.shape for corner in corners] == [(1, 32, 32, 3)] * 4
    whole = load_input(image, wide)
    assert (corners[0][0] == whole[:32, :32]).all()
    assert (corners[3][0] == whole[-32:, -32:]).all()


def test_image_is_enlarged_if_nothing_is_cut_off() -> None:
    full = Preprocess((32, 48), 1.0, "squash")
    assert tta_preprocess(full, "crops").size == (37, 55)
    found = list(tta_views(load_input(noise(1)[0], tta_preprocess(full, "crops"))[None], full, "crops"))
    assert len({view.tobytes() for view in found}) == 5
    assert {view.shape for view in found} == {(1, 32, 48, 3)}


@pytest.mark.parametrize("tta", ["mirror", "crops"])
def test_predictor_averages_the_scores(model: EfficientNet, tta: str) -> None:
    arrays = noise()
    x = np.stack([load_input(array, tta_preprocess(BILINEAR, tta)) for array in arrays])
    with torch.inference_mode():
        logits = [model(normalize(torch.from_numpy(seen), BILINEAR)).numpy() for seen in tta_views(x, BILINEAR, tta)]
    expected = np.mean([softmax(one) for one in logits], 0)
    predictor = Predictor(model, "eager", tta=tta, batch_size=2)
    found = [row for _, row in predictor.predict_scores((str(at), array) for at, array in enumerate(arrays))]
    assert np.stack(found) == pytest.approx(expected, abs=1e-5)  # type: ignore[arg-type]
    first = predictor(arrays[:1])[0]
    assert first.probability == pytest.approx(expected[0].max(), abs=1e-5)
    assert not np.allclose(expected, softmax(logits[0]), atol=1e-4)


def test_mirrored_image_has_the_same_scores(model: EfficientNet) -> None:
    predictor = Predictor(model, "eager", tta="mirror")
    predictor.preprocess = replace(BILINEAR, crop_fraction=1.0)
    image = noise(1)[0][:32, :32]  # the network's size: resizing is not exactly symmetric
    one, other = predictor([image]), predictor([image[:, ::-1].copy()])
    assert one[0].probabilities == pytest.approx(other[0].probabilities, abs=1e-6)


def test_unknown_mode(model: EfficientNet) -> None:
    with pytest.raises(ValueError, match="tta must be one of none, mirror, crops"):
        Predictor(model, tta="rotate")
