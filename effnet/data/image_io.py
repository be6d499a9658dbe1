"""Reading images: a file, bytes or an array becomes RGB (or grey, RGBA, …), upright, resized and cropped. No torch."""

import ctypes
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from math import ceil
from pathlib import Path
from threading import Lock
from typing import IO, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, _imaging

from effnet.data import deep_pixels, image_formats
from effnet.data.preprocessing import Box, resize_pil, resize_tensorflow
from effnet.data.storage.file_names import existing_path
from effnet.metadata import Preprocess

Pixels = NDArray[np.uint8]
InputImage = NDArray[np.uint8 | np.float32]  # (H, W, C), 0 to 255


@runtime_checkable
class LazyImage(Protocol):
    """An image file inside something else, a tar archive or a table, that is read when it is needed."""

    @property
    def name(self) -> str:
        """The name to use in a message."""

    def read(self) -> bytes:
        """Return the file's bytes. Raises ``ImageError`` if they are not available."""


ImageSource = str | Path | bytes | Image.Image | Pixels | LazyImage
CropRegion = tuple[Box, tuple[int, int]]  # a region of an image, and the (height, width) at which it is needed

MAX_IMAGE_PIXELS = 178_956_970  # PIL's own border between a large photo and a decompression bomb: 512 MiB of RGB
MAX_IMAGE_BYTES = 256 * 2**20  # of a file that is not on this disk

Transpose = Image.Transpose
_EXIF_TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip
# Those that swap height and width, and those that move the right edge to the left or the lower edge to the top
_SWAPS_SIDES, _FLIPS_HORIZONTALLY, _FLIPS_VERTICALLY = (
    {_EXIF_TRANSPOSES[number] for number in numbers} for numbers in ((5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8))
)
_VECTOR_FORMATS = ("EPS", "WMF")  # PIL would start another program to draw them


class ImageError(ValueError):
    """This image cannot be used; the message is a sentence that names it and says why."""


def too_large_error(name: str) -> ImageError:
    """Return the error of an image file larger than `MAX_IMAGE_BYTES`."""
    return ImageError(f"{name} is larger than {MAX_IMAGE_BYTES // 2**20} MiB, the limit for an image file")


@dataclass(frozen=True, eq=False, slots=True)
class UnreadableImage:
    """A `LazyImage` that stands in a dataset so that the reason why it cannot be read is reported."""

    name: str
    reason: str

    def read(self) -> bytes:
        """Raise ``ImageError``."""
        raise ImageError(self.reason)


def load_input(source: ImageSource, preprocess: Preprocess) -> InputImage:
    """Read an image (see `read_image`) and resize and crop it (see `resize_and_crop`); it is not normalized yet."""
    can_reduce = preprocess.decode == "reduced" and preprocess.resampling == "pil"
    reduce_to = preprocess.resize_size if can_reduce else None
    image, box = _read_with_box(source, reduce_to, preprocess.color_mode, preprocess.bits)
    return resize_and_crop(image, preprocess, box)


def read_image(
    source: ImageSource, reduce_to: tuple[int, int] | None = None, color: str = "RGB", bits: int = 0
) -> Image.Image:
    """Read an image as 8-bit RGB, upright by its EXIF, on white where it is transparent.

    ``source``: a path, a file's bytes, a PIL image (which is not changed), a `LazyImage`, or a uint8 array (H, W),
    (H, W, 1), (H, W, 3) or (H, W, 4). Of an animation the first frame is used; of a TIFF the first page that is no
    thumbnail. Of 16 bits the upper 8 are used, or those below ``bits``: how many 16-bit files hold (8 to 16), if they
    do not state it. ``reduce_to``: decode a JPEG at 1/2, 1/4 or 1/8 of its size, as small as both sides stay at least
    twice this (height, width). ``color``: another mode of PIL (see `effnet.Preprocess`); with alpha transparency is
    kept, and an image without it is opaque. Raises ``ImageError`` if there is no usable image.
    """
    return _read_with_box(source, reduce_to, color, bits)[0]


