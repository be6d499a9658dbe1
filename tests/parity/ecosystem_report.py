"""Prints the table of docs/layouts.md: ``python -m tests.parity.ecosystem_report [LAYOUT …]`` (long)."""

from __future__ import annotations

import platform
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effnet.arch import ARCHS
from effnet.data.without_operators import declare_operators

declare_operators()  # timm imports torchvision

from tests.parity import ecosystems  # noqa: E402

PACKAGES = ("torchvision", "efficientnet_pytorch", "transformers", "keras", "tensorflow-cpu", "ai-edge-litert")


def main(wanted: Sequence[str]) -> int:
    """Measures, prints, and answers 1 where anything is further apart than is allowed."""
    torch.set_num_threads(1)
    layouts = [layout for layout in ecosystems.LAYOUTS if not wanted or layout in wanted]
    found: dict[str, dict[str, str]] = defaultdict(dict)
    wrong = []
    for layout, name, suffix in ecosystems.every():
        if layout not in layouts:
            continue
        with TemporaryDirectory() as folder:
            figures = ecosystems.compare(layout, name, suffix, Path(folder))
        there = max(figures.there.values())
        print(f"{layout} {name} {suffix}: {figures}", file=sys.stderr, flush=True)
        if not max(there, figures.back) <= ecosystems.peer(layout).LIMIT:
            wrong.append(f"{layout} {name} {suffix}: {figures}")
        cell = f"{there:.0e} / {figures.back:.0e}"
        found[name].setdefault(layout, cell)  # the usual kind of file comes first
    print(f"torch {torch.__version__}, {platform.machine()};", ", ".join(f"{one} {version(one)}" for one in PACKAGES))
    print()
    row("name", *layouts)
    row("---", *["--:"] * len(layouts))
    for name in filter(found.__contains__, ARCHS):
        row(f"`{name}`", *(found[name].get(layout, "–") for layout in layouts))
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


def row(*cells: str) -> None:
    """One line of a table."""
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
