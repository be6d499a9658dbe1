"""Thousands of requests of many clients, each with an image of its own, while others send what no server likes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.prediction import Predictor
from tests.endurance.damage import damage
from tests.exporting.networks import network

REQUESTS = int(os.environ.get("EFFNET_ENDURE_REQUESTS", "10000"))
CLIENTS = 64
TOLERANCE = 1e-4  # of a probability: the order of additions depends on the batch size
GROWTH = 1.1
MAX_PEAK = 1.5e9
HOST = "127.0.0.1"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Interference = Callable[["Crowd", random.Random], Awaitable[None]]


@pytest.mark.sweep
def test_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = effnet.save(network(classes=6), tmp_path / "model.safetensors")
    images = [make_image(seed) for seed in range(CLIENTS)]
    predictor = Predictor(weights, engine="eager")
    expected = [
        dict(zip(one.labels, one.probabilities, strict=True))
        for one in (predictor(image, top=6)[0] for image in images)
    ]
    answers = np.array([[one[name] for name in predictor.labels.names] for one in expected])
    apart = np.abs(answers[:, None] - answers[None]).max(-1) + np.eye(CLIENTS)
    assert apart.min() > 10 * TOLERANCE, "swapped answers would not be seen"
    with serving(weights, tmp_path / "log") as (port, pid):
        crowd = Crowd(port, pid, images, expected)
        asyncio.run(crowd.run())
    log = (tmp_path / "log").read_text()
    assert not crowd.wrong, crowd.wrong[:10]
    assert "Traceback" not in log, log
    others = ", ".join(f"{count} {kind}" for kind, count in crowd.others.most_common())
    report = (
        f"{crowd.answered} requests of {CLIENTS} clients answered ({crowd.repeated} times after a 503), each with "
        f"its own image's probabilities, beside {others}; idle {crowd.before / 1e6:.0f} → {crowd.after / 1e6:.0f} MB,"
        f" peak {crowd.peak / 1e6:.0f} MB; log of {len(log.splitlines())} lines"
    )
    with capsys.disabled():
        print(f"\n{report}")
    assert crowd.answered == REQUESTS
    assert crowd.after < GROWTH * crowd.before, report
    assert crowd.peak < MAX_PEAK, report
    assert len(log.splitlines()) < 100, log[:2000]


def make_image(seed: int) -> bytes:
    """Return an image file unlike those of other seeds, in one of several formats."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    out = BytesIO()
    Image.fromarray(pixels).save(out, ["PNG", "JPEG", "WEBP", "BMP"][seed % 4])
    return out.getvalue()


