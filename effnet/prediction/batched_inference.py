"""Images through a network: decoded ahead in threads, computed in batches, returned in order."""

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
NamedImages = Iterable[tuple[str, ImageSource | ImageError]]


def run_batches(
    compute: Callable[[InputImage], NDArray[FloatT]],
    named_images: NamedImages,
    preprocess: Preprocess,
    batch_size: int | Callable[[], int] = DEFAULT_BATCH_SIZE,
    to_input: Callable[[ImageSource, Preprocess], InputImage] = load_input,
    require_finite: bool = True,
) -> Iterator[tuple[str, NDArray[FloatT] | ImageError]]:
    """Yield (name, row of ``compute``'s result) for each image in order, or the error of an unreadable image.

    ``compute`` maps images (N, H, W, 3) to N rows. An error instead of an image is passed through. If ``batch_size``
    is a function, it is called before each batch, since the best size may be known only after the first images. With
    ``require_finite`` a result that is NaN or infinite raises ``ValueError``.
    """

    def prepare(pair: tuple[str, ImageSource | ImageError]) -> tuple[str, InputImage | ImageError]:
        name, source = pair
        try:
            return name, source if isinstance(source, ImageError) else to_input(source, preprocess)
        except ImageError as error:
            return name, error

    prepared = prefetch_map(prepare, named_images)
    while batch := list(islice(prepared, batch_size if isinstance(batch_size, int) else batch_size())):
        readable = [image for _, image in batch if not isinstance(image, ImageError)]
        results = compute(np.stack(readable)) if readable else None
        if require_finite and results is not None and not np.isfinite(results).all():
            raise ValueError("the model's output contains NaN or Inf: its weights are damaged")
        rows = iter(results if results is not None else ())
        for name, image in batch:
            yield name, image if isinstance(image, ImageError) else next(rows)
