"""Every bad request gets the right status and one message as JSON, and the next one is served."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import lzma
import struct
import threading
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.serve import upload
from effnet.serve.errors import RequestError
from effnet.serve.models import ServedModel
from effnet.serve.server import ServerLimits
from effnet.serve.upload import read_image_header
from tests.serve.conftest import Client, Running, encode_image, serve_model

PNG = {"content-type": "image/png"}


def assert_refused(running: Running, status: int, method: str, path: str, **request: Any) -> str:
    """Return the error message, and check that a good image is still predicted afterwards."""

    async def work() -> str:
        async with running.client() as client:
            found = await client.request(method, path, **request)
            assert found.status_code == status, found.text
            assert list(found.json()) == ["error"]
            message = found.json()["error"]
            assert "Traceback" not in message
            assert "\n" not in message
            await assert_still_serving(client)
            return str(message)

    return asyncio.run(work())


async def assert_still_serving(client: Client) -> None:
    content = encode_image(np.zeros((40, 40, 3), np.uint8))
    found = await client.post("/v1/predict", content=content, headers=PNG)
    assert found.status_code == 200, found.text
    assert (await client.get("/healthz")).json()["accepted"] == 0


def header_only(width: int, height: int) -> bytes:
    """A PNG whose header claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_no_image(running: Running) -> None:
    for path in ("/v1/predict", "/v1/explain"):
        assert "there is no content type: send the image as" in assert_refused(running, 415, "POST", path)
        assert "no image in the request" in assert_refused(running, 400, "POST", path, content=b"", headers=PNG)
        assert "no image" in assert_refused(running, 400, "POST", path, files={"file": ("x.png", b"")})
        assert "no field 'file' (it has 'image')" in assert_refused(
            running, 400, "POST", path, files={"image": ("x.png", b"x")}
        )
        twice = [("file", ("x.png", b"x")), ("file", ("y.png", b"y"))]
        assert "2 fields" in assert_refused(running, 400, "POST", path, files=twice)


def test_malformed_forms(running: Running) -> None:
    def sent(content: bytes, kind: str) -> str:
        return assert_refused(running, 400, "POST", "/v1/predict", content=content, headers={"content-type": kind})

    form = "multipart/form-data"
    assert "has no boundary" in sent(b"x", form)
    assert "is malformed" in sent(b"no form at all", f"{form}; boundary=abc")
    part = b'--abc\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"x" * 50
    assert "form is truncated" in sent(part, f"{form}; boundary=abc")
    assert "is malformed" in sent(b"--abc\r\n" + b"y" * 9000, f"{form}; boundary=abc")
    assert sent(b"--abc--\r\n", f"{form}; boundary=abc")
    assert sent(part, f"{form}; boundary=" + "a" * 500)


def test_forms_of_many_parts(running: Running) -> None:
    part = b'--abc\r\ncontent-disposition: form-data; name="%b"\r\n\r\nx\r\n'
    named = b'--abc\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
    end, most = b"--abc--\r\n", 30_000_000

    def sent(content: bytes) -> str:
        headers = {"content-type": "multipart/form-data; boundary=abc"}
        message = assert_refused(running, 400, "POST", "/v1/predict", content=content, headers=headers)
        assert len(message) < 300
        return message

    many = "the form has more than 8 parts: send the image as the form field 'file'"
    assert sent(b"".join(part % b"f%d" % each for each in range(400_000)) + end).startswith(many)
    assert sent(b"--abc\r\n\r\n\r\n" * 9 + end).startswith(many)  # without headers
    assert sent(named + b"\r\n--abX" * 9 + b"\r\n--abc" * 9 + end).startswith(many)  # in the image
    few = b"".join(part % (b"%d" % each * 1000) for each in range(8)) + end
    assert sent(few).startswith("the form has no field 'file' (it has '" + "0" * 40 + "', '1")
    assert "…): send" in sent(few)
    assert "'3" not in sent(few)
    for slow in (b"--abc\r\n" + b"a: b\r\n" * 10**6, b"--abc\r\na: " + b" " * most, b"--abc\r\n" + b"n" * most):
        assert "is malformed" in sent(slow)  # what a part's headers may hold is bounded
    assert "is malformed" in sent(named + b"x\r\n--abc" + b" " * most + b"\r\n" + end)
    inner = b"--abc\r\ncontent-type: multipart/mixed; boundary=abcd\r\n\r\n" + b"--abcd\r\n\r\nx\r\n" * 9
    assert sent(inner + end)
    misplaced = sent(named + b"x\r\n" + part % b"top" + end)
    assert misplaced == "top is a field of the form: give it in the URL, as ?top=…"


