"""The page of a run: whole, escaped, alone, and with the run's numbers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.arch import count
from effnet.data import ImageDataset, Item
from effnet.data.duplicates import LabeledCopy
from effnet.data.image_io import ImageSource
from effnet.data.preprocessing import normalize
from effnet.draw.text import format_si
from effnet.evaluation import AnyEvaluation, Evaluation
from effnet.evaluation.metrics import score_classes, score_multilabel, score_regression
from effnet.metadata import Labels
from effnet.net import EfficientNet, create
from effnet.training.callbacks import EpochMetrics
from effnet.training.data_plan import fingerprint_splits
from effnet.training.recipes import FINETUNE, PROBE, SCRATCH
from effnet.training.report.evaluation_sections import (
    MAX_CONFUSED_PAIRS,
    MAX_MISTAKES,
    MAX_ROWS,
    MAX_UNCERTAIN,
    wilson_interval,
)
from effnet.training.report.report import RunCost, _format_duration, write_report
from effnet.training.run_dir import TrainResult

VOID = {"meta", "img", "br"}
HISTORY = (
    EpochMetrics(1, 2.5, 1.75, 0.5, 1e-3, 90.0),
    EpochMetrics(2, 1.5, 0.625, 0.8125, 5e-4, 61.0),
    EpochMetrics(3, 1.2, 0.75, 0.75, 0.0, 62.0),
)


class Page(HTMLParser):
    """Reads a page, and fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
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
            self.text += data + " "

    @property
    def images(self) -> list[str]:
        return [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]


def evaluation(names: list[str], images: int = 60, strength: float = 1.5, absent: int | None = None) -> Evaluation:
    rng = np.random.default_rng(0)
    targets = np.arange(images) % len(names)
    if absent is not None:
        targets[targets == absent] = (absent + 1) % len(names)
    logits = rng.normal(0, 1, (images, len(names)))
    logits[np.arange(images), targets] += strength
    return score_classes(logits, targets, names, [f"{names[label]}/{index}.jpg" for index, label in enumerate(targets)])


def result(
    scores: AnyEvaluation, chosen: str = "fine-tuned", history: tuple[EpochMetrics, ...] = HISTORY
) -> TrainResult:
    return TrainResult(Path("my runs/one/model.safetensors"), chosen, {"holdout": scores}, history, None, ())


def holdout(model: EfficientNet, sources: Mapping[str, ImageSource]) -> dict[str, ImageDataset]:
    labels = range(len(model.labels.names))
    label = (
        0
        if model.labels.task == "classification"
        else (0,)
        if model.labels.task == "multilabel"
        else (0.0,) * len(labels)
    )
    return {"holdout": ImageDataset(tuple(Item(source, label, name) for name, source in sources.items()), model.labels)}


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    network = create("nano", 3)
    network.labels = Labels(("cat", "dog", "owl"))
    network.provenance = network.provenance.with_event("made <by> a test")
    return network