@contextmanager
def serving(weights: Path, log: Path) -> Iterator[tuple[int, int]]:
    """Run ``effnet serve`` and yield its port and its process id; it must end by itself on SIGTERM."""
    command = [sys.executable, "-m", "effnet", "serve", str(weights), "--port", "0", "--engine", "eager"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        limit = monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert monotonic() < limit, "the server does not start"
        yield int(found[1]), process.pid
        assert process.poll() is None, f"the server ended: {process.returncode}: {log.read_text()[-2000:]}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


class Crowd:
    """Clients with their images and the answers these must get, and those who interfere."""

    def __init__(self, port: int, pid: int, images: list[bytes], expected: list[dict[str, float]]) -> None:
        self.port, self.pid, self.images, self.expected = port, pid, images, expected
        self.answered = self.repeated = 0
        self.wrong: list[str] = []
        self.others: Counter[str] = Counter()
        self.before = self.after = self.peak = 0  # resident bytes of the server: idle, idle, and the most in between

    async def run(self) -> None:
        # First each kind at its worst, so that memory is measured of a server that has seen everything
        await asyncio.gather(*(self._meet(kind, random.Random(seed)) for kind in INTERFERENCES for seed in range(4)))
        self.before = await self._idle_memory()
        numbers = iter(range(REQUESTS))
        disturbing = [asyncio.create_task(self._disturb(seed)) for seed in range(8)]
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(*(self._client(index, numbers) for index in range(CLIENTS)))
        finally:
            for task in (*disturbing, watching):
                task.cancel()
            ended = await asyncio.gather(*disturbing, return_exceptions=True)
        self.wrong += [repr(one) for one in ended if isinstance(one, Exception)]
        self.after = await self._idle_memory()

    async def _client(self, index: int, numbers: Iterator[int]) -> None:
        """Send this client's image again and again, over one connection as long as the server keeps it."""
        rng, streams = random.Random(index), await self.connect()
        try:
            for _ in numbers:
                content = b"".join(make_request(self.images[index], rng.random() < 0.5))
                status, closed = 503, 0
                while status == 503:  # the queue is full, and it says when to come again
                    streams[1].write(content)
                    try:
                        status, answer = await read_response(streams[0])
                        self.repeated += status == 503
                        await asyncio.sleep(0.1 if status == 503 else 0)
                    except (asyncio.IncompleteReadError, ConnectionError):
                        # The server may close a kept connection just before the next request comes, not a new one
                        closed += 1
                        assert closed < 5, "the server closes connections without an answer"
                        streams[1].close()
                        streams = await self.connect()
                self.answered += 1
                self._check(index, status, answer)
        finally:
            streams[1].close()

    def _check(self, index: int, status: int, answer: bytes) -> None:
        if status != 200:
            self.wrong.append(f"client {index}: {status} {answer[:200]!r}")
            return
        found = {one["label"]: one["probability"] for one in json.loads(answer)["labels"]}
        expected = self.expected[index]
        if found.keys() != expected.keys() or any(abs(found[name] - expected[name]) > TOLERANCE for name in found):
            self.wrong.append(f"client {index}: {found}, not {expected}")

    async def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._memory())
            await asyncio.sleep(0.1)

    async def _idle_memory(self) -> int:
        """Return the least that the server takes in some seconds without requests: what was on its way is gone then."""
        sizes = []
        for _ in range(50):
            await asyncio.sleep(0.2)
            sizes.append(self._memory())
        return min(sizes)

    def _memory(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def _disturb(self, seed: int) -> None:
        rng = random.Random(seed)
        while True:
            await self._meet(rng.choice(INTERFERENCES), rng)
            await asyncio.sleep(0.05)

    async def _meet(self, kind: Interference, rng: random.Random) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            await kind(self, rng)
        self.others[kind.__name__] += 1

    async def connect(self) -> Streams:
        return await asyncio.open_connection(HOST, self.port)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Streams]:
        reader, writer = await self.connect()
        try:
            yield reader, writer
        finally:
            writer.close()

    def image(self, rng: random.Random) -> bytes:
        return rng.choice(self.images)

    async def refused(self, reader: asyncio.StreamReader, *allowed: int) -> None:
        """Read the answer, which must be one sentence and no success; or the end, if the server just closes."""
        async with asyncio.timeout(90):
            status, answer = await read_response(reader)
        if (status not in allowed and not 400 <= status < 500 and status != 503) or len(answer) > 10_000:
            self.wrong.append(f"interference: {status} {answer[:200]!r} of {len(answer)} bytes")


def make_request(image: bytes, as_form: bool) -> tuple[bytes, bytes]:
    """Return head and body: the image as it is, or as a form's field."""
    head = f"POST /v1/predict?top=6 HTTP/1.1\r\nhost: {HOST}\r\n"
    body, kind = image, "image/png"  # the server looks at the file itself
    if as_form:
        kind = "multipart/form-data; boundary=XX"
        body = b'--XX\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + image + b"\r\n--XX--\r\n"
    return f"{head}content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode(), body


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return int(head.split()[1]), await reader.readexactly(int(length[1])) if length else await reader.read()


async def slow_body(crowd: Crowd, rng: random.Random) -> None:
    async with crowd.connected() as (_, writer):
        head, body = make_request(crowd.image(rng), as_form=False)
        writer.write(head)
        for at in range(rng.randrange(1, 40)):
            writer.write(body[at : at + 1])
            await asyncio.sleep(0.1)


async def slow_head(crowd: Crowd, rng: random.Random) -> None:
    async with crowd.connected() as (_, writer):
        for at in range(rng.randrange(1, 40)):
            writer.write(b"GET /healthz HTTP/1.1\r\nx: " if not at else b"y")
            await asyncio.sleep(0.1)


