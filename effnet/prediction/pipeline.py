"""Pictures through a network: read ahead in threads, computed in batches, answered in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from effnet.contract import Preprocess
from effnet.data.ahead import ahead
from effnet.data.pixels import Fitted, PictureError, Source, pixels

BATCH = 16

Number = TypeVar("Number", np.float32, np.float64)


def outputs(
    compute: Callable[[Fitted], NDArray[Number]],
    named: Iterable[tuple[str, Source | PictureError]],
    preprocess: Preprocess,
    batch: int | Callable[[], int] = BATCH,
    look: Callable[[Source, Preprocess], Fitted] = pixels,
    finite: bool = True,
) -> Iterator[tuple[str, NDArray[Number] | PictureError]]:
    """``compute`` of every picture, in order and in batches: (name, its row of the result, or why there is none).

    ``batch`` may be asked anew each time: what is best may only be known after the first pictures. ``look`` makes the
    network's input of a picture. Raises ``ValueError`` for results that are not ``finite`` but shall be.
    """

    def prepare(one: tuple[str, Source | PictureError]) -> tuple[str, Fitted | PictureError]:
        name, source = one
        if isinstance(source, PictureError):
            return name, source
        try:
            return name, look(source, preprocess)
        except PictureError as error:
            return name, error

    prepared = ahead(prepare, named)
    while chunk := list(islice(prepared, batch if isinstance(batch, int) else batch())):
        read = [picture for _, picture in chunk if not isinstance(picture, PictureError)]
        computed = compute(np.stack(read)) if read else None
        if finite and computed is not None and not np.isfinite(computed).all():
            raise ValueError("the network answers with numbers that are not finite: its weights are damaged")
        rows = iter(computed if computed is not None else ())
        for name, picture in chunk:
            yield name, picture if isinstance(picture, PictureError) else next(rows)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return shares


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """The probability of each number by itself, in float64."""
    # By the half that cannot overflow
    tail = np.exp(-np.abs(logits.astype(np.float64)))
    shares: NDArray[np.float64] = np.where(logits < 0, tail, 1) / (1 + tail)
    return shares


def answers(logits: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """What logits (N, classes) mean by the labels' ``kind``, in float64: probabilities, or values as they are.

    Of "one", all of a row's are 1 in sum; of "any", each is by itself.
    """
    match kind:
        case "one":
            return softmax(logits)
        case "any":
            return sigmoid(logits)
    return logits.astype(np.float64)


def for_rgb(channels: int) -> None:
    """Raises ``ValueError`` for a network that is not for pictures of three channels."""
    if channels != 3:
        raise ValueError(f"this network sees {channels} channels; pictures are read as RGB, which has 3")
