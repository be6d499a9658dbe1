"""Pictures to compare by: those that the user gives, or else some that need no data of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from effnet.contract import Preprocess
from effnet.data.gather import gather
from effnet.data.pixels import Fitted, PictureError, Source, pixels

MOST = 32  # more would tell no more
LOOKED_AT = 10_000  # of a folder, to take those from
PHOTOS = ("china.jpg", "flower.jpg")  # scikit-learn's two sample images


def given(pictures: str | Path | Iterable[Source]) -> list[Source]:
    """Up to `MOST` of the pictures that a folder, a pattern or a list means, evenly spread.

    Raises ``FileNotFoundError``, and ``ValueError`` where there are none.
    """
    if isinstance(pictures, (str, Path)):
        pictures = (source for _, source in gather([pictures]) if not isinstance(source, PictureError))
    found = list(islice(pictures, LOOKED_AT))
    if not found:
        raise ValueError("there are no pictures to compare by: leave them out, and some of our own are taken")
    return found[:: -(-len(found) // MOST)]


def prepared(pictures: list[Source], preprocess: Preprocess) -> Fitted:
    """(N, H, W, 3) of ``preprocess.size``; what is no readable picture is passed over.

    Raises ``ValueError`` where none can be read.
    """
    read, why = [], ""
    for source in pictures:
        try:
            read.append(pixels(source, preprocess))
        except PictureError as error:
            why = str(error)
    if not read:
        raise ValueError(f"none of the pictures to compare by can be read: {why}")
    return np.stack(read)


def own(preprocess: Preprocess, channels: int = 3) -> Fitted:
    """(N, H, W, channels) of ``preprocess.size``, always the same: gradients, a texture, blots and noise.

    With three channels also the two photos that come with scikit-learn, by the network's own preprocessing.
    """
    drawn = _drawn(*preprocess.size, channels)
    package = find_spec("sklearn")
    places = [Path(place) / "datasets" / "images" for place in (package and package.submodule_search_locations) or ()]
    photos: list[Source] = [place / name for place in places for name in PHOTOS if (place / name).is_file()]
    if channels != 3 or not photos:
        return drawn
    return np.concatenate([prepared(photos, replace(preprocess, decode="exact")), drawn])


def _drawn(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """(4, height, width, channels)."""
    chance = np.random.default_rng(0)
    down, along = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    turn = np.arange(channels) / channels
    gradient = (down * (1 - turn) + along * turn) * 255
    waves = np.sin(40 * along + 6 * turn) * np.sin(25 * down + 9 * down * along) * 127.5 + 127.5
    coarse = [Image.fromarray(chance.integers(0, 256, (7, 9), np.uint8)) for _ in range(channels)]
    blots = np.stack([np.asarray(each.resize((width, height), Image.Resampling.BICUBIC)) for each in coarse], -1)
    noise = chance.integers(0, 256, (height, width, channels))
    return np.stack([np.rint(each).astype(np.uint8) for each in (gradient, waves, blots, noise)])
