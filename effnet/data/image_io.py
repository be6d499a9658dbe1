"""Pictures in: a file, bytes or an array becomes RGB, upright, resized and cropped. PIL and numpy only."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from threading import Lock
from typing import IO, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

from effnet.data.preprocessing import Box, resize_pil, resize_tensorflow
from effnet.metadata import Preprocess

Pixels = NDArray[np.uint8]


InputImage = NDArray[np.uint8 | np.float32]


@runtime_checkable
class LazyImage(Protocol):
    """A picture's file that lies in something else: a tar archive, a table. It is read when it is needed."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    def read(self) -> bytes:
        """The file's bytes. Raises ``PictureError`` where they cannot be had."""


ReducedSize = (
    tuple[int, int] | Callable[[int, int], tuple[int, int]]
)  # (height, width), or what says it of the picture's


ImageSource = str | Path | bytes | Image.Image | Pixels | LazyImage


# PIL's own border between a large photo and a decompression bomb: 512 MiB of RGB.
MAX_IMAGE_PIXELS = 178_956_970


MIN_IMAGE_SIDE = 2
MAX_IMAGE_BYTES = 256 * 2**20  # of a file that is not on this disk


_EXIF_ORIENTATION = 0x0112


_EXIF_TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


# Those that swap height and width, and those that bring what was the right or lower edge to the left or to the top.
_SWAPS_SIDES, _FLIPS_HORIZONTALLY, _FLIPS_VERTICALLY = (
    {_EXIF_TRANSPOSES[number] for number in numbers} for numbers in ((5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8))
)


_VECTOR_FORMATS = ("EPS", "WMF")  # no pixels yet: PIL would start another program to draw them


class ImageError(ValueError):
    """This one image cannot be used; the message is a sentence that names it and says why."""


def too_large_error(name: str) -> ImageError:
    """Return the error of an image file larger than `MAX_IMAGE_BYTES`."""
    return ImageError(f"{name} is larger than {MAX_IMAGE_BYTES // 2**20} MiB, the limit for an image file")


@dataclass(frozen=True, eq=False, slots=True)
class UnreadableImage:
    """A `LazyImage` that cannot be read: it stands in a dataset so that the reason is reported, not lost."""

    name: str
    reason: str

    def read(self) -> bytes:
        """Raise ``ImageError``."""
        raise ImageError(self.reason)


def load_input(source: ImageSource, preprocess: Preprocess) -> InputImage:
    """The picture as the network's eyes get it: (H, W, 3) of ``preprocess.size``, 0 to 255, not yet normalised.

    uint8, or by TensorFlow's resampling float32: see `fit`.

    Raises ``PictureError`` as `read` does.
    """
    reducible = preprocess.decode == "reduced" and preprocess.resampling == "pil"
    reduce_to = preprocess.resize_size if reducible else None
    image, box = _read_with_box(source, reduce_to)
    return resize_and_crop(image, preprocess, box)


def read_image(source: ImageSource, reduce_to: tuple[int, int] | None = None) -> Image.Image:
    """The picture in RGB, upright by its EXIF, 8 bits a channel, on white where it is transparent.

    ``source`` is a path, a file's bytes, a PIL image (which is left as it is), or a uint8 array (H, W), (H, W, 1),
    (H, W, 3) or (H, W, 4). Of an animation it is the first frame; 16 bits keep their upper 8, as PIL does for colours.
    With ``reduce_to`` (height, width) a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, as small as both sides
    stay at least twice that. Raises ``PictureError`` where there is no usable picture.
    """
    return _read_with_box(source, reduce_to)[0]


def resize_and_crop(image: Image.Image, preprocess: Preprocess, box: Box | None = None) -> InputImage:
    """An RGB image resized and cropped to ``preprocess.size``: uint8 (H, W, 3), by TensorFlow's resampling float32.

    With PIL, values equal torchvision's ``Resize`` and ``CenterCrop`` and timm's evaluation to the last bit, except for
    long strips (`MAX_RESIZE_RATIO`) and with ``box``: the part that is image in an image decoded at reduced scale. With
    TensorFlow's resampling they are its own, neither rounded nor clipped; it starts from the whole image.
    """
    assert image.mode == "RGB"
    if preprocess.resampling == "pil":
        return resize_pil(image, preprocess, box)
    assert box is None, "TensorFlow's resampling starts from the whole picture"
    return resize_tensorflow(image, preprocess)  # (H, W, 3)


CropRegion = tuple[Box, tuple[int, int]]  # a part of a picture, and the (height, width) at which it is wanted


def read_region(
    source: ImageSource, choose_region: Callable[[int, int], CropRegion], allow_reduced: bool
) -> tuple[Image.Image, Box]:
    """The picture as `read` gives it, and where in it lies the part that ``choose`` names of (height, width) pixels.

    With ``reduce`` a JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, as small as that part stays at least as large
    as it is wanted. Raises ``PictureError`` as `read` does.
    """
    chosen: list[tuple[Box, int, int]] = []

    def reduce_to(height: int, width: int) -> tuple[int, int]:
        box, least = choose_region(height, width)
        chosen.append((box, height, width))
        left, top, right, bottom = box
        shares = (bottom - top) / height, (right - left) / width
        needed = tuple(ceil(side / share / 2) for side, share in zip(least, shares, strict=True))
        return (needed[0], needed[1]) if allow_reduced else (height, width)

    image, kept = _read_with_box(source, reduce_to)
    (left, top, right, bottom), height, width = chosen[0]
    x, y, beyond, below = kept or (0, 0, *image.size)
    across, down = (beyond - x) / width, (below - y) / height
    return image, (x + left * across, y + top * down, x + right * across, y + bottom * down)


