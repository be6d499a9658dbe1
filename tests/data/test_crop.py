from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.contract import Preprocess
from effnet.data.augment import seeded
from effnet.data.crop import drawn, random_crop, resized


@pytest.fixture
def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((641, 479), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    file, exif = BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), [(479, 641), (100, 100), (3, 400), (2, 2)])
def test_what_is_drawn(height: int, width: int) -> None:
    torch.manual_seed(0)
    boxes = [drawn(height, width, 0.2) for _ in range(500)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    if min(height, width) >= 100:
        shares = [(right - left) * (bottom - top) / (height * width) for left, top, right, bottom in boxes]
        ratios = [(right - left) / (bottom - top) for left, top, right, bottom in boxes]
        assert 0.19 < min(shares) < 0.22
        assert max(shares) > 0.9
        assert 0.73 < min(ratios) < 0.8
        assert 1.25 < max(ratios) < 1.36
        assert min(box[0] for box in boxes) == 0
        assert max(box[2] for box in boxes) == width


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_resized_as_pil_does(photo: Image.Image, interpolation: str) -> None:
    for size in ((64, 48), (700, 650)):
        found = resized(np.array(photo), size, interpolation).astype(int)
        expected = photo.resize(size[::-1], Image.Resampling[interpolation.upper()])
        apart = np.abs(found - np.asarray(expected, int))
        assert apart.max() <= (0 if interpolation == "lanczos" else 3)
        assert apart.mean() < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decoded_at_reduced_scale(photo: Image.Image, orientation: int) -> None:
    exact, reduced = (random_crop(Preprocess((40, 40), decode=how), 0.1) for how in ("exact", "reduced"))
    content = jpeg(photo, orientation)
    for seed in range(6):
        with seeded(seed):
            one = exact(content)
        with seeded(seed):
            other = reduced(content)
        assert one.shape == other.shape == (40, 40, 3)
        assert np.abs(one.astype(int) - other).mean() < 6  # the same part, the same way up


def test_a_picture_in_memory_is_cut_as_its_file(photo: Image.Image) -> None:
    crop = random_crop(Preprocess((40, 40)), 0.3)
    for source in (np.asarray(photo), photo, photo.convert("L")):
        with seeded(3):
            assert crop(source).shape == (40, 40, 3)
    with seeded(3):
        one = crop(np.array(photo))
    with seeded(3):
        assert np.array_equal(one, crop(photo))
