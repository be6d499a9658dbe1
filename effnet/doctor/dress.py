"""A network under another reading of its weights."""

from __future__ import annotations

import torch

from effnet.doctor.diagnosis import Reading
from effnet.net import EfficientNet
from effnet.weights.conversion import counted
from effnet.weights.load import Opened, build


def dressed(model: EfficientNet, reading: Reading, device: torch.device | None = None) -> EfficientNet:
    """The network under ``reading``'s numerics and preprocess, in evaluation mode; its numbers are ``model``'s own."""
    tensors = {name: tensor.to(device or tensor.device) for name, tensor in counted(model.state_dict()).items()}
    return build(Opened(model.arch, reading.numerics, reading.preprocess, model.labels, model.provenance, tensors))
