"""Numbers, sizes, layers and operations as short texts, for diagrams, tables and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effnet.draw.font import clean_text

if TYPE_CHECKING:
    from effnet.arch import Arch, Layer, Operation

ACTIVATION_NAMES = {"silu": "SiLU", "relu": "ReLU", "relu6": "ReLU6"}


def format_si(value: float, unit: str = "") -> str:
    """Return ``value`` with three digits and a prefix: ``464``, ``5.29 M``, ``1.03 G``, with a unit ``19.3 MB``."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{f'{value / factor:#.3g}'.rstrip('.')} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def format_percent(fraction: float) -> str:
    """Return a fraction with about two significant digits: ``33 %``, ``4.1 %``, ``<0.1 %``."""
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{100 * fraction:.0f} %" if fraction >= 0.0995 else f"{100 * fraction:.1f} %"


def format_size(size: tuple[int, int]) -> str:
    """Return (height, width) as ``224×224``."""
    return f"{size[0]}×{size[1]}"


def format_shape(size: tuple[int, int], channels: int) -> str:
    """Return a map's shape as the papers write it: ``112×112×32``."""
    return f"{format_size(size)}×{channels}"


def arch_title(arch: Arch) -> str:
    """Return the arch's name, which anyone may choose, on one printable line."""
    return clean_text(arch.name)


def operator_name(layer: Layer, expand: int) -> str:
    """Return a layer's operator as the papers write it: ``MBConv6``, ``Fused-MBConv4``, ``Conv``, ``Linear``."""
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
    """Return the kernel as ``5×5``; empty for the classifier."""
    return "" if layer.kind == "classifier" else f"{layer.kernel}×{layer.kernel}"


def operation_kind(operation: Operation) -> str:
    """Return the last part of the operation's name: expand, depthwise, fused, reduce, project, stem, …

    The squeeze-excite's own expansion is "excite", to distinguish it from the block's.
    """
    *path, last = operation.name.split(".")
    return "excite" if last == "expand" and path and path[-1] == "squeeze_excite" else last


def describe_operation(operation: Operation) -> str:
    """Return a short text such as ``expand 1×1``, ``depthwise 5×5, stride 2`` or ``squeeze: pool, linear``."""
    kind = operation_kind(operation)
    size = f"{operation.kernel}×{operation.kernel}"
    stride = f", stride {operation.stride}" if operation.stride > 1 else ""
    match kind:
        case "reduce":
            return "squeeze: pool, linear"
        case "excite":
            return "excite: linear, scale"
        case "classifier":
            return "pool, linear"
        case "stem" | "head" | "fused":
            return f"{'fused conv' if kind == 'fused' else 'conv'} {size}{stride}"
        case _:
            return f"{kind} {size}{stride}"
