"""What should be said of the numbers themselves: precision that is not float32, values that are no numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

NAMED = 3  # tensors, before the rest is only counted


def remarks(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """In words: whether numbers are converted to float32, and which tensors hold NaN or infinity.

    Every number is read once: ask it of tensors whose shapes have been recognised, since others may be of any size.
    """
    found = []
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()} - {"float32"})
    if kinds:
        found.append(f"its numbers are {' and '.join(kinds)}; they are computed with in float32")
    broken = _not_finite(tensors)
    if broken:
        rest = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        found.append(f"NaN or infinite values in {', '.join(broken[:NAMED])}{rest}: no answer of this network is sound")
    return tuple(found)


@torch.no_grad()
def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """A sum is finite only if all values are; where one is not, the values are looked at: large ones can overflow."""
    if not tensors:
        return []
    sums = torch.stack([tensor.float().sum() for tensor in tensors.values()])
    doubtful = [name for name, sound in zip(tensors, sums.isfinite().tolist(), strict=True) if not sound]
    return [name for name in doubtful if not tensors[name].float().isfinite().all()]
