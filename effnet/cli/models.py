"""``effnet models``: every published network."""

from __future__ import annotations

from typing import Annotated

import typer

from effnet.cli.options import Json


def models(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Only those with this in their name: lite, v2.")] = "",
    as_json: Json = False,
) -> None:
    """List the networks of the family.

    With parameters, MACs and size of each, and the accuracy that its paper states.
    """
    from effnet.arch import ARCHS, TOP1, canonical, count
    from effnet.cli.printing import show, show_json, table

    names = [key for key in ARCHS if name.lower() in key] or [canonical(name)]
    counts = {key: count(key) for key in names}
    if as_json:
        show_json([
            {
                "name": key,
                "params": found.params,
                "macs": found.macs,
                "size": found.size,
                "activation": found.arch.activation,
                "top1": round(TOP1[key][0] / 100, 6) if key in TOP1 else None,
                "source": TOP1[key][1] if key in TOP1 else None,
            }
            for key, found in counts.items()
        ])  # fmt: skip
        return
    sources = list(dict.fromkeys(TOP1[key][1] for key in names if key in TOP1))
    listed = table(
        *("name", "params (M)", "MACs (G)", "size", "activation", "top-1 (%)", "source"), left=("name", "activation")
    )
    for key, found in counts.items():
        top1, source = TOP1.get(key, (None, ""))
        listed.add_row(
            key,
            f"{found.params / 1e6:.2f}",
            f"{found.macs / 1e9:.2f}",
            str(found.arch.resolution),
            found.arch.activation,
            f"{top1:.1f}" if top1 else "–",
            str(sources.index(source) + 1) if source else "",
        )
    notes = [f"{number}  {source}" for number, source in enumerate(sources, start=1)]
    show(listed, *(["ImageNet top-1 as published, not measured here:", *notes] if notes else []))
