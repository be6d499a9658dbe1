"""What is in a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from effnet.contract import Labels, Numerics


@dataclass(frozen=True)
class Content:
    """The tensors of a file by name, and whatever else it says of itself.

    ``layout`` is set where the format has only one. ``preprocess`` holds those fields of the contract's `Preprocess`
    that the file states; ``numerics`` and ``labels`` likewise. ``remarks`` say in words what had to be done or chosen.
    """

    tensors: dict[str, Tensor]
    header: Mapping[str, str] = field(default_factory=dict)
    layout: str | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    numerics: Numerics | None = None
    labels: Labels = field(default_factory=Labels)
    remarks: tuple[str, ...] = ()