def test_forms_are_not_parsed_in_the_event_loop(
    running: Running, photos: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, parse = [], upload._form_file

    def record(*arguments: Any) -> bytes:
        threads.append(threading.current_thread())
        return parse(*arguments)

    monkeypatch.setattr(upload, "_form_file", record)

    async def work() -> None:
        async with running.client() as client:
            found = await client.post("/v1/predict", files={"file": ("x.png", photos[0][0]), "note": (None, "x")})
            assert found.status_code == 200

    asyncio.run(work())
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, br"])
def test_compressed_bodies(running: Running, encoding: str) -> None:
    message = f"the body is compressed ({encoding}): send the image file as it is"
    headers = {**PNG, "content-encoding": encoding}
    assert assert_refused(running, 415, "POST", "/v1/predict", content=gzip.compress(b"x"), headers=headers) == message


def test_other_files_are_called_what_they_are(running: Running) -> None:
    named = {
        "gzip-compressed": gzip.compress(b"x"),
        "compressed with bzip2": bz2.compress(b"x"),
        "compressed with xz": lzma.compress(b"x"),
        "a zip archive": b"PK\3\4...",
        "a PDF": b"%PDF-1.7",
    }
    for name, content in named.items():
        for how in ({"content": content, "headers": PNG}, {"files": {"file": ("x", content)}}):
            message = assert_refused(running, 422, "POST", "/v1/predict", **how)
            assert message.startswith(f"the file is {name}: send the image itself, as JPEG")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/octet-stream", "video/mp4", "image"])
def test_wrong_content_type(running: Running, kind: str) -> None:
    message = assert_refused(running, 415, "POST", "/v1/predict", content=b"x", headers={"content-type": kind})
    assert message.startswith(f"the content type is {kind}: send the image")


def test_urls_are_not_fetched(running: Running) -> None:
    private = "http://169.254.169.254/latest/meta-data/"
    message = "this server does not fetch URLs: send the image itself"
    assert assert_refused(running, 415, "POST", "/v1/predict", json={"url": private}).endswith(message)
    assert assert_refused(running, 400, "POST", "/v1/predict", files={"url": (None, private)}) == message
    assert (
        assert_refused(running, 400, "POST", "/v1/predict", params={"url": private}, content=b"x", headers=PNG)
        == message
    )


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
def test_not_an_image(running: Running, form: bool, path: str) -> None:
    def sent(content: bytes, status: int = 422) -> str:
        how: dict[str, Any] = {"files": {"file": ("x", content)}} if form else {"content": content, "headers": PNG}
        return assert_refused(running, status, "POST", path, **how)

    noise = np.random.default_rng(0).bytes(2_000_000)
    none = "the file is not an image: supported formats are JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF"
    assert sent(noise) == none
    assert sent(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == none
    assert sent(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == none
    assert "convert it to JPEG" in sent(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    whole = encode_image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    assert "the image is damaged" in sent(whole[: len(whole) // 2])
    assert "too small" in sent(encode_image(np.zeros((1, 9, 3), np.uint8)))
    assert "of unknown range" in sent(tiff_of_floats())


def tiff_of_floats() -> bytes:
    out = BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(out, "TIFF")
    return out.getvalue()


def test_decompression_bombs(running: Running) -> None:
    for width, height in ((20_000, 20_000), (12_000, 12_000)):  # beyond PIL's own limit, and beyond ours alone
        content = header_only(width, height)
        message = assert_refused(running, 413, "POST", "/v1/predict", content=content, headers=PNG)
        assert "more than 100,000,000" in message
        assert "pixels" in message
    read_image_header(header_only(10_000, 10_000), ServerLimits().max_pixels)


def test_jpeg_with_too_many_scans() -> None:
    out = BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(out, "JPEG", progressive=True)
    content = out.getvalue()
    assert read_image_header(content, 10_000).format == "JPEG"
    place = content.rindex(b"\xff\xda")
    with pytest.raises(RequestError, match="more than 100 scans"):
        read_image_header(content[:-2] + content[place:-2] * 100 + content[-2:], 10_000)


def test_too_many_bytes(weights: Path) -> None:
    small, most = ServerLimits(max_bytes=200_000), 200_000

    async def chunks(sent: list[int]) -> AsyncIterator[bytes]:
        for _ in range(1000):
            sent.append(100_000)
            yield b"x" * 100_000

    with serve_model(weights, small) as running:
        content = b"x" * (most + 1)
        message = "the request is larger than 0.2 MB: send a smaller image"
        assert assert_refused(running, 413, "POST", "/v1/predict", content=content, headers=PNG) == message
        assert assert_refused(running, 413, "POST", "/v1/predict", files={"file": ("x", content)}) == message
        assert assert_refused(running, 413, "POST", "/v1/predict", files={"file": ("x", content * 2)}) == message
        sent: list[int] = []
        assert assert_refused(running, 413, "POST", "/v1/predict", content=chunks(sent), headers=PNG) == message


def test_parameters(running: Running) -> None:
    content = {"content": b"x", "headers": PNG}
    where = "/v1/predict"
    assert assert_refused(running, 422, "POST", f"{where}?top=0", **content) == (
        "top should be greater than or equal to 1, got '0'"
    )
    assert (
        assert_refused(running, 422, "POST", f"{where}?top=many", **content)
        == "top should be a valid integer, got 'many'"
    )
    assert (
        assert_refused(running, 404, "POST", f"{where}?model=b7", **content)
        == "no model is named 'b7': there are squares"
    )
    assert "format should be 'png' or 'json'" in assert_refused(
        running, 422, "POST", "/v1/explain?format=gif", **content
    )
    assert "squares has no class '2 gren'; did you mean 2 green?" in assert_refused(
        running, 422, "POST", "/v1/explain?class=2%20gren", **content
    )
    assert "there are 6, from 0 to 5" in assert_refused(running, 422, "POST", "/v1/explain?class=6", **content)
    for phi in ("nan", "inf", "1e9", "x", ""):
        assert assert_refused(running, 422, "GET", f"/v1/scale?phi={phi}").startswith("phi should be")
    assert assert_refused(running, 422, "GET", "/v1/scale?phi=8&alpha=2").startswith("alpha^phi is 256: choose values")
    for network in ("b99", "/etc/passwd", "x.json", ""):
        assert assert_refused(running, 404, "GET", f"/v1/scale?network={network}").startswith(
            "no EfficientNet is called"
        )


def test_unknown_parameters(running: Running) -> None:
    content = {"content": b"x", "headers": PNG}
    assert assert_refused(running, 422, "POST", "/v1/predict?topp=3", **content) == (
        "/v1/predict has no parameter 'topp'; did you mean top?"
    )
    assert assert_refused(running, 422, "POST", "/v1/predict?top=3&TOP=4", **content).startswith(
        "/v1/predict has no parameter 'TOP'"
    )
    for path in ("/v1/predict?class=1", "/v1/explain?top=1", "/v1/explain?=", "/v1/predict?top%20=1"):
        assert "has no parameter" in assert_refused(running, 422, "POST", path, **content)
    for path in ("/v1/models?x=1", "/healthz?x=1", "/metrics?x=1", "/v1/scale?phy=1", "/v1/scale?network=b0&url=x"):
        status = 400 if "url" in path else 422
        assert_refused(running, status, "GET", path)
    assert assert_refused(running, 422, "POST", "/v1/predict?top=3&top=5", **content) == (
        "top is given 2 times: give it once"
    )
    many = "&".join(f"x{each}=1" for each in range(5000))
    assert len(assert_refused(running, 422, "POST", f"/v1/predict?{many}", **content)) < 200

    async def page() -> None:
        async with running.client() as client:
            assert (await client.get("/?utm_source=mail")).status_code == 200
            assert (await client.get("/page/tabs.js?v=2")).status_code == 200

    asyncio.run(page())


def test_unknown_paths(running: Running) -> None:
    assert assert_refused(running, 404, "GET", "/v2/predict") == ("/v2/predict does not exist: see /openapi.json")
    assert assert_refused(running, 405, "GET", "/v1/predict") == "/v1/predict accepts POST, not GET"
    for path in ("/page/none.js", "/page/../app.py", "/page/%2e%2e/app.py", "/docs", "/redoc"):
        assert_refused(running, 404, "GET", path)


def test_exported_file_has_no_maps(weights: Path, tmp_path: Path) -> None:
    exported = effnet.export(weights, tmp_path / "squares.onnx")
    running = Running({"squares": ServedModel("squares", exported.path, batch_size=1)}, ServerLimits())
    message = assert_refused(running, 422, "POST", "/v1/explain", content=b"x", headers=PNG)
    assert message == "squares is an exported file without activation maps: serve its weights"
    running.queue.close()


def test_weights_deleted_after_start(tmp_path: Path, photos: list[tuple[bytes, str]]) -> None:
    path = effnet.save(effnet.create("nano", classes=2).eval(), tmp_path / "x.safetensors")
    content = path.read_bytes()
    running = Running({"x": ServedModel("x", path, "eager", 1)}, ServerLimits())
    path.unlink()
    message = assert_refused(running, 503, "POST", "/v1/explain", content=photos[0][0], headers=PNG)
    assert message == ("the weights of x can no longer be read: restore the file or restart the server")
    path.write_bytes(content)
    assert running.queue.models["x"].activation_map(np.zeros((32, 32, 3), np.uint8), 0).shape
    running.queue.close()


def test_full_queue_and_timeout(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    limits = ServerLimits(queue_size=3, timeout_seconds=0.5, batch_wait_seconds=2.0)  # every request times out

    async def work(running: Running) -> None:
        async with running.client() as client:
            calls = [client.post("/v1/predict", content=photos[0][0], headers=PNG) for _ in range(5)]
            found = await asyncio.gather(*calls)
            assert [one.status_code for one in found] == [503] * 5
            assert all(one.headers["retry-after"] == "1" for one in found)
            errors = sorted(one.json()["error"] for one in found)
            assert errors[:3] == ["no prediction within 0.5 seconds: retry later"] * 3
            assert errors[3:] == ["the queue of 3 is full: retry in a second"] * 2
            assert running.queue.accepted == 0

    with serve_model(weights, limits, batch=50) as running:
        asyncio.run(work(running))


def test_output_with_nan(photos: list[tuple[bytes, str]]) -> None:
    model = effnet.create("nano", classes=2).eval()
    model.classifier.weight.data.fill_(float("nan"))  # type: ignore[union-attr]
    running = Running({"x": ServedModel("x", model, "eager", 1)}, ServerLimits())

    async def work() -> None:
        # Like uvicorn, return the response instead of raising the error that goes to the log
        import httpx

        transport = httpx.ASGITransport(running.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            found = await client.post("/v1/predict", content=photos[0][0], headers=PNG)
            assert found.status_code == 500
            assert found.json()["error"].startswith("internal server error")
            assert (await client.get("/healthz")).status_code == 200

    asyncio.run(work())
    running.queue.close()


def test_invalid_limits() -> None:
    for name, value in (
        ("queue_size", 0),
        ("max_bytes", 0),
        ("max_pixels", 0),
        ("timeout_seconds", 0),
        ("batch_wait_seconds", -1),
    ):
        with pytest.raises(ValueError, match=name):
            replace(ServerLimits(), **{name: value})  # type: ignore[arg-type]
