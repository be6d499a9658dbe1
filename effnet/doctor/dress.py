"""A network under another reading of its weights."""

from __future__ import annotations

import torch
from torch import nn

from effnet.doctor.diagnosis import Reading
from effnet.net import EfficientNet
from effnet.weights.conversion import counted


def dressed(model: EfficientNet, reading: Reading, device: torch.device | None = None) -> EfficientNet:
    """The network under ``reading``'s numerics and preprocess, in evaluation mode; its numbers are ``model``'s own."""
    with torch.device("meta"):  # no memory, and no random numbers
        network = EfficientNet(
            model.arch,
            model.classes,
            model.channels,
            reading.numerics,
            reading.preprocess,
            model.labels,
            model.provenance,
        )
    tensors = {name: tensor.to(device or tensor.device) for name, tensor in counted(model.state_dict()).items()}
    network.load_state_dict(tensors, strict=False, assign=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)
    return network.eval()
