"""The ImageNet weights of the package index as people use them: on photos, in every engine, in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import effnet
from effnet.data import load_input
from effnet.data.preprocessing import normalize
from effnet.runtime import autotune
from tests.parity.zoo import lite_packages

SHARED = Path(__file__).parents[4] / "shared" / "data"
MAX_LOGIT_DIFFERENCE = 1e-8  # of float64, relative to the largest logit
MAX_LOST = 0.025  # of the images, by int8; measured values are in docs/parity.md

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="../shared is missing: no real photos")


def photos(*names: str) -> list[Path]:
    return sorted(
        path for name in names for path in (SHARED / name).rglob("*") if path.suffix in (".jpg", ".bmp", ".gif")
    )


@pytest.fixture(scope="module", params=list(lite_packages.PACKAGES))
def weights(request: pytest.FixtureRequest) -> Path:
    package, name = lite_packages.PACKAGES[request.param]
    return Path(getattr(pytest.importorskip(package), name).get_model_file_path())


@pytest.fixture(scope="module")
def model(weights: Path) -> effnet.EfficientNet:
    return effnet.load(weights)


def stack(model: effnet.EfficientNet, paths: list[Path]) -> NDArray[np.uint8]:
    return np.stack([load_input(path, model.preprocess) for path in paths])  # (N, H, W, 3)


def top1(network: torch.nn.Module, x: NDArray[np.uint8], model: effnet.EfficientNet) -> list[int]:
    with torch.inference_mode():
        batches = (network(normalize(torch.from_numpy(part), model.preprocess)) for part in np.array_split(x, len(x)))
        return [int(logits.argmax(1)) for logits in batches]


def reference(weights: Path, arch: str) -> torch.nn.Module:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    network: torch.nn.Module = package.EfficientNet.from_pretrained(f"efficientnet-{arch}", weights_path=str(weights))
    return network.eval()


def check(weights: Path, model: effnet.EfficientNet, paths: list[Path]) -> None:
    x, network = stack(model, paths), reference(weights, model.arch.name)
    assert top1(model, x, model) == top1(network, x, model)
    one = normalize(torch.from_numpy(x[:2]), model.preprocess).double()
    with torch.inference_mode():
        expected, found = network.double()(one), effnet.load(weights).double()(one)
    assert float((found - expected).abs().max() / expected.abs().max()) <= MAX_LOGIT_DIFFERENCE


def test_test_photos(weights: Path, model: effnet.EfficientNet) -> None:
    check(weights, model, photos("photos"))


def test_names(model: effnet.EfficientNet) -> None:
    if model.arch.name != "lite0":
        pytest.skip("once is enough")
    predictor = effnet.Predictor(model, engine="eager")
    found = {Path(one.image).stem: one.label for one in predictor(photos("photos"))}
    assert found["hot_dog"] == "hotdog"


@pytest.mark.sweep
def test_all_photos(weights: Path, model: effnet.EfficientNet) -> None:
    paths = photos("hymenoptera", "photos")
    assert len(paths) >= 406
    check(weights, model, paths)


def engine_top1(path: Path | effnet.EfficientNet, kind: str, x: NDArray[np.uint8]) -> list[int]:
    opened = autotune.engine(path, kind)
    return [int(opened.run(image[None]).argmax()) for image in x]


@pytest.mark.sweep
def test_engines_agree(model: effnet.EfficientNet) -> None:
    x = stack(model, photos("hymenoptera", "photos"))
    expected = engine_top1(model, "eager", x)
    for kind in autotune.installed_file_engines():
        assert engine_top1(model, kind, x) == expected, kind


@pytest.mark.sweep
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_int8(model: effnet.EfficientNet, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = stack(model, photos("hymenoptera", "photos"))
    written = effnet.quantize(model, tmp_path / f"int8{suffix}", SHARED / "hymenoptera" / "train").path
    kind = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "litert"}[suffix]
    same = np.mean(np.equal(engine_top1(written, kind, x), engine_top1(model, "eager", x)))
    with capsys.disabled():
        print(f"\n{model.arch.name}{suffix}: {same:.1%} of {len(x)} images have float's top class")
    assert same >= 1 - MAX_LOST
