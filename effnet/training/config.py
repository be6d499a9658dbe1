"""What a run is computed with."""

from __future__ import annotations

from dataclasses import dataclass

from effnet.arch.serde import check_int


@dataclass(frozen=True)
class Resources:
    """What a run is computed with; it changes the time and the memory that it takes, hardly what it learns.

    ``device``: cpu, cuda, mps, or None for the fastest that is there. ``precision``: float32, bfloat16, float16, or
    None for what the device multiplies fastest. ``pieces``: parts that a batch is computed in, one after the other; 0
    for as few as fit into memory.
    ``checkpointing``: blocks are recomputed in the backward pass: half the memory, up to twice the time.
    ``compiled``: by ``torch.compile``, None for where it pays. ``workers``: processes that read pictures.
    ``cache``: decoded pictures are kept on disk while they fit.
    """

    device: str | None = None
    precision: str | None = None
    accumulation_steps: int = 0
    gradient_checkpointing: bool = False
    torch_compile: bool | None = None
    workers: int | None = None
    cache: bool = False

    def __post_init__(self) -> None:
        check_int("accumulate", self.accumulation_steps, 0)
