"""A real HTTP server on the loopback, as bad as servers are; it answers as the Hugging Face hub does, too."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = bytes(range(256)) * 8192  # 2 MiB: the client may lose what it has buffered when a connection breaks off
HASH = f"sha256:{sha256(CONTENT).hexdigest()}"


@dataclass
class Shelf:
    """What the server has, how it fails, and the requests that it received."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # path → content
    # one a GET, in order: a status, or one of "drop", "stall", "corrupt", "whole", "splice", "page", "no length",
    # "chunked", "chunked drop", "slow"; None, and whatever comes after the last: a good answer
    faults: list[int | str | None] = field(default_factory=list)
    tagged: str | None = "ETag"  # or "Last-Modified", or None
    requests: list[tuple[str, str]] = field(default_factory=list)  # (path, its Range) of each GET
    released: threading.Event = field(default_factory=threading.Event)  # ends what stalls and what is slow

    @property
    def ranges(self) -> list[str]:
        return [span for _, span in self.requests]


@contextmanager
def serving() -> Iterator[Shelf]:
    shelf = Shelf()

    class Handler(_Handler):
        shelf_of_server = shelf

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shelf.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shelf
    finally:
        shelf.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf_of_server: Shelf

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client went away
            super().handle()

    def do_HEAD(self) -> None:
        content = self.shelf_of_server.files.get(self.path)
        self._head(404 if content is None else 200, content or b"", {"Content-Length": str(len(content or b""))})

    def do_GET(self) -> None:
        shelf = self.shelf_of_server
        shelf.requests.append((self.path, self.headers.get("Range", "")))
        fault = shelf.faults.pop(0) if shelf.faults else None
        if self.path.startswith("/moved/"):
            return self._head(302, b"", {"Location": self.path.removeprefix("/moved"), "Content-Length": "0"})
        content = shelf.files.get(self.path)
        if isinstance(fault, int) or content is None:
            return self._head(fault if isinstance(fault, int) else 404, b"", {"Content-Length": "0"})
        begin = self._begin(content, fault)
        if begin and begin >= len(content):
            return self._head(416, content, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
        body = content[begin:]
        headers = {"Content-Length": str(len(body))} | ({"Content-Type": "text/html"} if fault == "page" else {})
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if fault in ("no length", "chunked", "chunked drop"):
            headers.pop("Content-Length")
            headers |= {"Connection": "close"} if fault == "no length" else {"Transfer-Encoding": "chunked"}
        self._head(206 if begin else 200, content, headers)
        self._send(body, fault)

    def _begin(self, content: bytes, fault: int | str | None) -> int:
        """The first byte to send: that of Range, unless If-Range says another version or the server knows no ranges."""
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not span or fault == "whole":
            return 0
        same = self.headers.get("If-Range") in (None, self._validator(content)) or fault == "splice"
        return int(span[1]) if same else 0

    def _send(self, body: bytes, fault: int | str | None) -> None:
        if fault == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault in ("drop", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "stall":
                self.shelf_of_server.released.wait(5)
            self.close_connection = True
        elif fault in ("chunked", "chunked drop"):
            for piece in (body[: len(body) // 2], body[len(body) // 2 :]):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                if fault == "chunked drop":
                    self.close_connection = True
                    return
            self.wfile.write(b"0\r\n\r\n")
        elif fault == "slow":
            for start in range(0, len(body), 4096):
                self.wfile.write(body[start : start + 4096])
                self.wfile.flush()
                self.shelf_of_server.released.wait(0.05)
        else:
            self.wfile.write(body)
        if fault == "no length":
            self.close_connection = True

    def _head(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        tagged = self.shelf_of_server.tagged
        if tagged and status < 400:
            self.send_header(tagged, self._validator(content))
        if status < 400:
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            known = any(
                path.startswith(self.path.partition("/resolve/")[0] + "/") for path in self.shelf_of_server.files
            )
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _validator(self, content: bytes) -> str:
        if self.shelf_of_server.tagged == "Last-Modified":
            day = 1 + content[0] % 28
            return f"Mon, {day:02} Jan 2024 00:00:00 GMT"
        return f'"{sha256(content).hexdigest()}"'
