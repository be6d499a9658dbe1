"""How long to go on asking a server that does not answer, or that is busy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """How much waiting a server is worth.

    ``stall`` seconds without a byte end a try; ``tries`` in a row that bring nothing new end the download; between two
    there are ``pause`` seconds, doubled each time.
    """

    stall: float = 20.0
    tries: int = 5
    pause: float = 1.0
