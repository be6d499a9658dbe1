"""In which order pictures come: every epoch's is thrown by seed and epoch alone, and cut into batches and shares."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from effnet.arch.serde import check_int
from effnet.data.augment import Augment, build_augmentation, stable_seed, temporary_seed
from effnet.data.cache import DiskCache
from effnet.data.dataset import ImageDataset
from effnet.data.image_io import ImageSource
from effnet.metadata import Preprocess
from effnet.timing.machine import count_cores

Indices = NDArray[np.int64]


SHARD_SHUFFLE_WINDOW = 4  # archives whose pictures are shuffled among each other


class EpochSampler:
    """Batches of indices into ``pictures``, of which this process gets its share: ``batches(3)`` is the fourth epoch's.

    ``batch`` pictures are a batch over all ``ranks`` processes; the batches of an epoch differ by one at the most, and
    so do the shares of a batch. Every picture comes once an epoch; with ``even``, pictures are drawn with replacement
    so that classes come equally often, and within a class each by its weight. Nothing else but seed and epoch decides.

    Pictures in archives come an archive after the other, in windows of `WINDOW` that are shuffled within: what is
    fetched is used while it is here. Raises ``ValueError`` where a process would have to go without a share.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        class_balanced: bool = False,
    ) -> None:
        check_int("batch_size", batch_size, 1)
        check_int("world_size", world_size, 1)
        check_int("rank", rank, 0)
        assert rank < world_size, (rank, world_size)
        if not len(dataset):
            raise ValueError("there are no pictures to learn from")
        self.count, self.batch_size, self.seed, self.rank, self.world_size = (
            len(dataset),
            batch_size,
            seed,
            rank,
            world_size,
        )
        smallest = self.count // len(self)
        if smallest < world_size:
            raise ValueError(
                f"batches of {smallest} images cannot be shared among {world_size} processes: use a larger batch size, "
                f"or start at most {smallest} processes"
            )
        self.shard_indices = _shard_indices(dataset)
        self.balancer = _ClassBalancer(dataset) if class_balanced else None

    def __len__(self) -> int:
        """Batches in an epoch, the same for all ranks."""
        return -(-self.count // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Indices]:
        """This rank's share of every batch of ``epoch`` from number ``start`` on: int64 (N,) each."""
        for batch in np.array_split(self.epoch_indices(epoch), len(self))[start:]:
            yield np.array_split(batch, self.world_size)[self.rank]

    def epoch_indices(self, epoch: int) -> Indices:
        """All indices of ``epoch``, in order: int64 (number of pictures,)."""
        thrown = np.random.default_rng(stable_seed(self.seed, "order", epoch))
        shuffled = thrown.permutation(self.count)
        if self.balancer is not None:
            shuffled = self.balancer.draw(shuffled, thrown)
        if self.shard_indices is None:
            return shuffled
        turns = thrown.permutation(self.shard_indices.max() + 1) // SHARD_SHUFFLE_WINDOW
        return shuffled[np.argsort(turns[self.shard_indices[shuffled]], kind="stable")]


def _shard_indices(dataset: ImageDataset) -> Indices | None:
    """The number of the archive that holds each picture; None where none is in one."""
    numbers: dict[object, int] = {}
    found = [getattr(item.image, "shard", None) for item in dataset.items]
    if not any(found):
        return None
    return np.array([numbers.setdefault(archive, len(numbers)) for archive in found], np.int64)


class _ClassBalancer:
    """Which pictures come, and how often, where classes are to come equally often.

    A picture of several labels has the mean of what they would give it; one of none is of a class of such. Values have
    no classes: their weights alone count. Raises ``ValueError`` for weights that are no shares of anything.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        weights = np.array([item.weight for item in dataset.items], np.float64)
        if not np.isfinite(weights).all() or weights.min() < 0 or not weights.max() > 0:
            raise ValueError("the weights of pictures must be numbers of 0 or more, and not all of them 0")
        if dataset.labels.task == "regression":
            self.first_classes, shares = np.zeros(len(dataset), np.int64), weights
        else:
            none = len(dataset.labels.names)
            labels = [_label_classes(item.label, none) for item in dataset.items]
            totals = np.zeros(none + 1)
            for weight, classes in zip(weights, labels, strict=True):
                totals[classes] += weight / len(classes)
            totals[totals == 0] = np.inf
            self.first_classes = np.array([classes[0] for classes in labels], np.int64)
            shares = weights * np.array([(1 / totals[classes]).mean() for classes in labels])
        self.draws_per_image = shares / shares.sum() * len(shares)

    def draw(self, shuffled: Indices, rng: np.random.Generator) -> Indices:
        """As many indices as there are pictures, each as often as it should, rounded up or down by chance, shuffled.

        One throw and even steps from there (systematic sampling) through class after class: independent draws would
        bring some pictures, and some classes, far more often than others by chance alone.
        """
        by_class = shuffled[np.argsort(self.first_classes[shuffled], kind="stable")]
        ends = np.cumsum(self.draws_per_image[by_class])
        steps = rng.random() + np.arange(len(ends))
        return rng.permutation(by_class[np.minimum(np.searchsorted(ends, steps, side="right"), len(ends) - 1)])


def _label_classes(label: int | tuple[int, ...] | tuple[float, ...], no_label_class: int) -> list[int]:
    return [label] if isinstance(label, int) else [int(one) for one in label] or [no_label_class]


# Labelled pictures in shuffled, randomly changed batches for training.


Batch = tuple[Tensor, Tensor]


log = logging.getLogger("effnet")


class TrainingLoader:
    """Shuffled, changed training pictures: ``epoch(3)`` yields its batches, the same whenever and however it is asked.

    Each is (uint8 (N, H, W, 3), int64 (N,)), pictures and their places in ``pictures``. ``batch`` pictures are a batch
    over all ``ranks`` processes, of which this one, number ``rank``, gets its share; see `Order` for that and for
    ``even``. ``workers`` processes prepare them, whose number changes nothing in what comes (None: as many as there are
    cores; none for pictures held in memory). ``cache`` keeps decoded pictures on disk as far as it has room.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        preprocess: Preprocess,
        augment: Augment,
        batch_size: int,
        seed: int,
        num_workers: int | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        class_balanced: bool = False,
        cache: bool = False,
    ) -> None:
        self._sampler = _TorchSampler(EpochSampler(dataset, batch_size, seed, rank, world_size, class_balanced))
        if num_workers is None:
            num_workers = 0 if isinstance(dataset.items[0].image, np.ndarray) else min(count_cores(), 8)
        self._has_warned_full = False
        self._cache = DiskCache(preprocess, augment.min_crop_area) if cache else None
        self._dataset, self._num_workers = (
            _AugmentedImages(dataset, preprocess, augment, seed, self._cache),
            num_workers,
        )
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Batches in an epoch, the same for all ranks."""
        return len(self._sampler)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` (0, 1, …) from number ``start`` on.

        Raises ``PictureError`` for a picture that cannot be read, ``OSError`` for a store that is out of reach.
        """
        self._sampler.epoch, self._sampler.start = epoch, start
        failed: Exception | None = None
        for batch in self._get_loader():
            if isinstance(batch, Exception):
                failed = batch
                break
            yield batch
        if failed is not None:
            self.close()
            raise failed
        if self._cache is not None and self._cache.is_full and not self._has_warned_full:
            self._has_warned_full = True
            log.info("the disk has no room for all decoded pictures: those that are not kept are decoded every time")

    def close(self) -> None:
        """Ends the workers; the next epoch starts others. Left to the garbage collector, each takes five seconds."""
        self._loader = None

    def _get_loader(self) -> DataLoader[Any]:
        if self._loader is None:
            self._loader = DataLoader(
                self._dataset,
                batch_sampler=self._sampler,  # type: ignore[arg-type]
                collate_fn=_identity,  # type: ignore[arg-type]
                num_workers=self._num_workers,
                persistent_workers=self._num_workers > 0,
                generator=torch.Generator().manual_seed(0),  # the loader's own draws must not touch the run's
            )
        return self._loader


