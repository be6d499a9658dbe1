"""Behavior over real connections: slow clients, disconnects, oversized bodies, start and shutdown."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import httpx
import pytest

import effnet
from effnet.serve import server
from effnet.serve.models import name_models
from effnet.serve.server import ServerLimits, serve
from tests.cli.conftest import Run, run  # noqa: F401 – a fixture
from tests.serve.conftest import serve_model
from tests.serve.live_server import LiveServer, live_server

HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"


@pytest.fixture(scope="module")
def impatient(weights: Path) -> Iterator[LiveServer]:
    """A server with a timeout of one second."""
    with (
        serve_model(weights, ServerLimits(timeout_seconds=1.0, max_bytes=1_000_000)) as running,
        live_server(running) as made,
    ):
        yield made


def connect(where: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", where.port), timeout=20)


def read_response(connection: socket.socket, sending: bool = False) -> tuple[int, Any]:
    """Return status and JSON of the response, after which the server closes the connection.

    ``sending``: this side may still be sending. A byte that arrives after the server has closed is answered by a reset,
    which this side may see instead of the end of the stream.
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


def assert_works(where: LiveServer, content: bytes) -> None:
    found = httpx.post(f"{where.address}/v1/predict", content=content, headers={"content-type": "image/png"})
    assert found.status_code == 200, found.text


def test_slow_body(impatient: LiveServer, photos: list[tuple[bytes, str]]) -> None:
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"content-length: 5000\r\n\r\n")

        def drip() -> None:
            try:
                for _ in range(100):
                    connection.sendall(b"x")
                    sleep(0.1)
            except OSError:
                pass  # the server has closed

        slow = Thread(target=drip)
        slow.start()
        assert read_response(connection, sending=True) == (
            408,
            {"error": "the image did not arrive within 1 seconds: retry, or send a smaller one"},
        )
    slow.join()
    assert_works(impatient, photos[0][0])


