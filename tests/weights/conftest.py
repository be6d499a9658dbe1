"""A server of published weights, and a cache directory of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.server import CONTENT, Shelf, serving


@pytest.fixture
def server() -> Iterator[Shelf]:
    with serving() as shelf:
        shelf.files["/models/b0.pth"] = CONTENT
        yield shelf


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EFFNET_OFFLINE", "HF_HUB_OFFLINE", "EFFNET_MIRROR", "EFFNET_BUNDLE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home"
