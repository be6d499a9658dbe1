"""Architectures as data: rows (`Stage`), a network of rows (`Arch`), and the one walk over them (`layers`).

The PyTorch network, the count, the diagrams and the names of the weights are all derived from that walk; no other
module loops over stages to compute the size of a layer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from effnet.arch.rounding_rules import round_channels, stage_depths
from effnet.arch.serde import Record, check_choice, check_float, check_int

BLOCK_KINDS = ("mbconv", "fused")
ACTIVATIONS = ("silu", "relu", "relu6")


@dataclass(frozen=True)
class Stage(Record):
    """One row of the paper's table: consecutive equal blocks (Table 1 of arXiv:1905.11946).

    ``channels`` and ``layers`` are before scaling by the width and depth of the `Arch`. Raises ``ValueError`` for a
    value out of range.
    """

    block: str  # "mbconv" or "fused"
    expand: int  # expansion ratio: inner channels / input channels; 1: no expansion
    kernel: int  # of the depthwise (mbconv) or of the fused convolution
    stride: int  # of the first layer; the others have stride 1
    channels: int  # output channels
    layers: int
    squeeze: float = 0.0  # squeeze-excite channels / the block's *input* channels; 0: no squeeze-excite
    residual: bool = True  # add the input if the stride is 1 and the channels match; False in EdgeTPU's first row
    expand_from: int = (
        0  # expand this many channels (before scaling) instead of the input's, even by 1; EdgeTPU's row 1
    )
    expanded: tuple[int, ...] = ()  # inner channels of each block (before scaling) instead of the ratio's; pruned rows
    squeezed: tuple[int, ...] = ()  # squeeze-excite channels of each block (before scaling), likewise

    def __post_init__(self) -> None:
        check_choice("block", self.block, BLOCK_KINDS)
        check_int("expand", self.expand, 1)
        _check_kernel_and_stride(self.kernel, self.stride)
        check_int("channels", self.channels, 1)
        check_int("layers", self.layers, 1)
        check_float("squeeze", self.squeeze, 0, 1)
        if not isinstance(self.residual, bool):
            raise ValueError(f"residual must be true or false, got {self.residual!r}")
        check_int("expand_from", self.expand_from, 0)
        for name, sizes in (("expanded", self.expanded), ("squeezed", self.squeezed)):
            if not isinstance(sizes, tuple) or len(sizes) not in (0, self.layers):
                raise ValueError(f"{name} must be empty or have one number for each of the {self.layers} layers")
            for size in sizes:
                check_int(name, size, 1)
        if self.squeezed and not self.squeeze:
            raise ValueError("squeezed requires a squeeze above 0")

    def with_layers(self, layers: int) -> "Stage":
        """Return a copy with that many layers; those beyond the listed channels are like the last one listed."""

        def resize(sizes: tuple[int, ...]) -> tuple[int, ...]:
            return (*sizes, *sizes[-1:] * (layers - len(sizes)))[:layers]

        return replace(self, layers=layers, expanded=resize(self.expanded), squeezed=resize(self.squeezed))


@dataclass(frozen=True)
class Arch(Record):
    """A network as data: its rows and how they are scaled. Frozen, hashable, serializable to JSON.

    ``resolution`` is the side in pixels at which the published weights are evaluated, ``dropout`` the rate before the
    classifier, ``drop_path`` the stochastic-depth rate, which grows linearly over the blocks and which the last one
    nearly reaches. Raises ``ValueError`` for a value out of range.

    Example:
        >>> effnet.Arch.from_json(effnet.ARCHS["b0"].to_json()) == effnet.ARCHS["b0"]
        True
    """

    RECORDS = MappingProxyType({"stages": Stage})

    name: str
    stages: tuple[Stage, ...]
    width: float = 1.0
    depth: float = 1.0
    resolution: int = 224
    dropout: float = 0.2
    drop_path: float = 0.2
    stem: int = 32
    head: int = 1280
    activation: str = "silu"
    stem_stride: int = 2
    scale_ends: bool = True  # False (Lite): stem and head keep their channels, the first and last stage their layers
    round_floor: float = 0.9  # rounded channels are at least this fraction of the unrounded; 0 (no such rule) in V2-B
    divisor: int = 8  # of all channels (the official ``depth_divisor``)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a non-empty string, got {self.name!r}")
        if not isinstance(self.stages, tuple) or not self.stages or not all(isinstance(s, Stage) for s in self.stages):
            raise ValueError("stages must be a tuple of at least one Stage")
        check_float("width", self.width, 0, 100, exclusive=True)
        check_float("depth", self.depth, 0, 100, exclusive=True)
        check_int("resolution", self.resolution, 1)
        check_float("dropout", self.dropout, 0, 0.99)
        check_float("drop_path", self.drop_path, 0, 0.99)
        check_int("stem", self.stem, 1)
        check_int("head", self.head, 1)
        check_choice("activation", self.activation, ACTIVATIONS)
        _check_kernel_and_stride(3, self.stem_stride)
        check_float("round_floor", self.round_floor, 0, 1)
        check_int("divisor", self.divisor, 1)

    def scale_channels(self, channels: int) -> int:
        """Return a row's ``channels`` scaled by ``width`` and rounded."""
        return round_channels(channels, self.width, self.round_floor, self.divisor)


