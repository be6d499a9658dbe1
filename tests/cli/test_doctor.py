from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.doctor import Diagnosis, search
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD
from tests.cli.conftest import Run
from tests.squares import CLASSES, PREPROCESS, squares, trained_on_squares


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The squares in class folders."""
    root = tmp_path_factory.mktemp("squares")
    for item in squares(60, seed=7).items:
        path = root / CLASSES[item.label] / f"{item.name}.png"
        path.parent.mkdir(exist_ok=True)
        assert isinstance(item.image, np.ndarray)
        Image.fromarray(item.image).save(path)
    return root


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return effnet.save(trained_on_squares(), tmp_path_factory.mktemp("sound") / "model.safetensors")


@pytest.fixture(scope="module")
def broken(sound: Path) -> Path:
    model = effnet.load(sound)
    model.preprocess = replace(PREPROCESS, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return effnet.save(model, sound.with_name("broken.safetensors"))


def test_weights_only(run: Run, sound: Path) -> None:
    done = run("doctor", sound)
    assert done.status == 0
    assert done.out.startswith("no problems found in the weights; labeled images reveal much more")
    done = run("doctor", sound, "--json")
    assert Diagnosis.from_dict(json.loads(done.out)).healthy


def test_finds_and_repairs(
    run: Run, sound: Path, broken: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_ROUNDS", 1)
    repaired = tmp_path / "repaired.safetensors"
    done = run("doctor", broken, folder, "--fix", repaired)
    assert done.status == 0
    assert "1. mean-std: mean and std are wrong" in done.out
    assert "remedy: preprocess: mean (0.5, 0.5, 0.5)" in done.out
    assert "total: top-1 " in done.out
    assert "better" in done.out
    assert f"wrote {repaired}" in done.err
    found = effnet.load(repaired)
    assert found.preprocess == PREPROCESS
    assert effnet.evaluate(found, folder).top1 == effnet.evaluate(sound, folder).top1


def test_nothing_to_repair(run: Run, sound: Path, folder: Path, tmp_path: Path) -> None:
    done = run("doctor", sound, folder, "--fix", tmp_path / "repaired.safetensors")
    assert done.status == 0
    assert "no problems found: no variation is significantly better on 60 images" in done.out
    assert "nothing to repair" in done.err
    assert not (tmp_path / "repaired.safetensors").exists()


def test_without_labels(run: Run, broken: Path, folder: Path) -> None:
    done = run("doctor", broken, f"{folder}/*/*.png")
    assert done.status == 0
    assert "1. suspect: mean-std: " in done.out
    assert "σ" in done.out


def test_failures(run: Run, sound: Path, folder: Path, tmp_path: Path) -> None:
    assert run("doctor").status == 2
    assert run("doctor", sound, folder, "--fix", tmp_path / "repaired.pth").status == 2
    assert run("doctor", sound, folder, "--max-images", 3).status == 2
    done = run("doctor", sound, tmp_path / "no")
    assert done.status == 1
    assert "does not exist" in done.err