def resize_and_crop(image: Image.Image, preprocess: Preprocess, box: Box | None = None) -> InputImage:
    """Resize and crop an image of the mode ``preprocess.color_mode`` to ``preprocess.size``: uint8 (H, W, C).

    With TensorFlow's resampling float32.

    With PIL, values equal torchvision's ``Resize`` and ``CenterCrop`` and timm's evaluation to the last bit, except for
    long strips (`MAX_RESIZE_RATIO`) and with ``box``: the region that is image in an image decoded at reduced scale.
    TensorFlow's resampling starts from the whole image and neither rounds nor clips.
    """
    assert image.mode == preprocess.color_mode
    if preprocess.resampling == "pil":
        return resize_pil(image, preprocess, box)
    assert box is None, "TensorFlow's resampling starts from the whole image"
    return resize_tensorflow(image, preprocess)  # (H, W, C)


def read_region(
    source: ImageSource,
    choose_region: Callable[[int, int], CropRegion],
    allow_reduced: bool,
    color: str = "RGB",
    bits: int = 0,
) -> tuple[Image.Image, Box]:
    """Read an image to use one region of it; return the image as `read_image`, and where the region lies in it.

    ``choose_region`` is called with (height, width) and returns the region and the size at which it is needed.
    ``allow_reduced``: decode a JPEG at 1/2, 1/4 or 1/8 of its size, as small as the region stays at least that size.
    """
    chosen: list[tuple[Box, int, int]] = []

    def reduce_to(height: int, width: int) -> tuple[int, int]:
        box, size = choose_region(height, width)
        chosen.append((box, height, width))
        left, top, right, bottom = box
        fractions = (bottom - top) / height, (right - left) / width
        needed = tuple(ceil(side / fraction / 2) for side, fraction in zip(size, fractions, strict=True))
        return (needed[0], needed[1]) if allow_reduced else (height, width)

    image, image_box = _read_with_box(source, reduce_to, color, bits)
    (left, top, right, bottom), height, width = chosen[0]
    x0, y0, x1, y1 = image_box or (0, 0, *image.size)
    scale_x, scale_y = (x1 - x0) / width, (y1 - y0) / height
    return image, (x0 + left * scale_x, y0 + top * scale_y, x0 + right * scale_x, y0 + bottom * scale_y)


# (height, width), or a function from the image's (height, width) to it
_ReduceTo = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None


def _read_with_box(source: ImageSource, reduce_to: _ReduceTo, color: str, bits: int) -> tuple[Image.Image, Box | None]:
    name = source_name(source)
    source = _fetch(source)
    with QUIET_PIL:
        if isinstance(source, np.ndarray):
            return _decode(_from_array(source), name, reduce_to, color, bits)
        if isinstance(source, Image.Image):
            return _decode(source, name, reduce_to, color, bits)
        with _open_file(source, name) as file:
            return _decode(open_image(file, name), name, reduce_to, color, bits, file)


def _fetch(source: ImageSource) -> str | Path | bytes | Image.Image | Pixels:
    """Return the bytes of a `LazyImage`, and anything else as it is."""
    if isinstance(source, (str, Path, bytes, Image.Image, np.ndarray)):  # checking for a protocol is slow
        return source
    return source.read()


def open_image(file: IO[bytes], name: str) -> Image.Image:
    """Open an image file without decoding it; raise ``ImageError`` with what it is instead, if that is known."""
    head = file.read(image_formats.HEAD_BYTES)
    file.seek(0)
    foreign = image_formats.name_foreign_format(head, name) or image_formats.find_raw_tiff(head, file)
    if foreign:
        raise ImageError(f"{name} {foreign}")
    try:
        if head[:4] in image_formats.TIFF_HEADS:
            return image_formats.open_tiff(file)
        return Image.open(file)
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has more than {MAX_IMAGE_PIXELS:,} pixels: make it smaller first") from None
    except Exception:  # anything that the parser of some format stumbles over
        raise ImageError(f"{name} {image_formats.name_unreadable(head)}") from None


