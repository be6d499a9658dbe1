from __future__ import annotations

from hashlib import sha256

import numpy as np

from effnet.data import open_data, read


def test_digits_are_all_there_as_pictures() -> None:
    splits = open_data("digits")
    assert splits.train is not None
    assert splits.val is None
    assert splits.test is not None
    assert len(splits.train) + len(splits.test) == 1797
    for part in (splits.train, splits.test):
        assert part.labels.names == tuple("0123456789")
        assert not part.mirror
        for item in part.items:
            assert isinstance(item.picture, np.ndarray)
            assert item.picture.shape == (8, 8, 3)
            assert item.picture.dtype == np.uint8
    everything = np.stack([np.asarray(item.picture) for item in splits.train.items])
    assert everything.min() == 0
    assert everything.max() == 255
    assert read(splits.train.items[0].picture).size == (8, 8)


def test_the_test_pictures_never_change() -> None:
    test = open_data("digits").test
    assert test is not None
    assert all(30 <= count <= 40 for count in test.counts())
    names = [item.name for item in test.items]
    assert names == sorted(names)
    assert len(names) == 359
    assert sha256(" ".join(names).encode()).hexdigest()[:16] == "83a808535eac22eb"
