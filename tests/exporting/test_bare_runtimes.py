"""The examples in docs/exporting.md predict correctly in a process that cannot import this package."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.exporting.export import export
from effnet.metadata import Labels, default_crop_fraction
from effnet.prediction import Predictor
from tests.exporting.networks import network

DOCUMENT = Path(__file__).parents[2] / "docs" / "exporting.md"
PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"
BLOCK = re.compile(r"^### (.+?)\n.*?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SUFFIXES = {"ONNX": ".onnx", "OpenVINO": ".xml", "LiteRT": ".tflite", "torch.export": ".pt2"}
PACKAGES = {"ONNX": "onnxruntime", "OpenVINO": "openvino", "LiteRT": "ai_edge_litert", "torch.export": "torch"}
BLOCKS = dict(BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")))
# Runs an example for one photo after the other
PROLOGUE = """
import json, shutil, sys
sys.modules["effnet"] = None
sys.argv[1:], (example, *photos) = [], sys.argv[1:]
for photo in photos:
    shutil.copyfile(photo, "photo.jpg")
    exec(example)
"""


def photos(folder: Path) -> list[Path]:
    """Real photos if there are any, and a generated one that its EXIF rotates to portrait."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).resize((131, 87)).save(folder / "made.jpg", exif=exif)
    return [folder / "made.jpg", *sorted(path for path in PHOTOS.glob("*.*") if path.suffix in (".bmp", ".jpg"))]


def test_every_format_has_an_example() -> None:
    assert list(BLOCKS) == list(SUFFIXES)


@pytest.mark.parametrize("runtime", SUFFIXES)
def test_top5(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[runtime])
    model = network(size=(64, 64), classes=20)
    model.preprocess = replace(model.preprocess, crop_fraction=default_crop_fraction(224))
    model.labels = Labels(tuple(f"Käfer {index}" for index in range(20)))
    export(model, tmp_path / f"model{SUFFIXES[runtime]}")
    paths = photos(tmp_path)
    process = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", PROLOGUE, BLOCKS[runtime], *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        env={"PATH": "", "PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8"},
    )
    assert process.returncode == 0, process.stderr
    printed = [eval(line) for line in process.stdout.splitlines() if line.startswith("[(")]
    expected = Predictor(model, engine="eager", decode="exact")(paths)
    assert len(printed) == len(paths)
    for got, one in zip(printed, expected, strict=True):
        assert [label for label, _ in got] == list(one.labels), one.image
        assert [share for _, share in got] == pytest.approx(one.probabilities, abs=1e-5)


def test_package_is_hidden() -> None:
    code = PROLOGUE + "\nimport effnet"
    process = subprocess.run([sys.executable, "-I", "-c", code, ""], capture_output=True, text=True, timeout=60)
    assert "import of effnet halted" in process.stderr or "No module named 'effnet'" in process.stderr
