"""``effnet models``: every published network, and every published file of weights."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import JsonOption, OfflineOption

if TYPE_CHECKING:
    from effnet.weights.catalog import CatalogEntry


def models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only those with this in their name: lite, v2.")
    ] = None,
    weights: Annotated[bool, typer.Option("--weights", help="List published weights, not networks.")] = False,
    publisher: Annotated[
        str, typer.Option(metavar="NAME", help="Only weights from timm, torchvision, lukemelas, keras or google.")
    ] = "",
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Pack the weights NAME... into a .zip, for use without a network."),
    ] = None,
    as_json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """List the networks of the family, or their published weights.

    With parameters, MACs and size of each, and the accuracy that its paper states.
    """
    if bundle:
        write_bundle(names or [], bundle, as_json)
    elif weights or publisher:
        from effnet.weights.catalog import search_entries

        found = {card.name: card for name in names or [""] for card in search_entries(name, publisher)}
        list_weights(list(found.values()), as_json)
    else:
        list_networks(names or [""], as_json)


def list_networks(wanted: list[str], as_json: bool) -> None:
    """Prints the networks with one of ``wanted`` in their names, or those that these mean."""
    from effnet.arch import ARCHS, PUBLISHED_TOP1, canonical_name, count
    from effnet.cli.printing import new_table, print_json, print_results

    meant = [[key for key in ARCHS if name.lower() in key] or [canonical_name(name)] for name in wanted]
    names = list(dict.fromkeys(chain.from_iterable(meant)))
    counts = {key: count(key) for key in names}
    if as_json:
        print_json([
            {
                "name": key,
                "params": found.params,
                "macs": found.macs,
                "size": found.size,
                "activation": found.arch.activation,
                "top1": round(PUBLISHED_TOP1[key][0] / 100, 6) if key in PUBLISHED_TOP1 else None,
                "source": PUBLISHED_TOP1[key][1] if key in PUBLISHED_TOP1 else None,
            }
            for key, found in counts.items()
        ])  # fmt: skip
        return
    sources = list(dict.fromkeys(PUBLISHED_TOP1[key][1] for key in names if key in PUBLISHED_TOP1))
    listed = new_table(
        *("name", "params (M)", "MACs (G)", "size", "activation", "top-1 (%)", "source"), left=("name", "activation")
    )
    for key, found in counts.items():
        top1, source = PUBLISHED_TOP1.get(key, (None, ""))
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
    print_results(listed, *(["ImageNet top-1 as published, not measured here:", *notes] if notes else []))


def list_weights(cards: list[CatalogEntry], as_json: bool) -> None:
    """Prints ``cards``, one row each; as JSON with all that they say, the accuracy as a fraction."""
    from effnet.cli.printing import new_table, print_json, print_results

    if as_json:
        print_json([
            {**card.to_dict(), "top1": None if card.top1 is None else round(card.top1 / 100, 6)} for card in cards
        ])  # fmt: skip
        return
    listed = new_table(
        *("weights", "size", "top-1", "at", "classes", "licence", "from"), left=("weights", "licence", "from")
    )
    for card in cards:
        listed.add_row(
            card.name + " *" * card.default,
            str(card.preprocess.size[0]),
            f"{card.top1:.1f}" if card.top1 is not None else "–",
            str(card.test_size or "–"),
            str(card.classes or "–"),
            card.license or "–",
            card.publisher,
        )
    if not cards:
        print_results("no such weights are published")
        return
    print_results(
        listed,
        "*  what the bare name of the network means",
        "ImageNet top-1 in percent as published, at that many pixels; not measured here. More of each with --json.",
    )


# ``effnet models --bundle``: weights in one file, and the line to use it with where there is no network.


def write_bundle(names: list[str], path: Path, as_json: bool) -> None:
    """Packs the weights ``names`` into ``path``, and prints what is in it."""
    from effnet.cli.printing import format_si, new_table, print_json, print_results, progress_bar

    if not names:
        raise typer.BadParameter("say which weights to pack: effnet models b0 lite0 --bundle weights.zip")
    from effnet.weights.bundle_writer import write_bundle

    with progress_bar("downloading") as step:
        packed = write_bundle(names, path, progress=step)
    if as_json:
        weights = [{"name": one.name, "bytes": one.bytes} for one in packed]
        print_json({"path": str(path), "bytes": path.stat().st_size, "weights": weights})
        return
    listed = new_table("weights", "size", left=("weights",))
    for one in packed:
        listed.add_row(one.name, format_si(one.bytes, "B"))
    print_results(
        listed,
        f"{path} ({format_si(path.stat().st_size, 'B')}) can be carried, packed or not, to where no network is. There:",
        f"  EFFNET_BUNDLE={path.name} effnet predict photos --model {names[0]}",
    )
