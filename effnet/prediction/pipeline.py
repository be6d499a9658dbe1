"""Images through a network: decoded ahead in threads, computed in batches, returned in order."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from effnet.data import image_io, prefetch
from effnet.metadata import Preprocess

DEFAULT_BATCH_SIZE = 16

FloatT = TypeVar("FloatT", np.float32, np.float64)
NamedImages = Iterable[tuple[str, image_io.ImageSource | image_io.ImageError]]


def run_batches(
    compute: Callable[[image_io.InputImage], NDArray[FloatT]],
    named_images: NamedImages,
    preprocess: Preprocess,
    batch_size: int | Callable[[], int] = DEFAULT_BATCH_SIZE,
    to_input: Callable[[image_io.ImageSource, Preprocess], image_io.InputImage] = image_io.load_input,
    require_finite: bool = True,
) -> Iterator[tuple[str, NDArray[FloatT] | image_io.ImageError]]:
    """Yield (name, row of ``compute``'s result) for each image in order, or the error of an unreadable image.

    Args:
        compute: Maps images (N, H, W, 3) to an array of N rows.
        named_images: (name, image) pairs; an error in place of an image is passed through.
        preprocess: Given to ``to_input``.
        batch_size: Images per call of ``compute``; a function is called before each batch, since the best size may be
            known only after the first images.
        to_input: Makes the network's input (H, W, 3) from an image.
        require_finite: Raise ``ValueError`` if a result is NaN or infinite.
    """

    def prepare(
        pair: tuple[str, image_io.ImageSource | image_io.ImageError],
    ) -> tuple[str, image_io.InputImage | image_io.ImageError]:
        name, source = pair
        if isinstance(source, image_io.ImageError):
            return name, source
        try:
            return name, to_input(source, preprocess)
        except image_io.ImageError as error:
            return name, error

    prepared = prefetch.prefetch_map(prepare, named_images)
    while batch := list(islice(prepared, batch_size if isinstance(batch_size, int) else batch_size())):
        readable = [image for _, image in batch if not isinstance(image, image_io.ImageError)]
        results = compute(np.stack(readable)) if readable else None
        if require_finite and results is not None and not np.isfinite(results).all():
            raise ValueError("the model's output contains NaN or Inf: its weights are damaged")
        rows = iter(results if results is not None else ())
        for name, image in batch:
            yield name, image if isinstance(image, image_io.ImageError) else next(rows)


def require_rgb(channels: int) -> None:
    """Raise ``ValueError`` unless the network takes three channels."""
    if channels != 3:
        raise ValueError(f"this network takes {channels} channels, but images are read as RGB, which has 3")