async def many_headers(crowd: Crowd, rng: random.Random) -> None:
    await pour(crowd, b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n", b"x-a: b\r\n" * 10_000, 24_000_000)


async def endless_header(crowd: Crowd, rng: random.Random) -> None:
    await pour(crowd, b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ", b"y" * 100_000, 24_000_000)


async def endless_url(crowd: Crowd, rng: random.Random) -> None:
    await pour(crowd, b"GET /", b"y" * 100_000, 24_000_000)


async def huge_body(crowd: Crowd, rng: random.Random) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\n"
    await pour(crowd, head + b"content-length: 1000000000\r\n\r\n", b"y" * 100_000, 24_000_000)


async def endless_chunks(crowd: Crowd, rng: random.Random) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\n"
    chunk = b"10000\r\n" + b"y" * 0x10000 + b"\r\n"
    await pour(crowd, head + b"transfer-encoding: chunked\r\n\r\n", chunk, 24_000_000)


async def trailers(crowd: Crowd, rng: random.Random) -> None:
    head = (
        b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    await pour(crowd, head + b"1\r\ny\r\n0\r\n", b"x-a: b\r\n" * 10_000, 24_000_000)


async def many_parts(crowd: Crowd, rng: random.Random) -> None:
    part = b'--XX\r\ncontent-disposition: form-data; name="a"\r\n\r\nb\r\n'
    body = part * rng.choice([20, 5_000, 500_000]) + b"--XX--\r\n"
    head = b"POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=XX\r\n"
    await pour(crowd, head + b"content-length: %d\r\n\r\n" % len(body), body, len(body))


async def damaged_image(crowd: Crowd, rng: random.Random) -> None:
    async with crowd.connected() as (reader, writer):
        head, body = make_request(damage("image", crowd.image(rng), rng), as_form=True)
        writer.write(head + body)
        await crowd.refused(reader, 200)


async def bomb(crowd: Crowd, rng: random.Random) -> None:
    """A small file of many pixels."""
    async with crowd.connected() as (reader, writer):
        head, body = make_request(BOMB, as_form=True)
        writer.write(head + body)
        await crowd.refused(reader)


async def not_http(crowd: Crowd, rng: random.Random) -> None:
    hello = [b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", rng.randbytes(300), b"GET\r\n\r\n"]
    async with crowd.connected() as (reader, writer):
        writer.write(rng.choice(hello) + b"\r\n\r\n")
        await crowd.refused(reader)


async def leave(crowd: Crowd, rng: random.Random) -> None:
    """Disconnect in the middle of a request, or before its answer."""
    async with crowd.connected() as (_, writer):
        content = b"".join(make_request(crowd.image(rng), as_form=False))
        writer.write(content[: rng.randrange(len(content) + 1)])
        await asyncio.sleep(rng.random() * 0.05)


async def wrong_request(crowd: Crowd, rng: random.Random) -> None:
    lines = [b"DELETE /v1/predict", b"GET /nowhere", b"POST /v1/predict?model=none", b"POST /v1/predict?top=-1"]
    lines += [b"GET /%00", b"GET /../../etc/passwd", b"POST /v1/explain?class=none", b"PUT /"]
    async with crowd.connected() as (reader, writer):
        writer.write(rng.choice(lines) + b" HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n")
        await crowd.refused(reader)


async def pour(crowd: Crowd, head: bytes, piece: bytes, size: int) -> None:
    """Send ``size`` bytes of pieces, as far as the server takes them, then read its answer."""
    async with crowd.connected() as (reader, writer):
        writer.write(head)
        with suppress(ConnectionError):
            for _ in range(0, size, len(piece)):
                writer.write(piece)
                await writer.drain()
        await crowd.refused(reader)


def make_bomb() -> bytes:
    out = BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    return out.getvalue()


BOMB = make_bomb()
INTERFERENCES: list[Interference] = [slow_body, slow_head, many_headers, endless_header, endless_url, huge_body]
INTERFERENCES += [endless_chunks, trailers, many_parts, damaged_image, bomb, not_http, leave, wrong_request]