@pytest.mark.parametrize("begun", [b"", b"GET / HT", HEAD])
def test_missing_headers(impatient: LiveServer, begun: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(begun)
        assert read_response(connection) == (408, {"error": "the request's headers did not arrive within 1 seconds"})


def test_not_http(impatient: LiveServer) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert read_response(connection) == (400, {"error": "malformed HTTP request"})


GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n1"
ENDLESS = 3_000_000  # bytes
HOSTILE_HEADS = {
    "short headers": (GET, b"a: b\r\n", 431),
    "one header": (GET + b"x: ", b"v", 431),
    "folded header": (GET + b"x: y\r\n", b" v\r\n", 431),
    "header name": (GET, b"n", 431),
    "url": (b"GET /", b"u", 414),
    "query": (b"GET /healthz?", b"q=1&", 414),
    "method": (b"", b"GET", 414),
    "trailers": (CHUNKED + b"\r\nx\r\n0\r\n", b"a: b\r\n", 431),
    "chunk extension": (CHUNKED + b";", b"e", 431),
    "second request": (GET + b"\r\n" + GET, b"a: b\r\n", 431),
    "http/1.0": (b"GET / HTTP/1.0\r\n", b"a: b\r\n", 431),
}


@pytest.mark.parametrize("name", HOSTILE_HEADS)
def test_endless_heads(impatient: LiveServer, name: str, photos: list[tuple[bytes, str]]) -> None:
    begin, piece, status = HOSTILE_HEADS[name]
    sent, block = 0, piece * (65_536 // len(piece))
    with connect(impatient) as connection:
        connection.sendall(begin)
        with suppress(OSError):  # closed by the server
            while sent < ENDLESS:
                connection.sendall(block)
                sent += len(block)
        found = b""
        with suppress(OSError):
            while received := connection.recv(65536):
                found += received
    assert found.count(b"HTTP/1.1 ") == (2 if name == "second request" else 1)
    assert b"HTTP/1.1 %d " % status in found
    assert f"{65_536 // 1024} KiB".encode() in found.rpartition(b"\r\n\r\n")[2]
    assert_works(impatient, photos[0][0])


def test_head_beyond_64_kib_in_one_piece(impatient: LiveServer) -> None:
    for begin, status in ((GET + b"x: %b\r\n", 431), (b"GET /healthz?%b HTTP/1.1\r\nhost: x\r\n", 414)):
        for count, expected in ((40_000, {200, 422}), (70_000, {status})):
            with connect(impatient) as connection:
                connection.sendall(begin % (b"v" * count) + b"connection: close\r\n\r\n")
                assert read_response(connection, sending=True)[0] in expected


def test_pipelined_requests_are_answered_in_order_and_not_collected(impatient: LiveServer) -> None:
    with connect(impatient) as connection:
        connection.sendall((GET + b"\r\n") * 50 + GET.replace(b"healthz", b"none") + b"connection: close\r\n\r\nmore")
        found = b""
        while received := connection.recv(65536):
            found += received
    statuses = re.findall(rb"HTTP/1.1 (\d+)", found)
    assert statuses == [b"200"] * 50 + [b"404"]


def test_slow_head_of_a_second_request(impatient: LiveServer) -> None:
    with connect(impatient) as connection:
        connection.sendall(GET + b"\r\n" + b"GET /heal")
        found = b""
        while received := connection.recv(65536):
            found += received
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [b"200", b"408"]


def test_too_many_connections(
    weights: Path, photos: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_max_connections", lambda: 4)
    with serve_model(weights) as running, live_server(running) as where, ExitStack() as stack:
        with ExitStack() as idle:
            for _ in range(4):
                idle.enter_context(connect(where))
            for _ in range(20):
                late = stack.enter_context(connect(where))
                assert read_response(late)[0] == 503
        sleep(0.2)
        assert_works(where, photos[0][0])
    assert caplog.records == []


@pytest.mark.parametrize(("files", "expected"), [(1024, 512), (256, 128), (10**6, 1000), (-1, 1000)])
def test_connections_leave_files_for_the_rest(files: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, files))
    assert server._max_connections() == expected


def test_what_is_refused_is_not_logged(
    impatient: LiveServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = b"connection: upgrade, close\r\nupgrade: %b\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    requests = {
        b"\x16\x03\x01 hello\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\n\r\n": 400,  # without a host
        GET + b"host: y\r\n\r\n": 400,
        HEAD + b"content-length: -1\r\n\r\n": 400,
        HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n": 400,
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n": 501,
        GET + upgrade % b"websocket" + b"\r\n": 200,
        GET + upgrade % b"h2c" + b"\r\n": 200,
    }
    for request, status in requests.items():
        with connect(impatient) as connection:
            connection.sendall(request)
            assert read_response(connection)[0] == status
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("path", [b"/v1/predict", b"/nowhere"])
@pytest.mark.parametrize("declared", [True, False])
def test_gigabyte_is_refused_before_it_is_read(
    impatient: LiveServer, path: bytes, declared: bool, photos: list[tuple[bytes, str]]
) -> None:
    length = b"content-length: 1000000000\r\n" if declared else b"transfer-encoding: chunked\r\n"
    sent, chunk = 0, b"x" * 100_000
    piece = chunk if declared else b"%x\r\n%b\r\n" % (len(chunk), chunk)
    with connect(impatient) as connection:
        connection.sendall(HEAD.replace(b"/v1/predict", path) + length + b"\r\n")
        try:
            while sent < 10**9:
                connection.sendall(piece)
                sent += len(chunk)
        except OSError:
            pass  # closed by the server
        assert sent < 50_000_000
    # A client that reads while it sends, as browsers and curl do, gets the reason
    with connect(impatient) as connection:
        connection.sendall(HEAD.replace(b"/v1/predict", path) + length + b"\r\n" + piece * 15)
        status, problem = read_response(connection)
        assert status == (413 if path == b"/v1/predict" else 404)
        assert problem["error"]
    assert_works(impatient, photos[0][0])


def test_expect_continue_client_never_sends(impatient: LiveServer) -> None:
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"expect: 100-continue\r\ncontent-length: 1000000000\r\n\r\n")
        assert read_response(connection)[0] == 413  # and no 100 before it


def test_slow_clients_do_not_fill_the_queue(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    with serve_model(weights, ServerLimits(queue_size=1, max_bytes=100_000)) as running, live_server(running) as where:

        def slow(count: int) -> socket.socket:
            connection = connect(where)
            connection.sendall(HEAD + b"content-length: 100000\r\n\r\n" + b"x" * count)
            return connection

        with ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(slow(100))
            stack.enter_context(slow(90_000))
            sleep(0.2)
            assert_works(where, photos[0][0])
            with slow(90_000) as late:  # there is room for the bytes of one image in a form
                assert read_response(late) == (503, {"error": "the server's upload memory is full: retry in a second"})
        with slow(90_000):
            sleep(0.2)
            assert_works(where, photos[0][0])


def test_disconnected_client_is_not_computed(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    content = photos[0][0]
    with serve_model(weights, ServerLimits(batch_wait_seconds=1.0), batch=8) as running, live_server(running) as where:
        batches: list[int] = []
        model = running.queue.models["squares"]
        model._batcher._on_batch = lambda size, seconds: batches.append(size)
        for whole in (True, False):
            with connect(where) as connection:
                connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(content))
                connection.sendall(content if whole else content[:100])
                sleep(0.2)
        with connect(where) as connection:  # it sends part of a request and disconnects
            connection.sendall(HEAD)
        assert_works(where, content)
        assert batches == [1]
        assert running.queue.accepted == 0
        text = running.metrics.render().decode()
        assert 'effnet_requests_total{path="/v1/predict",status="499"} 2.0' in text


def test_stop_answers_accepted_requests(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    """Clients send requests on keep-alive connections while the server is stopped."""
    sent, got, lost = [0], [0], []

    def client(where: LiveServer) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", where.port, timeout=30)
        connection.connect()
        while True:
            try:
                connection.request("POST", "/v1/predict", photos[0][0], {"content-type": "image/png"})
            except ConnectionRefusedError:
                return  # the last response closed the connection, and no new one is accepted
            sent[0] += 1
            try:
                found = connection.getresponse()
                found.read()
            except (http.client.HTTPException, OSError) as error:
                lost.append(error)
                return
            got[0] += found.status == 200

    with serve_model(weights) as running:
        where = LiveServer(running)
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


def test_concurrent_clients_get_their_own_predictions(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    async def work(where: LiveServer) -> None:
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

    with serve_model(weights, ServerLimits(queue_size=64)) as running, live_server(running) as where:
        asyncio.run(work(where))


def test_model_names(tmp_path: Path) -> None:
    folder = tmp_path / "flowers"
    folder.mkdir()
    for name in ("model.safetensors", "small.onnx"):
        (folder / name).write_bytes(b"")
    sources = [str(folder), str(folder / "small.onnx"), "b0", f"mine={folder}"]
    assert name_models(sources) == dict(
        zip(("flowers", "small", "b0", "mine"), [*sources[:3], str(folder)], strict=True)
    )
    assert list(name_models([str(folder / "model.safetensors")])) == ["flowers"]
    with pytest.raises(ValueError, match=f"two models are named b0: rename one, as other={folder}"):
        name_models(["b0", f"b0={folder}"])


def test_taken_port_is_reported_before_models_are_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot bind 127.0.0.1:{port} .*: choose another --port"):
            serve(["no/such/model"], port=port)
    with pytest.raises(ValueError, match=r"cannot resolve no\.such\.host\.invalid"):
        serve(["b0"], host="no.such.host.invalid")


def test_model_without_classifier(tmp_path: Path) -> None:
    path = effnet.save(effnet.create("nano", classes=0), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no classifier, which serving x requires"):
        serve([str(path)], port=0, engine="eager", limits=ServerLimits())


def test_missing_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setitem(sys.modules, "effnet.serve.app", None)
    done = run("serve", "b0")
    assert done.status == 1
    assert 'pip install "effnet[serve]"' in done.err


def test_invalid_options(run: Run) -> None:  # noqa: F811
    for words in (["serve"], ["serve", "b0", "--port", "99999"], ["serve", "b0", "--queue", "0"]):
        assert run(*words).status == 2
    assert "no/such/model.pth" in run("serve", "no/such/model.pth", "--port", "0").err


def test_sigterm_exits_after_the_last_response(weights: Path, photos: list[tuple[bytes, str]]) -> None:
    command = "from effnet.cli.app import main; raise SystemExit(main())"
    words = ["serve", str(weights), "--port", "0", "--engine", "eager", "--batch", "32", "--wait-ms", "1500"]
    process = subprocess.Popen([sys.executable, "-c", command, *words], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(
            r"effnet: serving (.+) \(eager, batches of up to 32\) at (http://\S+); stop with Ctrl\+C\n", line
        )
        assert found, line
        address = found[2]

        def ask(number: int) -> int:
            files = {"file": ("x.png", photos[number][0])}
            return httpx.post(f"{address}/v1/predict", files=files, timeout=30).status_code

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, number) for number in range(8)]
            while 'accepted":8' not in httpx.get(f"{address}/healthz").text:
                sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert [one.result() for one in asked] == [200] * 8
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
        with pytest.raises(httpx.ConnectError):
            httpx.get(address)
    finally:
        process.kill()
        process.communicate()
