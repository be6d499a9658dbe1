"""What one server takes on."""

from __future__ import annotations

from dataclasses import dataclass

from effnet.arch.record import number, whole


@dataclass(frozen=True)
class Limits:
    """What one server takes on, for all its models together.

    ``queue``: pictures that have come and are not answered yet; with those that are still coming, they hold no more
    bytes than so many of the largest. ``bytes_most``: of a picture's file. ``pixels_most``: of a picture, read from its
    first bytes before anything is decoded. ``seconds``: in which a picture must have arrived, and after that in which
    it must be answered. ``wait``: seconds that an idle network waits for a fuller batch.
    Raises ``ValueError`` for values that nothing could be served with.
    """

    queue: int = 64
    bytes_most: int = 32_000_000
    pixels_most: int = 100_000_000  # 300 MB as RGB: every telephone's photo, and no decompression bomb
    seconds: float = 30.0
    wait: float = 0.0

    def __post_init__(self) -> None:
        whole("queue", self.queue, 1)
        whole("bytes_most", self.bytes_most, 1)
        whole("pixels_most", self.pixels_most, 1)
        number("seconds", self.seconds, 0, above=True)
        number("wait", self.wait, 0, 10)
