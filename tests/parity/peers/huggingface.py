"""EfficientNet of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import Tensor, nn

from effnet.arch import ARCHS
from effnet.data.torchvision_compat import declare_operators
from tests.parity.peers import random_weights

VARIANTS = ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8")
SUFFIXES = (".safetensors",)
FLOAT64 = True
LIMIT = 1e-8

# (hidden_dim, depthwise_padding) of google/efficientnet-b0 … b7, from transformers' conversion script. The others
# are not published; their configurations are extrapolated.
CONFIGURED: dict[str, tuple[int, list[int]]] = {
    "b0": (1280, []),
    "b1": (1280, [16]),
    "b2": (1408, [5, 8, 16]),
    "b3": (1536, [5, 18]),
    "b4": (1792, [6]),
    "b5": (2048, [13, 27]),
    "b6": (2304, [31]),
    "b7": (2560, [18]),
    "b8": (2816, []),
    "l2": (5504, []),
}


def config(name: str) -> Any:
    """Return its configuration of the network ``name``."""
    declare_operators()
    from transformers import EfficientNetConfig

    arch, (hidden, padding) = ARCHS[name], CONFIGURED[name]
    return EfficientNetConfig(
        width_coefficient=arch.width,
        depth_coefficient=arch.depth,
        image_size=arch.resolution,
        dropout_rate=arch.dropout,
        hidden_dim=hidden,
        depthwise_padding=padding,
        num_labels=1000,
    )


def create_network(name: str) -> Any:
    """Create its network as it comes."""
    from transformers import EfficientNetForImageClassification

    return EfficientNetForImageClassification(config(name))


def build(name: str) -> Any:
    """Create its network with random weights and statistics."""
    torch.manual_seed(0)
    network = create_network(name)
    for module in network.modules():  # with its initial standard deviation of 0.02 logits would vanish
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out" if module.groups == 1 else "fan_in")
    random_weights.randomize(_LogitsOnly(network))
    return network.eval()


class _LogitsOnly(nn.Module):
    """Its network with logits as the only output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x).logits
        return logits


def write(network: Any, path: Path) -> None:
    """Save a folder like its users, then copy its ``model.safetensors`` to ``path``."""
    folder = path.parent / "saved"
    network.save_pretrained(folder)
    copyfile(folder / "model.safetensors", path)


def read(name: str, path: Path) -> Any:
    """Load its network from a folder like its users; exactly its tensors must be there."""
    from transformers import EfficientNetForImageClassification

    folder = path.parent / "loaded"
    folder.mkdir()
    copyfile(path, folder / "model.safetensors")
    config(name).save_pretrained(folder)
    network, info = EfficientNetForImageClassification.from_pretrained(folder, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    missing = {key for key in problems.pop("missing_keys", ()) if not key.endswith("num_batches_tracked")}
    assert not missing, missing
    assert not problems, json.dumps(problems, default=str)
    return network.eval()


def predict(network: Any, x: Tensor) -> Tensor:
    """Return logits in float64."""
    return _LogitsOnly(network.double())(x)


def sizes(name: str) -> tuple[tuple[int, int], ...]:
    """Its padding is a list of blocks that is correct at the native size only."""
    native = ARCHS[name].resolution
    return ((native, native),)
