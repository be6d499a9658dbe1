"""``effnet search``: what it says beforehand, what it leaves, how it goes on, what it refuses."""

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
        for number, (picture, label) in enumerate(zip(part.images, part.classes.tolist(), strict=True)):
            path = root / split / "abc"[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
    (root / "tiny.json").write_text(TINY.to_json())
    return root


def test_coefficients(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    asked = ("search", "coefficients", folder, "--base", folder / "tiny.json", *QUICK, "--out", out)
    planned = run(*asked, "--dry-run")
    assert planned.status == 0
    assert "triples grow tiny to " in planned.out
    assert "differences below" in planned.out
    assert not out.exists()
    beforehand = json.loads(run(*asked, "--dry-run", "--json").out)
    done = run(*asked)
    assert done.status == 0, done.err
    assert sorted(path.name for path in out.iterdir()) == [
        "coefficients.json",
        "points.csv",
        "search.db",
        "surface.png",
        "surface.svg",
    ]
    assert "effnet scale NETWORK --phi 1 --alpha" in done.out
    again = run(*asked, "--json")  # nothing is left to do
    found = json.loads(again.out)
    assert found == json.loads((out / "coefficients.json").read_text())
    assert len(found["points"]) == beforehand["points"]
    assert len(found["networks"]) == beforehand["networks"]
    assert beforehand["pictures"] == {"fit": 408, "select": 102, "judge": 102}
    assert Arch.from_dict(found["networks"][0]["arch"]).name.startswith("tiny_d")
    other = run(*asked, "--seed", "1")
    assert other.status == 1
    assert "search.db holds another search" in other.err
    assert other.err.count("\n") <= 3


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--epochs", "1,x"), 2, "write whole numbers as 1,3,9"),
        (("--epochs", "0"), 2, "write whole numbers as 1,3,9"),
        (("--step", "0.7", "--within", "0.01"), 1, "take a smaller step, or more tolerance"),
        (("--step", "many"), 1, "'many' is no decimal"),
        (("--step", "1/0"), 1, "'1/0' is no decimal"),
        (("--within", "1.5"), 1, "no growth at all"),
        (("--store", "postgres+x://here"), 1, "cannot be opened as a store"),
    ],
)
def test_refused(run: Run, folder: Path, tmp_path: Path, words: tuple[str, ...], status: int, said: str) -> None:
    done = run("search", "coefficients", folder, "--base", folder / "tiny.json", "--out", tmp_path / "x", *words)
    assert done.status == status
    assert said in done.err


def test_network(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    quick = ("--epochs", "1", "--final", "1", "--final-epochs", "1", "--processes", "1", "--trials", "2")
    asked = ("search", "network", folder, "--base", folder / "tiny.json", *quick, "--out", out)
    planned = run(*asked, "--dry-run")
    assert planned.status == 0
    assert "near enough to the target of" in planned.out
    assert not out.exists()
    done = run(*asked, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["trained"] == 2
    assert Arch.from_json((out / "network.json").read_text()) == Arch.from_dict(found["answer"])
    assert run("show", out / "network.json").status == 0
    again = json.loads(run(*asked, "--json").out)  # nothing is left to do
    assert again == found
    other = run(*asked, "--target", "1M")
    assert other.status == 1
    assert "search.db holds another search: target differs" in other.err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--target", "10"), 1, "no network around tiny is that small: the smallest has"),
        (("--target", "0"), 1, "target must be above 0"),
        (("--cost", "beauty"), 1, "cost must be one of macs, params, latency"),
        (("--cost", "latency"), 2, "say how long a network may take: tiny takes"),
        (
            ("--store", "postgresql://me:secret@localhost:1/x", "--dry-run"),
            0,
            "kept: postgresql://me:***@localhost:1/x",
        ),
    ],
)
def test_network_refused(
    run: Run, folder: Path, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = run("search", "network", folder, "--base", folder / "tiny.json", "--out", tmp_path / "x", *words)
    assert done.status == status, done.err
    assert said in done.err + done.out
    assert "secret" not in done.err + done.out


def test_too_few_pictures_to_choose_by(run: Run, folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        for number, picture in enumerate(sorted((folder / "train" / name).iterdir())[:40]):
            path = tmp_path / "few" / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.read_bytes())
    (tmp_path / "few" / "val").symlink_to(folder / "val")
    done = run("search", "coefficients", tmp_path / "few", "--out", tmp_path / "out", "--dry-run")
    assert done.status == 1
    assert "24 pictures to compare networks by are too few" in done.err


def test_too_few_pictures_are_said_at_once(run: Run, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "few" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(tmp_path / "few" / name / f"{number}.png")
    done = run("search", "coefficients", tmp_path / "few", "--out", tmp_path / "out")
    assert done.status == 1
    assert "too few for a verdict" in done.err
    assert not (tmp_path / "out").exists()
