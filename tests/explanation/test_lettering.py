"""Captions: they are below, and they fit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from effnet.explanation.lettering import captioned


@pytest.mark.parametrize("width", [16, 64, 300, 2000])
def test_a_caption_is_below_and_within(width: int) -> None:
    picture = Image.new("RGB", (width, 40), "white")
    made = captioned(picture, "a class whose name is long " * 9, "99.9%")
    assert made.width == width
    assert made.crop((0, 0, width, 40)).tobytes() == picture.tobytes()
    below = np.asarray(made.convert("L")).astype(int)[40:]
    if width >= 300:
        written = np.flatnonzero((below > 100).any(0))
        assert written[0] >= 3
        assert written[-1] < width - 3
        gaps = np.diff(written)
        assert gaps.max() > 5  # between the name and the number
    assert below[0].max() == below[-1].max() < 60  # not cut off


def test_a_caption_is_one_line() -> None:
    picture = Image.new("RGB", (300, 40), "white")
    assert captioned(picture, "two\n lines").tobytes() == captioned(picture, "two lines").tobytes()
