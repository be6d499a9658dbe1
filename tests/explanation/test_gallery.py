"""Galleries: complete, safe to open, and nobody's files lost."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from effnet import EfficientNet, Labels
from effnet.explanation import explain, gallery
from effnet.explanation.gallery import GALLERY_COLUMNS, Gallery, add_caption
from tests.explanation.test_attribution import random_images, random_network

PHOTO = random_images(300, 400, 3)


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    made = random_network("nano", 3)
    made.labels = Labels(("ant", "<b>bee</b> / small", "蜂" * 80))
    return made


class Links(HTMLParser):
    """What a page refers to, and the texts in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files(model: EfficientNet, tmp_path: Path) -> None:
    out, found = tmp_path / "deep" / "out", explain(model, PHOTO, name="my photos/a cat.jpg")
    with Gallery(out, "Where <it> looks", "cam", "head", raw=True) as writer:
        files = writer.add(found)
        writer.add_unreadable("bad.jpg", "bad.jpg is damaged")
    assert sorted(path.name for path in out.iterdir()) == sorted([*files, "index.csv", "index.html"])
    assert all(len(name.encode()) < 200 and re.fullmatch(r"[\w.@+-]+", name) for name in files)
    assert files[0].startswith("0001-a_cat-1-")
    *overlays, raw = files
    assert np.array_equal(np.load(out / raw), found.maps)
    for index, name in enumerate(overlays):
        with Image.open(out / name) as image:
            assert image.format == "PNG"
            shown = found.overlay(index)
            assert image.width == shown.width
            assert image.height > shown.height  # the caption is below
            assert image.crop((0, 0, *shown.size)).tobytes() == shown.tobytes()
            caption = np.asarray(image.convert("L"))[shown.height :]
            assert (caption > 200).any()
            assert (caption < 40).any()
    rows = table(out)
    assert tuple(rows[0]) == GALLERY_COLUMNS
    assert [row["label"] for row in rows] == [*found.names, ""]
    assert [row["overlay"] for row in rows[:3]] == overlays
    assert {row["maps"] for row in rows[:3]} == {raw}
    assert float(rows[0]["score"]) == pytest.approx(found.scores[0], rel=1e-5)
    assert [float(rows[1][side]) for side in ("left", "top", "right", "bottom")] == pytest.approx(found.box, abs=0.01)
    assert rows[3]["error"] == "bad.jpg is damaged"


def test_page_is_self_contained(model: EfficientNet, tmp_path: Path) -> None:
    with Gallery(tmp_path, "Where <it> looks", "gradcam", "stage2") as writer:
        files = writer.add(explain(model, PHOTO, name="a & b.jpg"))
        writer.add_unreadable("bad.jpg", "bad.jpg is <damaged>")
    seen = Links(tmp_path / "index.html")
    assert sum(link.startswith("data:image/jpeg") for link in seen.links) == 4
    beside = [unquote(link) for link in seen.links if not link.startswith("data:")]
    assert beside == files
    assert all((tmp_path / name).is_file() for name in beside)
    for text in ("Where <it> looks", "<b>bee</b> / small", "a & b.jpg", "bad.jpg is <damaged>"):
        assert text in seen.texts
    assert "Grad-CAM of stage2" in " ".join(seen.texts)


def test_several_pages(model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "IMAGES_PER_PAGE", 2)
    found = explain(model, PHOTO[:40, :40], top=1)
    with Gallery(tmp_path, "five", "cam", "head") as writer:
        for _ in range(4):
            writer.add(found)
        writer.add_unreadable("e.jpg", "no")
    pages = [Links(tmp_path / name) for name in ("index.html", "index-2.html", "index-3.html")]
    assert [sum(link.endswith(".png") for link in page.links) for page in pages] == [2, 2, 0]
    around = [sorted({link for link in page.links if link.endswith(".html")}) for page in pages]
    assert around == [["index-2.html"], ["index-3.html", "index.html"], ["index-2.html"]]
    assert not (tmp_path / "index-4.html").exists()
    assert len(table(tmp_path)) == 5


def test_regression(tmp_path: Path) -> None:
    model = random_network("nano", 2)
    model.labels = Labels(("age", "height"), "regression")
    with Gallery(tmp_path, "values", "cam", "head") as writer:
        writer.add(explain(model, PHOTO))
    text = " ".join(Links(tmp_path / "index.html").texts)
    assert "sums to the value without its bias" in text
    shown = text[text.index("Class activation maps") :]
    assert "%" not in shown
    assert "class" not in shown.replace("Class activation", "")


def test_replaces_only_earlier_results(model: EfficientNet, tmp_path: Path) -> None:
    found, out = explain(model, PHOTO, top=1), tmp_path / "out"

    def write(force: bool) -> list[str]:
        with Gallery(out, "t", "cam", "head", force=force) as writer:
            return writer.add(found)

    (first,) = write(False)
    with pytest.raises(FileExistsError, match="is not empty: give another directory, or --force"):
        write(False)
    (out / "0009-old-1-ant.png").write_bytes(b"")
    assert write(True) == [first]
    assert not (out / "0009-old-1-ant.png").exists()

    (out / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"contains notes\.txt, which is no earlier result"):
        write(True)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0001-cat.png").write_bytes(b"a photo")
    out = photos
    with pytest.raises(FileExistsError, match=r"contains 0001-cat\.png"):
        write(True)
    assert (photos / "0001-cat.png").read_bytes() == b"a photo"
    out = photos / "0001-cat.png"
    with pytest.raises(FileExistsError, match="is a file"):
        write(True)


def test_failed_start_changes_nothing(model: EfficientNet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no class"), Gallery(out, "t", "cam", "head") as writer:
        writer.add(explain(model, PHOTO, ["cat"]))
    assert not out.exists()
    with Gallery(out, "t", "cam", "head") as writer:
        (name,) = writer.add(explain(model, PHOTO, ["ant"]))
    with pytest.raises(ValueError, match="no class"), Gallery(out, "t", "cam", "head", force=True) as writer:
        writer.add(explain(model, PHOTO, ["cat"]))
    assert (out / name).exists()


# Captions


@pytest.mark.parametrize("width", [16, 64, 300, 2000])
def test_caption_fits(width: int) -> None:
    image = Image.new("RGB", (width, 40), "white")
    made = add_caption(image, "a class whose name is long " * 9, "99.9%")
    assert made.width == width
    assert made.crop((0, 0, width, 40)).tobytes() == image.tobytes()
    below = np.asarray(made.convert("L")).astype(int)[40:]
    if width >= 300:
        written = np.flatnonzero((below > 100).any(0))
        assert written[0] >= 3
        assert written[-1] < width - 3
        gaps = np.diff(written)
        assert gaps.max() > 5  # between the name and the number
    assert below[0].max() == below[-1].max() < 60  # not cut off


def test_caption_is_one_line() -> None:
    image = Image.new("RGB", (300, 40), "white")
    assert add_caption(image, "two\n lines").tobytes() == add_caption(image, "two lines").tobytes()
