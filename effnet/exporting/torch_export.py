"""Writing a network as ``.pt2``, torch's own exported program, which runs without this package."""

from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effnet.arch import Arch, layers
from effnet.net import EfficientNet, surgery
from effnet.net.layers import Conv
from effnet.runtime.io_spec import IOSpec
from effnet.tasks import task_of


def write_torch_export(path: Path, model: EfficientNet, io_spec: IOSpec) -> None:
    """Write ``model`` as a program, images -> outputs by name, for any batch size; if open, sides from `min_side`."""
    folded = surgery.fold_batch_norm(model).float()
    if io_spec.size is None:
        _replace_same_padding(folded)
    height, width = io_spec.size or _example_size(model)
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    # A batch of two: torch specializes on a batch of one
    shape: tuple[int, ...] = (2, height, width, model.channels)
    sides = 1, 2
    if io_spec.input == "normalized":
        shape, sides = (2, model.channels, height, width), (2, 3)
    if io_spec.size is None:
        for side, name in zip(sides, ("height", "width"), strict=True):
            dynamic[side] = torch.export.Dim(name, min=min_side(model.arch))
    example = torch.zeros(shape, dtype=torch.uint8 if io_spec.input == "pixels" else torch.float32)
    with torch.no_grad():
        program = torch.export.export(
            _Program(folded, io_spec).eval(), (example,), dynamic_shapes={"images": dynamic}, strict=False
        )
    buffer = BytesIO()  # torch's own file writer aborts the process if the disk is full
    torch.export.save(program, buffer, extra_files=io_spec.to_file_metadata(model.metadata))
    path.write_bytes(buffer.getbuffer())


def min_side(arch: Arch) -> int:
    """Return the smallest side for any size: below it the last map has one pixel, for torch a separate case."""
    return prod(layer.stride for layer in layers(arch)) + 1


def _example_size(model: EfficientNet) -> tuple[int, int]:
    height, width = (max(side, 2 * min_side(model.arch)) for side in model.preprocess.size)
    return height, width if width != height else width + 2  # equal sides would become one dimension


class _Program(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, network: EfficientNet, io_spec: IOSpec) -> None:
        super().__init__()
        self.network, self.io_spec = network, io_spec
        self.register_buffer("mean", torch.tensor(network.preprocess.mean))
        self.register_buffer("std", torch.tensor(network.preprocess.std))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if self.io_spec.input != "normalized":
            images = ((images / 255 - self.mean) / self.std).permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        embedding = self.network.embed(images)
        if not self.network.classes:
            return {"embedding": embedding}
        out = self.network.classifier(embedding)
        if self.io_spec.output == "probabilities":
            out = task_of(self.network.labels.task).torch_activate(out)
        outputs = {self.io_spec.output: out}
        return {**outputs, "embedding": embedding} if self.io_spec.embedding else outputs


class _SamePadConv(nn.Module):
    """A strided convolution with 'same' padding as a formula of the size; `Conv` branches on the size instead."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.weight, self.bias, self.groups = conv.weight, conv.bias, conv.groups
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        assert self.stride == 2, "the formula is for stride 2"

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel > 1:
            half = self.kernel // 2
            # s % 2, written so that torch derives ceil(s / 2) for the result
            odd_height, odd_width = (2 * ((x.shape[side] + 1) // 2) - x.shape[side] for side in (2, 3))
            x = nn.functional.pad(x, (half - 1 + odd_width, half, half - 1 + odd_height, half))
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _replace_same_padding(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Conv) and child.same and child.stride[0] > 1:
            setattr(module, name, _SamePadConv(child))
        else:
            _replace_same_padding(child)
