"""Two published int8 files of one ImageNet backbone, against TFLite's interpreter and against each other."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.data.image_io import Pixels, load_input
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.torch import EagerEngine
from effnet.tasks import softmax
from effnet.weights import load

SHARED = Path(__file__).parents[2].parent / "shared"
FLOWERS, ENCODER, BACKBONE = (
    SHARED / "weights" / name
    for name in ("lite0_flowers17_int8.tflite", "lite0_encoder_int8.tflite", "lite0_imagenet_backbone_timm.pth")
)
PHOTOS = SHARED / "data" / "hymenoptera"
EVERY = 10  # embeddings are compared on every tenth of the 398 photos

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in (FLOWERS, ENCODER, BACKBONE, PHOTOS)),
    reason=f"no published .tflite files in {SHARED.name}/weights, or no photos in {SHARED.name}/data/hymenoptera",
)


@pytest.fixture(scope="module")
def networks() -> dict[str, EfficientNet]:
    return {"flowers": load(FLOWERS), "encoder": load(ENCODER), "timm": load(BACKBONE)}


@pytest.fixture(scope="module")
def pictures(networks: dict[str, EfficientNet]) -> Pixels:
    """uint8 (398, 224, 224, 3): what the interpreter takes."""
    files = sorted(file for file in PHOTOS.rglob("*") if file.is_file())
    preprocess = replace(networks["flowers"].preprocess, resampling="pil")  # TensorFlow's leaves fractions
    return np.stack([load_input(file, preprocess) for file in files])


def test_both_say_what_they_are(networks: dict[str, EfficientNet], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        flowers, encoder = load(FLOWERS), load(ENCODER)
    assert "the division by std, which was hidden in the stem's kernels" in caplog.text
    assert [(each.arch.name, each.classes) for each in (flowers, encoder)] == [("lite0", 17), ("lite0", 0)]
    assert flowers.labels.names[:3] == ("bluebell", "buttercup", "colts_foot")
    assert flowers.labels.names[-1] == "windflower"
    for each in (flowers, encoder):
        assert each.numerics.padding == "same"
        assert each.preprocess.size == (224, 224)
        assert (each.preprocess.mean, each.preprocess.std) == ((127 / 255,) * 3, (128 / 255,) * 3)


def test_the_interpreter_sees_the_same_flowers(networks: dict[str, EfficientNet], pictures: Pixels) -> None:
    """It computes in 8 bits where we compute in floats: the same label but where it is sure of none.

    Ants and bees are no flowers: on many photos its first two labels are a step of 1/256 apart, or none.
    """
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(FLOWERS), num_threads=1)
    interpreter.allocate_tensors()
    source, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = []
    for picture in pictures:
        interpreter.set_tensor(source["index"], picture[None])  # bytes, as they are
        interpreter.invoke()
        answers.append(interpreter.get_tensor(out["index"])[0] * out["quantization"][0])
    engine = EagerEngine(networks["flowers"])
    ours = softmax(np.concatenate([engine.run(pictures[start : start + 32]) for start in range(0, len(pictures), 32)]))
    theirs = np.stack(answers)
    assert np.abs(ours - theirs).mean() < 0.004
    assert np.abs(ours - theirs).max() < 0.08
    best, second = np.sort(theirs, 1)[:, :-3:-1].T
    agree = ours.argmax(1) == theirs.argmax(1)
    assert agree[best - second > 0.02].all()
    assert (best - second > 0.02).mean() > 0.6
    assert agree.mean() >= 0.97


def test_the_three_are_one_backbone(networks: dict[str, EfficientNet], pictures: Pixels) -> None:
    """49 convolutions, correlated to int8's rounding; embeddings of photos in the same direction."""
    folded = {name: folded_kernels(network) for name, network in networks.items()}
    embedded = {name: EagerEngine(network).embed(pictures[::EVERY]) for name, network in networks.items()}
    for one, other, kernels, direction in (
        ("flowers", "encoder", 0.99993, 0.97),
        ("flowers", "timm", 0.99998, 0.99),
        ("encoder", "timm", 0.99998, 0.99),
    ):
        assert len(folded[one]) == len(folded[other]) == 49
        for name, weight in folded[one].items():
            assert torch.corrcoef(torch.stack((weight, folded[other][name])))[0, 1] > kernels, name
        a, b = (embedded[name] / np.linalg.norm(embedded[name], axis=1, keepdims=True) for name in (one, other))
        assert (a * b).sum(1).min() > direction


def folded_kernels(network: EfficientNet) -> dict[str, torch.Tensor]:
    """Each convolution's kernel with batch norm folded into it, in float64, as a vector."""
    state = fold_batch_norm(network.double()).state_dict()
    network.float()
    return {name: value.flatten() for name, value in state.items() if name.endswith("conv.weight")}
