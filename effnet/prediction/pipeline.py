"""Pictures through a network: read ahead in threads, computed in batches, answered in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from effnet.data.image_io import ImageError, ImageSource, InputImage, load_input
from effnet.data.prefetch import prefetch_map
from effnet.metadata import Preprocess

DEFAULT_BATCH_SIZE = 16


FloatT = TypeVar("FloatT", np.float32, np.float64)


def run_batches(
    compute: Callable[[InputImage], NDArray[FloatT]],
    named_images: Iterable[tuple[str, ImageSource | ImageError]],
    preprocess: Preprocess,
    batch_size: int | Callable[[], int] = DEFAULT_BATCH_SIZE,
    to_input: Callable[[ImageSource, Preprocess], InputImage] = load_input,
    require_finite: bool = True,
) -> Iterator[tuple[str, NDArray[FloatT] | ImageError]]:
    """``compute`` of every picture, in order and in batches: (name, its row of the result, or why there is none).

    ``batch`` may be asked anew each time: what is best may only be known after the first pictures. ``look`` makes the
    network's input of a picture. Raises ``ValueError`` for results that are not ``finite`` but shall be.
    """

    def prepare(one: tuple[str, ImageSource | ImageError]) -> tuple[str, InputImage | ImageError]:
        name, source = one
        if isinstance(source, ImageError):
            return name, source
        try:
            return name, to_input(source, preprocess)
        except ImageError as error:
            return name, error

    prepared = prefetch_map(prepare, named_images)
    while chunk := list(islice(prepared, batch_size if isinstance(batch_size, int) else batch_size())):
        read = [picture for _, picture in chunk if not isinstance(picture, ImageError)]
        computed = compute(np.stack(read)) if read else None
        if require_finite and computed is not None and not np.isfinite(computed).all():
            raise ValueError("the network answers with numbers that are not finite: its weights are damaged")
        rows = iter(computed if computed is not None else ())
        for name, picture in chunk:
            yield name, picture if isinstance(picture, ImageError) else next(rows)


def require_rgb(channels: int) -> None:
    """Raises ``ValueError`` for a network that is not for pictures of three channels."""
    if channels != 3:
        raise ValueError(f"this network sees {channels} channels; pictures are read as RGB, which has 3")
