"""Training batches: sampled by seed and epoch alone, augmented in worker processes, shared among ranks."""

import logging
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from effnet.arch.serde import check_int
from effnet.data.augment import Augment, build_augmentation, stable_seed, temporary_seed
from effnet.data.cache import DiskCache
from effnet.data.dataset import ImageDataset
from effnet.metadata import Preprocess
from effnet.tasks import task_of
from effnet.timing import child_process
from effnet.timing.machine import count_cores

log = logging.getLogger("effnet")

Batch = tuple[torch.Tensor, torch.Tensor]
Indices = NDArray[np.int64]

MAX_DEFAULT_WORKERS = 8
SHARD_SHUFFLE_WINDOW = 4  # shards whose images are shuffled among each other


class TrainingLoader:
    """Batches of shuffled, augmented training images.

    ``epoch(3)`` yields the batches of the fourth epoch, the same ones whenever and by whomever it is called: uint8
    (N, H, W, C) images and int64 (N,) indices into ``dataset``.

    Args:
        batch_size, rank, world_size, class_balanced: see `EpochSampler`.
        num_workers: processes that prepare batches, without effect on their content. None: one per core, at most
            `MAX_DEFAULT_WORKERS`; 0 for images in memory.
        cache: keep decoded images on disk as far as there is room.
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
        self._sampler = EpochSampler(dataset, batch_size, seed, rank, world_size, class_balanced)
        if num_workers is None:
            in_memory = isinstance(dataset.items[0].image, np.ndarray)
            num_workers = 0 if in_memory else min(count_cores(), MAX_DEFAULT_WORKERS)
        self._num_workers = num_workers
        self._cache = DiskCache(preprocess, augment.min_crop_area) if cache else None
        self._dataset = _AugmentedImages(dataset, preprocess, augment, seed, self._cache)
        self._loader: DataLoader[Batch | Exception] | None = None
        self._has_warned_full = False

    def __len__(self) -> int:
        return len(self._sampler)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` (0, 1, …) from number ``start`` on.

        Raises ``ImageError`` for an image that cannot be read, ``OSError`` for a store that is unreachable.
        """
        self._sampler.epoch, self._sampler.start = epoch, start
        if self._loader is None:
            self._loader = DataLoader(
                self._dataset,
                batch_sampler=self._sampler,  # type: ignore[arg-type]
                collate_fn=_identity,  # type: ignore[arg-type]
                num_workers=self._num_workers,
                persistent_workers=self._num_workers > 0,
                generator=torch.Generator().manual_seed(0),  # its own draws must not change the run's random numbers
            )
        for batch in _name_killed_workers(self._loader):
            if isinstance(batch, Exception):
                self.close()
                raise batch
            yield batch
        if self._cache is not None and self._cache.is_full and not self._has_warned_full:
            self._has_warned_full = True
            log.info("the disk has no room for all decoded images: the others are decoded in every epoch")

    def close(self) -> None:
        """End the workers; the next epoch starts new ones. The garbage collector would take five seconds for each."""
        self._loader = None


class _AugmentedImages(Dataset[Batch | Exception]):
    """Augmented batches by (epoch, indices): random numbers depend on seed, epoch and index alone."""

    def __init__(
        self, dataset: ImageDataset, preprocess: Preprocess, augment: Augment, seed: int, cache: DiskCache | None
    ) -> None:
        self.dataset, self.preprocess, self.seed, self.cache = dataset, preprocess, seed, cache
        flip = augment.horizontal_flip and dataset.allow_flip
        self.augmentation = build_augmentation(replace(augment, horizontal_flip=flip), preprocess)

    def __getitems__(self, epoch_indices: tuple[int, list[int]]) -> Batch | Exception:
        """Return the batch, or what went wrong: raised in a worker, it would come with a long traceback."""
        epoch, indices = epoch_indices
        shape = (len(indices), *self.preprocess.size, len(self.preprocess.mean))
        batch = torch.empty(shape, dtype=torch.uint8)  # (N, H, W, C)
        try:
            with temporary_seed(0):
                for row, index in zip(batch.numpy(), indices, strict=True):
                    seed = stable_seed(self.seed, "picture", epoch, index)  # words: allow. Another word, another run
                    torch.default_generator.manual_seed(seed)
                    image = self.dataset.items[index].image
                    row[:] = self.augmentation(image if self.cache is None else self.cache.get_image(image))
        except (OSError, ValueError) as error:
            return error
        return batch, torch.tensor(indices)


def _name_killed_workers(loader: Iterable[Batch | Exception]) -> Iterator[Batch | Exception]:
    """Yield the batches; raise ``ChildProcessError`` where torch has a page of text about a worker that has died."""
    try:
        yield from loader
    except RuntimeError as error:
        found = re.search(r"DataLoader worker \(pid\S* (\d+).*?(?:by signal: ([^.]+)|exited)", str(error), re.DOTALL)
        if not found:
            raise
        number = next((each for each in signal.Signals if signal.strsignal(each) == found[2]), None)
        how = "ended unexpectedly" if number is None else child_process.describe_exit(-number)
        raise ChildProcessError(f"data loading process {found[1]} {how}; --workers 0 does without them") from None


