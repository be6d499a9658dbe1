"""From a request to the bytes of the picture in it: counted while they come, and within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from effnet.serve.limits import Limits
from effnet.serve.refusal import GONE, Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "file"
_FORM = "multipart/form-data"
AROUND = 65_536  # bytes that a form may have beside its picture
_HOW = f"send the picture as the field {FIELD!r} of a form, or as the body with an image content type"
_NO_ADDRESS = "this server fetches no pictures from addresses: send the picture itself"

# What a request may look like, for OpenAPI
CONTENT: dict[str, Any] = {
    _FORM: {
        "schema": {
            "type": "object",
            "properties": {FIELD: {"type": "string", "format": "binary", "description": "The picture's file."}},
            "required": [FIELD],
        }
    },
    **{
        f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
        for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")
    },
}


async def picture_in(request: Request, limits: Limits, arrived: Callable[[int], None]) -> bytes:
    """The picture's file. ``arrived`` hears how many bytes came, each time, and may refuse them.

    Raises `Refusal` for another content type, too many bytes, too little speed, no picture.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = kind == _FORM.encode()
    if "url" in request.query_params:
        raise Refusal(400, _NO_ADDRESS)
    if not form and not kind.startswith(b"image/"):
        shown = f"the content type is {kind.decode('latin-1')[:80]}" if kind else "there is no content type"
        why = f"; {_NO_ADDRESS}" if kind in (b"application/json", b"text/uri-list") else ""
        raise Refusal(415, f"{shown}: {_HOW}{why}")
    if form and not options.get(b"boundary"):
        raise Refusal(400, "the form's content type names no boundary: let your HTTP library write that header")
    body = await _read(request, limits.bytes_most + (AROUND if form else 0), limits, arrived)
    picture = _field(body, options[b"boundary"]) if form else body
    if not picture:
        raise Refusal(400, f"there is no picture in the request: {_HOW}")
    if len(picture) > limits.bytes_most:
        raise _too_large(limits)
    return picture


async def _read(request: Request, most: int, limits: Limits, arrived: Callable[[int], None]) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(limits)
    chunks, count = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                count += len(chunk)
                if count > most:
                    raise _too_large(limits)
                arrived(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise Refusal(
            408, f"the picture did not arrive within {limits.seconds:g} seconds: send a smaller one, or again"
        ) from None
    except ClientDisconnect:
        raise Refusal(GONE, "the client went away") from None
    return b"".join(chunks)


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the request has more than {limits.bytes_most / 1e6:g} MB: send a smaller picture")


class _Fields:
    """What a form's parser tells of its fields: the names of all, the content of the one that is wanted."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.pieces: list[bytes] = []
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
            self._wanted = name == FIELD
        self._header, self._value = b"", b""

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.pieces.append(data[start:end])


def _field(body: bytes, boundary: bytes) -> bytes:
    """The content of the form's only `FIELD`. Raises `Refusal` where there is none, or several, or no form."""
    fields, ended = _Fields(), []
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
        raise Refusal(400, f"the form cannot be read: {_HOW}") from None
    if "url" in fields.names and FIELD not in fields.names:
        raise Refusal(400, _NO_ADDRESS)
    if FIELD not in fields.names:
        there = f"it has {', '.join(map(repr, fields.names))}" if fields.names else "it is empty"
        raise Refusal(400, f"the form has no field {FIELD!r} ({there}): {_HOW}")
    if fields.names.count(FIELD) > 1:
        raise Refusal(400, f"the form has the field {FIELD!r} {fields.names.count(FIELD)} times: send one picture")
    if not ended:
        raise Refusal(400, "the form ends before its last boundary: send it again")
    return b"".join(fields.pieces)
