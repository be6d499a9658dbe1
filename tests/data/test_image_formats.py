"""What is no image, or none that is read: named, with a remedy, and in silence."""

from __future__ import annotations

import os
import sys
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.data import ImageError, read_image
from effnet.data.image_formats import name_foreign_format
from tests.data.conftest import encode
from tests.data.deep import grey_page, tiff

GREY = np.full((16, 16), 77, np.uint16)
THUMBNAIL = grey_page(GREY, 8, t254=1)
SENSOR = grey_page(GREY) | {262: 32803}


def refusal(content: bytes | Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(content)
    return str(caught.value)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("pages", "maker"),
    [
        ([THUMBNAIL | {50706: b"\1\4\0\0"}], "(DNG)"),
        ([THUMBNAIL | {271: "NIKON CORPORATION", "inner": [THUMBNAIL, SENSOR]}], "(NIKON CORPORATION)"),
        ([THUMBNAIL | {271: "SONY", "inner": [grey_page(GREY) | {259: 32767}]}], "(SONY)"),
        ([grey_page(GREY, 8) | {"inner": [SENSOR]}], "raw camera file,"),
        ([THUMBNAIL, grey_page(GREY) | {262: 34892}], "raw camera file,"),
    ],
)
def test_raw_camera_files_are_not_predicted_from_their_thumbnail(pages: list[Any], maker: str, order: str) -> None:
    message = refusal(tiff(*pages, order=order))
    assert maker in message
    assert "export it as JPEG" in message


def test_raw_camera_files_by_their_heads_and_names(tmp_path: Path) -> None:
    canon = bytearray(tiff(THUMBNAIL))
    canon[8:10] = b"CR"
    assert "Canon CR2" in refusal(bytes(canon))
    for head, maker in (
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"IIRO\x08", "ORF"),
        (b"IIU\0\x18", "RW2"),
        (b"FOVb", "X3F"),
    ):
        assert maker in refusal(head + bytes(200))
    assert "Canon CR3" in refusal(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99))
    for suffix in (".nef", ".ARW", ".pef"):
        path = tmp_path / f"photo{suffix}"
        path.write_bytes(tiff(THUMBNAIL))
        assert refusal(path).startswith(f"{path} is a raw camera file, whose pixels are not developed: export it as")


def test_ordinary_tiff_is_not_taken_for_raw() -> None:
    camera = {271: "NIKON CORPORATION"}
    for pages in ([grey_page(GREY) | camera], [grey_page(GREY), THUMBNAIL], [grey_page(GREY) | {"inner": [THUMBNAIL]}]):
        assert read_image(tiff(*pages)).size == (16, 16)
    damaged = bytearray(tiff(grey_page(GREY)))
    damaged[4:8] = b"\xff\xff\xff\x7f"
    assert "damaged TIFF" in refusal(bytes(damaged))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (bytes(128) + b"DICM" + bytes(99), "is DICOM: save it as PNG of 16 bits"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is JPEG XL: save it as JPEG or PNG"),
        (b"\xff\x0a\xfa\x7f", "is JPEG XL"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\xef\xbb\xbf\n<HTML>", "is a web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "is a drawing (SVG)"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is only a pointer of Git LFS: fetch the file with git lfs pull",
        ),
        (b"PK\x03\x04" + bytes(30), "is a zip archive"),
        (b"\x1f\x8b\x08" + bytes(30), "is compressed with gzip"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(30), "is a video"),
        (b"nothing", "is not an image, or its format is unknown"),
    ],
)
def test_what_else_it_is_is_said(content: bytes, part: str) -> None:
    assert f"the given file {part}" in refusal(content)


def test_heic_is_read_or_its_package_named(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" for brand in (b"heic", b"mif1", b"heix")]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        for head in heads:
            assert refusal(head + bytes(99)) == 'the given file is HEIC: pip install "effnet[heic]", or save it as JPEG'
    pillow_heif = pytest.importorskip("pillow_heif")
    assert name_foreign_format(heads[0], "a.heic") is None
    file = BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40))).save(file, quality=90)
    red, green, blue = np.asarray(read_image(file.getvalue())).reshape(-1, 3).mean(0)
    assert abs(red - 200) + abs(green - 30) + abs(blue - 40) < 12


def test_libtiff_writes_nothing_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """Its lines go to file descriptor 2, past sys.stderr. Several threads read at once."""
    noise = np.random.default_rng(0).integers(0, 65536, (64, 64)).astype(np.uint16)
    damaged = bytearray(encode(Image.fromarray(noise), "TIFF", compression="tiff_lzw"))
    damaged[200:2000] = b"\xff" * 1800

    def read() -> None:
        for _ in range(5):
            with pytest.raises(ImageError):
                read_image(bytes(damaged))

    threads = [Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"
    # others in this process get libtiff's lines as before
    with pytest.raises(OSError):
        Image.open(BytesIO(bytes(damaged))).load()
    assert capfd.readouterr().err != ""
