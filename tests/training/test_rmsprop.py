"""RMSProp along a trajectory that TensorFlow's own optimiser took."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.training.rmsprop import RMSProp

RECORDED = Path(__file__).with_name("rmsprop_tensorflow.json")


def test_as_tensorflow_for_200_steps() -> None:
    """A quadratic with noise; weights, every 20 steps, as ``tf.compat.v1.train.RMSPropOptimizer`` had them.

    Recorded by ``scripts/record_rmsprop.py``.
    """
    recorded = json.loads(RECORDED.read_text())
    weight = torch.nn.Parameter(torch.tensor(recorded["start"], dtype=torch.float32))
    optimiser = RMSProp([weight], **recorded["settings"])
    dice = np.random.default_rng(recorded["seed"])
    curvature = torch.tensor(recorded["curvature"], dtype=torch.float32)
    seen = []
    for step in range(200):
        noise = torch.from_numpy(dice.standard_normal(len(weight)).astype(np.float32))
        weight.grad = curvature * weight.detach() + noise
        optimiser.step()
        if step % 20 == 19:
            seen.append(weight.detach().tolist())
    for ours, theirs in zip(seen, recorded["weights"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


def test_l2_is_added_to_the_gradient() -> None:
    one, two = (torch.nn.Parameter(torch.tensor([3.0])) for _ in range(2))
    decayed, plain = RMSProp([one], lr=0.1, weight_decay=0.01), RMSProp([two], lr=0.1)
    one.grad, two.grad = torch.tensor([1.0]), torch.tensor([1.03])
    decayed.step()
    plain.step()
    assert one.item() == pytest.approx(two.item(), rel=1e-6)


def test_what_has_no_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimiser = RMSProp([weight], lr=0.1, weight_decay=0.01)
    optimiser.step()
    assert weight.item() == 3
    assert not optimiser.state[weight]
