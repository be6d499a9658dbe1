"""From a network to a ``.pt2``: torch's own exported program, which runs without this package."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from effnet.arch import Arch, layers
from effnet.exporting.verify import FileRunner
from effnet.net import EfficientNet
from effnet.net.layers import Conv
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.io_spec import IOSpec
from effnet.tasks import task_of


def write_torch_export(path: Path, model: EfficientNet, io_spec: IOSpec) -> None:
    """``model`` as a program for any number of pictures; with ``interface.size`` None, of any size from `least` on.

    It answers with a dict: "probabilities", "logits" or "values"; "embedding". Contract and interface lie in
    ``extra_files``.
    """
    folded = fold_batch_norm(model).float()
    if io_spec.size is None:
        _replace_same_padding(folded)
    height, width = io_spec.size or _example_size(model)
    dynamic: dict[int, Any] = {0: torch.export.Dim("pictures", min=1)}
    # Two pictures: of one, torch would think that there shall never be more
    shape: tuple[int, ...] = (2, height, width, model.channels)
    sides = 1, 2
    if io_spec.input == "normalised":
        shape, sides = (2, model.channels, height, width), (2, 3)
    if io_spec.size is None:
        for side, name in zip(sides, ("height", "width"), strict=True):
            dynamic[side] = torch.export.Dim(name, min=min_side(model.arch))
    example = torch.zeros(shape, dtype=torch.uint8 if io_spec.input == "pixels" else torch.float32)
    with torch.no_grad():
        program = torch.export.export(
            _Program(folded, io_spec).eval(), (example,), dynamic_shapes={"pictures": dynamic}, strict=False
        )
    buffer = BytesIO()  # torch's own writer ends the whole process where the disk is full
    torch.export.save(program, buffer, extra_files=io_spec.to_file_metadata(model.metadata))
    path.write_bytes(buffer.getbuffer())


def min_side(arch: Arch) -> int:
    """The smallest side of a program for any size.

    Below it the last map is one pixel wide, which torch treats as a case of its own.
    """
    stride = 1
    for layer in layers(arch):
        stride *= layer.stride
    return stride + 1


def run_torch_file(path: Path) -> FileRunner:
    """The file at ``path`` in torch."""
    program = torch.export.load(path).module()

    def run(pictures: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            return {name: out.numpy() for name, out in program(torch.from_numpy(pictures)).items()}

    return run


def _example_size(model: EfficientNet) -> tuple[int, int]:
    """A size to follow the network at; which it is does not matter, if only it is none of those that are special."""
    height, width = (max(side, 2 * min_side(model.arch)) for side in model.preprocess.size)
    return height, width if width != height else width + 2  # or the two would be taken for one


class _Program(nn.Module):
    """The network between the ends that the interface asks for."""

    def __init__(self, network: EfficientNet, interface: IOSpec) -> None:
        super().__init__()
        self.network, self.io_spec = network, interface
        self.register_buffer("mean", torch.tensor(network.preprocess.mean))
        self.register_buffer("std", torch.tensor(network.preprocess.std))

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pictures as the interface has them -> its outputs by name."""
        if self.io_spec.input != "normalised":
            images = ((images / 255 - self.mean) / self.std).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        embedding = self.network.embed(images)
        if not self.network.classes:
            return {"embedding": embedding}
        logits = self.network.classifier(embedding)
        wanted = self.io_spec.output
        if wanted == "probabilities":
            logits = task_of(self.network.labels.task).torch_activate(logits)
        answer = {wanted: logits}
        return {**answer, "embedding": embedding} if self.io_spec.embedding else answer


class _SamePadConv(nn.Module):
    """A strided convolution with 'same' padding as a formula of the size: `Conv` asks whether it comes out even."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.weight, self.bias, self.groups = conv.weight, conv.bias, conv.groups
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        assert self.stride == 2, "the formula is that of stride 2"

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, channels, ceil(H / 2), ceil(W / 2))."""
        if self.kernel > 1:
            half = self.kernel // 2
            # s % 2 spelled so that torch sees what remains: ceil(s / 2)
            odd_high, odd_wide = (2 * ((x.shape[side] + 1) // 2) - x.shape[side] for side in (2, 3))
            x = F.pad(x, (half - 1 + odd_wide, half, half - 1 + odd_high, half))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _replace_same_padding(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Conv) and child.same and child.stride[0] > 1:
            setattr(module, name, _SamePadConv(child))
        else:
            _replace_same_padding(child)
