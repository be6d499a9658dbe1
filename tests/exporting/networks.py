"""Networks whose parameters all differ from their defaults."""

from __future__ import annotations

from dataclasses import replace

import torch

from effnet.arch import ARCHS, Arch, Stage
from effnet.exporting.verify import Agreement, FileRunner, compare_outputs, sample_images
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import EfficientNet, create
from effnet.runtime.io_spec import IOSpec

MIXED = Numerics("same", 1e-3, "symmetric")
SYMMETRIC = Numerics("symmetric", 1e-5)
NETWORKS = [
    *((name, numerics) for name in ("nano", "v2_b0", "lite0", "b0") for numerics in (Numerics(), SYMMETRIC)),
    ("edge_s", MIXED),
]
# Five strides, a 5×5 kernel and a squeeze-excite, as in B0, and nothing else
DEEP = replace(
    ARCHS["nano"],
    name="deep",
    stages=(
        Stage("fused", channels=8, layers=1, kernel=3, stride=2, expand=2),
        Stage("mbconv", channels=8, layers=2, kernel=5, stride=2, expand=2, squeeze=0.25),
        Stage("mbconv", channels=12, layers=1, kernel=3, stride=2, expand=2, squeeze=0.25),
        Stage("mbconv", channels=16, layers=1, kernel=5, stride=2, expand=2, squeeze=0.25),
    ),
    stem_stride=2,
)


def network(
    arch: str | Arch = "nano",
    numerics: Numerics | None = None,
    size: tuple[int, int] = (32, 32),
    classes: int = 5,
    channels: int = 3,
) -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create(arch, classes, channels, numerics).eval()
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if (".norm." in name and value.is_floating_point()) or name.endswith("bias"):
                    value.uniform_(0.5, 1.5) if name.endswith(("norm.weight", "var")) else value.normal_(0, 0.1)
    mean, std = (tuple(first + 0.05 * index for index in range(channels)) for first in (0.4, 0.2))
    model.preprocess = Preprocess(size, mean=mean, std=std)
    model.labels = Labels(tuple(f"label {index}" for index in range(classes)))
    return model


def agreement(run: FileRunner, model: EfficientNet, io_spec: IOSpec, *sizes: tuple[int, int]) -> Agreement:
    """Compare ``run`` with ``model`` on the built-in images at these sizes."""
    images = [sample_images(replace(model.preprocess, size=size), model.channels) for size in sizes]
    return compare_outputs(run, model, io_spec, images)
