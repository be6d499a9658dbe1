"""A predictor in other processes: pickled, and used on both sides of a fork."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import effnet
from effnet.runtime import base

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = effnet.create("nano", classes=3)
    model.labels = effnet.Labels(("ant", "bee", "wasp"))
    path: Path = effnet.save(model, tmp_path / "m.safetensors")
    return path


@pytest.mark.parametrize("kind", ["path", "text", "network", "exported"])
def test_a_pickled_predictor_predicts_the_same_elsewhere(
    kind: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source: object = Path(weights.name) if kind == "path" else weights.name
    if kind == "network":
        source = effnet.load(weights)
    elif kind == "exported":
        pytest.importorskip("onnxruntime")
        source = effnet.export(effnet.load(weights), tmp_path / "m.onnx").path.name
    predict = effnet.Predictor(source, labels=("a", "b", "c"), tta="mirror", batch_size=2)  # type: ignore[arg-type]
    predict.preprocess = replace(predict.preprocess, crop_fraction=0.5)
    before = predict(IMAGES)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(pickle.dumps(predict))
    assert (again.labels, again.tta, again.batch_size) == (predict.labels, "mirror", 2)
    assert again.preprocess == predict.preprocess
    for one, other in zip(before, again(IMAGES), strict=True):
        assert one.labels == other.labels
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert pickle.loads(pickle.dumps(again))(IMAGES)[0].label == before[0].label


def test_a_pickled_ensemble(weights: Path) -> None:
    ensemble = effnet.Ensemble([weights, weights])
    assert pickle.loads(pickle.dumps(ensemble))(IMAGES)[0].label == ensemble(IMAGES)[0].label


# In a new process, since threads of this one's tests would be forked as well; the child ends as multiprocessing's do
FORK = """
import faulthandler, os, sys, numpy as np, torch, effnet
from effnet.runtime import base
torch.set_num_threads(2)
images = np.zeros((4, 32, 32, 3), np.uint8)
model, kinds = sys.argv[1], sys.argv[2:]
for kind in kinds:
    made = {}
    if kind == "eager":
        from effnet.runtime.torch import EagerEngine
        engine = EagerEngine(effnet.load(model), threads=1)
    elif kind == "predictor":
        predict = effnet.Predictor(model, engine="eager", device="cpu")
        engine = type("", (), {"run": lambda self, x: np.array([p.probabilities for p in predict(x)])})()
    else:
        engine = base.open_exported(kind.split("=")[1], kind.split("=")[0], threads=2)
        engine.prepare(1)
    expected = engine.run(images)
    for call in ("same", "new torch"):
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(100, exit=True)
            if call == "same":
                same = np.allclose(engine.run(images), expected, atol=1e-4)
            else:
                same = bool(torch.conv2d(torch.ones(8, 8, 64, 64), torch.ones(8, 8, 3, 3)).mean() > 0)
            os._exit(0 if same else 3)
        print(kind, call, os.waitpid(child, 0)[1])
    assert np.allclose(engine.run(images), expected, atol=1e-4)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_both_sides_of_a_fork_predict(weights: Path, tmp_path: Path) -> None:
    model = effnet.load(weights)
    kinds = ["eager", "predictor"]
    for kind, suffix in (("onnxruntime", ".onnx"), ("litert", ".tflite"), ("openvino", ".xml")):
        if kind in base.installed_engines():
            kinds.append(f"{kind}={effnet.export(model, tmp_path / f'x{suffix}').path}")
    env = {**os.environ, "OMP_NUM_THREADS": "2"}  # with one thread nothing would be missing in a child
    done = subprocess.run([sys.executable, "-c", FORK, str(weights), *kinds], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    lines = [f"{kind} {call} 0" for kind in kinds for call in ("same", "new torch")]
    assert done.stdout.splitlines() == lines, done.stderr
