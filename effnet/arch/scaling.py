"""Compound scaling for any real φ, and the effect of rounding (section 3.3 of arXiv:1905.11946).

Depth grows by α^φ, width by β^φ, resolution by γ^φ; the paper's α·β²·γ² is 1.92, so that each step of φ costs about
twice the MACs. B1–B7 are not exact powers of one φ: they are data in `effnet.arch.variants`.
"""

from dataclasses import dataclass, replace

from effnet.arch import counting, serde, variants
from effnet.arch.rounding_rules import round_resolution, stage_depths
from effnet.arch.spec import Arch, layers

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15  # section 3.3, step 1: found for B0 by grid search

DROPOUT_STEP = 0.3 / 7  # section 5.2: dropout grows linearly from .2 for B0 to .5 for B7
MAX_DROPOUT = 0.5


@dataclass(frozen=True)
class ScaleFactors:
    """Multipliers of width and depth, the resolution in pixels, and the MACs for one image of that resolution."""

    width: float
    depth: float
    resolution: float
    macs: float


@dataclass(frozen=True)
class StageRounding:
    """Channels and layers of one stage before and after rounding."""

    channels_requested: float
    channels: int
    layers_requested: float
    layers: int


@dataclass(frozen=True)
class RoundingReport:
    """What φ requests against what can be built: channels are multiples of the divisor, layers and pixels integers."""

    base: Arch
    arch: Arch
    phi: float
    requested: ScaleFactors
    actual: ScaleFactors
    stages: tuple[StageRounding, ...]


def scale(arch: str | Arch, phi: float, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA) -> Arch:
    """Scale a network by φ: depth × α^φ, width × β^φ, resolution × γ^φ (equation 3 of arXiv:1905.11946).

    Args:
        arch: The base network, or the name of a published one.
        phi: Any real number in [−20, 20]; negative shrinks, 0 returns ``arch`` itself.
        alpha: Growth of the depth per step of φ, at least 1.
        beta: Growth of the width.
        gamma: Growth of the resolution, which is rounded to the nearest multiple of 4.

    Returns:
        The scaled network. Its dropout changes by .3/7 per step within [0, .5] (B0 has .2, B7 .5).

    Raises:
        ValueError: φ is not in range, or a coefficient is below 1.

    Example:
        >>> effnet.scale("b0", 1).resolution
        256
    """
    base = variants.resolve_arch(arch)
    serde.check_float("phi", phi, -20, 20)
    for name, coefficient in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        serde.check_float(name, coefficient, 1, 100)
    if phi == 0:
        return base
    return replace(
        base,
        name=f"{base.name}_phi{phi:g}",
        depth=base.depth * alpha**phi,
        width=base.width * beta**phi,
        resolution=round_resolution(base.resolution * gamma**phi),
        dropout=scale_dropout(base, phi),
    )


def scale_dropout(base: Arch, phi: float) -> float:
    """Return the dropout of ``base`` scaled by φ: .3/7 more per step, within [0, .5]."""
    return round(min(max(base.dropout + DROPOUT_STEP * phi, 0.0), max(MAX_DROPOUT, base.dropout)), 3)


def rounding(
    arch: str | Arch,
    phi: float,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    *,
    classes: int = 1000,
    channels: int = 3,
) -> RoundingReport:
    """Report the effect of rounding in `scale`: width, depth, resolution and MACs as requested and as built.

    The requested MACs are the base's times d·w²·r². Actual width and depth are those of all stages together: channels
    and layers over those of the rows. ``classes`` and ``channels`` are as in `count`; the other arguments and the
    errors raised are those of `scale`.

    Example:
        >>> effnet.rounding("b0", 1).actual.macs
        859853760
    """
    base = variants.resolve_arch(arch)
    return compare_rounding(base, scale(base, phi, alpha, beta, gamma), phi, alpha, beta, gamma, classes, channels)


def compare_rounding(
    base: Arch, built: Arch, phi: float, alpha: float, beta: float, gamma: float, classes: int = 1000, channels: int = 3
) -> RoundingReport:
    """Compare ``built``, any network with the rows of ``base``, with what φ requests."""
    depth, width, side = alpha**phi, beta**phi, gamma**phi
    actual_stages = _actual_stages(built)
    requested_macs = counting.count(base, None, classes, channels).macs * depth * width**2 * side**2
    actual_macs = counting.count(built, None, classes, channels).macs
    requested = ScaleFactors(base.width * width, base.depth * depth, base.resolution * side, requested_macs)
    total_width = sum(channels for channels, _ in actual_stages) / sum(stage.channels for stage in base.stages)
    total_depth = sum(repeats for _, repeats in actual_stages) / sum(stage.layers for stage in base.stages)
    actual = ScaleFactors(total_width, total_depth, built.resolution, actual_macs)
    stages = (
        StageRounding(stage.channels * base.width * width, channels, stage.layers * base.depth * depth, repeats)
        for stage, (channels, repeats) in zip(base.stages, actual_stages, strict=True)
    )
    return RoundingReport(base, built, phi, requested, actual, tuple(stages))


def _actual_stages(arch: Arch) -> list[tuple[int, int]]:
    channels = {layer.stage: layer.channels for layer in layers(arch, classes=0)}
    return [(channels[index], repeats) for index, repeats in enumerate(stage_depths(arch), start=1)]
