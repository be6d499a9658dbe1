"""What only a real connection shows: slow clients, those that go away, those that send too much, and the end."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import httpx
import pytest

from effnet.serve.limits import ServerLimits
from effnet.timing import Stopwatch
from tests.serve.conftest import served
from tests.serve.live_server import Live, live

HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"


@pytest.fixture(scope="module")
def impatient(weights: Path) -> Iterator[Live]:
    """A server that waits for a second only."""
    with served(weights, ServerLimits(timeout_seconds=1.0, max_bytes=1_000_000)) as running, live(running) as made:
        yield made


def connected(where: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", where.port), timeout=20)


def answer(connection: socket.socket, sending: bool = False) -> tuple[int, Any]:
    """Status and JSON of what comes; the connection is then closed by the server.

    ``sending``: while this side still sends. A byte that comes when the server has closed is answered by a reset,
    which this side may hear of instead of the end.
    """
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        if not sending:
            raise
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)


def well(where: Live, content: bytes) -> None:
    found = httpx.post(f"{where.address}/v1/predict", content=content, headers={"content-type": "image/png"})
    assert found.status_code == 200, found.text


def test_a_body_of_one_byte_at_a_time(impatient: Live, photos: list[tuple[bytes, str]]) -> None:
    with connected(impatient) as connection:
        connection.sendall(HEAD + b"content-length: 5000\r\n\r\n")

        def drip() -> None:
            try:
                for _ in range(100):
                    connection.sendall(b"x")
                    sleep(0.1)
            except OSError:
                pass  # nobody listens any more

        slow = Thread(target=drip)
        slow.start()
        watch = Stopwatch()
        assert answer(connection, sending=True) == (
            408,
            {"error": "the picture did not arrive within 1 seconds: send a smaller one, or again"},
        )
        assert watch.seconds < 8
    slow.join()
    well(impatient, photos[0][0])


@pytest.mark.parametrize("begun", [b"", b"GET / HT", HEAD])
def test_a_head_that_does_not_come(impatient: Live, begun: bytes) -> None:
    with connected(impatient) as connection:
        connection.sendall(begun)
        assert answer(connection) == (408, {"error": "the request's head did not come within 1 seconds"})


def test_what_is_no_http(impatient: Live) -> None:
    with connected(impatient) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert answer(connection) == (400, {"error": "this is no HTTP request"})


@pytest.mark.parametrize("path", [b"/v1/predict", b"/nowhere"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_gigabyte_is_refused_before_it_is_read(
    impatient: Live, path: bytes, declared: bool, photos: list[tuple[bytes, str]]
) -> None:
    length = b"content-length: 1000000000\r\n" if declared else b"transfer-encoding: chunked\r\n"
    sent, chunk = 0, b"x" * 100_000
    piece = chunk if declared else b"%x\r\n%b\r\n" % (len(chunk), chunk)
    with connected(impatient) as connection:
        connection.sendall(HEAD.replace(b"/v1/predict", path) + length + b"\r\n")
        try:
            while sent < 10**9:
                connection.sendall(piece)
                sent += len(chunk)
        except OSError:
            pass  # closed against us
        assert sent < 50_000_000
    # A client that listens while it sends, as browsers and curl do, is told why
    with connected(impatient) as connection:
        connection.sendall(HEAD.replace(b"/v1/predict", path) + length + b"\r\n" + piece * 15)
        status, problem = answer(connection)
        assert status == (413 if path == b"/v1/predict" else 404)
        assert problem["error"]
    well(impatient, photos[0][0])


def test_a_client_that_waits_to_be_asked_never_sends(impatient: Live) -> None:
    with connected(impatient) as connection:
        connection.sendall(HEAD + b"expect: 100-continue\r\ncontent-length: 1000000000\r\n\r\n")
        assert answer(connection)[0] == 413  # and no 100 before it


def test_slow_clients_take_bytes_and_no_places(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    with served(weights, ServerLimits(queue_size=1, max_bytes=100_000)) as running, live(running) as where:

        def slow(count: int) -> socket.socket:
            connection = connected(where)
            connection.sendall(HEAD + b"content-length: 100000\r\n\r\n" + b"x" * count)
            return connection

        with ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(slow(100))
            stack.enter_context(slow(90_000))
            sleep(0.2)
            well(where, photos[0][0])
            with slow(90_000) as late:  # there is room for the bytes of one picture, and those around it in a form
                assert answer(late) == (
                    503,
                    {"error": "the server holds as many bytes as it may: try again in a second"},
                )
        with slow(90_000):
            sleep(0.2)
            well(where, photos[0][0])


def test_a_client_that_goes_away_is_not_computed_for(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    content = photos[0][0]
    with served(weights, ServerLimits(batch_wait_seconds=1.0), batch=8) as running, live(running) as where:
        batches: list[int] = []
        model = running.desk.models["squares"]
        model._batcher._told = lambda size, seconds: batches.append(size)
        for whole in (True, False):
            with connected(where) as connection:
                connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(content))
                connection.sendall(content if whole else content[:100])
                sleep(0.2)
        with connected(where) as connection:  # what it did send is read, and then it is gone
            connection.sendall(HEAD)
        well(where, content)
        assert batches == [1]
        assert running.desk.accepted == 0
        told = running.metrics.render().decode()
        assert 'effnet_requests_total{path="/v1/predict",status="499"} 2.0' in told


def test_a_stop_answers_what_was_accepted(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    """Clients ask again and again on connections that are kept open; the server is stopped in the midst of it."""
    sent, got, lost = [0], [0], []

    def client(where: Live) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", where.port, timeout=30)
        connection.connect()
        while True:
            try:
                connection.request("POST", "/v1/predict", photos[0][0], {"content-type": "image/png"})
            except ConnectionRefusedError:
                return  # the last answer said that the connection is closed, and nobody takes a new one
            sent[0] += 1
            try:
                found = connection.getresponse()
                found.read()
            except (http.client.HTTPException, OSError) as error:
                lost.append(error)
                return
            got[0] += found.status == 200

    with served(weights) as running:
        where = Live(running)
        clients = [Thread(target=client, args=(where,)) for _ in range(8)]
        for one in clients:
            one.start()
        sleep(1.0)
        where.stop()
        for one in clients:
            one.join(30)
    assert lost == []
    assert sent == got
    assert got[0] > 16


def test_many_at_once_each_get_their_own(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    async def work(where: Live) -> None:
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:

            async def ask(number: int) -> tuple[str, float]:
                files = {"file": ("x.png", photos[number % len(photos)][0])}
                found = (await client.post(f"{where.address}/v1/predict", files=files)).json()
                return found["labels"][0]["label"], found["labels"][0]["probability"]

            alone = [await ask(number) for number in range(len(photos))]
            together = await asyncio.gather(*(ask(number) for number in range(4 * len(photos))))
        for number, (label, share) in enumerate(together):
            assert label == alone[number % len(photos)][0]
            assert share == pytest.approx(alone[number % len(photos)][1], abs=1e-5)

    with served(weights, ServerLimits(queue_size=64)) as running, live(running) as where:
        asyncio.run(work(where))
