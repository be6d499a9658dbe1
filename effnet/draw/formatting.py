"""What is written in diagrams and tables: numbers, shapes and the names of things, the same in every one of them."""

from __future__ import annotations

from effnet.arch import Arch, Layer, Operation
from effnet.draw.font import clean_text

ACTIVATION_NAMES = {"silu": "SiLU", "relu": "ReLU", "relu6": "ReLU6"}


def format_si(value: float, unit: str = "") -> str:
    """``value`` in three digits with a prefix: ``464``, ``5.29 M``, ``386 M``, ``1.03 G``, with a unit ``19.3 MB``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{f'{value / factor:#.3g}'.rstrip('.')} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def format_percent(share: float) -> str:
    """A fraction in as few digits as tell something: ``33 %``, ``4.1 %``, ``<0.1 %``."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def format_size(size: tuple[int, int]) -> str:
    """(height, width) as ``224×224``."""
    return f"{size[0]}×{size[1]}"


def format_shape(size: tuple[int, int], channels: int) -> str:
    """A map as the papers write it: ``112×112×32``."""
    return f"{format_size(size)}×{channels}"


def arch_title(arch: Arch) -> str:
    """The arch's name, which its author chose, on one line."""
    return clean_text(arch.name)


def operator_name(layer: Layer, expand: int) -> str:
    """What a layer is, in the papers' words: ``MBConv6``, ``Fused-MBConv4``, ``Conv``, ``Linear``."""
    match layer.kind:
        case "mbconv":
            return f"MBConv{expand}"
        case "fused":
            return f"Fused-MBConv{expand}"
        case "classifier":
            return "Linear"
        case _:
            return "Conv"


def format_kernel(layer: Layer) -> str:
    """``5×5``; nothing for the classifier."""
    return "" if layer.kind == "classifier" else f"{layer.kernel}×{layer.kernel}"


def operation_kind(operation: Operation) -> str:
    """The last part of the operation's name: expand, depthwise, fused, reduce, project, stem, head, classifier.

    The squeeze-excite's own expansion is "excite", so that it is not taken for the block's.
    """
    *path, last = operation.name.split(".")
    return "excite" if last == "expand" and path and path[-1] == "squeeze_excite" else last


def describe_operation(operation: Operation) -> str:
    """``expand 1×1``, ``depthwise 5×5, stride 2``, ``pool, reduce``, ``excite, sigmoid``."""
    what = operation_kind(operation)
    size = f"{operation.kernel}×{operation.kernel}"
    stride = f", stride {operation.stride}" if operation.stride > 1 else ""
    match what:
        case "reduce":
            return "squeeze: pool, linear"
        case "excite":
            return "excite: linear, scale"
        case "classifier":
            return "pool, linear"
        case "stem" | "head" | "fused":
            return f"{'fused conv' if what == 'fused' else 'conv'} {size}{stride}"
        case _:
            return f"{what} {size}{stride}"
