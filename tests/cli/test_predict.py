from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import effnet
from tests.cli.conftest import Run
from tests.cli.test_app import EFFNET


@pytest.fixture
def spoiled(photos: Path) -> Path:
    """The same folder with a truncated JPEG and a text file."""
    whole = (photos / "ant" / "1.jpg").read_bytes()
    (photos / "bee" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "bee" / "page.jpg").write_text("<html>")
    return photos


def test_table(run: Run, weights: Path, photos: Path) -> None:
    done = run("predict", photos, "--model", weights)
    assert done.status == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].split() == ["image", "label", "probability", "runners-up"]
    assert [line.split()[0] for line in lines[2:]] == [
        str(photos / name) for name in ("ant/1.jpg", "ant/[2].png", "bee/3.jpg", "bee/deep/4.jpg")
    ]
    assert "[wasp]" in done.out  # brackets are not markup
    assert "runners-up" not in run("predict", photos, "-m", weights, "--top", 1).out


def test_json(run: Run, weights: Path, spoiled: Path) -> None:
    done = run("predict", spoiled, "-m", weights, "--json", "--top", 2, "--exact")
    found = json.loads(done.out)
    assert done.status == 0
    paths = [Path(one["image"]) for one in found]
    expected = effnet.Predictor(weights, decode="exact")(paths, top=2)
    assert found == json.loads(json.dumps([one.to_dict() for one in expected]))
    assert [path.name for path, one in zip(paths, found, strict=True) if "error" in one] == ["cut.jpg", "page.jpg"]
    assert done.err.splitlines()[-1] == "effnet: 2 of 6 images could not be read"


def test_csv(run: Run, weights: Path, spoiled: Path) -> None:
    done = run("predict", spoiled, "-m", weights, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(Path(row["image"]).name, row["rank"]) for row in rows[:4]] == [
        ("1.jpg", "1"),
        ("1.jpg", "2"),
        ("1.jpg", "3"),
        ("[2].png", "1"),
    ]
    assert len(rows) == 4 * 3
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(4, abs=1e-4)


def test_unreadable_images_are_reported_and_skipped(run: Run, weights: Path, spoiled: Path) -> None:
    done = run("predict", spoiled, "-m", weights)
    assert done.status == 0
    assert "cut.jpg" not in done.out
    messages = done.err.splitlines()
    assert len(messages) == 3
    assert f"{spoiled / 'bee' / 'cut.jpg'} is damaged" in messages[0]
    assert str(spoiled / "bee" / "page.jpg") in messages[1]


def test_strict(run: Run, weights: Path, spoiled: Path) -> None:
    assert run("predict", spoiled, "-m", weights, "--strict").status == 1
    assert run("predict", spoiled / "ant", "-m", weights, "--strict").status == 0


def test_nothing_readable(run: Run, weights: Path, spoiled: Path) -> None:
    Image.new("RGB", (1, 1)).save(spoiled / "dot.png")
    for name, reason in (("dot.png", "too small"), ("bee/cut.jpg", "damaged"), ("bee/page.jpg", "page.jpg")):
        done = run("predict", spoiled / name, "-m", weights)
        assert done.status == 1
        assert done.out == ""
        assert reason in done.err
    assert json.loads(run("predict", spoiled / "dot.png", "-m", weights, "--json").out)[0]["error"]


def test_usage_errors(run: Run, weights: Path, photos: Path) -> None:
    done = run("predict", photos)
    assert done.status == 2
    assert "Missing option '--model', and no pretrained network is on this machine" in done.err
    for wrong in (
        ("--json", "--csv"),
        ("--every", "0"),
        ("--top", "0"),
        ("--batch-size", "0"),
        ("--embeddings", "x.txt"),
    ):
        assert run("predict", photos, "-m", weights, *wrong).status == 2
    assert run("predict", "-m", weights).status == 2


