"""Where torch computes."""

from __future__ import annotations

import torch


def pick(name: str | None = None) -> torch.device:
    """The device called ``name``; None takes a GPU where there is one. Raises ``ValueError`` for one not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"there is no device {name!r} on this machine: leave --device out, or say cpu") from None
    return device
