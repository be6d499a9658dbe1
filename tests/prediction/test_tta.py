"""Views of a picture: what they are, and that their mean is what a predictor answers."""

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

SOFT = Preprocess((32, 32), 0.875, "crop", "bilinear")


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = effnet.create("nano", classes=4)
    made.labels = effnet.Labels(tuple("abcd"))
    made.preprocess = SOFT
    return made.eval()


def noise(count: int = 3, height: int = 50) -> list[np.ndarray]:
    dice = np.random.default_rng(0)
    return [dice.integers(0, 256, (height, 60, 3), np.uint8) for _ in range(count)]


def test_mirror() -> None:
    pictures = np.stack([load_input(array, SOFT) for array in noise()])
    assert tta_preprocess(SOFT, "mirror") == tta_preprocess(SOFT, "none") == SOFT
    (alone,) = tta_views(pictures, SOFT, "none")
    plain, mirrored = tta_views(pictures, SOFT, "mirror")
    assert alone is plain is pictures
    assert (mirrored[:, :, 0] == pictures[:, :, -1]).all()
    assert mirrored.flags.c_contiguous


def test_the_middle_crop_is_what_is_seen_without() -> None:
    picture = noise(1)[0]
    wide = tta_preprocess(SOFT, "crops")
    assert (wide.size, wide.crop_fraction) == ((37, 37), 1.0)  # 8/7 of 32: a little more than 32 / 0.875 floored
    room = replace(SOFT, crop=0.8)
    wide = tta_preprocess(room, "crops")
    assert wide.size == room.resize_size == (40, 40)
    middle, *corners = tta_views(load_input(picture, wide)[None], room, "crops")
    assert (middle[0] == load_input(picture, room)).all()
    assert [corner.shape for corner in corners] == [(1, 32, 32, 3)] * 4
    whole = load_input(picture, wide)
    assert (corners[0][0] == whole[:32, :32]).all()
    assert (corners[3][0] == whole[-32:, -32:]).all()


def test_where_nothing_is_cut_off_the_picture_is_larger() -> None:
    full = Preprocess((32, 48), 1.0, "squash")
    assert tta_preprocess(full, "crops").size == (37, 55)
    found = list(tta_views(load_input(noise(1)[0], tta_preprocess(full, "crops"))[None], full, "crops"))
    assert len({view.tobytes() for view in found}) == 5
    assert {view.shape for view in found} == {(1, 32, 48, 3)}


@pytest.mark.parametrize("views", ["mirror", "crops"])
def test_a_predictor_answers_with_the_mean(model: EfficientNet, views: str) -> None:
    arrays = noise()
    x = np.stack([load_input(array, tta_preprocess(SOFT, views)) for array in arrays])
    with torch.inference_mode():
        logits = [model(normalize(torch.from_numpy(seen), SOFT)).numpy() for seen in tta_views(x, SOFT, views)]
    expected = np.mean([softmax(one) for one in logits], 0)
    predictor = Predictor(model, "eager", tta=views, batch_size=2)
    found = [row for _, row in predictor.predict_scores((str(at), array) for at, array in enumerate(arrays))]
    assert np.stack(found) == pytest.approx(expected, abs=1e-5)  # type: ignore[arg-type]
    first = predictor(arrays[:1])[0]
    assert first.probability == pytest.approx(expected[0].max(), abs=1e-5)
    assert not np.allclose(expected, softmax(logits[0]), atol=1e-4)


def test_a_mirrored_picture_is_answered_alike(model: EfficientNet) -> None:
    predictor = Predictor(model, "eager", tta="mirror")
    predictor.preprocess = replace(SOFT, crop=1.0)
    picture = noise(1)[0][:32, :32]  # its size already: resizing is a little lopsided
    one, other = predictor([picture]), predictor([picture[:, ::-1].copy()])
    assert one[0].probabilities == pytest.approx(other[0].probabilities, abs=1e-6)


def test_other_words_are_refused(model: EfficientNet) -> None:
    with pytest.raises(ValueError, match="views must be one of none, mirror, crops"):
        Predictor(model, tta="rotate")
