from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from effnet.data import MAX_IMAGE_PIXELS, ImageError, load_input, read_image, resize_and_crop
from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import RESAMPLING_LIBRARIES, Preprocess
from tests.data.conftest import encode
from tests.data.deep import png

Array = NDArray[np.uint8]


def distance(one: Image.Image | Array, other: Image.Image | Array) -> float:
    """The mean difference of two images, in steps of 1 / 255."""
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


def test_every_kind_of_source_gives_the_same_image(gradient: Array, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(gradient)
    image.save(path)
    for source in (path, str(path), path.read_bytes(), image, gradient):
        found = read_image(source)
        assert found.mode == "RGB"
        assert np.array_equal(np.asarray(found), gradient)


def test_arrays_of_every_shape(gradient: Array) -> None:
    gray = gradient[:, :, 0]
    for array in (gray, gray[:, :, None]):
        assert np.array_equal(np.asarray(read_image(array)), np.repeat(gray[:, :, None], 3, axis=-1))
    opaque = np.dstack([gradient, np.full_like(gray, 255)])
    assert np.array_equal(np.asarray(read_image(opaque)), gradient)
    assert np.array_equal(np.asarray(read_image(gradient[::-1, ::2])), gradient[::-1, ::2])  # not contiguous


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((9, 9, 3), np.float32), "float32: expected uint8"),
        (np.zeros((3, 9, 9), np.uint8), "transpose"),
        (np.zeros((9, 9, 2), np.uint8), "(H, W, 4)"),
        (np.zeros((2, 9, 9, 3), np.uint8), "(H, W, 4)"),
        (np.zeros((0, 9, 3), np.uint8), "empty"),
    ],
)
def test_arrays_refused(array: Array, part: str) -> None:
    assert part in refusal(array)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    for kind in ("PNG", "TIFF", "PPM"):
        found = np.asarray(read_image(encode(Image.fromarray(deep), kind)))
        assert found.min() == 0
        assert found.max() == 255
        assert np.abs(found[:, :, 0] - deep / 257).max() <= 1, kind


