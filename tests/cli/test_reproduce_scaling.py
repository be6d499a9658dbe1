"""``effnet reproduce scaling``: what is said before, what comes out, and wrong commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.arch import Arch, Stage

from .conftest import Run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 8-pixel pictures, 80 to learn from and 100 to judge by."""
    root, noise = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, each in (("train", 40), ("test", 50)):
        for level, name in ((60, "dark"), (190, "light")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(each):
                picture = noise.normal(level, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(picture).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny.json"
    stages = (Stage("fused", 1, 3, 1, 8, 1), Stage("mbconv", 2, 3, 1, 12, 2))
    path.write_text(Arch("tiny", stages, resolution=6, stem=8, head=16, stem_stride=1).to_json())
    return path


def test_dry_run(run: Run, data: Path, base: Path, tmp_path: Path) -> None:
    words = ("reproduce", "scaling", data, "--base", base, "--epochs", 2, "--processes", 1, "--dry-run")
    told = json.loads(run(*words, "--json").out)
    assert told["trainings"] == 39
    assert told["pictures"] == {"fit": 64, "judge": 100, "side": 8}
    assert [one["way"] for one in told["networks"]].count("compound") == 3
    assert told["networks"][0]["arch"]["dropout"] == 0
    assert told["seconds"] > 0
    done = run(*words, "--seeds", 1, "--out", tmp_path)
    assert done.status == 0
    assert "13 trainings of 2 epochs of 64 pictures: about " in done.out
    assert "judged by 100 pictures: differences below 13.9 points" in done.out
    assert "one seed shows no spread" in done.out
    assert "beyond the pictures' own 8" in done.out
    assert not list(tmp_path.iterdir())


def test_files(run: Run, data: Path, base: Path, tmp_path: Path) -> None:
    words = ("reproduce", "scaling", data, "--base", base, "--seeds", 1, "--epochs", 1, "--processes", 1)
    done = run(*words, "--out", tmp_path, "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert len(told["rows"]) == 13 + 5
    assert told["study"]["verdict"] in told["notes"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "scaling.db",
        *(f"scaling.{suffix}" for suffix in ("md", "csv", "json", "svg", "png")),
    }
    done = run(*words, "--out", tmp_path)
    assert done.status == 2
    assert "is already there" in done.err
    again = run(*words, "--out", tmp_path, "--json", "--force")
    assert json.loads(again.out)["study"] == told["study"]  # to the second: nothing was trained again
    other = run(*words[:-4], "--epochs", 2, "--out", tmp_path, "--force")
    assert other.status == 1
    assert "holds another search: epochs differs" in other.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("scaling",), "give one source of labelled pictures"),
        (("table1", "--seeds", "3"), "only scaling has it, table1 does not"),
        (("scaling", "x", "--coefficients", "1.2,1.1"), "write three numbers as 1.2,1.1,1.15"),
        (("scaling", "x", "--coefficients", "1.2,.9,1.15"), "none may be below 1"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, tuple) else "",
)
def test_wrong_commands(run: Run, words: tuple[str, ...], said: str) -> None:
    done = run("reproduce", *words)
    assert done.status == 2
    assert said in " ".join(done.err.split())


def test_too_few_pictures_are_refused_at_once(run: Run, data: Path, base: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("dark", "light"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(20):
                (tmp_path / split / name / f"{index}.png").symlink_to(data / "train" / name / f"{index}.png")
    done = run("reproduce", "scaling", tmp_path, "--base", base)
    assert done.status == 1
    assert "40 pictures to compare networks by are too few for a verdict" in done.err
