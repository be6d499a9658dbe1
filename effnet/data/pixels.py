"""Pictures in: a file, bytes or an array becomes RGB, upright, resized and cropped. PIL and numpy only."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling, Transpose

from effnet.contract import Preprocess

Pixels = NDArray[np.uint8]
Source = str | Path | bytes | Image.Image | Pixels

# PIL's own border between a large photo and a decompression bomb: 512 MiB of RGB.
PIXELS_MOST = 178_956_970
SIDE_LEAST = 2
# Resized, a picture is never longer than this many times what is cut out of it: a 2 × 5000 strip would become gigabytes.
LONGEST = 8

_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # the orientations that swap height and width
_DRAWINGS = ("EPS", "WMF")  # no pixels yet: PIL would start another program to draw them


class PictureError(ValueError):
    """This one picture cannot be used; the message is a sentence that names it and says why."""


def pixels(source: Source, preprocess: Preprocess) -> Pixels:
    """The picture as the network's eyes get it: uint8 (H, W, 3) of ``preprocess.size``, not yet normalised.

    Raises ``PictureError`` as `read` does.
    """
    reduce_to = preprocess.resized if preprocess.decode == "reduced" else None
    return fit(read(source, reduce_to), preprocess)


def read(source: Source, reduce_to: tuple[int, int] | None = None) -> Image.Image:
    """The picture in RGB, upright by its EXIF, 8 bits a channel, on white where it is transparent.

    ``source`` is a path, a file's bytes, a PIL image (which is left as it is), or a uint8 array (H, W), (H, W, 1),
    (H, W, 3) or (H, W, 4). Of an animation it is the first frame; 16 bits keep their upper 8, as PIL does for colours.
    With ``reduce_to`` (height, width) a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, as small as both sides
    stay at least twice that. Raises ``PictureError`` where there is no usable picture.
    """
    name = _name(source)
    with _QUIET:
        if isinstance(source, np.ndarray):
            return _decode(_from_array(source), name)
        if isinstance(source, Image.Image):
            return _decode(source, name)
        with _open(source, name) as file:
            try:
                image = Image.open(file)
            except Image.DecompressionBombError:
                raise PictureError(f"{name} has more than {PIXELS_MOST:,} pixels: make it smaller first") from None
            except Exception:  # whatever the parser of some format stumbled over
                raise PictureError(f"{name} is not a picture, or of no known format") from None
            return _decode(image, name, reduce_to)


def fit(image: Image.Image, preprocess: Preprocess) -> Pixels:
    """An RGB image resized and cropped to ``preprocess.size``: uint8 (H, W, 3).

    With "crop" the numbers are those of torchvision's ``Resize`` and ``CenterCrop``, bit for bit, where the size is
    square. Where it is not, the picture is scaled until both of its sides reach ``preprocess.resized``.
    """
    assert image.mode == "RGB"
    height, width = preprocess.size
    resample = Resampling[preprocess.interpolation.upper()]
    if preprocess.resize == "squash":
        return np.array(image.resize((width, height), resample))  # (H, W, 3)
    (tall, wide), box = _scaled((image.height, image.width), preprocess.resized)
    resized = image.resize((wide, tall), resample, box)
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    return np.array(resized.crop((left, top, left + width, top + height)))  # (H, W, 3)


def _scaled(size: tuple[int, int], least: tuple[int, int]) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """The size (height, width) that just covers ``least``, and the part (left, top, right, bottom) to take it from."""
    height, width = size
    if least[0] * width >= least[1] * height:  # the height is what is short
        tall, wide = least[0], int(least[0] * width / height)
        keep_tall, keep_wide = float(height), float(width)
        if wide > LONGEST * least[1]:
            wide = LONGEST * least[1]
            keep_wide = wide * height / tall
    else:
        tall, wide = int(least[1] * height / width), least[1]
        keep_tall, keep_wide = float(height), float(width)
        if tall > LONGEST * least[0]:
            tall = LONGEST * least[0]
            keep_tall = tall * width / wide
    left, top = (width - keep_wide) / 2, (height - keep_tall) / 2
    return (tall, wide), (left, top, left + keep_wide, top + keep_tall)


def _decode(image: Image.Image, name: str, reduce_to: tuple[int, int] | None = None) -> Image.Image:
    """``image`` checked, loaded to its last byte, in RGB and upright."""
    width, height = image.size
    if width * height > PIXELS_MOST:
        raise PictureError(
            f"{name} has {height:,}×{width:,} pixels, more than {PIXELS_MOST:,}: make it smaller first"
        )
    if min(width, height) < SIDE_LEAST:
        raise PictureError(f"{name} is {height}×{width} pixels: too small to be a picture")
    if image.format in _DRAWINGS:
        raise PictureError(f"{name} is a drawing ({image.format}), not a picture: save it as PNG")
    try:
        if reduce_to and image.format in ("JPEG", "MPO"):
            tall, wide = reduce_to if _orientation(image) not in _LYING else reduce_to[::-1]
            image.draft(None, (2 * wide, 2 * tall))  # None: the colours stay as they are
        image.load()
    except Exception as error:  # as above: OSError, SyntaxError, EOFError, struct.error, zlib.error, …
        raise PictureError(f"{name} is damaged: {error}") from None
    turn = _TURNS.get(_orientation(image))  # asked after loading: TIFF turns itself then
    rgb = _rgb(image, name)
    if turn is None:
        return rgb
    upright = rgb.transpose(turn)
    upright.info = {}  # or the EXIF in it would turn the picture once more when it is read again
    return upright


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise PictureError(f"{name} holds 32-bit {kind}, whose white is not known: save it with 8 or 16 bits")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF is damaged, which is no reason to refuse."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1


def _from_array(array: Pixels) -> Image.Image:
    shape, accepted = array.shape, "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.dtype != np.uint8:
        raise PictureError(f"the given array is {array.dtype}: expected uint8, 0 to 255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and shape[0] in (1, 3, 4)
        remedy = "; give array.transpose(1, 2, 0)" if first else ""
        raise PictureError(f"the given array has the shape {shape}: expected {accepted}{remedy}")
    if 0 in shape:
        raise PictureError(f"the given array has the shape {shape}: it is empty")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array)


def _name(source: Source) -> str:
    """What to call the picture in a message."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, bytes):
        return "the given bytes" if source else "the given text of 0 bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or "the given picture"
    if isinstance(source, np.ndarray):
        return "the given array"
    raise PictureError(f"a picture is a path, bytes, a PIL image or a uint8 array, not {type(source).__name__}")


def _open(source: str | Path | bytes, name: str) -> IO[bytes]:
    if not isinstance(source, bytes) and os.path.isdir(source):
        raise PictureError(f"{name} is a folder, not a picture")
    try:
        file = BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
    except FileNotFoundError:
        raise PictureError(f"{name} does not exist") from None
    except OSError as error:
        raise PictureError(f"{name} cannot be opened: {error.strerror}") from None
    if not file.read(1):
        file.close()
        raise PictureError(f"{name} is empty")
    file.seek(0)
    return file


class _Quiet:
    """PIL's warnings muted while any thread reads a picture.

    Large photos, odd EXIF and the like: a picture is either used or refused with a sentence. ``catch_warnings`` is not
    made for threads (the last one out may put back another's filters), so that the first one in enters it for all.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.readers = 0
        self.before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if not self.readers:
                self.before = warnings.catch_warnings()
                self.before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.readers += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.readers -= 1
            if not self.readers:
                self.before.__exit__(None, None, None)


_QUIET = _Quiet()
