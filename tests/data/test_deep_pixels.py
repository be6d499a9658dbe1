"""12 and 16 bits: every order of bytes, photometric interpretation and compression gives the same grey."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from effnet.data import ImageError, read_image
from tests.data.conftest import encode
from tests.data.deep import color_page, deep_png, grey_page, png, tiff

VALUES = np.linspace(0, 4095, 40 * 48).astype(np.uint16).reshape(40, 48)  # 12 bits
COLORS = np.stack([VALUES, VALUES[::-1], VALUES // 2], -1)


def grey(content: bytes, **settings: Any) -> NDArray[np.int64]:
    found = np.asarray(read_image(content, **settings)).astype(int)
    assert (found == found[..., :1]).all()
    return found[..., 0]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("kind", ["8 bits", "12 bits", "12 of 16 bits", "16 bits"])
def test_tiff_of_any_depth_and_photometric_interpretation(order: str, photometric: int, kind: str) -> None:
    values, bits, stated = {
        "8 bits": (VALUES >> 4, 8, 0),
        "12 bits": (VALUES, 12, 0),
        "12 of 16 bits": (VALUES, 16, 12),
        "16 bits": (VALUES << 4, 16, 0),
    }[kind]
    expected = VALUES >> 4 if photometric else 255 - (VALUES >> 4)
    page = grey_page(values, bits, photometric, order)
    assert np.array_equal(grey(tiff(page, order=order), bits=stated), expected)
    # whatever a model says, a file of 12 bits has no more; and what a model says of files of 16 bits is not of 8
    for other in (12, 16) if bits < 16 else ():
        assert np.array_equal(grey(tiff(page, order=order), bits=other), expected)


@pytest.mark.parametrize("order", "<>")
def test_a_missing_photometric_interpretation_is_black_as_zero(order: str) -> None:
    page = {tag: value for tag, value in grey_page(VALUES << 4, order=order).items() if tag != 262}
    assert np.array_equal(grey(tiff(page, order=order)), VALUES >> 4)


@pytest.mark.parametrize("order", "<>")
def test_what_the_tags_state_is_enough(order: str) -> None:
    assert np.array_equal(grey(tiff(grey_page(VALUES, order=order, t281=4095), order=order)), VALUES >> 4)
    signed = VALUES.astype(np.uint16) << 3  # as far as 15 bits reach
    assert np.array_equal(grey(tiff(grey_page(signed, order=order, t339=2), order=order)), VALUES >> 4)
    negative = grey_page((-VALUES.astype(np.int16)).view(np.uint16), order=order, t339=2)
    with pytest.raises(ImageError, match="negative values"):
        read_image(tiff(negative, order=order))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "zstd", "packbits"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_compressed_tiff(compression: str | None, predictor: int) -> None:
    options: dict[str, Any] = {"tiffinfo": {317: predictor}} | ({"compression": compression} if compression else {})
    assert np.array_equal(grey(encode(Image.fromarray(VALUES), "TIFF", **options), bits=12), VALUES >> 4)
    assert np.array_equal(grey(encode(Image.fromarray(VALUES << 4), "TIFF", **options)), VALUES >> 4)


@pytest.mark.parametrize("order", "<>")
def test_colors_keep_the_lower_bytes_that_pil_drops(order: str) -> None:
    plain = color_page(COLORS, order)
    deflated = plain | {259: 8, "pixels": zlib.compress(plain["pixels"])}
    for content in (tiff(plain, order=order), tiff(deflated, order=order), deep_png(COLORS)):
        assert np.array_equal(np.asarray(read_image(content, bits=12)), COLORS >> 4)
        assert np.array_equal(np.asarray(read_image(content)), COLORS >> 8)


@pytest.mark.parametrize("opaque", [4095, 65535])
def test_colors_with_alpha(opaque: int) -> None:
    content = deep_png(np.dstack([COLORS, np.full_like(VALUES, opaque)]))
    assert np.array_equal(np.asarray(read_image(content, bits=12)), COLORS >> 4)
    grey_alpha = deep_png(np.dstack([VALUES << 4, np.full_like(VALUES, 65535)]))
    assert np.array_equal(grey(grey_alpha), VALUES >> 4)
    with pytest.raises(ImageError, match="cannot be read as 12 bits: save it without alpha"):
        read_image(grey_alpha, bits=12)


def test_netpbm_states_its_maximum() -> None:
    for maximum, bits in ((4095, 0), (4095, 12), (4095, 16), (65535, 12)):
        content = b"P5 48 40 %d\n" % maximum + VALUES.astype(">u2").tobytes()
        assert np.abs(grey(content, bits=bits) - (VALUES >> 4)).max() <= 1


def test_more_than_the_stated_bits() -> None:
    with pytest.raises(ImageError, match="has values up to 4095, and is read as 10 bits: pass --bits 16"):
        read_image(deep_png(VALUES), bits=10)
    with pytest.raises(ImageError, match="has values up to"):
        read_image(deep_png(COLORS), bits=10)
    hot = VALUES.copy()
    hot[0, 0] = 65535  # a single hot pixel is white
    found = grey(deep_png(hot), bits=12)
    assert found[0, 0] == 255
    assert np.array_equal(found[1:], VALUES[1:] >> 4)


def test_transparent_values_of_16_bits() -> None:
    key = int(VALUES[20, 20])  # not of its neighbors, whose upper bytes are the same
    for bits, shift in ((0, 8), (12, 4)):
        found = grey(deep_png(VALUES, (b"tRNS", struct.pack(">H", key))), bits=bits)
        assert found[20, 20] == 255
        assert found[20, 19] == VALUES[20, 19] >> shift
        content = deep_png(np.repeat(VALUES[..., None], 3, -1), (b"tRNS", struct.pack(">HHH", key, key, key)))
        colors = np.asarray(read_image(content, bits=bits))
        assert colors[20, 20].tolist() == [255] * 3
        assert colors[20, 19].tolist() == [VALUES[20, 19] >> shift] * 3
        kept = read_image(content, color="RGBA", bits=bits)
        assert [kept.getpixel((x, 20))[3] for x in (19, 20)] == [255, 0]  # type: ignore[index]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_values_of_few_bits(bits: int) -> None:
    brightest = (1 << bits) - 1
    row = 0
    for value in (brightest, 0) * 4:
        row = row << bits | value
    rows = (b"\0" + row.to_bytes(bits, "big")) * 4
    found = grey(png(8, 4, bits, 0, rows, (b"tRNS", struct.pack(">H", 0))))
    assert (found == 255).all()
    found = grey(png(8, 4, bits, 0, rows, (b"tRNS", struct.pack(">H", brightest))))
    assert found[0].tolist() == [255, 0] * 4


def test_the_first_page_that_is_no_thumbnail() -> None:
    thumbnail = grey_page(np.full((8, 8), 9, np.uint16), 8, t254=1)
    assert np.array_equal(grey(tiff(thumbnail, grey_page(VALUES, 12))), VALUES >> 4)
    assert grey(tiff(thumbnail)).shape == (8, 8)
    assert grey(tiff(thumbnail, thumbnail)).shape == (8, 8)


def test_an_image_in_memory_stays_as_it_is() -> None:
    image = Image.fromarray(VALUES)
    assert np.array_equal(np.asarray(read_image(image, bits=12))[..., 0], VALUES >> 4)
    assert np.array_equal(np.asarray(image), VALUES)
    opened = Image.open(io.BytesIO(deep_png(COLORS)))
    assert np.array_equal(np.asarray(read_image(opened, bits=12)), COLORS >> 8)  # PIL has dropped the rest
