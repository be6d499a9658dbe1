"""From a request to the bytes of the picture in it: counted while they come, and within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from effnet.data.image_io import MUTED_PIL_WARNINGS
from effnet.serve.errors import STATUS_CLIENT_CLOSED, RequestError
from effnet.serve.limits import ServerLimits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM_FIELD = "file"


_FORM_TYPE = "multipart/form-data"


FORM_OVERHEAD_BYTES = 65_536  # bytes that a form may have beside its picture


_UPLOAD_HINT = f"send the picture as the field {FORM_FIELD!r} of a form, or as the body with an image content type"


_NO_URLS = "this server fetches no pictures from addresses: send the picture itself"


# What a request may look like, for OpenAPI
REQUEST_CONTENT: dict[str, Any] = {
    _FORM_TYPE: {
        "schema": {
            "type": "object",
            "properties": {FORM_FIELD: {"type": "string", "format": "binary", "description": "The picture's file."}},
            "required": [FORM_FIELD],
        }
    },
    **{
        f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
        for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")
    },
}


async def read_image_bytes(request: Request, limits: ServerLimits, on_bytes: Callable[[int], None]) -> bytes:
    """The picture's file. ``arrived`` hears how many bytes came, each time, and may refuse them.

    Raises `Refusal` for another content type, too many bytes, too little speed, no picture.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = kind == _FORM_TYPE.encode()
    if "url" in request.query_params:
        raise RequestError(400, _NO_URLS)
    if not form and not kind.startswith(b"image/"):
        shown = f"the content type is {kind.decode('latin-1')[:80]}" if kind else "there is no content type"
        why = f"; {_NO_URLS}" if kind in (b"application/json", b"text/uri-list") else ""
        raise RequestError(415, f"{shown}: {_UPLOAD_HINT}{why}")
    if form and not options.get(b"boundary"):
        raise RequestError(400, "the form's content type names no boundary: let your HTTP library write that header")
    body = await _read_body(request, limits.max_bytes + (FORM_OVERHEAD_BYTES if form else 0), limits, on_bytes)
    picture = _form_file(body, options[b"boundary"]) if form else body
    if not picture:
        raise RequestError(400, f"there is no picture in the request: {_UPLOAD_HINT}")
    if len(picture) > limits.max_bytes:
        raise _too_large_error(limits)
    return picture


async def _read_body(request: Request, max_bytes: int, limits: ServerLimits, on_bytes: Callable[[int], None]) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large_error(limits)
    chunks, count = [], 0
    try:
        async with asyncio.timeout(limits.timeout_seconds):
            async for chunk in request.stream():
                count += len(chunk)
                if count > max_bytes:
                    raise _too_large_error(limits)
                on_bytes(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RequestError(
            408, f"the picture did not arrive within {limits.timeout_seconds:g} seconds: send a smaller one, or again"
        ) from None
    except ClientDisconnect:
        raise RequestError(STATUS_CLIENT_CLOSED, "the client went away") from None
    return b"".join(chunks)


def _too_large_error(limits: ServerLimits) -> RequestError:
    return RequestError(413, f"the request has more than {limits.max_bytes / 1e6:g} MB: send a smaller picture")


class _FormFields:
    """What a form's parser tells of its fields: the names of all, the content of the one that is wanted."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.chunks: list[bytes] = []
        self._header, self._value = b"", b""
        self._wanted = False

    def begin(self) -> None:
        self._wanted = False

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            name = parse_options_header(self._value)[1].get(b"name", b"").decode("utf-8", "replace")
            self.names.append(name)
            self._wanted = name == FORM_FIELD
        self._header, self._value = b"", b""

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.chunks.append(data[start:end])


def _form_file(body: bytes, boundary: bytes) -> bytes:
    """The content of the form's only `FIELD`. Raises `Refusal` where there is none, or several, or no form."""
    fields, ended = _FormFields(), []
    heard: MultipartCallbacks = {
        "on_part_begin": fields.begin,
        "on_header_field": fields.header_field,
        "on_header_value": fields.header_value,
        "on_header_end": fields.header_end,
        "on_part_data": fields.data,
        "on_end": lambda: ended.append(True),
    }
    try:
        parser = MultipartParser(boundary, heard)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError):
        raise RequestError(400, f"the form cannot be read: {_UPLOAD_HINT}") from None
    if "url" in fields.names and FORM_FIELD not in fields.names:
        raise RequestError(400, _NO_URLS)
    if FORM_FIELD not in fields.names:
        there = f"it has {', '.join(map(repr, fields.names))}" if fields.names else "it is empty"
        raise RequestError(400, f"the form has no field {FORM_FIELD!r} ({there}): {_UPLOAD_HINT}")
    if fields.names.count(FORM_FIELD) > 1:
        raise RequestError(
            400, f"the form has the field {FORM_FIELD!r} {fields.names.count(FORM_FIELD)} times: send one picture"
        )
    if not ended:
        raise RequestError(400, "the form ends before its last boundary: send it again")
    return b"".join(fields.chunks)


# What a picture's first bytes say of it, before anything is decoded.


# Every other parser that PIL has is one more that strangers can feed
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


_FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF"


_HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")


_MAX_JPEG_SCANS = 100  # of a JPEG that comes in passes; usual are ten, and each is a walk over the whole picture


_EXIF_ORIENTATION, _ROTATED_ORIENTATIONS = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class ImageHeader:
    """Height and width of the upright picture, its format, and a remark where not all of the file is looked at."""

    height: int
    width: int
    format: str
    remark: str = ""


def read_image_header(content: bytes, max_pixels: int) -> ImageHeader:
    """What the file says of itself. Raises `Refusal` for what is no picture, of no known format, or too large."""
    try:
        with MUTED_PIL_WARNINGS:
            Image.init()
            image = Image.open(BytesIO(content), formats=[one for one in IMAGE_FORMATS if one in Image.OPEN])
    except Image.DecompressionBombError:
        raise RequestError(413, f"the picture has more than {max_pixels:,} pixels: make it smaller first") from None
    except Exception:  # whatever the parser of some format stumbled over
        if content[4:12] in _HEIC_BRANDS:
            raise RequestError(422, "this is a HEIC picture, which is not read here: save it as JPEG") from None
        raise RequestError(422, f"this is no picture: the formats that are read are {_FORMAT_NAMES}") from None
    width, height = image.size
    if width * height > max_pixels:
        raise RequestError(
            413, f"the picture has {height:,}×{width:,} pixels, more than {max_pixels:,}: make it smaller first"
        )
    if image.info.get("progressive") and content.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise RequestError(422, f"this JPEG comes in more than {_MAX_JPEG_SCANS} passes: save it anew")
    with MUTED_PIL_WARNINGS:
        remark = _describe_ignored_frames(image)
        sideways = _is_rotated(image)
    return ImageHeader(*((width, height) if sideways else (height, width)), image.format or "", remark)


def _is_rotated(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_EXIF_ORIENTATION) in _ROTATED_ORIENTATIONS
    except Exception:  # a damaged EXIF is no reason to refuse the picture
        return False


def _describe_ignored_frames(image: Image.Image) -> str:
    """What is left out of account of a file with several pictures in it; telephones put previews behind a JPEG."""
    try:
        several = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except Exception:  # damaged behind the first picture, which is the one that is used
        return ""
    if not several:
        return ""
    what = "the file has several pages" if image.format == "TIFF" else "the picture is an animation"
    return f"{what}: only the first {'page' if image.format == 'TIFF' else 'frame'} was looked at"
