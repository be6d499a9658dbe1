"""Rounding of scaled channels, layers and resolution to what can be built.

Scaling gives real numbers, a network has whole ones: channels are multiples of 8 (the official ``round_filters``),
layers are rounded up (``round_repeats``), and resolutions, for which the paper states no rule, are multiples of 4.
What rounding does to a scaled network as a whole, `effnet.rounding` reports.

Sources: tensorflow/tpu ``efficientnet_model.py``, google/automl ``efficientnetv2/effnetv2_model.py``.
"""

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effnet.arch.spec import Arch

RESOLUTION_STEP = 4  # our choice: the resolutions of B0–B7 are all multiples of 4


def round_channels(channels: int, width: float, floor: float = 0.9, divisor: int = 8) -> int:
    """Round ``channels × width`` to the nearest multiple of ``divisor``, but not below ``floor`` times the product.

    Source: ``round_filters`` in tensorflow/tpu ``efficientnet_model.py`` (floor .9) and google/automl
    ``efficientnetv2`` (no floor).

    Example:
        >>> round_channels(16, 1.2), round_channels(16, 1.2, floor=0)
        (24, 16)
    """
    exact = channels * width
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < floor * exact else rounded


def round_layers(layers: int, depth: float) -> int:
    """Round ``layers × depth`` up (the official ``round_repeats``)."""
    return ceil(layers * depth)


def round_resolution(pixels: float) -> int:
    """Round the side of an image to the nearest multiple of `RESOLUTION_STEP`, at least one of them.

    Example:
        >>> round_resolution(224 * 1.15)
        256
    """
    return max(RESOLUTION_STEP, round(pixels / RESOLUTION_STEP) * RESOLUTION_STEP)


def stage_depths(arch: "Arch") -> tuple[int, ...]:
    """Return the layers of each stage after scaling by ``arch.depth``; Lite's first and last stage keep theirs."""
    ends = () if arch.scale_ends else (0, len(arch.stages) - 1)
    return tuple(row.layers if i in ends else round_layers(row.layers, arch.depth) for i, row in enumerate(arch.stages))
