"""Prints the table of docs/layouts.md: ``python -m tests.parity.ecosystem_report [LAYOUT …]`` (long)."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effnet.arch import ARCHS
from effnet.data.torchvision_compat import declare_operators

declare_operators()  # timm imports torchvision

from tests.parity import ecosystems  # noqa: E402

PACKAGES = ("torchvision", "efficientnet_pytorch", "transformers", "keras", "tensorflow-cpu", "ai-edge-litert")


def main(wanted: Sequence[str]) -> int:
    """Measures, prints, and answers 1 where anything is further apart than is allowed."""
    torch.set_num_threads(1)
    layouts = [layout for layout in ecosystems.LAYOUTS if not wanted or layout in wanted]
    print(f"torch {torch.__version__}, {platform.machine()};", ", ".join(f"{one} {version(one)}" for one in PACKAGES))
    print()
    row("name", *layouts)
    row("---", *["--:"] * len(layouts))
    wrong = []
    cases = [case for case in ecosystems.every() if case[0] in layouts]
    for name in sorted({name for _, name, _ in cases}, key=list(ARCHS).index):
        cells: dict[str, str] = {}
        for layout, _, suffix in (case for case in cases if case[1] == name):
            with TemporaryDirectory() as folder:
                figures = ecosystems.compare(layout, name, suffix, Path(folder))
            there = max(figures.there.values())
            if not max(there, figures.back) <= ecosystems.peer(layout).LIMIT:
                wrong.append(f"{layout} {name} {suffix}: {figures}")
            cells.setdefault(layout, f"{there:.0e} / {figures.back:.0e}")  # the usual kind of file comes first
        row(f"`{name}`", *(cells.get(layout, "–") for layout in layouts))
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


def row(*cells: str) -> None:
    """One line of a table."""
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
