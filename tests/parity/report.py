"""Prints the tables of docs/parity.md: ``python -m tests.parity.report`` (about half an hour on one core)."""

from __future__ import annotations

import platform
import sys
from itertools import groupby

import torch

from effnet.data.without_operators import declare_operators

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
    row("name", "px", "statistics measured on pictures, then perturbed", "plainly random")
    row("---", "--:", "--:", "--:")
    for name in CHAOTIC:
        states = twins.random_pictures(8, (160, 160)), None
        worst = (max(twins.chaos(name, state, 224, seed) for seed in range(DRAWS)) for state in states)
        row(f"`{name}`", "224", *(f"{moved:.1e}" for moved in worst))
    print("\n".join(wrong), file=sys.stderr)
    return bool(wrong)


def row(*cells: str) -> None:
    """One line of a table, at once."""
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    sys.exit(main())