def _identity(batch: Batch | Exception) -> Batch | Exception:
    return batch


class EpochSampler(Sampler[tuple[int, list[int]]]):
    """Batches of indices into ``dataset``, of which this process gets its share: ``batches(3)`` is the fourth epoch's.

    A batch has ``batch_size`` images over all ``world_size`` processes; the batches of an epoch differ by at most one
    image, and so do the shares of a batch. Every image comes once per epoch, or with ``class_balanced`` as often as
    makes classes equally frequent, within a class by its weight. Only seed and epoch decide. Images in shards are
    shuffled within windows of `SHARD_SHUFFLE_WINDOW` shards, so that a downloaded shard is used while it is cached.

    Raises ``ValueError`` if a process would have no share of a batch.
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
            raise ValueError("there are no training images")
        self.count, self.batch_size, self.seed = len(dataset), batch_size, seed
        self.rank, self.world_size, self.epoch, self.start = rank, world_size, 0, 0
        smallest = self.count // len(self)
        if smallest < world_size:
            raise ValueError(
                f"batches of {smallest} images cannot be shared among {world_size} processes: use a larger batch size, "
                f"or start at most {smallest} processes"
            )
        self.shard_indices = _index_shards(dataset)
        self.balancer = _ClassBalancer(dataset) if class_balanced else None

    def __len__(self) -> int:
        """Batches per epoch, the same for all ranks."""
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Yield (epoch, indices) from ``epoch`` and ``start`` on, for DataLoader."""
        for indices in self.batches(self.epoch, self.start):
            yield self.epoch, indices.tolist()

    def batches(self, epoch: int, start: int = 0) -> Iterator[Indices]:
        """Yield this rank's share of every batch of ``epoch`` from number ``start`` on: int64 (N,) each."""
        for batch in np.array_split(self.epoch_indices(epoch), len(self))[start:]:
            yield np.array_split(batch, self.world_size)[self.rank]

    def epoch_indices(self, epoch: int) -> Indices:
        """Return all indices of ``epoch`` in order: int64 (images,)."""
        rng = np.random.default_rng(stable_seed(self.seed, "order", epoch))
        shuffled = rng.permutation(self.count)
        if self.balancer is not None:
            shuffled = self.balancer.draw(shuffled, rng)
        if self.shard_indices is None:
            return shuffled
        windows = rng.permutation(self.shard_indices.max() + 1) // SHARD_SHUFFLE_WINDOW
        return shuffled[np.argsort(windows[self.shard_indices[shuffled]], kind="stable")]


def _index_shards(dataset: ImageDataset) -> Indices | None:
    """Return the number of the shard that contains each image, or None if none is in a shard."""
    numbers: dict[object, int] = {}
    shards = [getattr(item.image, "shard", None) for item in dataset.items]
    if not any(shards):
        return None
    return np.array([numbers.setdefault(shard, len(numbers)) for shard in shards], np.int64)


class _ClassBalancer:
    """How often each image is drawn per epoch so that classes come equally often.

    A multi-label image gets the mean over its labels; images without a label form a class of their own. For regression
    only the weights count. Raises ``ValueError`` for invalid weights.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        weights = np.array([item.weight for item in dataset.items], np.float64)
        if not np.isfinite(weights).all() or weights.min() < 0 or not weights.max() > 0:
            raise ValueError("image weights must be at least 0, finite, and not all 0")
        if task_of(dataset.labels.task).has_probabilities:
            num_classes = len(dataset.labels.names)
            classes_of = [list(item.classes) or [num_classes] for item in dataset.items]
            totals = np.zeros(num_classes + 1)
            for weight, classes in zip(weights, classes_of, strict=True):
                totals[classes] += weight / len(classes)
            totals[totals == 0] = np.inf
            self.first_classes = np.array([classes[0] for classes in classes_of], np.int64)
            rates = weights * np.array([(1 / totals[classes]).mean() for classes in classes_of])
        else:
            self.first_classes, rates = np.zeros(len(dataset), np.int64), weights
        self.draws_per_image = rates / rates.sum() * len(rates)

    def draw(self, shuffled: Indices, rng: np.random.Generator) -> Indices:
        """Return as many indices as there are images, each as often as it should, rounded up or down at random.

        By systematic sampling through class after class: independent draws would bring some far more often by chance.
        """
        by_class = shuffled[np.argsort(self.first_classes[shuffled], kind="stable")]
        ends = np.cumsum(self.draws_per_image[by_class])
        steps = rng.random() + np.arange(len(ends))
        return rng.permutation(by_class[np.minimum(np.searchsorted(ends, steps, side="right"), len(ends) - 1)])
