"""``effnet models --bundle``: weights in one file, and the line to use it with where there is no network."""

from __future__ import annotations

from pathlib import Path

import typer


def pack(names: list[str], path: Path, as_json: bool) -> None:
    """Packs the weights ``names`` into ``path``, and prints what is in it."""
    from effnet.cli.printing import progress, short, show, show_json, table

    if not names:
        raise typer.BadParameter("say which weights to pack: effnet models b0 lite0 --bundle weights.zip")
    from effnet.weights.bundle import bundle

    with progress("downloading") as step:
        packed = bundle(names, path, progress=step)
    if as_json:
        weights = [{"name": one.name, "bytes": one.bytes} for one in packed]
        show_json({"path": str(path), "bytes": path.stat().st_size, "weights": weights})
        return
    listed = table("weights", "size", left=("weights",))
    for one in packed:
        listed.add_row(one.name, short(one.bytes, "B"))
    show(
        listed,
        f"{path} ({short(path.stat().st_size, 'B')}) can be carried, packed or not, to where no network is. There:",
        f"  EFFNET_BUNDLE={path.name} effnet predict photos --model {names[0]}",
    )
