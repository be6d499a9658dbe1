"""``effnet predict test.csv --ensemble runs/x --output submission.csv``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet import Predictor
from effnet.metadata import Labels
from effnet.prediction.out_of_fold import OutOfFold
from tests.cli.conftest import Run

NAMES = ("ant", "bee", "wasp")


def folds_run(root: Path, seed: int, confidence: float) -> Path:
    """A finished run of two folds of random networks, with out-of-fold predictions of this ``confidence``."""
    for number in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(10 * seed + number)
            model = effnet.create("nano", classes=3)
        model.labels = Labels(NAMES)
        (root / f"fold{number}").mkdir(parents=True)
        effnet.save(model, root / f"fold{number}/model.safetensors")
    models = [f"fold{number}/model.safetensors" for number in range(2)]
    (root / "folds.json").write_text(json.dumps({"models": models, "task": "classification"}))
    truth = np.arange(90) % 3
    logits = confidence * np.eye(3)[truth] + np.random.default_rng(seed).normal(size=(90, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = tuple(f"{at}" for at in range(90))
    OutOfFold(Labels(NAMES), ids, np.arange(90) % 2, np.eye(3)[truth], shares).write(root / "oof.csv")
    return root


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    return folds_run(tmp_path / "runs/strong", 1, 3.0), folds_run(tmp_path / "runs/weak", 2, 0.2)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "data/test").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(noise.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / f"data/test/{number}.jpg")
    (tmp_path / "data/test.csv").write_text("image_id\n2\n0\n1\n3\n")
    return tmp_path / "data/test.csv"


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def expected(members: dict[Path, float], table: Path, views: str = "none") -> np.ndarray:
    """The weighted mean of the folds' probabilities, in the table's order."""
    found = np.zeros((4, 3))
    for root, weight in members.items():
        for number in range(2):
            one = Predictor(root / f"fold{number}/model.safetensors", tta=views)
            named = ((name, table.parent / f"test/{name}.jpg") for name in "2013")
            found += weight / 2 * np.stack([row for _, row in one.predict_scores(named)])  # type: ignore[misc]
    return found


def test_submission(run: Run, runs: tuple[Path, Path], table: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    done = run("predict", table, "--ensemble", runs[0], "--tta", "mirror", "--output", out)
    assert (done.status, done.out) == (0, "")
    assert done.err == f"effnet: wrote 4 rows of image_id, label to {out}\n"
    shares = expected({runs[0]: 1.0}, table, "mirror")
    assert rows(out) == [
        ["image_id", "label"],
        *([name, NAMES[row.argmax()]] for name, row in zip("2013", shares, strict=True)),
    ]
    repeated = run("predict", table, "--ensemble", runs[0], "--output", out)
    assert repeated.status == 1
    assert "--force" in repeated.err
    assert run("predict", table, "-m", runs[0], "--output", out, "--force", "--probabilities").status == 0
    header, *found = rows(out)
    assert header == ["image_id", *NAMES]
    assert np.array([row[1:] for row in found], float) == pytest.approx(expected({runs[0]: 1.0}, table), abs=1e-3)


def test_sample_submission(run: Run, runs: tuple[Path, Path], table: Path, tmp_path: Path) -> None:
    (table.parent / "sample_submission.csv").write_text("Id,wasp,ant,bee\n0,0,0,0\n1,0,0,0\n2,0,0,0\n3,0,0,0\n")
    (table.parent / "test/1.jpg").write_bytes(b"nothing")
    out = tmp_path / "s.csv"
    done = run("predict", table, "--ensemble", runs[0], "--output", out)
    assert done.status == 0
    assert "1 of 4 images could not be read: they get the mean prediction" in done.err
    assert "1.jpg" in done.err
    assert f"to {out}, in the format of {table.parent / 'sample_submission.csv'}" in done.err
    assert [row[0] for row in rows(out)] == ["Id", "0", "1", "2", "3"]
    assert rows(out)[0] == ["Id", "wasp", "ant", "bee"]
    assert run("predict", table, "--ensemble", runs[0], "--output", out, "--force", "--strict").status == 1


def test_fitted_weights(run: Run, runs: tuple[Path, Path], table: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    both = ("--ensemble", runs[0], "--ensemble", runs[1])
    assert run("predict", table, *both, "--output", out, "--probabilities").status == 0
    equal = np.array([row[1:] for row in rows(out)[1:]], float)
    assert equal == pytest.approx(expected(dict.fromkeys(runs, 0.5), table), abs=1e-3)
    done = run("predict", table, *both, "--weighting", "fitted", "--output", out, "--probabilities", "--force")
    assert done.status == 0
    assert "using fitted weights: on 90 out-of-fold images" in done.err
    fitted = np.array([row[1:] for row in rows(out)[1:]], float)
    assert fitted == pytest.approx(expected({runs[0]: 1.0, runs[1]: 0.0}, table), abs=0.05)
    assert not np.allclose(fitted, equal, atol=1e-3)
    alone = run("predict", table, "--ensemble", runs[0], "--weighting", "fitted")
    assert alone.status == 1
    assert "give at least two" in alone.err


def test_table_as_a_list_of_images(run: Run, runs: tuple[Path, Path], table: Path, tmp_path: Path) -> None:
    model = runs[0] / "fold0/model.safetensors"
    done = run("predict", table, "-m", model, "--json")
    assert [one["image"] for one in json.loads(done.out)] == ["2", "0", "1", "3"]
    result = tmp_path / "r.jsonl"
    assert run("predict", table, "--ensemble", *(runs[0], "--ensemble", model), "--output", result).status == 0
    lines = [json.loads(line) for line in result.read_text().splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["2.jpg", "0.jpg", "1.jpg", "3.jpg"]
    assert (
        "is already complete"
        in run("predict", table, "--ensemble", runs[0], "--ensemble", model, "--output", result).err
    )
    other = run("predict", table, "--ensemble", runs[1], "--ensemble", model, "--output", result)
    assert other.status == 1
    assert "was made with another model" in other.err
    views = run("predict", table, "--ensemble", runs[0], "--ensemble", model, "--tta", "crops", "--output", result)
    assert "was made with" in views.err


def test_submission_usage_errors(run: Run, runs: tuple[Path, Path], table: Path, photos: Path, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "s.csv")
    for wrong in (
        (table, "-m", "b0", "--ensemble", runs[0]),
        (table, *out),
        (photos, "--ensemble", runs[0], *out, "--probabilities"),
        (table, "--ensemble", runs[0], "--embeddings", "e.npz"),
        (table, "--model", runs[0], "--embeddings", "e.npz"),
        (table, "--ensemble", runs[0], *out, "--ray", "local"),
        (table, "--ensemble", runs[0], *out, "--tta", "rotate"),
    ):
        assert run("predict", *wrong).status == 2
    (runs[0] / "folds.json").unlink()
    (runs[0] / "folds.csv").touch()
    assert (
        "unfinished cross-validation run: finish it with --resume"
        in run("predict", table, "--ensemble", runs[0], *out).err
    )
    (table.parent / "test/1.jpg").unlink()
    done = run("predict", table, "--ensemble", runs[1], *out)
    assert done.status == 1
    assert "1 of the 4 images that" in done.err
    assert len(done.err.splitlines()) == 1
