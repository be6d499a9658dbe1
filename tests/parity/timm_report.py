"""Print the tables of docs/parity.md: ``python -m tests.parity.timm_report`` (about half an hour on one core)."""

from __future__ import annotations

import platform
import sys
from itertools import groupby
from statistics import median

import torch

from effnet.data.torchvision_compat import declare_operators

declare_operators()

import timm  # noqa: E402

from tests.parity import timm_comparison  # noqa: E402

COLUMNS = ("eval native", "eval 197×251", "train native", "train 197×251", "gradients", "float32", "timm's own float32")
SENSITIVE, SEEDS = ("b0", "b4", "b7", "v2_s", "v2_m"), 10


def format_cell(differences: list[timm_comparison.Differences], key: str) -> str:
    """Format the larger value of both paddings: "contiguous / channels_last"."""
    if key not in differences[0]:
        return "–"
    contiguous, channels_last = (max(row[key][index] for row in differences) for index in (0, 1))
    if key == "timm's own float32":
        return f"{contiguous:.1e}"
    return f"{contiguous:.1e} / {channels_last:.1e}" if contiguous else f"0 / {channels_last:.1e}"


def main() -> int:
    """Compare all variants and print the tables. Returns 1 if any difference exceeds its limit."""
    torch.set_num_threads(1)
    print(f"timm {timm.__version__}, torch {torch.__version__}, {platform.machine()}\n")
    print_row("name", "px", *COLUMNS)
    print_row("---", *["--:"] * (1 + len(COLUMNS)))
    failures: list[str] = []
    for name, pairs in groupby(timm_comparison.all_cases(), key=lambda pair: pair[0]):
        differences = [timm_comparison.compare_variant(name, padding) for _, padding in pairs]
        failures += [failure for row in differences for failure in timm_comparison.exceeded_limits(name, row)]
        print_row(
            f"`{name}`", f"{timm_comparison.native_size(name)}", *(format_cell(differences, key) for key in COLUMNS)
        )
    print()
    print_row("name", "random", "measured on photos, then perturbed")
    print_row("---", "--:", "--:")
    for name in SENSITIVE:
        print_row(
            f"`{name}`",
            format_sensitivity(name, None),
            format_sensitivity(name, timm_comparison.load_photos(8, (160, 160))),
        )
    print("\n".join(failures), file=sys.stderr)
    return bool(failures)


def format_sensitivity(name: str, images: torch.Tensor | None) -> str:
    """Format median and maximum of the sensitivity over random weights."""
    values = [
        timm_comparison.measure_sensitivity(name, images, timm_comparison.load_photos(1, (224, 224)), seed)
        for seed in range(SEEDS)
    ]
    return f"{median(values):.1e} / {max(values):.1e}"


def print_row(*cells: str) -> None:
    """Print one row of a table."""
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    sys.exit(main())