def find_maximum(source: ImageSource) -> int | None:
    """Return the highest value of an image of 16 bits that does not state how many of them it uses; None of any other.

    Raises ``ImageError`` as `read_image` does.
    """
    source, name = _fetch(source), source_name(source)
    if isinstance(source, (Image.Image, np.ndarray)):
        return None
    with QUIET_PIL, _open_file(source, name) as file:
        image = open_image(file, name)
        depth = deep_pixels.sample_depth(image)
        if depth is None or depth.scaled or depth.bits != depth.container or depth.container < 15:
            return None
        _check_size(image, name)
        try:
            image.load()
            values = np.asarray(image)
            if image.mode in ("RGB", "RGBA", "CMYK"):
                values = values[..., : 4 if image.mode == "CMYK" else 3].astype(np.uint16)
                if not depth.low or values.max() > 63:  # more than 14 bits, or all that can be seen
                    return int(values.max()) << 8
                file.seek(0)
                low = deep_pixels.decode_low_bytes(open_image(file, name), depth)
                values = values << 8 | low[..., : values.shape[-1]]
            return int(values.max())
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"{name} is damaged: {error}") from None


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        size = f"{height:,}×{width:,} pixels, more than {MAX_IMAGE_PIXELS:,}"
        raise ImageError(f"{name} has {size}: make it smaller first")
    if min(width, height) < 2:
        raise ImageError(f"{name} has {height}×{width} pixels: too small for an image")


def _decode(
    image: Image.Image, name: str, reduce_to: _ReduceTo, color: str, bits: int, file: IO[bytes] | None = None
) -> tuple[Image.Image, Box | None]:
    """Check ``image``, load it to the last byte, make it upright and ``color``; without a ``file`` not in place.

    If it was reduced, also return the box of it that is image: half of 479 pixels is 239.5 of 240.
    """
    width, height = image.size
    _check_size(image, name)
    if image.format in _VECTOR_FORMATS:
        raise ImageError(f"{name} is a drawing ({image.format}), not an image: save it as PNG")
    drafted, depth = None, deep_pixels.sample_depth(image)
    if file is None and image.mode in ("RGB", "RGBA", "CMYK"):
        depth = None  # of an image in memory PIL has already dropped the lower bytes
    try:
        swapped = reduce_to is not None and _exif_transpose(image) in _SWAPS_SIDES
        if callable(reduce_to):
            reduce_to = reduce_to(*((width, height) if swapped else (height, width)))
        if reduce_to and file is not None and image.format in ("JPEG", "MPO"):
            tall, wide = reduce_to[::-1] if swapped else reduce_to
            drafted = image.draft(None, (2 * wide, 2 * tall))  # None: without a change of color mode
        reduced = image.size != (width, height)
        if file is not None:
            deep_pixels.fix_transparency(image)
        image.load()
    except Exception as error:  # as above: OSError, SyntaxError, EOFError, struct.error, zlib.error, …
        raise ImageError(f"{name} is damaged: {error}") from None
    transpose = _exif_transpose(image)  # after loading, when TIFF has already been turned by PIL
    if depth is not None:

        def read_low() -> NDArray[np.uint16]:
            assert file is not None
            assert depth is not None
            file.seek(0)
            return deep_pixels.decode_low_bytes(open_image(file, name), depth)

        try:
            image = deep_pixels.to_8_bits(image, depth, bits, read_low)
        except ValueError as error:
            raise error if isinstance(error, ImageError) else ImageError(f"{name} {error}") from None
    upright = _convert(image, color, name)
    if transpose is not None:
        upright = upright.transpose(transpose)
        upright.info = {}  # or its EXIF would turn the image again when it is read again
    return upright, _orient_box(drafted[1], upright.size, transpose) if drafted and reduced else None


def _orient_box(drafted: Box, size: tuple[int, int], transpose: Transpose | None) -> Box:
    """Return the box ``drafted`` of the stored image in the upright image of ``size``."""
    right, bottom = drafted[2:]
    width, height = (bottom, right) if transpose in _SWAPS_SIDES else (right, bottom)
    left = size[0] - width if transpose in _FLIPS_HORIZONTALLY else 0
    top = size[1] - height if transpose in _FLIPS_VERTICALLY else 0
    return left, top, left + width, top + height


