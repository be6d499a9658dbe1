from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.cache import MemoryCache
from effnet.data.image_io import ImageError, load_input
from effnet.metadata import Preprocess

SMALL, LARGE = Preprocess((8, 8)), Preprocess((16, 16))


def test_decoded_once_for_each_preprocessing(tmp_path: Path) -> None:
    cache, path = MemoryCache(10_000), tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    expected = [load_input(path, preprocess) for preprocess in (SMALL, LARGE)]
    for _ in range(2):
        for preprocess, values in zip((SMALL, LARGE), expected, strict=True):
            assert np.array_equal(cache(path, preprocess), values)
        path.unlink(missing_ok=True)
    with pytest.raises(ImageError, match="does not exist"):
        cache(tmp_path / "a.png", SMALL)  # another object, which may be another image


def test_images_that_do_not_fit_are_decoded_every_time(tmp_path: Path) -> None:
    cache, paths = MemoryCache(2 * 8 * 8 * 3), [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.new("RGB", (9, 9)).save(path)
        cache(path, SMALL)
        path.unlink()
    for path in paths[:2]:
        assert cache(path, SMALL).shape == (8, 8, 3)
    with pytest.raises(ImageError):
        cache(paths[2], SMALL)
