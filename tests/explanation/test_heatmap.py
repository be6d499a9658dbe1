"""Heatmaps: color where something supports a class, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from effnet.explanation import overlay
from effnet.explanation.heatmap import PHOTO_BRIGHTNESS, UNSEEN_BRIGHTNESS, place_map

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def color(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """How far each pixel is from gray, (H, W)."""
    found: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = np.ptp(image.astype(np.int64), axis=2)
    return found


def test_color_where_the_map_is_positive() -> None:
    values = np.full((6, 8), -1.0, np.float32)
    values[4, 6] = 2.0  # its middle lies at (36, 52)
    found = np.asarray(overlay(IMAGE, values))
    assert found.shape == IMAGE.shape
    strength = color(found)
    assert strength[34:38, 50:54].min() > 40
    assert strength[:24, :32].max() == 0
    y, x = np.unravel_index(found.sum(2).argmax(), strength.shape)
    assert abs(y - 36) + abs(x - 52) < 10


def test_negative_values_are_transparent() -> None:
    for values in (np.full((6, 8), -3.0, np.float32), np.zeros((6, 8), np.float32)):
        found = np.asarray(overlay(IMAGE, values)).astype(float)
        assert color(found.astype(np.uint8)).max() == 0
        luma = IMAGE @ (0.299, 0.587, 0.114)
        assert np.abs(found[..., 0] - PHOTO_BRIGHTNESS * luma).max() < 2


def test_larger_values_are_brighter() -> None:
    values = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (4, 1))
    found = np.asarray(overlay(np.full((32, 128, 3), 60, np.uint8), values)).astype(float) @ (0.299, 0.587, 0.114)
    row = found[16, 12:-8]
    assert np.diff(row[40:]).min() > -1
    assert row[-1] > 3 * 60 * PHOTO_BRIGHTNESS
    assert np.abs(np.diff(row)).max() < 6  # smooth: no edges of the map's own pixels


def test_common_maximum() -> None:
    values = np.full((2, 2), 0.5, np.float32)
    faint, full = (np.asarray(overlay(IMAGE, values, most)).astype(int) for most in (5.0, None))
    assert color(full.astype(np.uint8)).mean() > 1.5 * color(faint.astype(np.uint8)).mean()


def test_sizes_and_dtypes() -> None:
    values = np.ones((1, 1), np.float32)
    tall = np.full((9, 5, 3), 300.0, np.float32)  # TensorFlow's resampling gives floats
    assert overlay(tall, values).size == (5, 9)
    with pytest.raises(ValueError, match="an image"):
        overlay(IMAGE[None], values)
    with pytest.raises(ValueError, match="a map"):
        overlay(IMAGE, values[None])


def test_part_of_the_image() -> None:
    values = np.ones((3, 4), np.float32)
    found = np.asarray(overlay(IMAGE, values, box=(16.0, 8.0, 48.0, 40.0)))
    strength = color(found)
    assert strength[8:40, 16:48].min() > 40
    strength[8:40, 16:48] = 0
    assert strength.max() == 0
    gray = IMAGE @ (0.299, 0.587, 0.114)
    assert np.abs(found[:8, :, 0] - PHOTO_BRIGHTNESS * UNSEEN_BRIGHTNESS * gray[:8]).max() < 2
    whole = overlay(IMAGE, values)
    assert whole.tobytes() == overlay(IMAGE, values, box=(0, 0, 64, 48)).tobytes()


def test_box_between_pixels() -> None:
    values = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (4, 1))
    found = place_map(values, (40, 100), (10.5, 4.2, 90.5, 36.2))
    assert np.isnan(found[:, :11]).all()
    assert np.isnan(found[:, 90:]).all()
    assert np.isnan(found[:5]).all()
    assert np.isnan(found[36:]).all()
    # of 64 values over 80 pixels, number 31.5 is in the middle, which is at 50.5
    inside = found[5:36, 20:81]
    expected = ((np.arange(20, 81) + 0.5 - 10.5) / 80 * 64 - 0.5) / 63
    assert inside == pytest.approx(np.tile(expected, (31, 1)), abs=2e-3)


def test_box_beyond_the_image() -> None:
    assert np.isnan(place_map(np.ones((2, 2), np.float32), (4, 4), (5, 5, 9, 9))).all()
    assert (place_map(np.ones((2, 2), np.float32), (4, 4), (-3, -3, 9, 9)) == 1).all()
