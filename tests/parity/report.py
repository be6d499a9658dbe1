"""Prints the tables of docs/parity.md: ``python -m tests.parity.report`` (about half an hour on one core)."""

from __future__ import annotations

import platform
import sys
from itertools import groupby
from statistics import median

import torch

from effnet.data.torchvision_compat import declare_operators

declare_operators()

import timm  # noqa: E402

from tests.parity import twins  # noqa: E402

COLUMNS = ("eval native", "eval 197×251", "train native", "train 197×251", "gradients", "float32", "timm's own float32")
CHAOTIC, DRAWS = ("b0", "b4", "b7", "v2_s", "v2_m"), 10


def cell(figures: list[twins.Figures], key: str) -> str:
    """The worst of both paddings in channels_last, and in the same memory format where that is not exactly 0."""
    if key not in figures[0]:
        return "–"
    same, last = (max(found[key][side] for found in figures) for side in (0, 1))
    if key == "timm's own float32":
        return f"{same:.1e}"
    return f"{same:.1e} / {last:.1e}" if same else f"0 / {last:.1e}"


def main() -> int:
    """Measures, prints, and answers 1 where anything is further apart than is allowed."""
    torch.set_num_threads(1)
    print(f"timm {timm.__version__}, torch {torch.__version__}, {platform.machine()}\n")
    row("name", "px", *COLUMNS)
    row("---", *["--:"] * (1 + len(COLUMNS)))
    wrong: list[str] = []
    for name, pairs in groupby(twins.every(), key=lambda pair: pair[0]):
        figures = [twins.sweep(name, padding) for _, padding in pairs]
        wrong += [excess for found in figures for excess in twins.excesses(name, found)]
        row(f"`{name}`", f"{twins.side(name)}", *(cell(figures, key) for key in COLUMNS))
    print()
    row("name", "plainly random", "measured on photos, then perturbed")
    row("---", "--:", "--:")
    for name in CHAOTIC:
        row(f"`{name}`", spread(name, None), spread(name, twins.photos(8, (160, 160))))
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


def spread(name: str, pictures: torch.Tensor | None) -> str:
    """Median and worst of the chaos in some draws of weights."""
    moved = [twins.chaos(name, pictures, twins.photos(1, (224, 224)), seed) for seed in range(DRAWS)]
    return f"{median(moved):.1e} / {max(moved):.1e}"


def row(*cells: str) -> None:
    """One line of a table, at once."""
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    sys.exit(main())
