"""``effnet search``: what it says plan, what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.arch import Arch
from tests.cli.conftest import Run
from tests.lab.search.conftest import TINY, stripes

QUICK = (
    *("--step", "0.5", "--within", "0.6", "--epochs", "1", "--seeds", "1"),
    *("--final", "1", "--final-epochs", "1", "--final-seeds", "2", "--processes", "1"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stripes")
    for split, many, seed in (("train", 510, 0), ("val", 102, 1)):
        part = stripes(many, seed)
        for number, (image, label) in enumerate(zip(part.images, part.classes.tolist(), strict=True)):
            path = root / split / "abc"[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    (root / "tiny.json").write_text(TINY.to_json())
    return root


def test_coefficients(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    words = ("search", "coefficients", folder, "--base", folder / "tiny.json", *QUICK, "--output", out)
    dry_run = run(*words, "--dry-run")
    assert dry_run.status == 0
    assert "triples scale tiny to " in dry_run.out
    assert "differences below" in dry_run.out
    assert not out.exists()
    plan = json.loads(run(*words, "--dry-run", "--json").out)
    done = run(*words)
    assert done.status == 0, done.err
    assert sorted(path.name for path in out.iterdir()) == [
        "coefficients.json",
        "points.csv",
        "search.db",
        "surface.png",
        "surface.svg",
    ]
    assert "effnet scale NETWORK --phi 1 --alpha" in done.out
    repeated = run(*words, "--json")  # nothing is left to do
    found = json.loads(repeated.out)
    assert found == json.loads((out / "coefficients.json").read_text())
    assert len(found["points"]) == plan["points"]
    assert len(found["networks"]) == plan["networks"]
    assert plan["images"] == {"train": 408, "selection": 102, "test": 102}
    assert Arch.from_dict(found["networks"][0]["arch"]).name.startswith("tiny_d")
    other = run(*words, "--seed", "1")
    assert other.status == 1
    assert "search.db contains another search" in other.err
    assert other.err.count("\n") <= 3


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--epochs", "1,x"), 2, "is not a list of positive integers"),
        (("--epochs", "0"), 2, "is not a list of positive integers"),
        (("--step", "0.7", "--within", "0.01"), 1, "use a smaller step or a larger tolerance"),
        (("--step", "many"), 1, "'many' is not a decimal number"),
        (("--step", "1/0"), 1, "'1/0' is not a decimal number"),
        (("--within", "1.5"), 1, "is no growth"),
        (("--store", "postgres+x://here"), 1, "cannot open the store"),
    ],
)
def test_coefficients_errors(
    run: Run, folder: Path, tmp_path: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    done = run("search", "coefficients", folder, "--base", folder / "tiny.json", "--output", tmp_path / "x", *words)
    assert done.status == status
    assert message in done.err


def test_network(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    quick = ("--epochs", "1", "--final", "1", "--final-epochs", "1", "--processes", "1", "--trials", "2")
    words = ("search", "network", folder, "--base", folder / "tiny.json", *quick, "--output", out)
    dry_run = run(*words, "--dry-run")
    assert dry_run.status == 0
    assert "close enough to the target of" in dry_run.out
    assert not out.exists()
    done = run(*words, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["trained"] == 2
    assert Arch.from_json((out / "network.json").read_text()) == Arch.from_dict(found["answer"])
    assert run("show", out / "network.json").status == 0
    repeated = json.loads(run(*words, "--json").out)  # nothing is left to do
    assert repeated == found
    other = run(*words, "--target", "1M")
    assert other.status == 1
    assert "search.db contains another search: target differs" in other.err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--target", "10"), 1, "every network around tiny is too large: the smallest has"),
        (("--target", "0"), 2, "'0' is not above 0"),
        (("--cost", "beauty"), 1, "cost must be one of macs, params, latency"),
        (("--cost", "latency"), 2, "Missing option '--target': pass a latency; tiny takes"),
        (
            ("--store", "postgresql://me:secret@localhost:1/x", "--dry-run"),
            0,
            "stored in postgresql://me:***@localhost:1/x",
        ),
    ],
)
def test_network_errors(
    run: Run, folder: Path, tmp_path: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    done = run("search", "network", folder, "--base", folder / "tiny.json", "--output", tmp_path / "x", *words)
    assert done.status == status, done.err
    assert message in done.err + done.out
    assert "secret" not in done.err + done.out


def test_too_few_images_for_selection(run: Run, folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        for number, source in enumerate(sorted((folder / "train" / name).iterdir())[:40]):
            path = tmp_path / "few" / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read_bytes())
    (tmp_path / "few" / "val").symlink_to(folder / "val")
    done = run("search", "coefficients", tmp_path / "few", "--output", tmp_path / "out", "--dry-run")
    assert done.status == 1
    assert "24 images are too few" in done.err


def test_too_few_images(run: Run, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "few" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(tmp_path / "few" / name / f"{number}.png")
    done = run("search", "coefficients", tmp_path / "few", "--output", tmp_path / "out")
    assert done.status == 1
    assert "too few to compare networks" in done.err
    assert not (tmp_path / "out").exists()
