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
    """The same folder with a truncated JPEG and a text."""
    whole = (photos / "ant" / "1.jpg").read_bytes()
    (photos / "bee" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "bee" / "page.jpg").write_text("<html>")
    return photos


def test_a_folder(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("explain", weights, spoiled, "--out", out, "--raw", "--top", 2)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["picture", "label", "probability", "runners-up"]
    assert len(lines) == 2 + 4
    told = done.err.splitlines()
    assert f"{spoiled / 'bee' / 'cut.jpg'} is damaged" in told[0]
    assert told[-2:] == [
        f"effnet: 4 pictures are explained in {out / 'index.html'}",
        "effnet: 2 of 6 pictures could not be read",
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
    done = run("explain", weights, spoiled, "--out", out, "--json", "--classes", "[wasp],ant", "--at", "stage2")
    found = json.loads(done.out)
    assert done.status == 0
    assert len(found) == 6
    for one in found:
        if "error" in one:
            continue
        assert (one["method"], one["layer"]) == ("gradcam", "stage2")  # a part is Grad-CAM's
        assert [each["label"] for each in one["explained"]] == ["[wasp]", "ant"]
        assert [each["class"] for each in one["explained"]] == [2, 0]
        assert all((out / name).exists() for name in one["files"])
        assert len(one["files"]) == 2
    assert sum("error" in one for one in found) == 2


def test_a_class_with_a_comma_in_its_name(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    model = effnet.load(weights)
    model.labels = effnet.Labels(("ant", "bee, small", "wasp"))
    named = effnet.save(model, tmp_path / "named.safetensors")
    words = ("--classes", "bee, small", "--classes", "wasp, ant")
    found = json.loads(run("explain", named, photos / "bee", "--out", tmp_path / "out", "--json", *words).out)
    assert [one["label"] for one in found[0]["explained"]] == ["bee, small", "wasp", "ant"]


def test_occlusion(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    photo, out = photos / "ant" / "1.jpg", tmp_path / "out"
    words = ("--method", "occlusion", "--patch", 16, "--stride", 16, "--drop", "probability", "--raw", "--classes", 1)
    done = run("explain", weights, photo, "--out", out, "--json", *words)
    (found,) = json.loads(done.out)
    assert (found["method"], found["layer"]) == ("occlusion", "input")
    expected = explain(weights, photo, [1], method="occlusion", patch=16, stride=16, drop="probability")
    assert np.load(out / found["files"][-1]) == pytest.approx(expected.maps, rel=1e-3, abs=1e-6)


def test_the_status_is_as_of_predict(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    assert run("explain", weights, spoiled, "--out", tmp_path / "a", "--strict").status == 1
    assert run("explain", weights, spoiled / "ant", "--out", tmp_path / "b", "--strict").status == 0
    done = run("explain", weights, spoiled / "bee" / "cut.jpg", "--out", tmp_path / "c")
    assert done.status == 1
    assert done.out == ""
    assert "1 of 1 pictures could not be read" in done.err
    assert "is damaged" in (tmp_path / "c" / "index.html").read_text()


def test_a_result_is_replaced_only_when_told(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", weights, photos / "ant", "--out", out).status == 0
    done = run("explain", weights, photos / "bee", "--out", out)
    assert done.status == 1
    assert "is not empty: give another directory, or --force" in done.err
    assert run("explain", tmp_path / "no.safetensors", photos / "bee", "--out", out, "--force").status == 1
    assert len(list(out.glob("0001-1-*.png"))) == 3  # nothing is lost for a model that is not there
    assert run("explain", weights, photos / "bee", "--out", out, "--force").status == 0
    assert not list(out.glob("0001-1-*.png"))
    done = run("explain", weights, photos / "bee", "--out", photos, "--force")
    assert done.status == 1
    assert "which is no earlier result" in done.err


def test_a_panel(run: Run, weights: Path, spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "panel.png"
    done = run("explain", weights, spoiled / "bee", "--out", out, "--beside", weights, "--json")
    assert done.status == 0
    told = json.loads(done.out)
    assert told["written"] == str(out)
    assert told["models"] == [str(weights)] * 2
    assert sorted(Path(one["picture"]).name for one in told["pictures"] if "error" in one) == ["cut.jpg", "page.jpg"]
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.width > 3 * 256
        assert image.height > 2 * 200
    assert run("explain", weights, spoiled / "bee", "--out", out, "--beside", weights).status == 2
    words = ("--beside", weights, "--force", "--strict", "--classes", "ant,bee,bee,ant")
    done = run("explain", weights, spoiled / "bee", "--out", out, *words)
    assert done.status == 1
    assert "effnet: 2 models and 2 pictures are in" in done.err
    done = run(
        "explain", weights, spoiled / "bee", "--out", out, "--beside", weights, "--force", "--classes", "ant,bee"
    )
    assert done.status == 2
    assert "4 pictures need as many classes, not 2" in done.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--method", "cam", "--at", "stage2"), "goes with --method gradcam"),
        (("--patch", "8"), "with --method occlusion"),
        (("--method", "saliency"), "saliency"),
        (("--every", "0"), "must be above 0"),
        (("--top", "0"), "--top"),
        (("--beside", "b0"), "ends in .png"),
    ],
)
def test_wrong_commands(
    run: Run, weights: Path, photos: Path, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    done = run("explain", weights, photos, "--out", tmp_path / "out", *words)
    assert done.status == 2
    assert why in done.err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_one_sentence(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", weights, photos).status == 2  # without --out
    for words, why in (
        ((tmp_path / "no.safetensors", photos), "no such file of weights"),
        ((weights, tmp_path / "no.jpg"), "does not exist"),
        ((weights, photos, "--classes", "beee"), "there is no class 'beee'; did you mean bee?"),
        ((weights, photos, "--at", "stage7"), "there is no layer 'stage7': nano has stem"),
        ((tmp_path / "model.onnx", photos), "is an exported file"),
        ((weights, photos, "--device", "tpu9"), "no device"),
    ):
        done = run("explain", *words, "--out", out)
        assert done.status == 1
        assert why in done.err
        assert len(done.err.splitlines()) == 1
        assert not out.exists()
