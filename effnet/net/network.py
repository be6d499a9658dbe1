"""The network in PyTorch: one module for each layer of `effnet.arch.layers`."""

from contextlib import nullcontext
from math import sqrt
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from effnet.arch import Arch, layers, resolve_arch, serde
from effnet.metadata import Labels, ModelMetadata, Numerics, Preprocess, Provenance, default_crop_fraction
from effnet.net.blocks import FusedMBConv, MBConv
from effnet.net.layers import BATCH_NORMS, ConvNorm, freeze_running_stats


class EfficientNet(nn.Module):
    """An EfficientNet. Its modules are named like its layers: ``stem``, ``stage1``, …, ``head``, ``classifier``.

    It carries its metadata: ``arch``, ``numerics``, ``preprocess``, ``labels``, ``provenance``. Settings for training:

    - ``gradient_checkpointing = True`` recomputes each block in the backward pass: less memory, up to twice the time.
    - ``memory_efficient = True`` recomputes activated maps in the backward pass: half the memory in hardly more time.
      Use one of the two: checkpointed blocks that are memory-efficient keep more than either.
    - ``frozen_batch_norm = True`` uses batch norm's running statistics in training mode and leaves them unchanged, as
      `effnet.net.surgery.freeze` does for the stages that it freezes.

    Args:
        arch: The architecture.
        classes: Outputs of the classifier; 0: no classifier, the network returns embeddings.
        channels: Input channels.
        numerics: Padding and batch norm's ε. Default: those of the official networks.
        preprocess: How images become inputs. Default: the arch's resolution and ImageNet's mean and std.
        labels: Names of the classes.
        provenance: Where the weights come from.

    Raises:
        ValueError: ``classes`` is negative or ``channels`` below 1.
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
        serde.check_int("channels", channels, 1)
        side = arch.resolution
        preprocess = preprocess or Preprocess((side, side), crop_fraction=default_crop_fraction(side))
        # There is no published mean and std for inputs other than RGB
        self.preprocess = preprocess if len(preprocess.mean) == channels else preprocess.with_channels(channels)
        self.labels = labels or Labels()
        self.provenance = provenance or Provenance("random weights")
        self.gradient_checkpointing = False
        self.frozen_until: str | None = None
        self._frozen_batch_norm = False
        for layer in layers(arch, classes, channels):
            match layer.kind:
                case "stem" | "head":
                    shape = (layer.inputs, layer.channels, layer.kernel, layer.stride)
                    self.add_module(layer.kind, ConvNorm(*shape, 1, arch.activation, self.numerics))
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
        """All metadata of the network, as written to every file."""
        return ModelMetadata(self.arch, self.numerics, self.preprocess, self.labels, self.provenance)

    @property
    def memory_efficient(self) -> bool:
        """Whether activated maps are recomputed in the backward pass instead of kept."""
        return self.stem.memory_efficient

    @memory_efficient.setter
    def memory_efficient(self, enabled: bool) -> None:
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.memory_efficient = enabled

    @property
    def frozen_batch_norm(self) -> bool:
        """Whether batch norm uses its running statistics, unchanged, in training mode."""
        return self._frozen_batch_norm

    @frozen_batch_norm.setter
    def frozen_batch_norm(self, frozen: bool) -> None:
        self._frozen_batch_norm = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or with ``False`` evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen_names():
            self.get_submodule(name).eval()
        if self._frozen_batch_norm:
            for module in self.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def frozen_names(self) -> tuple[str, ...]:
        """Return the names in `feature_names` up to and including ``frozen_until``."""
        names = self.feature_names()
        return names[: names.index(self.frozen_until) + 1] if self.frozen_until else ()

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> the maps after "stem", "stage1", …, "head", each (N, channels, height, width)."""
        maps: dict[str, Tensor] = {}
        for name in self.feature_names():
            for block in self._blocks(name):
                x = self._run_block(block, x)
            maps[name] = x
        return maps

    def feature_names(self) -> tuple[str, ...]:
        """Return the keys of `features`: "stem", "stage1", …, "head"."""
        return ("stem", *(f"stage{number}" for number in range(1, len(self.arch.stages) + 1)), "head")

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, head channels): global average pooling of the head's map."""
        for name in self.feature_names():
            for block in self._blocks(name):
                x = self._run_block(block, x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float, preprocessed -> (N, classes) logits; without a classifier, the embedding."""
        logits: Tensor = self.classifier(self.dropout(self.embed(x)))
        return logits

    def _blocks(self, name: str) -> tuple[nn.Module, ...]:
        """Return the blocks of a stage, to be run one by one so that the stage's input is freed early."""
        stage = self.get_submodule(name)
        return tuple(stage) if isinstance(stage, nn.Sequential) else (stage,)

    def _run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(
                block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), freeze_running_stats(block))
            )
        else:
            out = block(x)
        return out


class Classifier(nn.Linear):
    """The final linear layer, with the official initialization: U(±1/√out), bias zero."""

    def reset_parameters(self) -> None:
        """Initialize as TensorFlow's ``VARIANCE_SCALING``, scale 1/3, fan out, uniform."""
        bound = 1 / sqrt(self.out_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)


def create(arch: str | Arch, classes: int = 1000, channels: int = 3, numerics: Numerics | None = None) -> EfficientNet:
    """Create a network with random weights (the official initialization), in training mode.

    Args:
        arch: A network, the name of a published one, or a JSON file.
        classes: Outputs of the classifier; 0: no classifier, the network returns embeddings.
        channels: Input channels.
        numerics: Padding and batch norm's ε. Default: those of the official networks.

    Raises:
        ValueError: The name is unknown, ``classes`` is negative or ``channels`` below 1.

    Example:
        >>> model = effnet.create("b0", classes=10).eval()
        >>> model(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 10])
    """
    return EfficientNet(resolve_arch(arch), classes, channels, numerics)