def test_shows_the_run(tmp_path: Path, model: EfficientNet) -> None:
    scores = replace(evaluation(["cat", "dog", "owl"]), skipped=("late.jpg is gone",))
    run = replace(result(scores), probe_metric=0.7125, skipped=("a/<b>.jpg is not an image",))
    write_report(tmp_path / "report.html", run, model, FINETUNE)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    right = round(scores.top1 * 60)
    low, high = wilson_interval(right, 60)
    for text in (
        *(f"{scores.top1:.2%}", f"{right} of 60 held-out images", f"{100 * low:.1f}–{high:.1%}", f"{scores.loss:.3f}"),
        *(f"{scores.calibration_error:.3f}", "nano", "random weights", "made <by> a test", "32 × 32"),
        *("0.625 after epoch 2 of 3", "71.25%", "late.jpg is gone", "a/<b>.jpg is not an image"),
        *("effnet predict photo.jpg --model 'my runs/one/model.safetensors'", "learning rate", "0.0003"),
        *(f"{one.recall:.1%}" for one in scores.classes),
        *(f"confidence {one.probability:.1%}" for one in scores.mistakes[:MAX_MISTAKES]),
        *(f"{one.other_probability:.1%}" for one in scores.uncertain[:MAX_UNCERTAIN]),
        *("3 min 33 s", "1 min 2 s", format_si(count("nano", classes=3).macs), "python 3."),
    ):
        assert text in page.text, text
    for text in ("Top-5", "Command", "Fingerprint", "Peak memory", "Computed on"):  # not given, so omitted
        assert text not in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 5
    plots = [attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg"]
    assert [name.split()[0] for name in plots] == ["loss", "top-1", "learning", "confusion", "reliability"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_loads_nothing_external(tmp_path: Path, model: EfficientNet) -> None:
    scores = evaluation(["cat", "dog", "owl"])
    images = holdout(model, {one.image: np.zeros((8, 8, 3), np.uint8) for one in scores.mistakes})
    write_report(tmp_path / "report.html", result(scores), model, SCRATCH, splits=images)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^\"\s<]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"@import|<script|<link|<iframe|javascript:", text)
    for _, attributes in Page(text).tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    write_report(tmp_path / "again.html", result(scores), model, SCRATCH, splits=images)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_names_are_escaped(tmp_path: Path, model: EfficientNet) -> None:
    names = ["<script>alert(1)</script>", "\"&amp;'", "\udcff猫 $x$"]
    write_report(tmp_path / "report.html", result(evaluation(names)), model, SCRATCH)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert names[0] in page.text
    assert names[1] in page.text
    assert "?猫 $x$" in page.text  # half of a file's broken name


def test_images_with_several_labels_are_listed(tmp_path: Path, model: EfficientNet) -> None:
    copies = LabeledCopy("a/<1>.jpg", "cat", "train"), LabeledCopy("b/2.jpg", "dog", "val")
    scores = evaluation(["cat", "dog", "owl"])
    write_report(tmp_path / "report.html", result(scores), model, FINETUNE, label_conflicts=[copies] * (MAX_ROWS + 3))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Images with several labels" in page.text
    assert page.text.count("a/<1>.jpg (cat, train), b/2.jpg (dog, val)") == MAX_ROWS + 3
    assert "3 more" in page.text
    write_report(tmp_path / "report.html", result(scores), model, FINETUNE)
    assert "several labels" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_probe_without_history_or_mistakes(tmp_path: Path, model: EfficientNet) -> None:
    run = result(evaluation(["cat", "dog"], strength=50), "probe", ())
    write_report(tmp_path / "report.html", run, model, PROBE)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "nothing else was trained" in page.text
    assert "None: every image was right." in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 2


def test_many_classes_one_without_images(tmp_path: Path, model: EfficientNet) -> None:
    names = [f"a rather long name of species {index}" for index in range(120)]
    scores = evaluation(names, 480, absent=7)
    write_report(tmp_path / "report.html", result(scores), model, SCRATCH)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert f"{scores.top5:.2%}" in page.text
    assert f"{120 - MAX_ROWS} more" in page.text
    assert [tag for tag, _ in page.tags].count("tr") == 1 + MAX_CONFUSED_PAIRS + 2 + 120
    assert page.text.count("– ") == 3
    assert "confusion matrix" not in str(page.tags)
    assert all(name in page.text for name in names)


def test_selection_on_the_reported_split_is_stated(tmp_path: Path, model: EfficientNet) -> None:
    run = replace(result(evaluation(["cat", "dog"])), evaluations={"val (selection)": evaluation(["cat", "dog"])})
    write_report(tmp_path / "report.html", run, model, SCRATCH)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "no choice has seen" not in page.text
    assert "which choices were made on" in page.text


def decode_images(page: Page) -> list[Image.Image]:
    images = []
    for source in page.images:
        kind, _, code = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        images.append(Image.open(BytesIO(base64.b64decode(code))))
    return images


def test_images_with_class_activation_maps(tmp_path: Path, model: EfficientNet) -> None:
    scores = replace(evaluation(["cat", "dog", "owl"], strength=1.0), uncertain=())
    large, tiny, gone = scores.mistakes[:3]
    Image.new("RGB", (1200, 600), "red").save(tmp_path / "large.jpg")
    sources = {large.image: tmp_path / "large.jpg", tiny.image: np.full((8, 8, 3), 200, np.uint8)}
    images = holdout(model, sources | {gone.image: tmp_path / "gone.jpg"})
    write_report(tmp_path / "report.html", result(scores), model, SCRATCH, splits=images)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [image.size for image in decode_images(page)] == [(160, 80), (160, 160), (160, 160), (160, 160)]
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts == ["", f"evidence for {large.predicted}", "", f"evidence for {tiny.predicted}"]


def test_map_is_where_the_class_is(tmp_path: Path) -> None:
    """Of a network that sees brightness alone: the map of its class is on the bright side."""
    torch.manual_seed(0)
    model = create("nano", 2).eval()
    model.labels = Labels(("dark", "bright"))
    bright_left = np.full((32, 32, 3), 10, np.uint8)
    bright_left[:, :16] = 250
    with torch.no_grad():
        maps = model.features(normalize(torch.from_numpy(bright_left[None]), model.preprocess))["head"][0]
        half = maps.shape[2] // 2
        towards = (maps[:, :, :half] - maps[:, :, half:]).mean((1, 2))
        model.classifier.weight[1] = towards / towards.norm()
        model.classifier.weight[0] = -model.classifier.weight[1]
    scores = score_classes(np.array([[0.0, 1.0]]), np.array([0]), ["dark", "bright"], ["a.jpg"])
    write_report(
        tmp_path / "report.html", result(scores), model, SCRATCH, splits=holdout(model, {"a.jpg": bright_left})
    )
    images = decode_images(Page((tmp_path / "report.html").read_text(encoding="utf-8")))
    assert len(images) == 4  # as a mistake, and as one of the most uncertain
    pixels = np.asarray(images[1].convert("RGB")).astype(int)
    coloured = np.ptp(pixels, axis=2)
    assert coloured[:, :80].mean() > 4 * coloured[:, 80:].mean()


def test_shows_data_cost_and_command(tmp_path: Path, model: EfficientNet) -> None:
    items = tuple(Item(np.full((8, 8, 3), index, np.uint8), index % 3, f"{index}.png") for index in range(12))
    images = ImageDataset(items, model.labels)
    names = [item.name for item in items[6:]]
    scores = score_classes(np.eye(3)[[1, 0, 2, 0, 1, 2]] * 2.0, images.targets[6:], model.labels.names, names)
    splits = {part: images.subset(which) for part, which in zip(PARTS, SHARES, strict=True)}
    cost = RunCost(5025, 2_100_000_000, 7_000_000_000, "A <fast> GPU", 4, "bfloat16")
    run = {"splits": splits, "source": "photos & more", "cost": cost, "command": "effnet train 'a b'"}
    write_report(tmp_path / "report.html", result(scores), model, FINETUNE, **run)  # type: ignore[arg-type]
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for text in (
        *("photos & more", fingerprint_splits(splits), "effnet train 'a b'", "1 h 23 min", "2.10 GB", "7.00 GB"),
        *("4 × A <fast> GPU, bfloat16", "Training", "Reported on: holdout"),
        '"layer_lr_decay": 1.0',
    ):
        assert text in page.text, text
    rows = re.search(r"model selection .*?owl (.*?)Skipped images", page.text, re.DOTALL)
    assert rows
    assert rows[1].split() == ["1", "1", "2"]
    mistakes = 2 * len(scores.mistakes) + 2 * len(scores.uncertain)  # the images come from the data
    assert len(page.images) == mistakes


PARTS = ("train", "selection", "holdout")
SHARES = (range(3), range(3, 6), range(6, 12))


def test_multilabel(tmp_path: Path, model: EfficientNet) -> None:
    names = ["cat", "dog", "owl", "<gnu>"]
    rng = np.random.default_rng(0)
    targets = rng.random((40, 4)) < 0.4
    targets[:, 3] = False
    scores = score_multilabel(
        rng.normal(0, 1, (40, 4)) + 2 * targets - 1, targets, names, [f"{n}.jpg" for n in range(40)]
    )
    images = holdout(model, {one.image: np.zeros((8, 8, 3), np.uint8) for one in scores.mistakes})
    other = replace(model.labels, task="multilabel")
    before, model.labels = model.labels, other
    write_report(tmp_path / "report.html", result(scores), model, FINETUNE, splits=images)
    model.labels = before
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for text in (
        *(f"{scores.mean_average_precision:.2%}", "mean average precision", f"{scores.label_accuracy:.2%}"),
        *(f"{scores.exact_match:.2%}", "Label accuracy", "was missed", "is not present", "3 labels"),
        *(f"{one.average_precision:.1%}" for one in scores.labels if one.average_precision is not None),
        *(f"{one.recall:.1%}" for one in scores.labels if one.images),
        *(f"{one.probability:.1%}" for one in scores.mistakes[:MAX_MISTAKES]),
        *("label accuracy 81.25% after epoch 2", "[0].labels"),
    ):
        assert text in page.text, text
    assert "confusion" not in str(page.tags)
    assert "reliability" in str(page.tags)
    weakest = [page.text.index(f" {one.name} ") for one in scores.labels if one.average_precision is not None]
    order = np.argsort([one.average_precision for one in scores.labels if one.average_precision is not None])
    assert list(np.argsort(weakest)) == list(order)


def test_regression(tmp_path: Path, model: EfficientNet) -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(50, 10, (40, 3))
    scores = score_regression(
        targets + rng.normal(0, 3, (40, 3)), targets, model.labels.names, [f"{n}.jpg" for n in range(40)]
    )
    images = holdout(model, {one.image: np.zeros((8, 8, 3), np.uint8) for one in scores.mistakes})
    before, model.labels = model.labels, replace(model.labels, task="regression")
    write_report(tmp_path / "report.html", replace(result(scores), probe_metric=0.875), model, FINETUNE, splits=images)
    model.labels = before
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    for text in (
        *(f"{scores.r2:.3f}", f"{scores.rmse:.4g}", f"{scores.mae:.4g}", "RMSE", "R²", "3 values", "R² 0.875"),
        *(f"{one.rmse:.4g}" for one in scores.values),
        *(f"{one.predicted:.4g}" for one in scores.mistakes[:MAX_MISTAKES]),
        *("R² 0.812 after epoch 2", "[0].values"),
    ):
        assert text in page.text, text
    assert "smoothed" not in page.text
    plots = [attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg"]
    assert sum("against true" in name for name in plots) == 3
    assert not any("reliability" in name or "confusion" in name for name in plots)
    assert len(page.images) == 48


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.25, "0.25 s"), (31.4, "31.4 s"), (59.97, "1 min 0 s"), (93, "1 min 33 s"), (86399, "23 h 59 min")],
)
def test_format_duration(seconds: float, expected: str) -> None:
    assert _format_duration(seconds) == expected


def test_wilson_interval() -> None:
    assert wilson_interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)  # as in Newcombe (1998)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
