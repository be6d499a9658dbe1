"""Loading costs no more than the file, says what it assumes, and obeys what it is told."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from effnet.contract import Labels, Numerics, Preprocess
from effnet.net import create
from effnet.weights import load, save
from effnet.weights.cards import Card
from effnet.weights.find import Located

loading = import_module("effnet.weights.load")  # the package shows the function of that name

MEMORY = """
import sys, torch
from effnet.weights.load import load
from effnet.clock import peak_memory
torch.set_num_threads(1)
torch.zeros(9).sum().item()
before = peak_memory()
model = load(sys.argv[1])
assert sum(float(value.sum()) for value in model.parameters())
print(peak_memory() - before)
"""


def test_no_random_number_is_drawn(tmp_path: Path) -> None:
    path = save(create("b0"), tmp_path / "b0.safetensors")
    before = torch.random.get_rng_state()
    model = load(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_memory_is_that_of_the_file(tmp_path: Path) -> None:
    path = save(create("b5"), tmp_path / "b5.safetensors")  # large enough to stand out from the imports
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert int(done.stdout) <= 1.2 * path.stat().st_size


def test_what_is_loaded_can_be_trained_and_leaves_the_file_alone(tmp_path: Path) -> None:
    path = save(create("nano", classes=3), tmp_path / "m.safetensors")
    content = path.read_bytes()
    model = load(path).train()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert path.read_bytes() == content
    assert model.stem.norm.num_batches_tracked == 1


def test_what_the_caller_says_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(create("b0", classes=2), tmp_path / "m.pth", layout="timm")
    numerics, preprocess = Numerics("symmetric", 1e-5), Preprocess((96, 96), interpolation="bilinear")
    with caplog.at_level(logging.INFO, "effnet"):
        model = load(path, numerics=numerics, preprocess=preprocess)
    assert (model.numerics, model.preprocess) == (numerics, preprocess)
    assert "given: symmetric padding, batch-norm ε 1e-05" in caplog.text
    assert "given: pictures 96×96" in caplog.text


def test_our_own_file_can_be_overruled_too(tmp_path: Path) -> None:
    path = save(create("nano"), tmp_path / "m.safetensors")
    assert load(path, numerics=Numerics(bn_eps=1e-5)).numerics.bn_eps == 1e-5


def test_a_card_says_what_the_file_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = create("b0", classes=5)
    path = save(model, tmp_path / "m.pth", layout="timm")
    card = Card(
        name="b0/some_in1k",
        arch="b0",
        layout="timm",
        publisher="timm",
        numerics=Numerics("symmetric", 1e-5),
        preprocess=Preprocess((240, 240), 0.95),
        cites="this test",
        classes=5,
        labels="",
        top1=77.7,
        tested_at=240,
        licence="apache-2.0",
    )
    monkeypatch.setattr(loading, "find", lambda source: Located(path, card))
    with caplog.at_level(logging.INFO, "effnet"):
        found = load("b0")
    assert (found.numerics, found.preprocess, found.labels) == (card.numerics, card.preprocess, Labels())
    assert (found.provenance.source, found.provenance.licence) == ("b0/some_in1k", "apache-2.0")
    assert "b0/some_in1k: weights of timm, 77.7 % on ImageNet at 240 pixels as published" in caplog.text
    monkeypatch.setattr(loading, "find", lambda source: Located(path, replace(card, arch="b1")))
    with pytest.raises(ValueError, match=r"holds b0 .*not b1"):
        load("b1")
