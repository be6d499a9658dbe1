"""The network in torch: one walk over `layers(arch)`, and a module for each layer."""

from __future__ import annotations

from contextlib import nullcontext
from math import sqrt
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from effnet.arch import Arch, Layer, layers, resolve_arch
from effnet.arch.serde import check_int
from effnet.metadata import Labels, ModelMetadata, Numerics, Preprocess, Provenance, default_crop_fraction
from effnet.net.blocks import FusedMBConv, MBConv
from effnet.net.layers import BATCH_NORMS, ConvNorm, freeze_running_stats


class EfficientNet(nn.Module):
    """A network of the family. Its modules are named as its layers: ``stem``, ``stage1`` …, ``head``, ``classifier``.

    It carries its own contract: ``arch``, ``numerics``, ``preprocess``, ``labels``, ``provenance``.
    ``gradient_checkpointing = True`` recomputes each block in the backward pass: less memory, up to twice the time.
    ``lean = True`` makes activated maps again in the backward pass: half the memory, and hardly more time. Set
    one of the two: checkpointed blocks that are lean keep more than either.
    ``frozen_norms = True`` keeps batch norm's statistics in use and unchanged in training mode; so does
    `surgery.freeze` for the parts that it freezes.
    """

    def __init__(
        self,
        arch: Arch,
        classes: int = 1000,
        channels: int = 3,
        numerics: Numerics | None = None,
        preprocess: Preprocess | None = None,
        labels: Labels | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        self.arch = arch
        self.classes = classes
        self.channels = channels
        self.numerics = numerics or Numerics()
        check_int("channels", channels, 1)
        seen = preprocess or Preprocess(
            (arch.resolution, arch.resolution), crop_fraction=default_crop_fraction(arch.resolution)
        )
        # Of weights for other channels than RGB nobody says what their mean is
        self.preprocess = seen if len(seen.mean) == channels else seen.with_channels(channels)
        self.labels = labels or Labels()
        self.provenance = provenance or Provenance("random weights")
        self.gradient_checkpointing = False
        self.frozen_until: str | None = None
        self._frozen_batch_norm = False
        for layer in layers(arch, classes, channels):
            match layer.kind:
                case "stem" | "head":
                    self.add_module(layer.kind, self._conv_norm(layer))
                case "classifier":
                    self.classifier = Classifier(layer.inputs, layer.channels)
                case _:
                    block = {"mbconv": MBConv, "fused": FusedMBConv}[layer.kind]
                    stage, position = layer.name.split(".")
                    if position == "0":
                        self.add_module(stage, nn.Sequential())
                    blocks = self.get_submodule(stage)
                    assert isinstance(blocks, nn.Sequential)
                    blocks.append(block.from_layer(layer, arch.activation, self.numerics))
        if not classes:
            self.classifier = nn.Identity()
        self.dropout = nn.Dropout(arch.dropout)

    stem: ConvNorm
    head: ConvNorm
    classifier: nn.Module

    @property
    def metadata(self) -> ModelMetadata:
        """All that the network says of itself beside its numbers, as it goes into every file."""
        return ModelMetadata(self.arch, self.numerics, self.preprocess, self.labels, self.provenance)

    def _conv_norm(self, layer: Layer) -> ConvNorm:
        return ConvNorm(
            layer.inputs,
            layer.channels,
            layer.kernel,
            layer.stride,
            activation=self.arch.activation,
            numerics=self.numerics,
        )

    @property
    def memory_efficient(self) -> bool:
        """Whether activated maps are made again in the backward pass in place of being kept."""
        return self.stem.memory_efficient

    @memory_efficient.setter
    def memory_efficient(self, lean: bool) -> None:
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.memory_efficient = lean

    @property
    def frozen_batch_norm(self) -> bool:
        """Whether batch norm uses its statistics, and leaves them as they are, in training mode too."""
        return self._frozen_batch_norm

    @frozen_batch_norm.setter
    def frozen_batch_norm(self, frozen: bool) -> None:
        self._frozen_batch_norm = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, or with ``False`` evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for name in self.frozen_names():
            self.get_submodule(name).eval()
        if self._frozen_batch_norm:
            for module in self.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def frozen_names(self) -> tuple[str, ...]:
        """The parts up to and with ``frozen_until``."""
        parts = self.feature_names()
        return parts[: parts.index(self.frozen_until) + 1] if self.frozen_until else ()

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> the maps after "stem", "stage1" …, "head", each (N, channels, height, width)."""
        maps: dict[str, Tensor] = {}
        for name in self.feature_names():
            for block in self._blocks(name):
                x = self._run_block(block, x)
            maps[name] = x
        return maps

    def feature_names(self) -> tuple[str, ...]:
        """The names of the parts that ``features`` walks through: "stem", "stage1" …, "head"."""
        return ("stem", *(f"stage{number}" for number in range(1, len(self.arch.stages) + 1)), "head")

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, head channels): the map of the head, averaged over its pixels."""
        for name in self.feature_names():
            for block in self._blocks(name):
                x = self._run_block(block, x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float, preprocessed -> (N, classes) logits; the embedding where there is no classifier."""
        logits: Tensor = self.classifier(self.dropout(self.embed(x)))
        return logits

    def _blocks(self, name: str) -> tuple[nn.Module, ...]:
        """The modules of a part, to be run one by one: nothing then keeps a stage's input alive to the stage's end."""
        part = self.get_submodule(name)
        return tuple(part) if isinstance(part, nn.Sequential) else (part,)

    def _run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(
                block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), freeze_running_stats(block))
            )
        else:
            out = block(x)
        return out


class Classifier(nn.Linear):
    """The last linear map, with the official initialisation: U(±1/√out), bias zero."""

    def reset_parameters(self) -> None:
        """TensorFlow's ``VARIANCE_SCALING``, scale 1/3, fan out, uniform."""
        bound = 1 / sqrt(self.out_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)


def create(arch: str | Arch, classes: int = 1000, channels: int = 3, numerics: Numerics | None = None) -> EfficientNet:
    """A network with random weights (the official initialisation), in training mode as every new torch module.

    ``classes=0`` builds no classifier: the network then answers with its embedding. Raises ``ValueError`` for an
    unknown name or a size that no network can have.
    """
    return EfficientNet(resolve_arch(arch), classes, channels, numerics)
