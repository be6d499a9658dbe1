"""Scikit-learn's handwritten digits: 1,797 real pictures that come with the package, for work without a network."""

from __future__ import annotations

import numpy as np

from effnet.contract import Labels
from effnet.data.holdout import holdout
from effnet.data.pictures import Item, Pictures, Splits

TEST_SHARE = 0.2
TEST_SEED = 1797  # never to change: every accuracy on these digits is of the same test pictures


def splits() -> Splits:
    """The digits as uint8 (8, 8, 3) pictures, a fifth of each class for testing: always the same one."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    grey = np.rint(loaded.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8), from 0 to 16
    rgb = np.repeat(grey[..., None], 3, axis=-1)  # (N, 8, 8, 3)
    items = tuple(
        Item(picture, int(label), f"digits/{index:04}")
        for index, (picture, label) in enumerate(zip(rgb, loaded.target, strict=True))
    )
    pictures = Pictures(items, Labels(tuple("0123456789")), mirror=False)
    train, test = holdout(pictures, TEST_SHARE, TEST_SEED)
    return Splits(train, None, test)
