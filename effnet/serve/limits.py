"""What one server takes on."""

from __future__ import annotations

from dataclasses import dataclass

from effnet.arch.serde import check_float, check_int


@dataclass(frozen=True)
class ServerLimits:
    """What one server takes on, for all its models together.

    ``queue``: pictures that have come and are not answered yet; with those that are still coming, they hold no more
    bytes than so many of the largest. ``bytes_most``: of a picture's file. ``pixels_most``: of a picture, read from its
    first bytes before anything is decoded. ``seconds``: in which a picture must have arrived, and after that in which
    it must be answered. ``wait``: seconds that an idle network waits for a fuller batch.
    Raises ``ValueError`` for values that nothing could be served with.
    """

    queue_size: int = 64
    max_bytes: int = 32_000_000
    max_pixels: int = 100_000_000  # 300 MB as RGB: every telephone's photo, and no decompression bomb
    timeout_seconds: float = 30.0
    batch_wait_seconds: float = 0.0

    def __post_init__(self) -> None:
        check_int("queue", self.queue_size, 1)
        check_int("bytes_most", self.max_bytes, 1)
        check_int("pixels_most", self.max_pixels, 1)
        check_float("seconds", self.timeout_seconds, 0, exclusive=True)
        check_float("wait", self.batch_wait_seconds, 0, 10)
