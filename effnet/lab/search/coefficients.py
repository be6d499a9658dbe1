"""The paper's grid of α, β, γ, in exact fractions, and a base grown by one of its points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import floor

from effnet.arch import Arch
from effnet.arch.spec import stage_depths

TARGET_GROWTH = Fraction(2)  # α·β²·γ² ≈ 2: a step of φ doubles the MACs
MAX_TICKS = 100  # of one coefficient


def _parse_fraction(text: str) -> Fraction:
    try:
        found = Fraction(text)
        float(found)
        return found
    except (ValueError, ArithmeticError):
        raise ValueError(f"{text!r} is no decimal: write 0.05") from None


@dataclass(frozen=True, order=True)
class CompoundCoefficients:
    """One triple: growth of depth (α), width (β) and resolution (γ)."""

    alpha: Fraction
    beta: Fraction
    gamma: Fraction

    @classmethod
    def parse(cls, alpha: float | str, beta: float | str, gamma: float | str) -> CompoundCoefficients:
        """The point of these decimals as they are written: 1.15 is 23/20. Raises ``ValueError`` for what is none."""
        return cls(*(_parse_fraction(str(each)) for each in (alpha, beta, gamma)))

    @property
    def growth(self) -> Fraction:
        """What MACs grow by before rounding: α·β²·γ²."""
        return self.alpha * self.beta**2 * self.gamma**2

    @property
    def triple(self) -> tuple[float, float, float]:
        """α, β, γ as floats."""
        return float(self.alpha), float(self.beta), float(self.gamma)

    def in_words(self) -> str:
        """ "1.2 / 1.1 / 1.15"."""
        return " / ".join(f"{each:g}" for each in self.triple)


PAPER_COEFFICIENTS = CompoundCoefficients.parse("1.2", "1.1", "1.15")  # section 3.3 of arXiv:1905.11946, step 1


def coefficient_grid(
    step: str = "0.05", low: str = "1", high: str = "2", tolerance: str = "0.1"
) -> tuple[CompoundCoefficients, ...]:
    """All (α, β, γ) in [low, high] by ``step`` with |α·β²·γ² − 2| < ``within``: 108 with the paper's numbers.

    Given as decimals and counted as fractions, since binary floats would let points on the border in or out by chance.
    Raises ``ValueError`` for a coefficient below 1, where no point meets the constraint, and where it is none: a
    network that does not grow, or a step that makes more points than can be looked at.
    """
    by, least, most, tolerance = map(_parse_fraction, (step, low, high, tolerance))
    if by <= 0 or tolerance <= 0:
        raise ValueError(f"the grid's step and its tolerance must be above 0, got {step} and {tolerance}")
    if least < 1:
        raise ValueError(
            f"α, β and γ must be at least 1 (equation 3), got {low}: nothing shrinks where a network grows"
        )
    if tolerance >= 1:
        raise ValueError(f"the tolerance must be below 1, got {tolerance}: α·β²·γ² = 1 is no growth at all")
    if (most - least) / by > MAX_TICKS:
        raise ValueError(f"a step of {step} makes more than {MAX_TICKS} values of each coefficient: take a larger one")
    ticks = [least + by * index for index in range(floor((most - least) / by) + 1)]
    found = tuple(
        point
        for each in product(ticks, repeat=3)
        if abs((point := CompoundCoefficients(*each)).growth - TARGET_GROWTH) < tolerance
    )
    if not found:
        raise ValueError(
            f"no α, β, γ from {low} to {high} by {step} has α·β²·γ² within {tolerance} of 2: take a smaller step, or more "
            "tolerance"
        )
    return found


def grow(base: Arch, alpha: float, beta: float, gamma: float) -> Arch:
    """``base`` grown by one step as finely as can be built: channels by one, pixels by one, layers in all by one.

    `effnet.scale` rounds as the paper does, channels to eights and each stage's layers up; of a small base that makes
    one network of many points of the grid and moves MACs by a half. Here the layers of all stages together are α times
    the base's, to the nearest, given to the stages that lack most.
    """
    fixed = {0, len(base.stages) - 1} if not base.scale_ends else set()
    here = stage_depths(base)
    asked = [count if index in fixed else count * alpha for index, count in enumerate(here)]
    built = [floor(each + 1e-9) for each in asked]
    missing = floor(sum(asked) - sum(built) + 0.5)
    lacking = sorted(range(len(asked)), key=lambda index: (built[index] - asked[index], index))
    for index in lacking[:missing]:
        built[index] += 1
    return replace(
        base,
        name=f"{base.name}_d{alpha:g}_w{beta:g}_r{gamma:g}",
        stages=tuple(replace(stage, layers=count) for stage, count in zip(base.stages, built, strict=True)),
        depth=1.0,
        width=base.width * beta,
        resolution=floor(base.resolution * gamma + 0.5),
        divisor=1,
    )
