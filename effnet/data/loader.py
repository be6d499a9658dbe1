"""Labelled pictures in batches: in order for measuring, shuffled and changed for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from effnet.clock.machine import cores
from effnet.contract import Preprocess
from effnet.data.augment import Augment, augmenter, dice, seeded
from effnet.data.pictures import Pictures
from effnet.data.pixels import read


class _Changed(Dataset[tuple[Tensor, int]]):
    """Training pictures by (epoch, index): each changed by dice that only seed, epoch and index throw."""

    def __init__(self, pictures: Pictures, preprocess: Preprocess, augment: Augment, seed: int) -> None:
        self.pictures, self.preprocess, self.seed = pictures, preprocess, seed
        self.change = augmenter(replace(augment, mirror=augment.mirror and pictures.mirror), preprocess)
        # At least twice this is left after reduction: enough for a random crop of a part of the picture.
        self.reduce_to = preprocess.resized if preprocess.decode == "reduced" else None

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        item = self.pictures.items[index]
        with seeded(dice(self.seed, "picture", epoch, index)):
            return torch.from_numpy(self.change(read(item.picture, self.reduce_to))), item.label


class _Order(Sampler[list[tuple[int, int]]]):
    """Batches of one epoch: a shuffle thrown by seed and epoch, cut into batches that differ by one at the most."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled = np.random.default_rng(dice(self.seed, "order", self.epoch)).permutation(self.count)
        for batch in np.array_split(shuffled, len(self))[self.start :]:
            yield [(self.epoch, int(index)) for index in batch]


class TrainingBatches:
    """Shuffled, changed training pictures: ``epoch(3)`` yields its batches, the same whenever and however it is asked.

    Each is (uint8 (N, H, W, 3), int64 (N,)). ``workers`` processes prepare them; none for pictures held in memory.
    """

    def __init__(
        self,
        pictures: Pictures,
        preprocess: Preprocess,
        augment: Augment,
        batch: int,
        seed: int,
        workers: int | None = None,
    ) -> None:
        if workers is None:
            workers = min(cores(), 8) if isinstance(pictures.items[0].picture, Path) else 0
        self._order = _Order(len(pictures), batch, seed)
        self._loader: DataLoader[Any] = DataLoader(
            _Changed(pictures, preprocess, augment, seed),
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(0),  # the loader's own draws must not touch the run's
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of ``epoch`` (0, 1, …) from number ``start`` on."""
        self._order.epoch, self._order.start = epoch, start
        yield from self._loader