def test_sixteen_bit_colors_and_grays_agree() -> None:
    values = np.linspace(0, 65535, 60).astype(">u2").reshape(6, 10)
    colors = np.repeat(values[:, :, None], 3, axis=-1)
    gray = read_image(png(10, 6, 16, 0, b"".join(b"\0" + row.tobytes() for row in values)))
    assert distance(gray, read_image(png(10, 6, 16, 2, b"".join(b"\0" + row.tobytes() for row in colors)))) == 0


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_images_are_refused(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    Image.new(mode, (9, 9), 7).save(path)
    with pytest.raises(ImageError, match=r"deep\.tif holds 32-bit (floats|integers).*8 or 16 bits"):
        read_image(path)


def test_one_bit_and_gray(gradient: Array) -> None:
    image = Image.fromarray(gradient)
    assert distance(read_image(encode(image.convert("1"), "PNG")), image.convert("1").convert("RGB")) == 0
    assert distance(read_image(encode(image.convert("L"), "PNG")), image.convert("L").convert("RGB")) == 0


def test_cmyk_jpeg_keeps_its_colors(gradient: Array) -> None:
    image = Image.fromarray(gradient)
    cmyk = encode(image.convert("CMYK"), "JPEG", quality=95)
    assert Image.open(BytesIO(cmyk)).mode == "CMYK"
    assert distance(read_image(cmyk), gradient) < 4


def test_ycck_jpeg_is_cmyk(gradient: Array) -> None:
    """The Adobe marker's last byte says how the four channels are coded: 2 is YCCK, which libjpeg turns into CMYK."""
    cmyk = bytearray(encode(Image.fromarray(gradient).convert("CMYK"), "JPEG", quality=95))
    cmyk[cmyk.index(b"Adobe") + 11] = 2
    y, cb, cr = gradient.astype(np.float64).transpose(2, 0, 1)  # what PIL stored: CMYK inverted, as Adobe has it
    colors = np.stack(
        [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    )
    assert distance(read_image(bytes(cmyk)), 255 - np.clip(colors, 0, 255).transpose(1, 2, 0)) < 5


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    image = Image.new(mode, (8, 8), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    image.putpixel((1, 2), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
    image.putpixel((3, 4), (0, 0, 0, 51) if mode == "RGBA" else (0, 51))
    for source in (image, encode(image, "PNG")):
        found = read_image(source)
        assert found.getpixel((0, 0)) == (255, 255, 255)
        assert found.getpixel((1, 2)) == (0, 0, 0)
        assert found.getpixel((3, 4)) == (204, 204, 204)


def test_transparent_palette_and_color_key() -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 200, 10, 20])
    palette.putpixel((1, 2), 1)
    for transparency in (0, b"\0\xff"):
        found = read_image(encode(palette, "PNG", transparency=transparency))
        assert found.getpixel((0, 0)) == (255, 255, 255)
        assert found.getpixel((1, 2)) == (200, 10, 20)
    keyed = Image.new("RGB", (8, 8), (1, 2, 3))
    keyed.putpixel((1, 2), (4, 5, 6))
    found = read_image(encode(keyed, "PNG", transparency=(1, 2, 3)))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert found.getpixel((1, 2)) == (4, 5, 6)


@pytest.mark.parametrize("mode", ["HSV", "LAB", "YCbCr", "RGBX", "RGBa", "PA", "I;16B", "I;16L"])
def test_rarer_modes(mode: str) -> None:
    assert read_image(Image.new(mode, (9, 9))).mode == "RGB"


def test_mode_that_cannot_become_rgb() -> None:
    with pytest.raises(ImageError, match="cannot be converted to RGB"):
        read_image(Image.new("La", (9, 9)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read_image(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert found.getpixel((3, 3)) == (255, 0, 0)


def rotate_by_exif(array: Array, orientation: int) -> Array:
    """What a camera stores for ``array`` with that orientation, from the EXIF standard's table of rows and columns."""
    return {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: np.rot90(array, 1),  # shown after a turn by 90° clockwise
        7: array[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(array, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation(gradient: Array, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    stored = Image.fromarray(np.ascontiguousarray(rotate_by_exif(gradient, orientation)))
    data = encode(stored, kind, exif=exif, **options)
    found = read_image(data)
    assert distance(found, gradient) < 1
    assert distance(read_image(found), gradient) < 1  # not once more
    assert distance(read_image(Image.open(BytesIO(data))), gradient) < 1
    if kind != "JPEG":
        assert distance(found, gradient) == 0


def test_damaged_exif_is_ignored(gradient: Array) -> None:
    data = encode(Image.fromarray(gradient), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0")
    assert distance(read_image(data), gradient) < 3


def test_a_pil_image_is_not_changed(gradient: Array) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(BytesIO(encode(Image.fromarray(gradient), "JPEG", exif=exif)))
    read_image(image, reduce_to=(4, 4))
    assert image.size == (64, 48)
    assert image.getexif()[0x0112] == 6


def refusal(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_not_an_image(tmp_path: Path) -> None:
    text, empty = tmp_path / "note.jpg", tmp_path / "empty.jpg"
    text.write_text("no image at all")
    empty.touch()
    assert refusal(text) == f"{text} is not an image, or its format is unknown"
    assert refusal(empty) == f"{empty} is empty"
    assert refusal(b"") == "the given file is empty"
    assert refusal(7).endswith("not int")
    assert refusal(tmp_path) == f"{tmp_path} is a folder, not an image"
    assert refusal(tmp_path / "none.jpg") == f"{tmp_path / 'none.jpg'} does not exist"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_files(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), kind)
    path = tmp_path / "cut.x"
    path.write_bytes(data[: len(data) * 2 // 3])
    assert str(path) in refusal(path)
    with pytest.raises(ImageError):
        read_image(path, reduce_to=(1, 1))


def test_too_small() -> None:
    assert refusal(encode(Image.new("RGB", (1, 1)), "PNG")) == "the given file has 1×1 pixels: too small for an image"
    assert "has 1×50 pixels" in refusal(np.zeros((1, 50), np.uint8))
    assert read_image(np.zeros((2, 2), np.uint8)).size == (2, 2)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (13_400, 13_400), (100_000, 100_000)])
def test_too_many_pixels(width: int, height: int) -> None:
    text = refusal(png(width, height, 1, 0, b""))
    assert f"more than {MAX_IMAGE_PIXELS:,}" in text


def test_our_limit_where_pil_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert "20,000×10,000 pixels, more than" in refusal(png(10_000, 20_000, 1, 0, b""))


def test_large_photos_are_read_without_a_warning() -> None:
    data = encode(Image.new("L", (9600, 9400), 77), "JPEG")  # PIL warns from 89 million pixels on
    found = read_image(data, reduce_to=(64, 64))
    assert found.size == (1200, 1175)


def test_vector_formats_are_refused() -> None:
    drawing = encode(Image.new("RGB", (20, 20)), "EPS")
    assert "is a drawing (EPS)" in refusal(drawing)


def test_warning_filters_survive_threads() -> None:
    before = list(warnings.filters)
    data = encode(Image.new("RGB", (400, 300)), "JPEG")

    def reads() -> None:
        for _ in range(30):
            read_image(data)

    threads = [threading.Thread(target=reads) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_reduced_decoding_keeps_twice_the_size(mode: str) -> None:
    data = encode(Image.new(mode, (1000, 700)), "JPEG")
    for need in ((20, 20), (44, 44), (87, 87), (88, 88), (200, 100), (300, 300), (500, 500)):
        found = read_image(data, reduce_to=need)
        factors = [factor for factor in (8, 4, 2) if 1000 // factor >= 2 * need[1] and 700 // factor >= 2 * need[0]]
        factor = factors[0] if factors else 1
        assert found.mode == "RGB"
        assert found.size == (-(-1000 // factor), -(-700 // factor))


def test_reduced_decoding_respects_the_orientation() -> None:
    """Stored lying, shown upright: 1000 high, 400 wide. (400, 100) fits four times over only the right way round."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.new("RGB", (1000, 400)), "JPEG", exif=exif)
    assert read_image(data, reduce_to=(125, 25)).size == (100, 250)
    assert read_image(data, reduce_to=(25, 125)).size == (400, 1000)


def test_reduced_decoding_differs_little(photos: list[Path]) -> None:
    exact = Preprocess(size=(56, 56))
    reduced = Preprocess(size=(56, 56), decode="reduced")
    jpegs = [path for path in photos if path.suffix == ".jpg"]
    differences = [distance(load_input(path, exact), load_input(path, reduced)) for path in jpegs]
    assert any(differences)
    assert max(differences) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_reduced_keeps_the_geometry_of_odd_sides(orientation: int, resize: str) -> None:
    """An eighth of 521 × 393 pixels fills 66 × 50 of them but for the last ones' 7/8, wherever the turn puts those."""
    rows, columns = np.mgrid[0:393, 0:521]
    waves = np.stack([np.sin(rows / 20), np.sin(columns / 20), np.sin((rows + columns) / 30)], axis=-1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray((127 + 120 * waves).astype(np.uint8)), "JPEG", exif=exif, quality=95)
    exact = Preprocess(size=(24, 24), crop_fraction=1.0, resize=resize)
    reduced = replace(exact, decode="reduced")
    assert min(read_image(data, reduced.resize_size).size) == 50
    assert distance(load_input(data, exact), load_input(data, reduced)) < 0.7


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess((96, 128), 0.8, "squash", "bilinear")], ids=str)
@pytest.mark.parametrize("shape", [(1300, 1731), (1731, 1301)])
def test_only_the_crop_of_a_reduced_image_is_computed(preprocess: Preprocess, shape: tuple[int, int]) -> None:
    """The same as when all of it is resized and then cut, but for a value here and there that is rounded otherwise."""
    small = np.random.default_rng(0).integers(0, 256, (shape[0] // 8, shape[1] // 8, 3), np.uint8)
    data = encode(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC), "JPEG", quality=95)
    found = load_input(data, replace(preprocess, decode="reduced")).astype(int)
    whole = read_image(data, preprocess.resize_size)
    factor = round(shape[1] / whole.width)
    assert factor > 1
    tall, wide = preprocess.resize_size
    if preprocess.resize == "crop":
        tall, wide = (
            (256, int(256 * shape[1] / shape[0])) if shape[0] < shape[1] else (int(256 * shape[0] / shape[1]), 256)
        )
    box = (0, 0, shape[1] / factor, shape[0] / factor)
    resized = whole.resize((wide, tall), Image.Resampling[preprocess.interpolation.upper()], box)
    height, width = preprocess.size
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    differences = np.abs(found - np.asarray(resized.crop((left, top, left + width, top + height)), int))
    assert differences.max() <= 1
    assert (differences > 0).mean() < 0.01


def test_small_images_are_not_reduced(photos: list[Path]) -> None:
    jpegs = [path for path in photos if path.suffix == ".jpg" and min(read_image(path).size) < 4 * 256]
    assert jpegs
    for path in jpegs:
        assert np.array_equal(load_input(path, Preprocess(decode="reduced")), load_input(path, Preprocess()))


def test_equals_torchvision_and_timm_bit_for_bit(photos: list[Path]) -> None:
    declare_operators()
    from timm.data import create_transform
    from torchvision.transforms import v2

    for index, path in enumerate(photos):
        image = Image.open(path).convert("RGB")
        for size, crop, interpolation in (
            (224, 0.875, "bicubic"),
            (240, 0.882, "bilinear"),
            (300, 0.904, "lanczos"),
            (128, 1.0, "box"),
            (32, 0.95, "nearest"),
            (475, 0.936, "bicubic"),
        )[index % 2 :: 2]:
            preprocess = Preprocess(size=(size, size), crop_fraction=crop, interpolation=interpolation)
            found = load_input(path, preprocess)
            assert found.shape == (size, size, 3)
            mode = v2.InterpolationMode(interpolation)
            chain = v2.Compose([v2.Resize(preprocess.resize_size[0], interpolation=mode), v2.CenterCrop(size)])
            assert np.array_equal(found, np.asarray(chain(image))), (path, size)
            theirs = create_transform(
                input_size=(3, size, size), interpolation=interpolation, crop_pct=crop, is_training=False
            )
            assert np.array_equal(found, np.asarray(theirs.transforms[1](theirs.transforms[0](image)))), (path, size)


def test_squash(photos: list[Path]) -> None:
    preprocess = Preprocess(size=(90, 130), crop_fraction=1.0, resize="squash", interpolation="bilinear")
    image = Image.open(photos[0]).convert("RGB")
    expected = np.asarray(image.resize((130, 90), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_and_crop(image, preprocess), expected)
    cut = resize_and_crop(image, replace(preprocess, size=(45, 65), crop_fraction=0.5))
    assert np.array_equal(cut, expected[22:67, 32:97])  # (90 − 45) / 2 = 22.5 and 32.5, rounded to even


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (10, 200), (33, 32)])
@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (64, 96), (31, 31), (40, 300), (1000, 41)])
def test_any_size_is_covered_and_aspect_ratios_kept(size: tuple[int, int], shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    ramp = np.stack([(rows + 0.5) * 255 / shape[0], (columns + 0.5) * 255 / shape[1], rows * 0], axis=-1)
    ramp = ramp.astype(np.uint8)
    preprocess = Preprocess(size=size, crop_fraction=0.9, interpolation="bilinear")
    found = load_input(ramp, preprocess).astype(float)
    assert found.shape == (*size, 3)
    scale = max(preprocess.resize_size[0] / shape[0], preprocess.resize_size[1] / shape[1])
    for axis in (0, 1):  # the span of the ramp that is seen is what the crop leaves of it, around its middle
        span = found[..., axis].max() - found[..., axis].min()
        assert span == pytest.approx(255 * min((size[axis] - 1) / (scale * shape[axis]), 1), abs=10)
        assert found[..., axis].mean() == pytest.approx(127, abs=10)


@pytest.mark.parametrize("shape", [(2, 5000), (5000, 2), (2, 60_000)])
def test_strips_do_not_fill_the_memory(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *rest: object) -> Image.Image:
        sizes.append(size)
        return resize(self, size, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", watched)
    ramp = np.linspace(0, 255, max(shape)).astype(np.uint8)
    strip = np.stack([ramp, ramp], axis=shape.index(2))
    found = load_input(strip, Preprocess())
    assert found.shape == (224, 224, 3)
    assert max(sizes[0]) == 8 * 256
    assert np.abs(found.astype(int) - 127).max() <= 2  # the middle


def test_strip_is_cropped_around_the_same_center() -> None:
    """Just above the limit and uncut the same is seen, but for where pixels fall."""
    ramp = np.abs(np.linspace(-255, 255, 900)).astype(np.uint8)
    strip = np.repeat(ramp[None], 90, axis=0)  # 10 : 1
    preprocess = Preprocess(size=(64, 64), crop_fraction=1.0)
    uncut = Image.fromarray(strip).convert("RGB").resize((640, 64), Image.Resampling.BICUBIC).crop((288, 0, 352, 64))
    assert distance(load_input(strip, preprocess), uncut) < 0.5


@pytest.mark.parametrize("resampling", RESAMPLING_LIBRARIES)
def test_result_is_writable_and_contiguous(gradient: Array, resampling: str) -> None:
    for resize in ("crop", "squash"):
        found = load_input(gradient, Preprocess(resize=resize, resampling=resampling))
        assert found.shape == (224, 224, 3)
        assert found.dtype == (np.uint8 if resampling == "pil" else np.float32)
        assert found.flags.writeable
        assert found.flags.c_contiguous


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize("resampling", ["tensorflow", "tensorflow1"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_tensorflow_and_pil_crop_the_same_region(resize: str, resampling: str, interpolation: str) -> None:
    """Of a smooth image, all ways to resize make nearly the same, whatever its shape and the size."""
    for shape, size in (((300, 500), (60, 60)), ((501, 300), (60, 90)), ((97, 60), (120, 80)), ((64, 64), (64, 64))):
        rows, columns = (np.mgrid[0 : shape[0], 0 : shape[1]].T + 0.5).T
        ramp = np.stack([rows * 255 / shape[0], columns * 255 / shape[1], rows * 0], axis=-1).astype(np.uint8)
        preprocess = Preprocess(size, 0.8, resize, interpolation)
        one, other = load_input(ramp, preprocess), load_input(ramp, replace(preprocess, resampling=resampling))
        assert one.shape == other.shape
        assert distance(one, other) < 3  # the cut moves by up to a pixel, and in TensorFlow 1 the pixels by half of one


def test_orientations_as_pil(photos: list[Path]) -> None:
    """PIL's own reading of the orientation agrees with the table here."""
    for orientation in range(1, 9):
        image = Image.open(photos[0]).convert("RGB").resize((50, 40))
        image.getexif()[0x0112] = orientation
        assert distance(read_image(image), ImageOps.exif_transpose(image)) == 0
