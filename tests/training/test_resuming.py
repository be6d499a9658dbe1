"""A run is resumed by what its data and files contain, wherever they lie, and never on others."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import effnet
from effnet.data import Splits, open_data
from effnet.training.callbacks import Callback, EpochMetrics
from effnet.training.config import Resources, TrainConfig, digest_weights
from effnet.training.data_plan import digest_list, list_rows
from effnet.training.recipes import Recipe
from effnet.training.run_dir import (
    ImageRow,
    RunDir,
    describe_changed_images,
    describe_changed_settings,
    read_rows,
    write_rows,
)
from tests.training.conftest import paint

QUICK = Recipe(name="quick", epochs=2, batch_size=16, learning_rate=0.01, bn_momentum=0.3, ema_decay=0.5)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for name, brightness in (("dark", 70), ("light", 180)):
        paint(tmp_path / "photos", name, brightness, 8)
    return tmp_path / "photos"


def claim(data: Path | str | Splits, out: Path, begin: bool = False, **changes: Any) -> None:
    """What a run does before it reads any image; with ``begin`` also what it leaves then."""
    settings = {"recipe": QUICK, "model": "nano", "weights": "none", "resume": True, **changes}
    config = TrainConfig(data=data, out=out, **settings)
    available = (data if isinstance(data, Splits) else open_data(data)).available
    found, folder = config.to_settings(config.data_source, "float32", digest_list(available)), RunDir(out)
    folder.claim(found, resume=True, images=lambda: list_rows(available))
    if begin:
        folder.begin(found)
        folder.claim_split(list_rows({"train": available["train"]}))


def make_older(out: Path) -> None:
    """Leave what runs of older versions left."""
    settings = json.loads((out / "run.json").read_text())
    for name in ("images", "weights_digest", "teacher_digest"):
        settings.pop(name, None)
    (out / "run.json").write_text(json.dumps(settings))
    if (out / "split.csv").is_file():
        rows = read_rows(out / "split.csv") or []
        with (out / "split.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "label", "split"), *(row[:3] for row in rows)])


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("spelling", ["relative", "dot", "slash", "absolute", "up", "link", "moved", "wrapped"])
def test_the_path_does_not_matter(
    spelling: str, older: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claim("photos", tmp_path / "out", begin=True)
    if older:
        make_older(tmp_path / "out")
    (tmp_path / "link").symlink_to("photos")
    paths = {"relative": "photos", "dot": "./photos", "slash": "photos/", "absolute": str(small), "link": "link"}
    paths |= {"up": f"../{tmp_path.name}/photos", "moved": "elsewhere/copy", "wrapped": "elsewhere"}
    if spelling in ("moved", "wrapped"):
        shutil.copytree(small, tmp_path / "elsewhere" / "copy")
        shutil.rmtree(small)
    claim(paths[spelling], tmp_path / "out")
    claim(Path(paths[spelling]), tmp_path / "out")
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        claim(paths[spelling], tmp_path / "out", seed=1)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("path", ["photos", "elsewhere"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("gone", r"1 image is gone \(dark/00\.png\)"),
        ("renamed", r"1 image is gone \(dark/00\.png\)"),
        ("relabeled", r"1 image is gone \(dark/00\.png\)"),
        ("other size", r"1 image has changed \(dark/00\.png\)"),
        ("new", r"1 image is new \(dark/new\.png\)"),
    ],
)
def test_other_images_are_refused_by_name(
    change: str, reason: str, path: str, older: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claim("photos", tmp_path / "out", begin=True)
    if older:
        make_older(tmp_path / "out")
    small.rename(tmp_path / path)
    image = tmp_path / path / "dark" / "00.png"
    if change == "other size":
        Image.new("RGB", (40, 36)).save(image)
    elif change == "new":
        shutil.copy(image, image.with_name("new.png"))
    elif change == "gone":
        image.unlink()
    else:
        image.rename(image.with_name("first.png") if change == "renamed" else tmp_path / path / "light" / "first.png")
    if older and (path == "photos" or change in ("other size", "new")):
        claim(path, tmp_path / "out")  # known before the images are read only by the path; later by the split
        return
    with pytest.raises(ValueError, match=f"out has a run on other images: .*{reason}") as caught:
        claim(path, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_other_labels_and_splits_are_other_data(small: Path, tmp_path: Path) -> None:
    train = open_data(small).train
    assert train is not None
    claim(Splits(train), tmp_path / "out", begin=True)
    claim(Splits(train), tmp_path / "out")
    items = (replace(train.items[0], label=1), *train.items[1:])
    with pytest.raises(ValueError, match=r"1 image has another label \(dark/00\.png\)"):
        claim(Splits(replace(train, items=items)), tmp_path / "out")
    with pytest.raises(ValueError, match=r"8 images are gone \(light/00\.png"):
        claim(Splits(train.subset(range(8))), tmp_path / "out")


def test_weights_and_teacher_by_content(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.safetensors").write_bytes(b"weights")
    Path("teacher.pth").write_bytes(b"teacher")
    files = {"weights": "w.safetensors", "teacher": "teacher.pth"}
    claim(small, tmp_path / "out", begin=True, **files)
    shutil.copytree(tmp_path / "out", tmp_path / "older")
    make_older(tmp_path / "older")
    claim(small, tmp_path / "out", **{name: str(tmp_path / file) for name, file in files.items()})
    claim(small, tmp_path / "older", **{name: f"./{file}" for name, file in files.items()})
    (tmp_path / "sub").mkdir()
    Path("teacher.pth").rename("sub/renamed.pth")
    claim(small, tmp_path / "out", **files | {"teacher": "sub/renamed.pth"})
    with pytest.raises(ValueError, match=r"teacher was teacher\.pth, now sub/renamed\.pth"):
        claim(small, tmp_path / "older", **files | {"teacher": "sub/renamed.pth"})
    Path("w.safetensors").write_bytes(b"Weights")
    with pytest.raises(ValueError, match=r"weights was w\.safetensors, now another file of that name"):
        claim(small, tmp_path / "out", **files | {"teacher": "sub/renamed.pth"})
    with pytest.raises(ValueError, match=r"weights was w\.safetensors, now none"):
        claim(small, tmp_path / "out", weights="none", teacher="sub/renamed.pth")


def test_digest_of_weights(tmp_path: Path) -> None:
    assert digest_weights(None) is digest_weights("none") is digest_weights("b0/ra") is digest_weights("") is None
    (tmp_path / "run").mkdir()
    empty = digest_weights(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"1")
    assert empty
    assert digest_weights(str(tmp_path / "run")) not in (empty, None)


def test_settings_are_compared_one_by_one() -> None:
    before = {"data": "a", "recipe": {"name": "x", "epochs": 3, "augment": {"mixup": 0.2}}, "epochs": 3, "model": None}
    now = {"data": "b", "recipe": {"name": "x", "epochs": 5, "augment": {"mixup": 0.1}}, "epochs": 5, "model": None}
    assert describe_changed_settings(before, before) == []
    assert describe_changed_settings(before, now) == ["epochs was 3, now 5", "mixup was 0.2, now 0.1"]
    other = {**before, "model": {"name": "b0"}, "epochs": None}
    assert describe_changed_settings(before, other) == ["epochs was 3, now not given", "model was not given, now b0"]


def test_images_are_compared_one_by_one(tmp_path: Path) -> None:
    rows = [
        ImageRow("a", "x", "train", "3", "ff"),
        ImageRow("b", "x", "selection"),
        ImageRow("a", "y", "val", "4", "ee"),
    ]
    assert describe_changed_images(rows, rows) == []
    assert describe_changed_images(rows, [rows[1], rows[0], rows[2]]) == ["the images are in another order"]
    assert describe_changed_images(rows, [rows[1], rows[0], rows[2]], compare_splits=False) == []
    assert describe_changed_images(rows, [rows[0]._replace(digest="00"), *rows[1:]]) == ["1 image has changed (a)"]
    assert describe_changed_images(rows, [rows[0], rows[1]._replace(bytes="9", digest="12"), rows[2]]) == []
    moved = [rows[0]._replace(split="selection"), rows[1]._replace(split="train"), rows[2]]
    assert describe_changed_images(rows, moved) == ["2 images are in another split (a, b)"]
    write_rows(tmp_path / "split.csv", [*rows, ImageRow("\udcff,\n=1", "é", "train")])
    assert read_rows(tmp_path / "split.csv") == [*rows, ImageRow("\udcff,\n=1", "é", "train")]
    assert read_rows(tmp_path / "none.csv") is None


class StopAfterFirst(Callback):
    def on_epoch_end(self, metrics: EpochMetrics) -> None:
        raise KeyboardInterrupt


def test_a_moved_run_ends_with_the_same_bits(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(data: str | Path, out: Path, **settings: Any) -> effnet.training.run_dir.TrainResult:
        loggers: tuple[str, ...] = ()
        arguments = {
            "model": "nano",
            "weights": "none",
            "resources": Resources(workers=0),
            "loggers": loggers,
            "image_size": 32,
        }
        return effnet.train(data, QUICK, out=out, resume=True, **arguments | settings)  # type: ignore[arg-type]

    begun = tmp_path / "begun"
    with pytest.raises(KeyboardInterrupt):
        run("photos", begun, callback=StopAfterFirst())
    for name in ("older", "moved", "changed"):
        shutil.copytree(begun, tmp_path / name)
    make_older(tmp_path / "older")
    expected = load_file(run(small, begun).model)
    shutil.move(small, tmp_path / "scratch" / "photos")
    for name, data in (("older", tmp_path / "scratch/photos"), ("moved", "scratch/photos/")):
        found = load_file(run(data, tmp_path / name).model)
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items()), name
        assert json.loads((tmp_path / name / "run.json").read_text())["data"] == str(data)
        assert {row.digest != "" for row in read_rows(tmp_path / name / "split.csv") or []} == {True}

    with pytest.raises(
        ValueError, match=r"epochs was not given, now 5.*train on from its model .*--weights .*moved/mod"
    ):
        run("scratch/photos", tmp_path / "moved", epochs=5)
    with pytest.raises(ValueError, match=r"epochs was not given, now 5.*begin in another directory"):
        run("scratch/photos", tmp_path / "changed", epochs=5)
    image = Path("scratch/photos/dark/00.png")
    content = image.read_bytes()
    picture = Image.open(image).convert("RGB")
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(image)
    with image.open("ab") as file:  # other pixels in as many bytes
        file.write(b"\0" * (len(content) - image.stat().st_size))
    image.write_bytes(image.read_bytes()[: len(content)])
    with pytest.raises(ValueError, match=r"cannot be resumed: since it began, 1 image .*\(dark/00\.png\)"):
        run("scratch/photos", tmp_path / "changed")
    assert json.loads((tmp_path / "changed" / "run.json").read_text())["data"] == "photos"
