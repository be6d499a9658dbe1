from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No cache of the user and no proxy."""
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "home"


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """Real photos of many sizes, upright and lying."""
    found = sorted((SHARED / "photos").glob("*.[bj][mp][pg]"))
    found += sorted((SHARED / "hymenoptera").glob("val/*/*.jpg"))[:9]
    if len(found) < 10:
        pytest.skip("no photos in shared/data")
    return found


@pytest.fixture(scope="session")
def gradient() -> NDArray[np.uint8]:
    """A smooth color image (48, 64, 3) that no turn or mirror maps onto itself."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([rows * 5, columns * 4, 255 - rows * 2 - columns * 2], axis=-1).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., Path]:
    """Makes files of a real small image (or empty ones for other suffixes) below a new folder, and returns it."""

    def make(*names: str) -> Path:
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        for index, name in enumerate(names):
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".gif"):
                Image.new("RGB", (20, 20), (index % 256, 90, 30)).save(path)
            else:
                path.touch()
        return root

    return make
