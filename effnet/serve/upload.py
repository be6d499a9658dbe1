"""Uploaded images: read from the request within limits, and their header checked before anything is decoded."""

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image
from pydantic import BaseModel, Field
from python_multipart import FormParser, exceptions, multipart
from starlette.requests import ClientDisconnect, Request

from effnet.data.image_io import QUIET_PIL
from effnet.serve import server
from effnet.serve.errors import STATUS_CLIENT_CLOSED, RequestError

FORM_FIELD = "file"
FORM_OVERHEAD_BYTES = 65_536  # of a form, beside its image
_FORM_TYPE = "multipart/form-data"
_UPLOAD_HINT = f"send the image as the form field {FORM_FIELD!r}, or as the body with an image content type"
_NO_URLS = "this server does not fetch URLs: send the image itself"

# Every other parser of PIL is one more that strangers can feed
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF"
_HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")
_MAX_JPEG_SCANS = 100  # of a progressive JPEG; ten are usual, and each is a pass over the whole image
_EXIF_ORIENTATION, _ROTATED_ORIENTATIONS = 0x0112, (5, 6, 7, 8)

# The request bodies that are accepted, for OpenAPI
REQUEST_CONTENT: dict[str, Any] = {
    _FORM_TYPE: {
        "schema": {
            "type": "object",
            "properties": {FORM_FIELD: {"type": "string", "format": "binary", "description": "The image file."}},
            "required": [FORM_FIELD],
        }
    },
    **{
        f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
        for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")
    },
}


class ImageInfo(BaseModel):
    """The header of the image file."""

    width: int = Field(description="In pixels, after EXIF rotation.")
    height: int
    format: str
    remark: str = Field(description="What is ignored, such as further frames of an animation; else empty.")


async def read_image_bytes(request: Request, limits: server.ServerLimits, on_bytes: Callable[[int], None]) -> bytes:
    """Return the image file in the request: the form field ``file``, or the body itself.

    ``on_bytes`` gets the number of bytes of every chunk, and may refuse them.
    """
    kind, options = multipart.parse_options_header(request.headers.get("content-type"))
    is_form = kind == _FORM_TYPE.encode()
    if "url" in request.query_params:
        raise RequestError(400, _NO_URLS)
    if not is_form and not kind.startswith(b"image/"):
        found = f"the content type is {kind.decode('latin-1')[:80]}" if kind else "there is no content type"
        why = f"; {_NO_URLS}" if kind in (b"application/json", b"text/uri-list") else ""
        raise RequestError(415, f"{found}: {_UPLOAD_HINT}{why}")
    if is_form and not options.get(b"boundary"):
        raise RequestError(400, "the content type of the form has no boundary: let your HTTP library set that header")
    body = await _read_body(request, limits.max_bytes + (FORM_OVERHEAD_BYTES if is_form else 0), limits, on_bytes)
    content = _form_file(body, options[b"boundary"]) if is_form else body
    if not content:
        raise RequestError(400, f"there is no image in the request: {_UPLOAD_HINT}")
    if len(content) > limits.max_bytes:
        raise _too_large_error(limits)
    return content


async def _read_body(
    request: Request, max_bytes: int, limits: server.ServerLimits, on_bytes: Callable[[int], None]
) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large_error(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > max_bytes:
                    raise _too_large_error(limits)
                on_bytes(len(chunk))
                body += chunk
    except TimeoutError:
        message = f"the image did not arrive within {limits.timeout_seconds:g} seconds: retry, or send a smaller one"
        raise RequestError(408, message) from None
    except ClientDisconnect:
        raise RequestError(STATUS_CLIENT_CLOSED, "the client closed the connection") from None
    return bytes(body)


def _too_large_error(limits: server.ServerLimits) -> RequestError:
    return RequestError(413, f"the request is larger than {limits.max_bytes / 1e6:g} MB: send a smaller image")


def _form_file(body: bytes, boundary: bytes) -> bytes:
    """Return the content of the form's only `FORM_FIELD`; raise `RequestError` if there is none, or several."""
    parts: list[tuple[str, bytes]] = []
    complete: list[bool] = []

    def add(part: multipart.Field | multipart.File) -> None:
        if isinstance(part, multipart.File):
            part.file_object.seek(0)
        content = part.file_object.read() if isinstance(part, multipart.File) else part.value
        parts.append(((part.field_name or b"").decode("utf-8", "replace"), content or b""))

    try:
        in_memory = {"MAX_MEMORY_FILE_SIZE": len(body)}
        parser = FormParser(_FORM_TYPE, add, add, lambda: complete.append(True), boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except (exceptions.FormParserError, ValueError):
        raise RequestError(400, f"the form is malformed: {_UPLOAD_HINT}") from None
    names = [name for name, _ in parts]
    if FORM_FIELD not in names and "url" in names:
        raise RequestError(400, _NO_URLS)
    if not complete:
        raise RequestError(400, "the form is truncated, its last boundary is missing: send it again")
    if FORM_FIELD not in names:
        found = f"it has {', '.join(map(repr, names))}" if names else "it is empty"
        raise RequestError(400, f"the form has no field {FORM_FIELD!r} ({found}): {_UPLOAD_HINT}")
    if names.count(FORM_FIELD) > 1:
        raise RequestError(400, f"the form has {names.count(FORM_FIELD)} fields {FORM_FIELD!r}: send one image")
    return dict(parts)[FORM_FIELD]


def read_image_header(content: bytes, max_pixels: int) -> ImageInfo:
    """Read size, format and orientation of an image file without decoding it; refuse what is too large."""
    try:
        with QUIET_PIL:
            Image.init()
            image = Image.open(BytesIO(content), formats=[name for name in IMAGE_FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError:
        raise RequestError(413, f"the image has more than {max_pixels:,} pixels: resize it first") from None
    except Exception:  # PIL's parsers raise anything
        if content[4:12] in _HEIC_BRANDS:
            raise RequestError(422, "HEIC images are not supported: convert it to JPEG") from None
        raise RequestError(422, f"the file is not an image: supported formats are {_FORMAT_NAMES}") from None
    width, height = image.size
    if width * height > max_pixels:
        raise RequestError(413, f"the image has {height:,}×{width:,} pixels, more than {max_pixels:,}: resize it first")
    if image.info.get("progressive") and content.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise RequestError(422, f"this JPEG has more than {_MAX_JPEG_SCANS} scans: save it again")
    with QUIET_PIL:
        remark, rotated = _describe_ignored_frames(image), _is_rotated(image)
    if rotated:
        width, height = height, width
    return ImageInfo(width=width, height=height, format=image.format or "", remark=remark)


def _is_rotated(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_EXIF_ORIENTATION) in _ROTATED_ORIENTATIONS
    except Exception:  # damaged EXIF is no reason to refuse the image
        return False


def _describe_ignored_frames(image: Image.Image) -> str:
    """Say what is ignored of a file with several images; phones put previews (MPO) behind a JPEG."""
    try:
        if not getattr(image, "is_animated", False) or image.format == "MPO":
            return ""
    except Exception:  # damaged behind the first image, which is the one that is used
        return ""
    what, part = ("has several pages", "page") if image.format == "TIFF" else ("is an animation", "frame")
    return f"the image {what}: only the first {part} is used"