def _read_with_box(source: ImageSource, reduce_to: ReducedSize | None) -> tuple[Image.Image, Box | None]:
    """The picture as `read` gives it, and what `_decode` says of it."""
    name = _source_name(source)
    if not isinstance(source, (str, Path, bytes, Image.Image, np.ndarray)):  # asking for a protocol takes its time
        source = source.read()
    with MUTED_PIL_WARNINGS:
        if isinstance(source, np.ndarray):
            return _decode(_from_array(source), name, reduce_to)
        if isinstance(source, Image.Image):
            return _decode(source, name, reduce_to, keep_original=True)
        with _open_file(source, name) as file:
            try:
                image = Image.open(file)
            except Image.DecompressionBombError:
                raise ImageError(f"{name} has more than {MAX_IMAGE_PIXELS:,} pixels: make it smaller first") from None
            except Exception:  # whatever the parser of some format stumbled over
                raise ImageError(f"{name} is not a picture, or of no known format") from None
            return _decode(image, name, reduce_to)


def _decode(
    image: Image.Image, name: str, reduce_to: ReducedSize | None = None, keep_original: bool = False
) -> tuple[Image.Image, Box | None]:
    """``image`` checked, loaded to its last byte, in RGB and upright.

    Where it was reduced, also the part of it that is picture: half of 479 pixels is 239.5 of 240. An image that was
    ``given`` is left as it is.
    """
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{name} has {height:,}×{width:,} pixels, more than {MAX_IMAGE_PIXELS:,}: make it smaller first"
        )
    if min(width, height) < MIN_IMAGE_SIDE:
        raise ImageError(f"{name} is {height}×{width} pixels: too small to be a picture")
    if image.format in _VECTOR_FORMATS:
        raise ImageError(f"{name} is a drawing ({image.format}), not a picture: save it as PNG")
    drafted = None
    try:
        swapped = reduce_to is not None and _exif_transpose(image) in _SWAPS_SIDES
        if callable(reduce_to):
            reduce_to = reduce_to(*((width, height) if swapped else (height, width)))
        if reduce_to and not keep_original and image.format in ("JPEG", "MPO"):
            tall, wide = reduce_to[::-1] if swapped else reduce_to
            drafted = image.draft(None, (2 * wide, 2 * tall))  # None: the colours stay as they are
        reduced = image.size != (width, height)
        image.load()
    except Exception as error:  # as above: OSError, SyntaxError, EOFError, struct.error, zlib.error, …
        raise ImageError(f"{name} is damaged: {error}") from None
    turn = _exif_transpose(image)  # asked after loading: TIFF turns itself then
    upright = _to_rgb(image, name)
    if turn is not None:
        upright = upright.transpose(turn)
        upright.info = {}  # or the EXIF in it would turn the picture once more when it is read again
    return upright, _orient_box(drafted[1], upright.size, turn) if drafted and reduced else None


def _orient_box(drafted: Box, size: tuple[int, int], turn: Transpose | None) -> Box:
    """Where in an upright image of ``size`` the part is that ``drafted`` says of it as it was stored."""
    right, bottom = drafted[2:]
    across, down = (bottom, right) if turn in _SWAPS_SIDES else (right, bottom)
    left = size[0] - across if turn in _FLIPS_HORIZONTALLY else 0
    top = size[1] - down if turn in _FLIPS_VERTICALLY else 0
    return left, top, left + across, top + down


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ImageError(f"{name} holds 32-bit {kind}, whose white is not known: save it with 8 or 16 bits")
    try:
        if image.has_transparency_data:
            opaque = Image.new("RGBA", image.size, "white")
            opaque.alpha_composite(image.convert("RGBA"))
            return opaque.convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"{name} has no way to RGB: {error}") from None


def _exif_transpose(image: Image.Image) -> Transpose | None:
    """What makes the picture upright by its EXIF; a damaged EXIF is no reason to refuse the picture."""
    try:
        return _EXIF_TRANSPOSES.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        return None


def _from_array(array: Pixels) -> Image.Image:
    shape, accepted = array.shape, "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.dtype != np.uint8:
        raise ImageError(f"the given array is {array.dtype}: expected uint8, 0 to 255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and shape[0] in (1, 3, 4)
        remedy = "; give array.transpose(1, 2, 0)" if first else ""
        raise ImageError(f"the given array has the shape {shape}: expected {accepted}{remedy}")
    if 0 in shape:
        raise ImageError(f"the given array has the shape {shape}: it is empty")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array)


def _source_name(source: ImageSource) -> str:
    """What to call the picture in a message."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, bytes):
        return "the given file"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or "the given picture"
    if isinstance(source, np.ndarray):
        return "the given array"
    if isinstance(source, LazyImage):
        return source.name
    raise ImageError(f"a picture is a path, bytes, a PIL image or a uint8 array, not {type(source).__name__}")


def _open_file(source: str | Path | bytes, name: str) -> IO[bytes]:
    if not isinstance(source, bytes) and os.path.isdir(source):
        raise ImageError(f"{name} is a folder, not a picture")
    try:
        file = BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115 – the caller closes it
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist") from None
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}") from None
    if not file.read(1):
        file.close()
        raise ImageError(f"{name} is empty")
    file.seek(0)
    return file


class _MutedPILWarnings:
    """PIL's warnings muted while any thread reads a picture.

    Large photos, odd EXIF and the like: a picture is either used or refused with a sentence. ``catch_warnings`` is not
    made for threads (the last one out may put back another's filters), so that the first one in enters it for all.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.active = 0
        self.saved_filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if not self.active:
                self.saved_filters = warnings.catch_warnings()
                self.saved_filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.active += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.active -= 1
            if not self.active:
                self.saved_filters.__exit__(None, None, None)


MUTED_PIL_WARNINGS = _MutedPILWarnings()