@dataclass(frozen=True)
class Layer:
    """One layer at its actual size. ``name`` is the module's path in the network and the prefix of its tensors."""

    name: str  # "stem", "stage1.0" … "stage7.0", "head", "classifier"
    kind: str  # "stem", "mbconv", "fused", "head", "classifier"
    stage: int  # from 1 for blocks, as in features(); 0 for the stem, one past the last for head and classifier
    inputs: int  # input channels
    channels: int  # output channels
    kernel: int = 1
    stride: int = 1
    expanded: int = 0  # inner channels of a block with expansion; 0: no expansion
    squeezed: int = 0  # inner channels of the squeeze-excite; 0: none
    residual: bool = False  # whether the input is added
    drop_path: float = 0.0  # stochastic-depth rate

    def __post_init__(self) -> None:
        check_int("inputs", self.inputs, 1)
        check_int("channels", self.channels, 1)
        _check_kernel_and_stride(self.kernel, self.stride)
        check_int("expanded", self.expanded, 0)
        check_int("squeezed", self.squeezed, 0)
        check_float("drop_path", self.drop_path, 0, 0.99)
        if self.residual and (self.stride != 1 or self.inputs != self.channels):
            raise ValueError("a residual requires stride 1 and as many output as input channels")


def block_layer(
    kind: str,
    inputs: int,
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    expand: int = 6,
    squeeze: float = 0.0,
    residual: bool = True,
    drop_path: float = 0.0,
    *,
    expand_from: int = 0,
    expanded: int = 0,
    squeezed: int = 0,
    name: str = "block",
    stage: int = 1,
) -> Layer:
    """Return a block with these ratios at its actual size. Raises ``ValueError`` for an impossible size.

    ``expanded`` and ``squeezed`` above 0 are the channels themselves, whatever the ratios.
    """
    check_choice("block", kind, BLOCK_KINDS)
    check_int("inputs", inputs, 1)
    check_int("channels", channels, 1)
    check_int("expand", expand, 1)
    check_float("squeeze", squeeze, 0, 1)
    if not expanded and (expand > 1 or expand_from):
        expanded = (expand_from or inputs) * expand
    if not squeezed and squeeze:
        squeezed = max(1, int(inputs * squeeze))  # of the input channels, not of the expanded ones
    return Layer(
        name,
        kind,
        stage,
        inputs,
        channels,
        kernel,
        stride,
        expanded,
        squeezed,
        residual=residual and stride == 1 and inputs == channels,
        drop_path=drop_path,
    )


def layers(arch: Arch, classes: int = 1000, channels: int = 3) -> Iterator[Layer]:
    """Yield every layer of a network at its actual size, from the stem to the classifier.

    Channels and layers are rounded by `effnet.arch.rounding_rules`. Stochastic depth grows linearly with the block's
    index, as in the official code: block i of N has ``arch.drop_path · i / N``.

    Args:
        arch: The network.
        classes: Outputs of the classifier, 0 for none.
        channels: Input channels.

    Raises:
        ValueError: ``classes`` is negative or ``channels`` below 1.

    Example:
        >>> [layer.name for layer in effnet.layers(effnet.ARCHS["b0"])][:3]
        ['stem', 'stage1.0', 'stage2.0']
    """
    check_int("classes", classes, 0)
    check_int("channels", channels, 1)
    stem, head = (arch.scale_channels(end) if arch.scale_ends else end for end in (arch.stem, arch.head))
    yield Layer("stem", "stem", 0, channels, stem, kernel=3, stride=arch.stem_stride)
    depths = stage_depths(arch)
    inputs, block_index, blocks = stem, 0, sum(depths)
    for stage_index, (stage, repeats) in enumerate(zip(arch.stages, depths, strict=True), start=1):
        outputs = arch.scale_channels(stage.channels)
        expand_from = stage.expand_from and arch.scale_channels(stage.expand_from)
        for position in range(repeats):
            yield block_layer(
                stage.block,
                inputs,
                outputs,
                stage.kernel,
                stage.stride if position == 0 else 1,
                stage.expand,
                stage.squeeze,
                stage.residual,
                arch.drop_path * block_index / blocks,
                expand_from=expand_from,
                expanded=_scale_listed(arch, stage.expanded, position),
                squeezed=_scale_listed(arch, stage.squeezed, position),
                name=f"stage{stage_index}.{position}",
                stage=stage_index,
            )
            inputs, block_index = outputs, block_index + 1
    yield Layer("head", "head", len(arch.stages) + 1, inputs, head)
    if classes:
        yield Layer("classifier", "classifier", len(arch.stages) + 1, head, classes)


def _scale_listed(arch: Arch, sizes: tuple[int, ...], position: int) -> int:
    """Return the scaled channels listed for a block; 0 if none are. Blocks that scaling adds are as the last one."""
    return arch.scale_channels(sizes[min(position, len(sizes) - 1)]) if sizes else 0


def _check_kernel_and_stride(kernel: int, stride: int) -> None:
    check_int("kernel", kernel, 1)
    if kernel % 2 == 0:
        raise ValueError(f"kernel must be odd (1, 3, 5, …), got {kernel}")
    check_int("stride", stride, 1)
    if stride > 2:
        raise ValueError(f"stride must be 1 or 2, got {stride}")
