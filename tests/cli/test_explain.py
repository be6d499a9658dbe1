from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.explanation import explain
from tests.cli.conftest import Run


@pytest.fixture
def spoiled(photos: Path) -> Path:
    """The same folder with a truncated JPEG and a text file."""
    whole = (photos / "ant" / "1.jpg").read_bytes()
    (photos / "bee" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "bee" / "page.jpg").write_text("<html>")
    return photos


def test_folder(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("explain", weights, spoiled, "--output", out, "--raw", "--top", 2)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["image", "label", "probability", "runners-up"]
    assert len(lines) == 2 + 4
    messages = done.err.splitlines()
    assert f"{spoiled / 'bee' / 'cut.jpg'} is damaged" in messages[0]
    assert messages[-2:] == [
        f"effnet: wrote 4 explained images to {out / 'index.html'}",
        "effnet: 2 of 6 images could not be read",
    ]
    names = sorted(path.name for path in out.iterdir())
    assert [sum(name.endswith(suffix) for name in names) for suffix in (".png", ".npy", ".html", ".csv")] == [
        8,
        4,
        1,
        1,
    ]
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 + 2
    assert [bool(row["error"]) for row in rows] == [not row["overlay"] for row in rows]
    assert f"<h1>Where {weights.parent.name} looks</h1>" in (out / "index.html").read_text()
    model, first = effnet.load(weights), spoiled / "ant" / "1.jpg"
    assert np.load(out / rows[0]["maps"]) == pytest.approx(explain(model, first, top=2).maps, rel=1e-4, abs=1e-6)


def test_json(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("explain", weights, spoiled, "--output", out, "--json", "--classes", "[wasp],ant", "--layer", "stage2")
    found = json.loads(done.out)
    assert done.status == 0
    assert len(found) == 6
    for one in found:
        if "error" in one:
            continue
        assert (one["method"], one["layer"]) == ("gradcam", "stage2")  # a layer implies Grad-CAM
        assert [each["label"] for each in one["explained"]] == ["[wasp]", "ant"]
        assert [each["class"] for each in one["explained"]] == [2, 0]
        assert all((out / name).exists() for name in one["files"])
        assert len(one["files"]) == 2
    assert sum("error" in one for one in found) == 2


def test_class_name_with_comma(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    model = effnet.load(weights)
    model.labels = effnet.Labels(("ant", "bee, small", "wasp"))
    named = effnet.save(model, tmp_path / "named.safetensors")
    words = ("--classes", "bee, small", "--classes", "wasp, ant")
    found = json.loads(run("explain", named, photos / "bee", "--output", tmp_path / "out", "--json", *words).out)
    assert [one["label"] for one in found[0]["explained"]] == ["bee, small", "wasp", "ant"]


def test_occlusion(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    photo, out = photos / "ant" / "1.jpg", tmp_path / "out"
    words = ("--method", "occlusion", "--patch", 16, "--stride", 16, "--drop", "probability", "--raw", "--classes", 1)
    done = run("explain", weights, photo, "--output", out, "--json", *words)
    (found,) = json.loads(done.out)
    assert (found["method"], found["layer"]) == ("occlusion", "input")
    expected = explain(weights, photo, [1], method="occlusion", patch=16, stride=16, drop="probability")
    assert np.load(out / found["files"][-1]) == pytest.approx(expected.maps, rel=1e-3, abs=1e-6)


def test_exit_status(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    assert run("explain", weights, spoiled, "--output", tmp_path / "a", "--strict").status == 1
    assert run("explain", weights, spoiled / "ant", "--output", tmp_path / "b", "--strict").status == 0
    done = run("explain", weights, spoiled / "bee" / "cut.jpg", "--output", tmp_path / "c")
    assert done.status == 1
    assert done.out == ""
    assert "1 of 1 images could not be read" in done.err
    assert "is damaged" in (tmp_path / "c" / "index.html").read_text()


def test_existing_result_is_kept(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", weights, photos / "ant", "--output", out).status == 0
    done = run("explain", weights, photos / "bee", "--output", out)
    assert done.status == 1
    assert "is not empty: give another directory, or --force" in done.err
    assert run("explain", tmp_path / "no.safetensors", photos / "bee", "--output", out, "--force").status == 1
    assert len(list(out.glob("0001-1-*.png"))) == 3  # nothing is lost for a model that is not there
    assert run("explain", weights, photos / "bee", "--output", out, "--force").status == 0
    assert not list(out.glob("0001-1-*.png"))
    done = run("explain", weights, photos / "bee", "--output", photos, "--force")
    assert done.status == 1
    assert "which is no earlier result" in done.err


def test_panel(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "panel.png"
    done = run("explain", weights, spoiled / "bee", "--output", out, "--beside", weights, "--json")
    assert done.status == 0
    data = json.loads(done.out)
    assert data["written"] == str(out)
    assert data["models"] == [str(weights)] * 2
    assert sorted(Path(one["image"]).name for one in data["images"] if "error" in one) == ["cut.jpg", "page.jpg"]
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.width > 3 * 256
        assert image.height > 2 * 200
    assert run("explain", weights, spoiled / "bee", "--output", out, "--beside", weights).status == 2
    words = ("--beside", weights, "--force", "--strict", "--classes", "ant,bee,bee,ant")
    done = run("explain", weights, spoiled / "bee", "--output", out, *words)
    assert done.status == 1
    assert "effnet: wrote 2 models and 2 images to" in done.err
    done = run(
        "explain", weights, spoiled / "bee", "--output", out, "--beside", weights, "--force", "--classes", "ant,bee"
    )
    assert done.status == 2
    assert "--classes needs one class per image: got 2 for 4 images" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "cam", "--layer", "stage2"), "--layer cannot be combined with --method cam"),
        (("--patch", "8"), "--patch requires --method occlusion"),
        (("--method", "saliency"), "saliency"),
        (("--every", "0"), "must be above 0"),
        (("--top", "0"), "--top"),
        (("--beside", "b0"), "must end in .png"),
    ],
)
def test_usage_errors(
    run: Run, weights: Path, photos: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = run("explain", weights, photos, "--output", tmp_path / "out", *words)
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_errors_are_one_sentence(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", weights, photos).status == 2  # without --output
    for words, message in (
        ((tmp_path / "no.safetensors", photos), "no such weights file"),
        ((weights, tmp_path / "no.jpg"), "does not exist"),
        ((weights, photos, "--classes", "beee"), "there is no class 'beee'; did you mean bee?"),
        ((weights, photos, "--layer", "stage7"), "there is no layer 'stage7': nano has stem"),
        ((tmp_path / "model.onnx", photos), "is an exported file"),
        ((weights, photos, "--device", "tpu9"), "tpu9"),
    ):
        done = run("explain", *words, "--output", out)
        assert done.status == 1
        assert message in done.err
        assert len(done.err.splitlines()) == 1
        assert not out.exists()
