"""Which requests are answered at all, and where redirects lead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from effnet.serve.app import create_app
from effnet.serve.middleware import _make_redirect_relative
from effnet.serve.server import _allowed_hosts, serve
from tests.serve.conftest import Running

LOOPBACK = _allowed_hosts("127.0.0.1", "127.0.0.1", ["photos.example.com", "*.example.org"])
REBINDING = "evil.example"


def get(
    running: Running, path: str, headers: dict[str, str], hosts: tuple[str, ...] | None = LOOPBACK
) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(running.queue, running.metrics, hosts))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(work())


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost:8000",
            "LOCALHOST:80",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8000",
            "[::1]:8000",
            "[::1]",
        ),
        *("photos.example.com", "photos.example.com:443", "a.example.org", "a.b.example.org"),
    ],
)
def test_trusted_hosts(running: Running, host: str) -> None:
    assert get(running, "/v1/models", {"host": host, "origin": "http://evil.example"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(REBINDING, "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost"),
        *("example.org", "example.com", "photos.example.com.evil.example", "10.0.0.1", "[::2]:8000", "::1", "0.0.0.0"),
        *(
            "localhost:evil",
            "localhost:80@evil.example",
            "evil.example@localhost",
            "localhost/evil",
            "",
            "*",
            "localhost a",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/", "/page", "/page/tabs.js", "/metrics", "/nowhere"])
def test_foreign_hosts_are_refused(running: Running, host: str, path: str) -> None:
    found = get(running, path, {"host": host, "x-forwarded-host": "localhost", "forwarded": "host=localhost"})
    assert found.status_code == 400
    assert "does not answer" in found.json()["error"]
    assert "--allow-host" in found.json()["error"]
    assert found.headers["content-security-policy"]


def test_which_hosts_are_allowed_by_default() -> None:
    assert _allowed_hosts("0.0.0.0", "0.0.0.0", []) is None
    assert _allowed_hosts("127.0.0.1", "127.0.0.1", ["*"]) is None
    assert set(_allowed_hosts("::1", "::1", []) or ()) == {"localhost", "127.0.0.1", "[::1]"}
    assert "127.0.0.5" in (_allowed_hosts("127.0.0.5", "127.0.0.5", []) or ())
    assert {"box", "192.168.1.5", "localhost", "x.org"} <= set(_allowed_hosts("box", "192.168.1.5", ["x.org"]) or ())


@pytest.mark.parametrize("name", ["http://x.org", "x.org:80", "a*b", "", "*.", "x.org/y"])
def test_invalid_allowed_host(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--allow-host .*give a name such as example\.com"):
        serve([str(tmp_path / "none")], port=0, allow_hosts=[name])


@pytest.mark.parametrize("path", ["/page", "/healthz/", "/v1/models/", "/page?x=1"])
@pytest.mark.parametrize("host", [REBINDING, "server"])
def test_redirects_stay_on_the_host(running: Running, path: str, host: str) -> None:
    headers = {"host": host, "x-forwarded-host": "other.example", "x-forwarded-proto": "https"}
    found = get(running, path, headers, None)
    plain, _, query = path.partition("?")
    expected = plain.rstrip("/") if plain.endswith("/") else f"{plain}/"
    assert found.status_code == 307
    assert found.headers["location"] == expected + (f"?{query}" if query else "")
    located = (b"location", f"http://{host}//{REBINDING}/page?x=1".encode())
    assert _make_redirect_relative(located) == (b"location", f"/{REBINDING}/page?x=1".encode())
