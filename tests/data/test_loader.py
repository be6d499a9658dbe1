from __future__ import annotations

import logging
import multiprocessing
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from effnet.data import ImageDataset, ImageError, Item, open_data
from effnet.data import cache as caching
from effnet.data.augment import Augment
from effnet.data.cache import DiskCache
from effnet.data.loader import SHARD_SHUFFLE_WINDOW, EpochSampler, TrainingLoader
from effnet.metadata import Labels, Preprocess

SMALL = Preprocess((32, 32), decode="reduced")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of smooth images of many sizes."""
    noise = np.random.default_rng(0)
    for index in range(21):
        path = tmp_path / "photos" / "ab"[index % 2] / f"{index:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(noise.integers(0, 256, (5, 6, 3), np.uint8))
        small.resize((120 + 16 * index, 100 + 9 * index), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"


@pytest.fixture
def shard(photos: Path, tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.add(path, str(path.relative_to(photos)))
    return tmp_path / "photos.tar"


def train_dataset(source: Path) -> ImageDataset:
    dataset = open_data(source).train
    assert dataset is not None
    return dataset


def epoch(dataset: ImageDataset, number: int = 0, start: int = 0, **options: object) -> list[tuple[Tensor, Tensor]]:
    loader = TrainingLoader(dataset, SMALL, Augment(min_crop_area=0.2), 6, 3, **({"num_workers": 0} | options))  # type: ignore[arg-type]
    assert len(loader) == 4
    return list(loader.epoch(number, start))


def equal_batches(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)


@pytest.mark.parametrize("cache", [False, True])
def test_workers_change_nothing(photos: Path, shard: Path, cache: bool) -> None:
    for source in (photos, shard):
        dataset = train_dataset(source)
        alone = epoch(dataset, 1, cache=cache)
        assert equal_batches(alone, epoch(dataset, 1, cache=cache, num_workers=2))
        assert equal_batches(alone[2:], epoch(dataset, 1, 2, cache=cache))
        assert not equal_batches(alone, epoch(dataset, 2, cache=cache))
    assert {tuple(batch.shape[1:]) for batch, _ in alone} == {(32, 32, 3)}
    assert {batch.dtype for batch, _ in alone} == {torch.uint8}


def test_global_random_numbers_are_unchanged(photos: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    epoch(train_dataset(photos))
    epoch(train_dataset(photos), num_workers=2)
    assert torch.equal(before, torch.get_rng_state())


def test_augmentation_is_the_same_on_every_rank(photos: Path) -> None:
    dataset = train_dataset(photos)
    alone = {int(index): image for batch, indices in epoch(dataset) for image, index in zip(batch, indices)}  # noqa: B905
    shared = [one for rank in range(3) for one in epoch(dataset, rank=rank, world_size=3)]
    assert sorted(int(index) for _, indices in shared for index in indices) == list(range(21))
    for batch, indices in shared:
        for image, index in zip(batch, indices, strict=True):
            assert torch.equal(image, alone[int(index)])


def test_an_epoch_that_is_abandoned(photos: Path) -> None:
    dataset = train_dataset(photos)
    batches = TrainingLoader(dataset, SMALL, Augment(min_crop_area=0.2), 6, 3, num_workers=2)
    abandoned = batches.epoch(0)
    next(abandoned)
    del abandoned
    assert equal_batches(list(batches.epoch(1)), epoch(dataset, 1))


def test_a_missing_image_is_named(photos: Path) -> None:
    dataset = train_dataset(photos)
    (photos / "a" / "00.jpg").unlink()
    for workers in (0, 2):
        with pytest.raises(ImageError, match=r"00\.jpg does not exist"):
            epoch(dataset, num_workers=workers)


def cached_files(home: Path) -> list[Path]:
    return sorted(path for path in (home / "decoded").glob("*/??/*") if path.is_file())


def test_images_are_decoded_once(photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = train_dataset(photos)
    first = epoch(dataset, cache=True)
    assert len(cached_files(home)) == 21
    times = {path: path.stat().st_mtime_ns for path in cached_files(home)}

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(caching.image_io, "read_region", never)
    assert equal_batches(first, epoch(dataset, cache=True))
    assert {path: path.stat().st_mtime_ns for path in cached_files(home)} == times
    monkeypatch.undo()
    plain = epoch(dataset)
    apart = [float((a.float() - b.float()).abs().mean()) for (a, _), (b, _) in zip(first, plain, strict=True)]
    assert max(apart) < 5  # nearly the same: parts of smaller images begin and end at other pixels


def test_cached_images_are_large_enough_for_every_crop(photos: Path) -> None:
    cache = DiskCache(SMALL, 0.2)
    assert cache.side == 83  # 32 / √(0.2 · 3/4), rounded up
    for item in train_dataset(photos).items:
        assert isinstance(item.image, Path)
        with Image.open(item.image) as whole:
            high, wide = cache.get_image(item.image).shape[:2]
            assert min(high, wide) == 83
            assert wide / high == pytest.approx(whole.width / whole.height, rel=0.02)


def test_an_image_that_is_replaced(photos: Path, home: Path) -> None:
    dataset = train_dataset(photos)
    before = epoch(dataset, cache=True)
    Image.new("RGB", (130, 110), "white").save(photos / "a" / "00.jpg")
    after = epoch(dataset, cache=True)
    assert not equal_batches(before, after)
    assert equal_batches(after, epoch(dataset, cache=True))
    assert len(cached_files(home)) == 22


@pytest.mark.parametrize("how", ["cut", "empty", "other"])
def test_partial_files_of_a_killed_process(photos: Path, home: Path, how: str) -> None:
    dataset = train_dataset(photos)
    before = epoch(dataset, cache=True)
    for path in cached_files(home)[:5]:
        content = path.read_bytes()
        path.write_bytes({"cut": content[:-100], "empty": b"", "other": b"x" * len(content)}[how])
    (home / "decoded" / "left").mkdir()
    assert equal_batches(before, epoch(dataset, cache=True))
    assert equal_batches(before, epoch(dataset, cache=True, num_workers=2))


def _fill_cache(source: str) -> None:
    torch.set_num_threads(1)
    epoch(train_dataset(Path(source)), cache=True)


def test_several_processes_at_once(photos: Path, home: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_fill_cache, args=(str(photos),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert len(cached_files(home)) == 21
    assert not list((home / "decoded").glob("*/parts/*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_without_room(
    photos: Path, home: Path, workers: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = train_dataset(photos)
    expected = epoch(dataset, cache=True)
    for path in cached_files(home)[::2]:
        path.unlink()
    left = len(cached_files(home))
    monkeypatch.setattr(caching, "MIN_FREE_DISK_BYTES", 2**80)
    with caplog.at_level(logging.INFO, "effnet"):
        batches = TrainingLoader(dataset, SMALL, Augment(min_crop_area=0.2), 6, 3, num_workers=workers, cache=True)
        assert equal_batches(list(batches.epoch(0)), expected)
        list(batches.epoch(1))
    assert len(cached_files(home)) == left
    assert caplog.messages == ["the disk has no room for all decoded images: the others are decoded in every epoch"]


def test_shard_members_are_cached(shard: Path, home: Path) -> None:
    dataset = train_dataset(shard)
    first = epoch(dataset, cache=True)
    content = shard.read_bytes()
    shard.write_bytes(b"")
    assert equal_batches(first, epoch(dataset, cache=True))
    shard.write_bytes(content)


def test_images_in_memory(home: Path) -> None:
    dataset = open_data("digits").train
    batches = TrainingLoader(dataset.subset(range(12)), SMALL, Augment(horizontal_flip=False), 6, 0, cache=True)
    assert len(list(batches.epoch(0))) == 2
    assert not cached_files(home)


GRAY = np.zeros((4, 4, 3), np.uint8)


def blank_dataset(*labels: object, kind: str = "classification", weights: tuple[float, ...] = ()) -> ImageDataset:
    pairs = zip(labels, weights or (1.0,) * len(labels), strict=True)
    items = (Item(GRAY, label, str(n), weight) for n, (label, weight) in enumerate(pairs))  # type: ignore[arg-type]
    return ImageDataset(tuple(items), Labels(("a", "b", "c"), kind))


PLAIN = blank_dataset(*[0, 1, 2] * 34, 0)  # 103


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_image_once_per_epoch(ranks: int) -> None:
    orders = [EpochSampler(PLAIN, 16, 7, rank, ranks) for rank in range(ranks)]
    alone = list(EpochSampler(PLAIN, 16, 7).batches(3))
    shares = [list(order.batches(3)) for order in orders]
    assert {len(order) for order in orders} == {len(alone)} == {7}
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        assert np.array_equal(np.concatenate(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sorted(np.concatenate(alone)) == list(range(103))
    assert {len(batch) for batch in alone} == {14, 15}


def test_only_seed_and_epoch_decide() -> None:
    def all(seed: int, epoch: int) -> list[int]:
        found: list[int] = EpochSampler(PLAIN, 16, seed).epoch_indices(epoch).tolist()
        return found

    assert all(1, 2) == all(1, 2)
    assert all(1, 2) != all(1, 3) != all(2, 3)
    later = [batch.tolist() for batch in EpochSampler(PLAIN, 16, 1).batches(2, start=4)]
    assert later == [batch.tolist() for batch in EpochSampler(PLAIN, 16, 1).batches(2)][4:]


def test_too_few_images_to_share() -> None:
    with pytest.raises(ValueError, match="batches of 1 images cannot be shared among 3 processes: use a larger"):
        EpochSampler(PLAIN, 2, 0, 0, 3)
    with pytest.raises(ValueError, match="batches of 3 images cannot be shared among 4 processes"):
        EpochSampler(blank_dataset(0, 1, 2), 16, 0, 0, 4)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        EpochSampler(PLAIN, 0, 0)


def test_class_balanced_sampling() -> None:
    labels = [0] * 89 + [1] * 10 + [2]
    order = EpochSampler(blank_dataset(*labels), 10, 0, class_balanced=True)
    rounds = [order.epoch_indices(epoch) for epoch in range(4)]
    for drawn in rounds:
        assert len(drawn) == 100
        assert set(np.bincount(np.array(labels)[drawn])) <= {33, 34}
        times = Counter(drawn.tolist())
        assert {times[n] for n in range(89, 99)} <= {3, 4}  # each of its class as often as the others
        assert max(times[n] for n in range(89)) == 1
    assert not np.array_equal(rounds[0], rounds[1])
    assert len({int(n) for drawn in rounds for n in drawn if n < 89}) > 60  # others every time


def count_draws(dataset: ImageDataset, epochs: int) -> NDArray[np.int64]:
    sampler = EpochSampler(dataset, len(dataset), 0, class_balanced=True)
    return np.bincount(np.concatenate([sampler.epoch_indices(epoch) for epoch in range(epochs)]))


def test_weights_within_a_class() -> None:
    found = count_draws(blank_dataset(0, 0, 0, 1, 1, 1, weights=(1, 0, 3, 1, 1, 1)), 400)
    assert found[1] == 0
    assert found[:3].sum() == found[3:].sum() == 1200
    assert found[2] / found[0] == pytest.approx(3, rel=0.1)


def test_balancing_other_tasks() -> None:
    found = count_draws(blank_dataset((0, 1), (0,), (0,), (), (0,), (2,), kind="multilabel"), 600)
    assert found[[1, 2, 4]] == pytest.approx(found[[1, 2, 4]].mean(), rel=0.2)
    assert found[5] == pytest.approx(found[3], rel=0.15)  # alone in its class, and in that of none
    assert found[0] > found[5] > found[1] * 2
    found = count_draws(blank_dataset((0.5,), (1.5,), (9.0,), kind="regression", weights=(1, 1, 4)), 200)
    assert found.tolist() == [pytest.approx(100, rel=0.2), pytest.approx(100, rel=0.2), 400]


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0), (1.0, float("nan"))])
def test_invalid_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="image weights must be at least 0, finite, and not all 0"):
        EpochSampler(blank_dataset(0, 1, weights=weights), 2, 0, class_balanced=True)


@dataclass(frozen=True, eq=False)
class ShardImage:
    shard: object
    name: str = ""

    def read(self) -> bytes:
        return b""


@pytest.mark.parametrize("even", [False, True])
def test_images_of_a_shard_come_together(even: bool) -> None:
    archives = [object() for _ in range(10)]
    numbers = np.repeat(np.arange(10), 20)
    items = tuple(Item(ShardImage(archives[number]), int(number) % 3, str(number)) for number in numbers)
    order = EpochSampler(ImageDataset(items, Labels(("a", "b", "c"))), 7, 0, class_balanced=even)
    for epoch in range(3):
        drawn = order.epoch_indices(epoch)
        if not even:
            assert sorted(drawn) == list(range(200))
            windows = [
                set(numbers[drawn[start : start + 20 * SHARD_SHUFFLE_WINDOW]])
                for start in range(0, 200, 20 * SHARD_SHUFFLE_WINDOW)
            ]
            assert [len(window) for window in windows] == [4, 4, 2]
        turns = numbers[drawn]
        spans = [np.flatnonzero(turns == number) for number in range(10)]
        assert max(span[-1] - span[0] for span in spans) < 20 * SHARD_SHUFFLE_WINDOW * (1.6 if even else 1)
        assert np.mean(turns[1:] != turns[:-1]) > 0.5  # shuffled among each other
    assert not np.array_equal(order.epoch_indices(0), order.epoch_indices(1))
