"""The page of a run: whole, escaped, alone, and with the run's numbers."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.pixels import Pixels
from effnet.evaluation import Evaluation, score
from effnet.net import EfficientNet, create
from effnet.training.folder import Result
from effnet.training.loop import Epoch
from effnet.training.page import ROWS_MOST
from effnet.training.recipes import FINETUNE, PROBE, SCRATCH
from effnet.training.report import MISTAKES_MOST, PAIRS_MOST, wilson, write_report

VOID = {"meta", "img", "br"}
HISTORY = (Epoch(1, 2.5, 1.75, 0.5, 1e-3), Epoch(2, 1.5, 0.625, 0.8125, 5e-4), Epoch(3, 1.2, 0.75, 0.75, 0.0))


class Page(HTMLParser):
    """Reads a page, and fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.said += data + " "

    @property
    def images(self) -> list[str]:
        return [found["src"] or "" for tag, found in self.tags if tag == "img"]


def evaluation(names: list[str], pictures: int = 60, strength: float = 1.5, absent: int | None = None) -> Evaluation:
    dice = np.random.default_rng(0)
    targets = np.arange(pictures) % len(names)
    if absent is not None:
        targets[targets == absent] = (absent + 1) % len(names)
    logits = dice.normal(0, 1, (pictures, len(names)))
    logits[np.arange(pictures), targets] += strength
    return score(logits, targets, names, [f"{names[label]}/{index}.jpg" for index, label in enumerate(targets)])


def result(found: Evaluation, chosen: str = "fine-tuned", history: tuple[Epoch, ...] = HISTORY) -> Result:
    return Result(Path("my runs/one/model.safetensors"), chosen, {"holdout": found}, history, None, ())


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    made = create("nano", 3)
    made.provenance = made.provenance.then("made <by> a test")
    return made


def test_tells_what_happened(tmp_path: Path, model: EfficientNet) -> None:
    found = replace(evaluation(["cat", "dog", "owl"]), left_out=("late.jpg is gone",))
    run = replace(result(found), probe_top1=0.7125, left_out=("a/<b>.jpg is not a picture",))
    write_report(tmp_path / "report.html", run, model, FINETUNE)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    right = round(found.top1 * 60)
    low, high = wilson(right, 60)
    for text in (
        *(f"{found.top1:.2%}", f"{right} of 60 pictures", f"{100 * low:.1f}–{high:.1%}", f"{found.loss:.3f}"),
        *(f"{found.calibration_error:.3f}", "nano", "random weights", "made <by> a test", "32 × 32"),
        *("0.625 after epoch 2 of 3", "71.25%", "late.jpg is gone", "a/<b>.jpg is not a picture"),
        *("effnet predict photo.jpg --model 'my runs/one/model.safetensors'", "learning rate", "0.0003"),
        *(f"{one.recall:.1%}" for one in found.classes),
        *(f"{one.probability:.1%} sure" for one in found.mistakes[:MISTAKES_MOST]),
    ):
        assert text in page.said, text
    assert "Top-5" not in page.said
    assert [tag for tag, _ in page.tags].count("svg") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_reaches_for_nothing_outside(tmp_path: Path, model: EfficientNet) -> None:
    found = evaluation(["cat", "dog", "owl"])
    pictures = {one.picture: np.zeros((8, 8, 3), np.uint8) for one in found.mistakes}
    write_report(tmp_path / "report.html", result(found), model, SCRATCH, pictures)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^\"\s<]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"@import|<script|<link|<iframe|javascript:", text)
    for _, attributes in Page(text).tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    write_report(tmp_path / "again.html", result(found), model, SCRATCH, pictures)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_names_are_escaped(tmp_path: Path, model: EfficientNet) -> None:
    names = ["<script>alert(1)</script>", "\"&amp;'", "\udcff猫 $x$"]
    write_report(tmp_path / "report.html", result(evaluation(names)), model, SCRATCH)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert names[0] in page.said
    assert names[1] in page.said
    assert "?猫 $x$" in page.said  # half of a file's broken name


def test_probe_without_history_or_mistakes(tmp_path: Path, model: EfficientNet) -> None:
    run = result(evaluation(["cat", "dog"], strength=50), "probe", ())
    write_report(tmp_path / "report.html", run, model, PROBE)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "nothing else was trained" in page.said
    assert "None: every picture was right." in page.said
    assert [tag for tag, _ in page.tags].count("svg") == 1


def test_many_classes_one_of_them_empty(tmp_path: Path, model: EfficientNet) -> None:
    names = [f"a rather long name of species {index}" for index in range(120)]
    found = evaluation(names, 480, absent=7)
    write_report(tmp_path / "report.html", result(found), model, SCRATCH)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert f"{found.top5:.2%}" in page.said
    assert f"{120 - ROWS_MOST} more" in page.said
    assert [tag for tag, _ in page.tags].count("tr") == 1 + PAIRS_MOST + 2 + 120
    assert page.said.count("– ") == 3
    assert all(name in page.said for name in names)


def test_choosing_on_what_is_reported_is_said(tmp_path: Path, model: EfficientNet) -> None:
    run = replace(result(evaluation(["cat", "dog"])), evaluations={"val (chosen by)": evaluation(["cat", "dog"])})
    write_report(tmp_path / "report.html", run, model, SCRATCH)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "no choice has seen" not in page.said
    assert "on which choices were made" in page.said


def test_thumbnails(tmp_path: Path, model: EfficientNet) -> None:
    found = evaluation(["cat", "dog", "owl"], strength=1.0)
    large, tiny, gone = (one.picture for one in found.mistakes[:3])
    Image.new("RGB", (1200, 600), "red").save(tmp_path / "large.jpg")
    pictures: dict[str, Path | Pixels] = {
        large: tmp_path / "large.jpg",
        tiny: np.full((8, 8, 3), 200, np.uint8),
        gone: tmp_path / "gone.jpg",
    }
    write_report(tmp_path / "report.html", result(found), model, SCRATCH, pictures)
    sizes = []
    for source in Page((tmp_path / "report.html").read_text(encoding="utf-8")).images:
        kind, _, code = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        sizes.append(Image.open(BytesIO(base64.b64decode(code))).size)
    assert sizes == [(160, 80), (160, 160)]


def test_wilson() -> None:
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)  # as in Newcombe (1998)
    assert wilson(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
