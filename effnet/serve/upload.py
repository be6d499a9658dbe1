"""Uploaded images: read from the request within limits, and their header checked before anything is decoded."""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
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
MAX_FORM_PARTS, MAX_NAMED_FIELDS = 8, 3  # a browser's form has one or two; an error names as many of its fields
_FORM_TYPE = "multipart/form-data"
_UPLOAD_HINT = f"send the image as the form field {FORM_FIELD!r}, or as the body with an image content type"
NO_URLS = "this server does not fetch URLs: send the image itself"
MAX_BOUNDARY_PADDING = 256  # blanks

# Every other parser of PIL is one more that strangers can feed
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_FORMAT_NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF"
# What a file without one of the formats may be, by how it begins
_OTHER_FILES = {
    b"\x1f\x8b": "gzip-compressed",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
    b"PK\3\4": "a zip archive",
    b"%PDF": "a PDF",
}
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


async def read_image_bytes(
    request: Request, limits: server.ServerLimits, on_bytes: Callable[[int], None], pool: Executor
) -> bytes:
    """Return the image file in the request: the form field ``file``, or the body itself.

    ``on_bytes`` gets the number of bytes of every chunk, and may refuse them. Forms are parsed in ``pool``, since that
    may take a second.
    """
    kind, options = multipart.parse_options_header(request.headers.get("content-type"))
    is_form = kind == _FORM_TYPE.encode()
    if (encoding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("identity", ""):
        raise RequestError(415, f"the body is compressed ({encoding[:40]}): send the image file as it is")
    if not is_form and not kind.startswith(b"image/"):
        found = f"the content type is {kind.decode('latin-1')[:80]}" if kind else "there is no content type"
        why = f"; {NO_URLS}" if kind in (b"application/json", b"text/uri-list") else ""
        raise RequestError(415, f"{found}: {_UPLOAD_HINT}{why}")
    if is_form and not options.get(b"boundary"):
        raise RequestError(400, "the content type of the form has no boundary: let your HTTP library set that header")
    body = await _read_body(request, limits.max_bytes + (FORM_OVERHEAD_BYTES if is_form else 0), limits, on_bytes)
    content = body
    if is_form:
        parameters = [field.alias for field in request.scope["route"].dependant.query_params]
        parse = partial(_form_file, body, options[b"boundary"], parameters)
        content = await asyncio.get_running_loop().run_in_executor(pool, parse)
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


def _form_file(body: bytes, boundary: bytes, parameters: Sequence[str] = ()) -> bytes:
    """Return the content of the form's only `FORM_FIELD`.

    Raises `RequestError` if there is none, or several, or a field that is one of the URL's ``parameters``.
    """
    delimiter = b"\r\n--" + boundary
    if body.count(delimiter) > MAX_FORM_PARTS:  # counted at the speed of memory, unlike parsing them
        raise RequestError(400, f"the form has more than {MAX_FORM_PARTS} parts: {_UPLOAD_HINT}")
    if re.search(re.escape(delimiter) + b"[ \t]{%d}" % MAX_BOUNDARY_PADDING, body):  # which is parsed byte by byte
        raise RequestError(400, f"the form is malformed: {_UPLOAD_HINT}")
    parts: list[tuple[str, bytes]] = []
    complete: list[bool] = []

    def add(part: multipart.Field | multipart.File) -> None:
        content = part.file_object.getvalue() if isinstance(part, multipart.File) else part.value  # type: ignore[union-attr]
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
        raise RequestError(400, NO_URLS)
    if not complete:
        raise RequestError(400, "the form is truncated, its last boundary is missing: send it again")
    if FORM_FIELD not in names:
        shown = [repr(name[:40]) for name in names[:MAX_NAMED_FIELDS]] + ["…"] * (len(names) > MAX_NAMED_FIELDS)
        found = f"it has {', '.join(shown)}" if names else "it is empty"
        raise RequestError(400, f"the form has no field {FORM_FIELD!r} ({found}): {_UPLOAD_HINT}")
    if names.count(FORM_FIELD) > 1:
        raise RequestError(400, f"the form has {names.count(FORM_FIELD)} fields {FORM_FIELD!r}: send one image")
    if misplaced := [name for name in names if name in parameters]:
        raise RequestError(400, f"{misplaced[0]} is a field of the form: give it in the URL, as ?{misplaced[0]}=…")
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
        if what := next((name for magic, name in _OTHER_FILES.items() if content.startswith(magic)), None):
            raise RequestError(422, f"the file is {what}: send the image itself, as {_FORMAT_NAMES}") from None
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
