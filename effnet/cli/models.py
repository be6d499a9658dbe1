"""``effnet models``: the published networks and weights, and bundles of weights for offline use."""

from itertools import chain
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from effnet.cli import options, printing


def models(
    names: Annotated[
        list[str] | None, Argument(metavar="[NAME]...", help="Only those with this in their name: lite, v2.")
    ] = None,
    weights: Annotated[bool, Option("--weights", help="List published weights instead of networks.")] = False,
    publisher: Annotated[
        str, Option(metavar="NAME", help="Only of timm, torchvision, lukemelas, keras, google or ml-illustrated.")
    ] = "",
    bundle: Annotated[
        Path | None, Option(metavar="FILE", help="Pack the weights NAME... into a .zip for offline use.")
    ] = None,
    as_json: options.JsonOption = False,
    offline: options.OfflineOption = False,
) -> None:
    """List the networks of the family, or their published weights.

    With parameters, MACs and input size, and the accuracy stated in the paper.
    """
    if bundle:
        _write_bundle(names or [], bundle, as_json)
    elif weights or publisher:
        _list_weights(names or [""], publisher, as_json)
    else:
        _list_networks(names or [""], as_json)


def _list_networks(patterns: list[str], as_json: bool) -> None:
    from effnet.arch import ARCHS, PUBLISHED_TOP1, canonical_name, count

    matches = [[key for key in ARCHS if pattern.lower() in key] or [canonical_name(pattern)] for pattern in patterns]
    names = list(dict.fromkeys(chain.from_iterable(matches)))
    counts = {name: count(name) for name in names}
    if as_json:
        rows = []
        for name, counted in counts.items():
            top1, source = PUBLISHED_TOP1.get(name, (None, None))
            costs = {"name": name, "params": counted.params, "macs": counted.macs, "size": counted.size}
            quoted = {"top1": None if top1 is None else round(top1 / 100, 6), "source": source}
            rows.append(costs | {"activation": counted.arch.activation} | quoted)
        printing.print_json(rows)
        return
    sources = list(dict.fromkeys(PUBLISHED_TOP1[name][1] for name in names if name in PUBLISHED_TOP1))
    headings = ("name", "params (M)", "MACs (G)", "size", "activation", "top-1 (%)", "source")
    table = printing.new_table(*headings, left=("name", "activation"))
    for name, counted in counts.items():
        top1, source = PUBLISHED_TOP1.get(name, (None, None))
        table.add_row(
            *(name, f"{counted.params / 1e6:.2f}", f"{counted.macs / 1e9:.2f}"),
            *(str(counted.arch.resolution), counted.arch.activation),
            *(f"{top1:.1f}" if top1 else "–", str(sources.index(source) + 1) if source else ""),
        )
    notes = [f"{number}  {source}" for number, source in enumerate(sources, start=1)]
    printing.print_results(table, *(["ImageNet top-1 as published, not measured here:", *notes] if notes else []))


def _list_weights(patterns: list[str], publisher: str, as_json: bool) -> None:
    from effnet.weights.catalog import search_entries

    found = {entry.name: entry for pattern in patterns for entry in search_entries(pattern, publisher)}
    entries = list(found.values())
    if as_json:
        printing.print_json([
            {**entry.to_dict(), "top1": None if entry.top1 is None else round(entry.top1 / 100, 6)} for entry in entries
        ])  # fmt: skip
        return
    if not entries:
        printing.print_results("no published weights match")
        return
    headings = ("weights", "size", "top-1", "at", "license", "from")
    table = printing.new_table(*headings, left=("weights", "license", "from"))
    for entry in entries:
        top1 = f"{entry.top1:.1f}" if entry.top1 is not None else "–"
        table.add_row(
            *(entry.name + " *" * entry.default, str(entry.preprocess.size[0]), top1, str(entry.test_size or "–")),
            *(entry.license or "–", entry.publisher),
        )
    printing.print_results(
        table,
        "*  the default of this network",
        "ImageNet top-1 in percent as published, at that resolution; not measured here. --json prints more of each.",
    )


def _write_bundle(names: list[str], path: Path, as_json: bool) -> None:
    if not names:
        raise options.UsageError("Missing argument 'NAME' of --bundle: effnet models b0 lite0 --bundle weights.zip")
    from effnet.weights.bundle import write_bundle

    with printing.progress_bar("downloading") as step:
        packed = write_bundle(names, path, progress=step)
    size = path.stat().st_size
    if as_json:
        weights = [{"name": each.name, "bytes": each.bytes} for each in packed]
        printing.print_json({"path": str(path), "bytes": size, "weights": weights})
        return
    table = printing.new_table("weights", "size", left=("weights",))
    for each in packed:
        table.add_row(each.name, printing.format_si(each.bytes, "B"))
    printing.print_results(
        table,
        f"Copy {path} ({printing.format_si(size, 'B')}), zipped or unzipped, to the offline machine and run there:",
        f"  EFFNET_BUNDLE={path.name} effnet predict photos --model {names[0]}",
    )
