"""An exported file on this disk, and pictures and answers on their way into it and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.contract import Contract
from effnet.engines.engine import Floats, Pictures, as_normalised, as_pixels
from effnet.engines.interface import Interface

NEAREST = 2**-24  # to 0 and to 1 that a probability comes
NEAR_WHOLE = 0.01  # of a pixel's value: what is left of float32 after mean and std were applied and taken off again


def there(path: str | Path) -> Path:
    """``path``. Raises ``FileNotFoundError`` where there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such exported file")
    return Path(path)


def unreadable(path: Path, kind: str, error: Exception) -> ValueError:
    """What is said where ``kind`` does not open the file."""
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ValueError(f"{path} cannot be opened by {kind}: it is damaged, or of another version ({why})")


def as_asked(pictures: Pictures, contract: Contract, interface: Interface, where: Path) -> NDArray[Any]:
    """``pictures`` in the form that the file takes. Raises ``ValueError`` for those that it cannot take."""
    asked: NDArray[Any]
    if interface.input == "normalised":
        asked = as_normalised(pictures, contract.preprocess)
        size = asked.shape[2:]
    else:
        asked = as_pixels(pictures, contract.preprocess)
        size = asked.shape[1:3]
        asked = _whole(asked, where) if interface.input == "pixels" else asked.astype(np.float32, copy=False)
    _fits(size, interface, where)
    return np.ascontiguousarray(asked)


def shape(
    batch: int, size: tuple[int, int] | None, contract: Contract, interface: Interface, where: Path
) -> tuple[int, ...]:
    """The shape of what the file takes for so many pictures. Raises ``ValueError`` for a size that it cannot take."""
    size = size or interface.size or contract.preprocess.size
    _fits(size, interface, where)
    channels = len(contract.preprocess.mean)
    return (batch, channels, *size) if interface.input == "normalised" else (batch, *size, channels)


def _fits(size: tuple[int, ...], interface: Interface, where: Path) -> None:
    if interface.size in (None, size):
        return
    (high, wide), (got_high, got_wide) = interface.size or size, size
    raise ValueError(
        f"{where} takes pictures of {high}×{wide} only, these are {got_high}×{got_wide}: "
        "resize them, or export the network at this size or at any"
    )


def _whole(pixels: Pictures, where: Path) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    rounded = np.rint(pixels)
    if rounded.min() < 0 or rounded.max() > 255 or np.abs(pixels - rounded).max() > NEAR_WHOLE:
        raise ValueError(f"{where} takes whole pixels of 0 … 255, and these are not: round them, or export with floats")
    return rounded.astype(np.uint8)


def as_logits(out: NDArray[Any], interface: Interface, kind: str) -> Floats:
    """What the file gives as logits, for labels of that ``kind``; values are such.

    Of a probability that was rounded to 0 it is the logarithm of the least above it; of one of several labels the logit
    lies within ±16.6, which is as near as float32 comes to 1, and runtimes' sigmoids to 0.
    """
    floats: Floats = out.astype(np.float32, copy=False)
    if interface.output != "probabilities":
        return floats
    if kind == "any":
        shares = np.clip(floats.astype(np.float64), NEAREST, 1 - NEAREST)
        return (np.log(shares) - np.log1p(-shares)).astype(np.float32)
    return np.log(np.maximum(floats, np.finfo(np.float32).tiny))


def no_embedding(path: Path) -> ValueError:
    """What is said where the file gives no embedding."""
    return ValueError(f"{path} gives no embedding: export the network with embedding=True")
