"""Writes the generated parts of the documents in place; with --check only says whether they are up to date.

A generated part stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`. To add one, write a function that
returns its text and add a row to PARTS.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

from effnet.arch import ARCHS, PUBLISHED_TOP1, count
from effnet.weights.catalog import DEFAULTS, ENTRIES, PUBLISHERS, CatalogEntry

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# The rooms in their one-way order, as tests/test_rooms.py holds them.
ROOMS = ["arch", "telemetry", "metadata", "tasks", "timing", "net", "draw", "data", "weights", "runtime", "exporting"]
ROOMS += ["prediction", "evaluation", "explanation", "doctor", "training", "serve", "lab", "cli"]


def archs_table() -> str:
    """One row for each published network: what it costs, and what it is said to reach."""
    sources: list[str] = []
    rows = [
        "| name | parameters (M) | MACs (G) | size (px) | peak activations (MB) | receptive field (px) | top-1 (%) |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, arch in ARCHS.items():
        counted = count(arch)
        published = "–"
        if name in PUBLISHED_TOP1:
            top1, source = PUBLISHED_TOP1[name]
            if source not in sources:
                sources.append(source)
            published = f"{top1} [{sources.index(source) + 1}]"
        rows.append(
            f"| `{name}` | {counted.params / 1e6:.2f} | {counted.macs / 1e9:.3f} | {arch.resolution} "
            f"| {counted.bytes / 1e6:.1f} | {counted.receptive_field} | {published} |"
        )
    legend = [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]
    return "\n".join([*rows, "", "Top-1 as published, not measured here: " + "; ".join(legend) + "."])


def rooms() -> str:
    """The rooms in their order, each with the first line of its docstring."""
    lines = ["| room | holds |", "|---|---|"]
    for room in ROOMS:
        package = ROOT / "effnet" / room
        path, shown = (
            (package / "__init__.py", f"{room}/") if package.is_dir() else (package.with_suffix(".py"), f"{room}.py")
        )
        document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"| `{shown}` | {document.partition(chr(10))[0].rstrip('.')} |")
    return "\n".join(lines)


def weights_table() -> str:
    """One row for each network with published weights: what each publisher has, the default in bold."""
    rows = [f"| network | {' | '.join(PUBLISHERS)} |", "|---" * (1 + len(PUBLISHERS)) + "|"]
    for arch in DEFAULTS:
        cells = (
            ", ".join(_in_a_cell(card) for card in ENTRIES.values() if (card.arch, card.publisher) == (arch, publisher))
            for publisher in PUBLISHERS
        )
        rows.append(f"| `{arch}` {ARCHS[arch].resolution} px | {' | '.join(cell or '–' for cell in cells)} |")
    return "\n".join(rows)


def _in_a_cell(card: CatalogEntry) -> str:
    name = f"`{card.name.partition('/')[2]}`"
    size = card.preprocess.size[0]
    told = "" if card.top1 is None else f" {card.top1:.1f}"
    told += "" if size == ARCHS[card.arch].resolution else f" at {size} px"
    return f"**{name}{told}**" if card.default else name + told


# document, name of the part, the function that writes it
PARTS: tuple[tuple[Path, str, Callable[[], str]], ...] = (
    (DOCS / "architectures.md", "table", archs_table),
    (DOCS / "weights.md", "table", weights_table),
    (DOCS / "design.md", "rooms", rooms),
)


def filled(text: str, name: str, part: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced by ``part``."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"expected one {begin} and one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"


def main(arguments: list[str]) -> int:
    """Exit status: 0 up to date or written, 1 out of date under --check, 2 for a wrong argument."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/make.py [--check]", file=sys.stderr)
        return 2
    texts = {path: path.read_text(encoding="utf-8") for path, _, _ in PARTS}
    new = dict(texts)
    for path, name, write in PARTS:
        new[path] = filled(new[path], name, write())
    stale = [path for path in texts if new[path] != texts[path]]
    for path in stale:
        if arguments:
            print(f"{path.name} is out of date: run make docs", file=sys.stderr)
        else:
            path.write_text(new[path], encoding="utf-8")
            print(f"wrote {path.name}")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
