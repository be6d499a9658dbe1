"""Compound scaling for the page: a scaled network, its costs and diagram, next to the released networks."""

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from effnet.arch import ARCHS, PUBLISHED_TOP1, Arch, canonical_name, count, fitting, rounding, scale
from effnet.draw.network_diagram import draw_network
from effnet.serve.errors import RequestError

PHI_RANGE = (-6.0, 8.0)
COEFFICIENT_RANGE = (1.0, 2.0)
MAX_GROWTH = 8.0  # beyond it are networks that nobody can run, with thousands of layers to count


def scale_network(
    network: str,
    phi: float,
    coefficients: dict[str, float],
    with_svg: bool = True,
    narrow: bool = False,
    beside: float | None = None,
) -> dict[str, Any]:
    """Return a scaled published network as data for JSON (`effnet.serve.schemas.ScaleResponse`).

    ``coefficients``: alpha, beta and gamma. ``narrow``: a vertical diagram, for phones. ``beside``: draw it to a scale
    that leaves room for the network at this φ. Raises `RequestError` for an unknown name, and beyond `MAX_GROWTH`.
    """
    try:
        base = ARCHS[canonical_name(network)]  # a name only: strangers must not make the server open files
    except ValueError as error:
        raise RequestError(404, str(error)) from None
    for name, coefficient in coefficients.items():
        growth = max(coefficient**each for each in (phi, beside) if each is not None)
        if growth > MAX_GROWTH:
            raise RequestError(422, f"{name}^phi is {growth:.3g}: choose values that keep it below {MAX_GROWTH:g}")
    report = rounding(base, phi, *coefficients.values())
    room = None if beside is None else scale(base, beside, *coefficients.values())
    rounded = asdict(report)
    return {
        "network": base.name,
        "phi": phi,
        "coefficients": coefficients,
        "arch": report.arch.to_dict(),
        **network_costs(report.arch),
        **{name: rounded[name] for name in ("requested", "actual", "stages")},
        "nearest": fitting.nearest_released(report.arch).name,
        "released": _released_networks(base),
        "svg": _diagram(report.arch, narrow, room) if with_svg else "",
    }


def network_costs(arch: Arch, classes: int = 1000, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the costs of one image: ``bytes`` is peak activation memory, ``weight_bytes`` the weights in float32."""
    counted = count(arch, size, classes)
    costs = {"params": counted.params, "macs": counted.macs, "bytes": counted.bytes}
    return {"resolution": arch.resolution, **costs, "weight_bytes": 4 * counted.params}


@lru_cache(maxsize=32)
def _released_networks(base: Arch) -> list[dict[str, Any]]:
    rows = [
        {"name": arch.name, **network_costs(arch), "top1": PUBLISHED_TOP1.get(arch.name, (None,))[0]}
        for arch in fitting.released_family(base)
    ]
    return sorted(rows, key=lambda row: row["macs"])


@lru_cache(maxsize=64)
def _diagram(arch: Arch, narrow: bool, room: Arch | None) -> str:
    return draw_network(arch, narrow=narrow, scale_with=room).svg