class _TorchSampler(Sampler[tuple[int, list[int]]]):
    """The order's batches of the epoch that was asked for, as the loader takes them."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler, self.epoch, self.start = sampler, 0, 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        for indices in self.sampler.batches(self.epoch, self.start):
            yield self.epoch, indices.tolist()


class _AugmentedImages(Dataset[Batch]):
    """Training pictures by (epoch, indices): each changed by dice that only seed, epoch and index throw."""

    def __init__(
        self, dataset: ImageDataset, preprocess: Preprocess, augment: Augment, seed: int, cache: DiskCache | None
    ) -> None:
        self.dataset, self.preprocess, self.seed = dataset, preprocess, seed
        self.augmentation = build_augmentation(
            replace(augment, horizontal_flip=augment.horizontal_flip and dataset.allow_flip), preprocess
        )
        self.cache = cache

    def __getitem__(self, index: int) -> Batch:
        raise NotImplementedError

    def __getitems__(self, asked: tuple[int, list[int]]) -> Batch | Exception:
        """The batch, or what went wrong: raised by a worker, it would come with pages about the worker."""
        try:
            return self._make_batch(*asked)
        except (OSError, ValueError) as error:
            return error

    def _make_batch(self, epoch: int, indices: list[int]) -> Batch:
        batch = torch.empty((len(indices), *self.preprocess.size, 3), dtype=torch.uint8)  # (N, H, W, 3)
        with temporary_seed(0):
            for row, index in zip(batch.numpy(), indices, strict=True):
                torch.default_generator.manual_seed(stable_seed(self.seed, "picture", epoch, index))
                row[:] = self.augmentation(self.get_image(index))
        return batch, torch.tensor(indices)

    def get_image(self, index: int) -> ImageSource:
        """The picture, decoded if it is in the cache."""
        item = self.dataset.items[index]
        return self.cache.get_image(item) if self.cache is not None else item.image


def _identity(batch: Batch | Exception) -> Batch | Exception:
    return batch