def test_missing_files_are_reported_first(run: Run, weights: Path, tmp_path: Path) -> None:
    assert run("predict", tmp_path / "no", "-m", "no.safetensors").err == f"effnet: {tmp_path / 'no'} does not exist\n"
    assert "nothing matches" in run("predict", tmp_path / "*.jpg", "-m", weights).err
    assert "no " in run("predict", tmp_path, "-m", weights).err
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert "no such weights file" in run("predict", tmp_path / "a.jpg", "-m", tmp_path / "no.safetensors").err
    assert "tpu9" in run("predict", tmp_path / "a.jpg", "-m", weights, "--device", "tpu9").err


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_embeddings(run: Run, weights: Path, spoiled: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    done = run("predict", spoiled, "-m", weights, "--embeddings", path)
    assert done.status == 0
    assert done.out == ""
    assert f"wrote 4 embeddings to {path}" in done.err
    if suffix == ".npz":
        with np.load(path) as file:
            names, found = file["names"].tolist(), file["embeddings"]
    else:
        header, *rows = csv.reader(path.read_text().splitlines())
        assert header[:2] == ["image", "e0"]
        names, found = [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
    expected = dict(effnet.Predictor(weights).embeddings((name, name) for name in names))
    assert len(expected) == 4
    assert found == pytest.approx(np.stack([expected[name] for name in names]), rel=1e-5)


def test_embeddings_are_written_atomically(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "taken.npz"
    path.mkdir()
    assert run("predict", photos, "-m", weights, "--embeddings", path).status == 1
    assert [entry.name for entry in tmp_path.iterdir() if "part" in entry.name] == []


def test_standard_input(weights: Path, photos: Path) -> None:
    command = [*EFFNET, "predict", "-", "--json", "-m", str(weights)]
    content = (photos / "ant" / "1.jpg").read_bytes()
    done = subprocess.run(command, input=content, capture_output=True, check=True, timeout=120)
    (found,) = json.loads(done.stdout)
    assert found["image"] == "standard input"
    (expected,) = effnet.Predictor(weights)([photos / "ant" / "1.jpg"])
    assert found["labels"][0] == {"label": expected.label, "probability": pytest.approx(expected.probability)}


def test_offline(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_OFFLINE", "")  # restored afterwards, whatever the option does
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = run("predict", photos, "--model", "b0", "--offline")
    assert done.status == 1
    assert "b0/tf_ns_jft_in1k" in done.err
    assert len([line for line in done.err.splitlines() if line.strip()]) == 1


def test_without_a_model_the_best_at_hand(
    run: Run, weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = SimpleNamespace(name=str(weights))
    monkeypatch.setattr("effnet.weights.resolve.find_best_at_hand", lambda: best)
    done = run("predict", photos / "ant" / "1.jpg", "--json")
    assert done.status == 0
    assert json.loads(done.out)[0]["labels"]
    assert f"--model {weights}: the best pretrained network at hand" in done.err


def test_images_of_12_bits(run: Run, weights: Path, tmp_path: Path) -> None:
    for number in range(2):
        values = np.random.default_rng(number).integers(0, 4096, (40, 40)).astype(np.uint16)
        values[0, 0] = 4095
        Image.fromarray(values).save(tmp_path / f"{number}.png")
        Image.fromarray((values >> 4).astype(np.uint8)).save(tmp_path / f"{number}.bmp")
    said = "no 16-bit image has a value above 4,095: they are read as images of 12 bits"

    def csv_of(*arguments: object) -> list[str]:
        done = run("predict", *arguments, "-m", weights, "--csv", "--top", 2)
        assert done.status == 0
        assert (said in done.err) == ("--bits" not in arguments and len([*arguments]) > 1 and "png" in str(arguments))
        return [line.split(",", 1)[1] for line in done.out.splitlines()]

    expected = csv_of(tmp_path / "0.bmp", tmp_path / "1.bmp")
    assert csv_of(tmp_path / "0.png", tmp_path / "1.png") == expected
    assert csv_of(tmp_path / "0.png", tmp_path / "1.png", "--bits", 12) == expected
    assert csv_of(tmp_path / "0.png", tmp_path / "1.png", "--bits", 16) != expected
    done = run("predict", tmp_path / "0.png", "-m", weights, "--csv", "--top", 2, "--preprocess", "bits=12")
    assert [line.split(",", 1)[1] for line in done.out.splitlines()] == expected[:3]
    assert "--bits" not in done.err  # the model states it now
    one = run("predict", tmp_path / "0.png", "-m", weights)
    assert "0.png has 16 bits, and no value above 4095: if it holds 12, pass --bits 12" in one.err
    out = tmp_path / "all.csv"
    assert said in run("predict", tmp_path / "0.png", tmp_path / "1.png", "-m", weights, "-o", out).err
    assert run("predict", tmp_path / "0.png", "-m", weights, "--bits", 7).status == 2
