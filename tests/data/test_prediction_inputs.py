from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest

from effnet.data import ImageError, image_io, load_input
from effnet.data import prediction_inputs as module
from effnet.data.prediction_inputs import NamedImage, open_inputs
from effnet.data.storage.errors import RetryPolicy
from effnet.metadata import Preprocess

Folders = Callable[..., Path]


def names(found: Iterator[NamedImage], root: Path) -> list[str]:
    return [str(Path(name).relative_to(root)) for name, _ in found]


def test_files_in_the_order_given(folders: Folders) -> None:
    root = folders("b.jpg", "a.jpg")
    found = list(open_inputs([str(root / "b.jpg"), root / "a.jpg", root / "b.jpg"]))
    assert [name for name, _ in found] == [str(root / "b.jpg"), str(root / "a.jpg"), str(root / "b.jpg")]
    assert [source for _, source in found] == [root / "b.jpg", root / "a.jpg", root / "b.jpg"]


def test_folders_are_recursive(folders: Folders) -> None:
    root = folders("b/2.jpg", "a/deep/1.png", "a/.hidden.jpg", "a/notes.txt", ".git/x.jpg", "__MACOSX/y.jpg", "c.weird")
    assert names(open_inputs([root]), root) == ["c.weird", "a/deep/1.png", "b/2.jpg"]


def test_patterns(folders: Folders) -> None:
    root = folders("a/1.jpg", "a/deep/2.jpg", "a/3.png", "a/notes.txt", "b/4.jpg", "a/.5.jpg")
    assert names(open_inputs([f"{root}/a/*.jpg"]), root) == ["a/1.jpg"]
    assert names(open_inputs([f"{root}/**/*.jpg"]), root) == ["a/1.jpg", "a/deep/2.jpg", "b/4.jpg"]
    assert names(open_inputs([f"{root}/**"]), root) == ["a/1.jpg", "a/3.png", "a/deep/2.jpg", "b/4.jpg"]
    assert names(open_inputs([f"{root}/*"]), root) == ["a/1.jpg", "a/3.png", "a/deep/2.jpg", "b/4.jpg"]
    assert names(open_inputs([f"{root}/a/[13].*"]), root) == ["a/1.jpg", "a/3.png"]


def test_a_file_name_with_glob_characters(folders: Folders) -> None:
    root = folders("photo[1].jpg", "photo1.jpg")
    assert names(open_inputs([root / "photo[1].jpg"]), root) == ["photo[1].jpg"]


def test_missing_inputs_raise_at_once(folders: Folders) -> None:
    root = folders("a.jpg", "empty/", "texts/notes.txt")
    with pytest.raises(FileNotFoundError, match=r"b\.jpg does not exist"):
        open_inputs([root / "a.jpg", root / "b.jpg"])
    for nothing in ("empty", "texts"):
        with pytest.raises(ValueError, match="contains no images"):
            open_inputs([root / nothing])
    with pytest.raises(ValueError, match="nothing matches"):
        open_inputs([f"{root}/*.tiff"])
    with pytest.raises(ValueError, match="frame_interval must be above 0"):
        open_inputs([root], frame_interval=0)


def test_folders_are_walked_lazily(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(*(f"{number}/x.jpg" for number in range(8)))
    found = open_inputs([root])
    assert len(list(islice(found, 2))) == 2
    for folder in sorted(root.iterdir())[4:]:
        (folder / "x.jpg").rename(folder / "y.jpg")
    assert [Path(name).name for name, _ in found][-1] == "y.jpg"


def set_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stdin", stream)


def test_an_image_on_standard_input(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders("a.jpg", "b.png", "c.gif")
    for name in ("a.jpg", "b.png", "c.gif"):
        content = (root / name).read_bytes()
        set_stdin(monkeypatch, content)
        assert list(open_inputs(["-"])) == [("standard input", content)]
    set_stdin(monkeypatch, b"P3\n2 2\n255\n" + b"9 " * 12)
    ((_, source),) = open_inputs(["-"])
    assert not isinstance(source, ImageError)
    assert load_input(source, Preprocess((4, 4))).shape == (4, 4, 3)


def test_a_list_on_standard_input(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders("a b.jpg", "c/1.jpg", "c/2.jpg", "é[1].png")
    lines = (f"{root}/a b.jpg", f"{root}/c", "", f"{root}/é[1].png\r", f"{root}/no.jpg", f"{root}/no.mp4")
    set_stdin(monkeypatch, "\n".join(lines).encode())
    assert names(open_inputs(["-"]), root) == ["a b.jpg", "c/1.jpg", "c/2.jpg", "é[1].png", "no.jpg", "no.mp4"]


def test_empty_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for nothing in (b"", b"\n\n"):
        set_stdin(monkeypatch, nothing)
        with pytest.raises(ValueError, match="standard input is empty"):
            open_inputs(["-"])


def test_too_much_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_io, "MAX_IMAGE_BYTES", 10)
    set_stdin(monkeypatch, b"\0" * 11)
    ((_, error),) = open_inputs(["-"])
    assert isinstance(error, ImageError)
    assert "is larger than" in str(error)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            stopped.wait(5)
            return
        good = self.path in ("/a.jpg", "/caf%C3%A9%20.jpg?x=1")
        self.send_response(200 if good else 404)
        self.end_headers()
        self.wfile.write(b"\xff\xd8 an image")

    def log_message(self, *_: object) -> None:
        pass


stopped = threading.Event()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    stopped.clear()
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    stopped.set()
    served.shutdown()
    served.server_close()
    thread.join()


def test_urls(server: str) -> None:
    found = list(open_inputs([f"{server}/a.jpg", f"{server}/café .jpg?x=1"]))
    assert found == [(f"{server}/a.jpg", b"\xff\xd8 an image"), (f"{server}/café .jpg?x=1", b"\xff\xd8 an image")]


def test_urls_in_a_list(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_stdin(monkeypatch, f"{server}/a.jpg\n".encode())
    assert list(open_inputs(["-"])) == [(f"{server}/a.jpg", b"\xff\xd8 an image")]


def test_urls_that_fail(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", RetryPolicy(timeout=0.2, attempts=1))
    expected = {
        f"{server}/no.jpg": "does not exist",
        f"{server}/slow.jpg": "the server stopped responding",
        "http://127.0.0.1:1/a.jpg": "the server refuses connections",
        "http://127.0.0.1:x/a.jpg": "cannot be read: not a valid URL",
        "https:///a.jpg": "cannot be read: not a valid URL",
        f"{server}/clip.mp4": "is a video: download it first",
    }
    found = list(open_inputs(expected))
    for (name, error), (address, reason) in zip(found, expected.items(), strict=True):
        assert name == address
        assert isinstance(error, ImageError)
        assert address in str(error)
        assert reason in str(error)


def test_too_large_a_download(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_io, "MAX_IMAGE_BYTES", 5)
    ((_, error),) = open_inputs([f"{server}/a.jpg"])
    assert isinstance(error, ImageError)
    assert "is larger than" in str(error)
