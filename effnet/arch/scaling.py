"""Compound scaling for any real φ, and what rounding makes of it (section 3.3 of arXiv:1905.11946).

Depth grows by α^φ, width by β^φ, resolution by γ^φ; the paper's α·β²·γ² is 1.92, so that each step of φ costs about
twice the MACs. B1–B7 are not exact powers of one φ: they are data in `tables`, and this is the tool beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from effnet.arch.counting import count
from effnet.arch.serde import check_float
from effnet.arch.spec import Arch, layers, stage_depths
from effnet.arch.variants import resolve_arch

ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15  # section 3.3, step 1, found for B0 by grid search

RESOLUTION_STEP = 4  # our choice: B0–B7's sizes are all multiples of 4
DROPOUT_STEP = 0.3 / 7  # section 5.2: dropout grows linearly from .2 for B0 to .5 for B7
MAX_DROPOUT = 0.5


@dataclass(frozen=True)
class ScaleFactors:
    """Multipliers of the rows, the picture's side in pixels, and the MACs of one picture of that side."""

    width: float
    depth: float
    resolution: float
    macs: float


@dataclass(frozen=True)
class StageRounding:
    """One stage before and after rounding."""

    channels_requested: float
    channels: int
    layers_requested: float
    layers: int


@dataclass(frozen=True)
class RoundingReport:
    """What a φ asks for against what can be built: channels are multiples of the divisor, layers and pixels whole."""

    base: Arch
    arch: Arch
    phi: float
    requested: ScaleFactors
    actual: ScaleFactors
    stages: tuple[StageRounding, ...]


def scale(arch: str | Arch, phi: float, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA) -> Arch:
    """``arch`` grown (φ > 0) or shrunk (φ < 0): depth × α^φ, width × β^φ, resolution × γ^φ.

    The resolution is rounded to the nearest multiple of 4, dropout moves by .3/7 a step within [0, .5] (B0 .2, B7 .5).
    φ = 0 gives ``arch`` itself. Raises ``ValueError`` unless φ is finite and α, β, γ are at least 1 (equation 3).
    """
    base = resolve_arch(arch)
    check_float("phi", phi, -20, 20)
    for name, coefficient in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        check_float(name, coefficient, 1, 100)
    if phi == 0:
        return base
    pixels = base.resolution * gamma**phi
    return replace(
        base,
        name=f"{base.name}_phi{phi:g}",
        depth=base.depth * alpha**phi,
        width=base.width * beta**phi,
        resolution=max(RESOLUTION_STEP, round(pixels / RESOLUTION_STEP) * RESOLUTION_STEP),
        dropout=scale_dropout(base, phi),
    )


def scale_dropout(base: Arch, phi: float) -> float:
    """The rate before the classifier of ``base`` scaled by φ: .3/7 more a step, within [0, .5]."""
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
    """The rounding report of ``scale``: what was asked (width, depth, resolution, MACs) against what was built.

    The asked MACs are the base's times d·w²·r². Built width and depth are those of the stages together: channels and
    layers over the rows' own. ``classes`` and the picture's ``channels`` are those of `count`.
    Raises ``ValueError`` as ``scale`` does.
    """
    base = resolve_arch(arch)
    return compare_rounding(base, scale(base, phi, alpha, beta, gamma), phi, alpha, beta, gamma, classes, channels)


def compare_rounding(
    base: Arch, built: Arch, phi: float, alpha: float, beta: float, gamma: float, classes: int = 1000, channels: int = 3
) -> RoundingReport:
    """The report of ``built``, any network of the base's rows, against what φ asks for."""
    depth, width, side = alpha**phi, beta**phi, gamma**phi
    rows = _actual_stages(built)
    wanted_channels = sum(stage.channels for stage in base.stages)
    wanted_layers = sum(stage.layers for stage in base.stages)
    return RoundingReport(
        base,
        built,
        phi,
        requested=ScaleFactors(
            base.width * width,
            base.depth * depth,
            base.resolution * side,
            count(base, None, classes, channels).macs * depth * width**2 * side**2,
        ),
        actual=ScaleFactors(
            sum(channels for channels, _ in rows) / wanted_channels,
            sum(repeats for _, repeats in rows) / wanted_layers,
            built.resolution,
            count(built, None, classes, channels).macs,
        ),
        stages=tuple(
            StageRounding(stage.channels * base.width * width, channels, stage.layers * base.depth * depth, repeats)
            for stage, (channels, repeats) in zip(base.stages, rows, strict=True)
        ),
    )


def _actual_stages(arch: Arch) -> list[tuple[int, int]]:
    """(channels, layers) of every stage as built."""
    last = {layer.stage: layer.channels for layer in layers(arch, classes=0)}
    return [(last[number_], repeats) for number_, repeats in enumerate(stage_depths(arch), start=1)]
