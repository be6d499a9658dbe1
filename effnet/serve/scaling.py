"""What compound scaling makes of a network, beside those that were released, with its diagram."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, replace
from functools import lru_cache
from typing import Any

from effnet.arch import ARCHS, PUBLISHED_TOP1, Arch, canonical_name, count, rounding, scale
from effnet.arch.fitting import nearest_released, released_family
from effnet.arch.scaling import ALPHA, BETA, GAMMA
from effnet.draw.network_diagram import draw_network as drawn_network
from effnet.serve.errors import RequestError

PHI_RANGE = (-6.0, 8.0)
COEFFICIENT_RANGE = (1.0, 2.0)
MAX_GROWTH = 8.0  # beyond it lies no network that anyone could run, and thousands of layers to count
_BYTES_PER_WEIGHT = 4  # float32


@dataclass(frozen=True)
class ScalingFactors:
    """How far a network is grown: depth by alpha^phi, width by beta^phi, resolution by gamma^phi."""

    phi: float
    alpha: float = ALPHA
    beta: float = BETA
    gamma: float = GAMMA

    def at_phi(self, phi: float) -> ScalingFactors:
        """The same at another φ. Raises `Refusal` for what nobody could run."""
        for name in ("alpha", "beta", "gamma"):
            grown = getattr(self, name) ** phi
            if grown > MAX_GROWTH:
                raise RequestError(
                    422, f"{name}^phi is {grown:.3g}: give values by which nothing grows {MAX_GROWTH:g} times"
                )
        return replace(self, phi=phi)


def scale_network(
    network: str, dials: ScalingFactors, with_svg: bool = True, narrow: bool = False, beside: float | None = None
) -> dict[str, Any]:
    """The network of that name scaled, as data for JSON, with its diagram if it is to be ``drawn``.

    ``narrow``: for a telephone; ``beside``: on a scale on which the network would have room at that φ. Raises `Refusal`
    for a name that no network has, and for what nobody could run.
    """
    try:
        base = ARCHS[canonical_name(network)]  # and no file: `resolve` would open what a stranger names
    except ValueError as error:
        raise RequestError(404, str(error)) from None
    report = rounding(base, *astuple(dials.at_phi(dials.phi)))
    room = None if beside is None else scale(base, *astuple(dials.at_phi(beside)))
    return {
        "network": base.name,
        "phi": dials.phi,
        "coefficients": {"alpha": dials.alpha, "beta": dials.beta, "gamma": dials.gamma},
        "arch": report.arch.to_dict(),
        **network_costs(report.arch),
        "asked": asdict(report.requested),
        "built": asdict(report.actual),
        "stages": [asdict(stage) for stage in report.stages],
        "nearest": nearest_released(report.arch).name,
        "released": _released_networks(base),
        "svg": _diagram(report.arch, narrow, room) if with_svg else "",
    }


def network_costs(arch: Arch, classes: int = 1000, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """What a network costs for one picture: ``bytes`` is the peak of its maps, ``weight_bytes`` its size in float32."""
    counted = count(arch, size, classes)
    return {
        "resolution": arch.resolution,
        "params": counted.params,
        "macs": counted.macs,
        "bytes": counted.bytes,
        "weight_bytes": _BYTES_PER_WEIGHT * counted.params,
    }


@lru_cache(maxsize=32)
def _released_networks(base: Arch) -> list[dict[str, Any]]:
    """The released networks that ``base`` stands beside, by their MACs."""
    rows = [
        {
            "name": arch.name,
            **network_costs(arch),
            "top1": PUBLISHED_TOP1[arch.name][0] if arch.name in PUBLISHED_TOP1 else None,
        }
        for arch in released_family(base)
    ]
    return sorted(rows, key=lambda row: row["macs"])


@lru_cache(maxsize=64)
def _diagram(arch: Arch, narrow: bool, room: Arch | None) -> str:
    return drawn_network(arch, narrow=narrow, scale_with=room).svg
