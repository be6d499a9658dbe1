"""Labelled pictures in shuffled, randomly changed batches for training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from effnet.clock.machine import cores
from effnet.contract import Preprocess
from effnet.data.augment import Augment, augmenter, dice, seeded
from effnet.data.cache import Cache
from effnet.data.order import Order
from effnet.data.pictures import Pictures
from effnet.data.pixels import Source

Batch = tuple[Tensor, Tensor]
log = logging.getLogger("effnet")


class TrainingBatches:
    """Shuffled, changed training pictures: ``epoch(3)`` yields its batches, the same whenever and however it is asked.

    Each is (uint8 (N, H, W, 3), int64 (N,)), pictures and their places in ``pictures``. ``batch`` pictures are a batch
    over all ``ranks`` processes, of which this one, number ``rank``, gets its share; see `Order` for that and for
    ``even``. ``workers`` processes prepare them, whose number changes nothing in what comes (None: as many as there are
    cores; none for pictures held in memory). ``cache`` keeps decoded pictures on disk as far as it has room.
    """

    def __init__(
        self,
        pictures: Pictures,
        preprocess: Preprocess,
        augment: Augment,
        batch: int,
        seed: int,
        workers: int | None = None,
        *,
        rank: int = 0,
        ranks: int = 1,
        even: bool = False,
        cache: bool = False,
    ) -> None:
        self._order = _Asked(Order(pictures, batch, seed, rank, ranks, even))
        if workers is None:
            workers = 0 if isinstance(pictures.items[0].picture, np.ndarray) else min(cores(), 8)
        self._said = False
        self._cache = Cache(preprocess, augment.crop) if cache else None
        self._changed, self._workers = _Changed(pictures, preprocess, augment, seed, self._cache), workers
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Batches in an epoch, the same for all ranks."""
        return len(self._order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` (0, 1, …) from number ``start`` on.

        Raises ``PictureError`` for a picture that cannot be read, ``OSError`` for a store that is out of reach.
        """
        self._order.epoch, self._order.start = epoch, start
        failed: Exception | None = None
        for batch in self._opened():
            if isinstance(batch, Exception):
                failed = batch
                break
            yield batch
        if failed is not None:
            self.close()
            raise failed
        if self._cache is not None and self._cache.full and not self._said:
            self._said = True
            log.info("the disk has no room for all decoded pictures: those that are not kept are decoded every time")

    def close(self) -> None:
        """Ends the workers; the next epoch starts others. Left to the garbage collector, each takes five seconds."""
        self._loader = None

    def _opened(self) -> DataLoader[Any]:
        if self._loader is None:
            self._loader = DataLoader(
                self._changed,
                batch_sampler=self._order,  # type: ignore[arg-type]
                collate_fn=_as_it_is,  # type: ignore[arg-type]
                num_workers=self._workers,
                persistent_workers=self._workers > 0,
                generator=torch.Generator().manual_seed(0),  # the loader's own draws must not touch the run's
            )
        return self._loader


class _Asked(Sampler[tuple[int, list[int]]]):
    """The order's batches of the epoch that was asked for, as the loader takes them."""

    def __init__(self, order: Order) -> None:
        self.order, self.epoch, self.start = order, 0, 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        for indices in self.order.batches(self.epoch, self.start):
            yield self.epoch, indices.tolist()


class _Changed(Dataset[Batch]):
    """Training pictures by (epoch, indices): each changed by dice that only seed, epoch and index throw."""

    def __init__(
        self, pictures: Pictures, preprocess: Preprocess, augment: Augment, seed: int, cache: Cache | None
    ) -> None:
        self.pictures, self.preprocess, self.seed = pictures, preprocess, seed
        self.change = augmenter(replace(augment, mirror=augment.mirror and pictures.mirror), preprocess)
        self.cache = cache

    def __getitem__(self, index: int) -> Batch:
        raise NotImplementedError

    def __getitems__(self, asked: tuple[int, list[int]]) -> Batch | Exception:
        """The batch, or what went wrong: raised by a worker, it would come with pages about the worker."""
        try:
            return self._batch(*asked)
        except (OSError, ValueError) as error:
            return error

    def _batch(self, epoch: int, indices: list[int]) -> Batch:
        batch = torch.empty((len(indices), *self.preprocess.size, 3), dtype=torch.uint8)  # (N, H, W, 3)
        with seeded(0):
            for row, index in zip(batch.numpy(), indices, strict=True):
                torch.default_generator.manual_seed(dice(self.seed, "picture", epoch, index))
                row[:] = self.change(self.picture(index))
        return batch, torch.tensor(indices)

    def picture(self, index: int) -> Source:
        """The picture, decoded if it is in the cache."""
        item = self.pictures.items[index]
        return self.cache.picture(item) if self.cache is not None else item.picture


def _as_it_is(batch: Batch | Exception) -> Batch | Exception:
    return batch
