"""Print the table of docs/layouts.md: ``python -m tests.parity.ecosystem_report [LAYOUT …]`` (long)."""

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


def main(selected: Sequence[str]) -> int:
    """Compare and print the table. Returns 1 if any difference exceeds its limit."""
    torch.set_num_threads(1)
    layouts = [layout for layout in ecosystems.LAYOUTS if not selected or layout in selected]
    print(
        f"torch {torch.__version__}, {platform.machine()};",
        ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    )
    print()
    print_row("name", *layouts)
    print_row("---", *["--:"] * len(layouts))
    failures = []
    cases = [case for case in ecosystems.all_cases() if case[0] in layouts]
    for name in sorted({name for _, name, _ in cases}, key=list(ARCHS).index):
        cells: dict[str, str] = {}
        for layout, _, suffix in (case for case in cases if case[1] == name):
            with TemporaryDirectory() as folder:
                differences = ecosystems.compare(layout, name, suffix, Path(folder))
            imported = max(differences.imported.values())
            if not max(imported, differences.exported) <= ecosystems.peer(layout).LIMIT:
                failures.append(f"{layout} {name} {suffix}: {differences}")
            cells.setdefault(layout, f"{imported:.0e} / {differences.exported:.0e}")  # of the first suffix
        print_row(f"`{name}`", *(cells.get(layout, "–") for layout in layouts))
    print("\n".join(failures), file=sys.stderr)
    return bool(failures)


def print_row(*cells: str) -> None:
    """Print one row of a table."""
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