def _convert(image: Image.Image, color: str, name: str) -> Image.Image:
    """Return the image in the mode ``color``. What has no alpha is opaque, and seen on white in a mode without it."""
    if color in ("RGBA", "LA") and image.has_transparency_data:
        return image.convert("RGBA").convert(color)
    if color == "CMYK" and image.mode == "CMYK":
        return image
    rgb = _to_rgb(image, name)
    return rgb if color == "RGB" else rgb.convert("L").convert("LA") if color == "LA" else rgb.convert(color)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ImageError(f"{name} holds 32-bit {kind} of unknown range: save it with 8 or 16 bits")
    try:
        if image.has_transparency_data:
            opaque = Image.new("RGBA", image.size, "white")
            opaque.alpha_composite(image.convert("RGBA"))
            return opaque.convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"{name} cannot be converted to RGB: {error}") from None


def _exif_transpose(image: Image.Image) -> Transpose | None:
    """Return what makes the image upright by its EXIF; a damaged EXIF is no reason to refuse it."""
    try:
        return _EXIF_TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


def _from_array(array: Pixels) -> Image.Image:
    shape, accepted = array.shape, "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.dtype != np.uint8:
        raise ImageError(f"the given array is {array.dtype}: expected uint8, 0 to 255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        channels_first = array.ndim == 3 and shape[0] in (1, 3, 4)
        remedy = "; pass array.transpose(1, 2, 0)" if channels_first else ""
        raise ImageError(f"the given array has the shape {shape}: expected {accepted}{remedy}")
    if 0 in shape:
        raise ImageError(f"the given array has the shape {shape}: it is empty")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array)


def source_name(source: ImageSource) -> str:
    """Return what to call an image in a message. Raises ``ImageError`` if it is none of `ImageSource`."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, bytes):
        return "the given file"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or "the given image"
    if isinstance(source, np.ndarray):
        return "the given array"
    if isinstance(source, LazyImage):
        return source.name
    raise ImageError(f"an image must be a path, bytes, a PIL image or a uint8 array, not {type(source).__name__}")


def _open_file(source: str | Path | bytes, name: str) -> IO[bytes]:
    if not isinstance(source, bytes) and Path(source).is_dir():
        raise ImageError(f"{name} is a folder, not an image")
    try:
        file = BytesIO(source) if isinstance(source, bytes) else open(existing_path(source), "rb")  # noqa: SIM115 – the caller closes it
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist") from None
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror}") from None
    if not file.read(1):
        file.close()
        raise ImageError(f"{name} is empty")
    file.seek(0)
    return file


class _QuietPIL:
    """Silences PIL's warnings (large photos, odd EXIF) and libtiff's lines on stderr while any thread reads an image.

    An image is either used or refused with a message. ``catch_warnings`` is not thread-safe (the last thread to leave
    may restore another's filters), so the first thread that enters does it for all.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.active = 0
        self.saved_filters = warnings.catch_warnings()
        self.saved_handlers: dict[str, int | None] = {}

    def __enter__(self) -> None:
        with self.lock:
            if not self.active:
                self.saved_filters = warnings.catch_warnings()
                self.saved_filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.saved_handlers = _set_libtiff_handlers(dict.fromkeys(_LIBTIFF_SETTERS))
            self.active += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.active -= 1
            if not self.active:
                _set_libtiff_handlers(self.saved_handlers)
                self.saved_filters.__exit__(None, None, None)


_LIBTIFF_SETTERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")


@lru_cache(maxsize=1)
def _libtiff() -> ctypes.CDLL:
    """Return PIL's libtiff, of which the system finds the functions by the library that has loaded it."""
    library = ctypes.CDLL(_imaging.__file__)
    for setter in _LIBTIFF_SETTERS:
        getattr(library, setter).argtypes, getattr(library, setter).restype = [ctypes.c_void_p], ctypes.c_void_p
    return library


def _set_libtiff_handlers(handlers: dict[str, int | None]) -> dict[str, int | None]:
    """Set the functions that get libtiff's messages, None for silence; return those before. Of PIL's libtiff alone."""
    before: dict[str, int | None] = {}
    with suppress(OSError, AttributeError):  # a Pillow without it, or on a system that does not look in what it loads
        for setter, handler in handlers.items():
            before[setter] = getattr(_libtiff(), setter)(handler)
    return before


QUIET_PIL = _QuietPIL()
