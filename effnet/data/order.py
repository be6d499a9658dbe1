"""In which order pictures come: every epoch's is thrown by seed and epoch alone, and cut into batches and shares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from effnet.arch.record import whole
from effnet.data.augment import dice
from effnet.data.pictures import Pictures

Indices = NDArray[np.int64]

WINDOW = 4  # archives whose pictures are shuffled among each other


class Order:
    """Batches of indices into ``pictures``, of which this process gets its share: ``batches(3)`` is the fourth epoch's.

    ``batch`` pictures are a batch over all ``ranks`` processes; the batches of an epoch differ by one at the most, and
    so do the shares of a batch. Every picture comes once an epoch; with ``even``, pictures are drawn with replacement
    so that classes come equally often, and within a class each by its weight. Nothing else but seed and epoch decides.

    Pictures in archives come an archive after the other, in windows of `WINDOW` that are shuffled within: what is
    fetched is used while it is here. Raises ``ValueError`` where a process would have to go without a share.
    """

    def __init__(
        self, pictures: Pictures, batch: int, seed: int, rank: int = 0, ranks: int = 1, even: bool = False
    ) -> None:
        whole("batch", batch, 1)
        whole("ranks", ranks, 1)
        whole("rank", rank, 0)
        assert rank < ranks, (rank, ranks)
        if not len(pictures):
            raise ValueError("there are no pictures to learn from")
        self.count, self.batch, self.seed, self.rank, self.ranks = len(pictures), batch, seed, rank, ranks
        smallest = self.count // len(self)
        if smallest < ranks:
            raise ValueError(
                f"batches of {smallest} pictures cannot be shared among {ranks} processes: give larger batches, or "
                f"start at most {smallest} processes"
            )
        self.archives = _archives(pictures)
        self.even = _Even(pictures) if even else None

    def __len__(self) -> int:
        """Batches in an epoch, the same for all ranks."""
        return -(-self.count // self.batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Indices]:
        """This rank's share of every batch of ``epoch`` from number ``start`` on: int64 (N,) each."""
        for batch in np.array_split(self.all(epoch), len(self))[start:]:
            yield np.array_split(batch, self.ranks)[self.rank]

    def all(self, epoch: int) -> Indices:
        """All indices of ``epoch``, in order: int64 (number of pictures,)."""
        thrown = np.random.default_rng(dice(self.seed, "order", epoch))
        shuffled = thrown.permutation(self.count)
        if self.even is not None:
            shuffled = self.even.drawn(shuffled, thrown)
        if self.archives is None:
            return shuffled
        turns = thrown.permutation(self.archives.max() + 1) // WINDOW
        return shuffled[np.argsort(turns[self.archives[shuffled]], kind="stable")]


def _archives(pictures: Pictures) -> Indices | None:
    """The number of the archive that holds each picture; None where none is in one."""
    numbers: dict[object, int] = {}
    found = [getattr(item.picture, "archive", None) for item in pictures.items]
    if not any(found):
        return None
    return np.array([numbers.setdefault(archive, len(numbers)) for archive in found], np.int64)


class _Even:
    """Which pictures come, and how often, where classes are to come equally often.

    A picture of several labels has the mean of what they would give it; one of none is of a class of such. Values have
    no classes: their weights alone count. Raises ``ValueError`` for weights that are no shares of anything.
    """

    def __init__(self, pictures: Pictures) -> None:
        weights = np.array([item.weight for item in pictures.items], np.float64)
        if not np.isfinite(weights).all() or weights.min() < 0 or not weights.max() > 0:
            raise ValueError("the weights of pictures must be numbers of 0 or more, and not all of them 0")
        if pictures.labels.kind == "value":
            self.first, shares = np.zeros(len(pictures), np.int64), weights
        else:
            none = len(pictures.labels.names)
            labels = [_classes(item.label, none) for item in pictures.items]
            totals = np.zeros(none + 1)
            for weight, classes in zip(weights, labels, strict=True):
                totals[classes] += weight / len(classes)
            totals[totals == 0] = np.inf
            self.first = np.array([classes[0] for classes in labels], np.int64)
            shares = weights * np.array([(1 / totals[classes]).mean() for classes in labels])
        self.times = shares / shares.sum() * len(shares)

    def drawn(self, shuffled: Indices, thrown: np.random.Generator) -> Indices:
        """As many indices as there are pictures, each as often as it should, rounded up or down by chance, shuffled.

        One throw and even steps from there (systematic sampling) through class after class: independent draws would
        bring some pictures, and some classes, far more often than others by chance alone.
        """
        by_class = shuffled[np.argsort(self.first[shuffled], kind="stable")]
        ends = np.cumsum(self.times[by_class])
        steps = thrown.random() + np.arange(len(ends))
        return thrown.permutation(by_class[np.minimum(np.searchsorted(ends, steps, side="right"), len(ends) - 1)])


def _classes(label: int | tuple[int, ...] | tuple[float, ...], none: int) -> list[int]:
    return [label] if isinstance(label, int) else [int(one) for one in label] or [none]
