"""Sets of 16-bit images that use fewer bits: found, said, and read as what they are."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data import open_data, read_image
from effnet.data.bit_depth import choose_bits, find_bits, hint_if_dark
from effnet.data.dataset import check_images
from effnet.data.duplicates import find_duplicates
from effnet.data.webdataset_writer import write_shards
from effnet.metadata import Preprocess
from tests.data.deep import deep_png, grey_page, tiff


def noise(maximum: int, seed: int = 0, shape: tuple[int, ...] = (24, 24)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, maximum + 1, shape).astype(np.uint16)
    values[0, 0] = maximum
    return values


@pytest.mark.parametrize(("maximum", "bits"), [(255, 8), (256, 10), (4095, 12), (4096, 14), (16384, 16), (65535, 16)])
def test_the_fewest_bits_that_hold_all(maximum: int, bits: int) -> None:
    darker = [deep_png(noise(100, seed)) for seed in range(3)]
    for brightest in (
        deep_png(noise(maximum)),
        deep_png(noise(maximum, shape=(24, 24, 3))),
        tiff(grey_page(noise(maximum), order=">"), order=">"),
        tiff(grey_page(noise(maximum), photometric=0)),
        b"P5 24 24 65535\n" + noise(maximum).astype(">u2").tobytes(),
    ):
        assert find_bits([*darker, brightest]) == bits


def test_images_that_say_nothing_about_the_set() -> None:
    shallow = [
        np.zeros((9, 9, 3), np.uint8),
        b"no image",
        tiff(grey_page(noise(99), 8)),
        tiff(grey_page(noise(4095), 12)),
    ]
    assert find_bits(shallow) is None
    assert find_bits([*shallow, b"P5 24 24 4095\n" + noise(4095).astype(">u2").tobytes()]) is None
    assert find_bits([deep_png(np.zeros((9, 9), np.uint16))]) is None  # all black: nothing to be seen in any bits
    assert find_bits([*shallow, deep_png(noise(1000))]) == 10


def test_what_is_stated_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "effnet")
    images = [deep_png(noise(4000, seed)) for seed in range(2)]
    assert choose_bits(Preprocess(), images).bits == 12
    assert [record.getMessage() for record in caplog.records] == [
        "no 16-bit image has a value above 4,095: they are read as images of 12 bits (--bits 16 if they are just dark)"
    ]
    assert choose_bits(Preprocess(bits=14), images).bits == 14
    assert choose_bits(Preprocess(bits=14), images, 16).bits == 16
    assert choose_bits(Preprocess(), [deep_png(noise(60_000))]).bits == 0
    assert len(caplog.records) == 1


@pytest.fixture
def x_rays(tmp_path: Path) -> Path:
    root = tmp_path / "x-rays"
    for name in ("sick", "well"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            kind = "png" if number % 2 else "tif"
            Image.fromarray(noise(255, number + 10 * len(name) * (name == "sick"))).save(
                root / name / f"{number}.{kind}"
            )
    return root


def test_dark_images_are_not_duplicates_of_each_other(x_rays: Path) -> None:
    """All their upper bytes are zero: by these every image equals every other."""
    fingerprints: dict = {}
    train = open_data(x_rays).train
    assert train is not None
    readable, errors = check_images(train, fingerprints=fingerprints)
    assert (len(readable), errors) == (8, [])
    assert find_duplicates(readable, fingerprints) == []


def test_shards_of_resized_images_are_not_black(x_rays: Path, tmp_path: Path) -> None:
    write_shards(open_data(x_rays), tmp_path / "shards", max_short_side=12)
    train = open_data(str(tmp_path / "shards")).train
    assert train is not None
    assert np.asarray(read_image(train.items[0].image)).mean() > 60


def test_one_image_is_only_hinted_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "effnet")
    path = tmp_path / "one.png"
    path.write_bytes(deep_png(noise(1000)))
    hint_if_dark([str(path)])
    assert (
        caplog.records[0].getMessage() == f"{path} has 16 bits, and no value above 1023: if it holds 10, pass --bits 10"
    )
    path.write_bytes(deep_png(noise(60_000)))
    hint_if_dark([str(path)])
    hint_if_dark([str(path), str(path)])
    assert len(caplog.records) == 1
