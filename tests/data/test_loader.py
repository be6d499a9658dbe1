from __future__ import annotations

import io
import logging
import multiprocessing
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from effnet.contract import Preprocess
from effnet.data import PictureError, Pictures, open_data
from effnet.data import cache as caching
from effnet.data.augment import Augment
from effnet.data.cache import Cache
from effnet.data.loader import TrainingBatches

SMALL = Preprocess((32, 32), decode="reduced")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of smooth pictures of many sizes."""
    noise = np.random.default_rng(0)
    for index in range(21):
        path = tmp_path / "photos" / "ab"[index % 2] / f"{index:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(noise.integers(0, 256, (5, 6, 3), np.uint8))
        small.resize((120 + 16 * index, 100 + 9 * index), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"


@pytest.fixture
def shard(photos: Path, tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "photos.tar", "w") as made:
        for path in sorted(photos.rglob("*.jpg")):
            made.add(path, str(path.relative_to(photos)))
    return tmp_path / "photos.tar"


def train(source: Path) -> Pictures:
    pictures = open_data(source).train
    assert pictures is not None
    return pictures


def epoch(pictures: Pictures, number: int = 0, start: int = 0, **options: object) -> list[tuple[Tensor, Tensor]]:
    made = TrainingBatches(pictures, SMALL, Augment(crop=0.2), 6, 3, **({"workers": 0} | options))  # type: ignore[arg-type]
    assert len(made) == 4
    return list(made.epoch(number, start))


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)


@pytest.mark.parametrize("cache", [False, True])
def test_workers_change_nothing(photos: Path, shard: Path, cache: bool) -> None:
    for source in (photos, shard):
        pictures = train(source)
        alone = epoch(pictures, 1, cache=cache)
        assert same(alone, epoch(pictures, 1, cache=cache, workers=2))
        assert same(alone[2:], epoch(pictures, 1, 2, cache=cache))
        assert not same(alone, epoch(pictures, 2, cache=cache))
    assert {tuple(batch.shape[1:]) for batch, _ in alone} == {(32, 32, 3)}
    assert {batch.dtype for batch, _ in alone} == {torch.uint8}


def test_the_dice_of_the_run_are_left_alone(photos: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    epoch(train(photos))
    epoch(train(photos), workers=2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_picture_changes_alike_on_every_rank(photos: Path) -> None:
    pictures = train(photos)
    alone = {int(index): picture for batch, indices in epoch(pictures) for picture, index in zip(batch, indices)}  # noqa: B905
    shared = [one for rank in range(3) for one in epoch(pictures, rank=rank, ranks=3)]
    assert sorted(int(index) for _, indices in shared for index in indices) == list(range(21))
    for batch, indices in shared:
        for picture, index in zip(batch, indices, strict=True):
            assert torch.equal(picture, alone[int(index)])


def test_an_epoch_left_in_the_middle(photos: Path) -> None:
    pictures = train(photos)
    batches = TrainingBatches(pictures, SMALL, Augment(crop=0.2), 6, 3, workers=2)
    given = batches.epoch(0)
    next(given)
    del given
    assert same(list(batches.epoch(1)), epoch(pictures, 1))


def test_a_picture_that_is_gone_is_named(photos: Path) -> None:
    pictures = train(photos)
    (photos / "a" / "00.jpg").unlink()
    for workers in (0, 2):
        with pytest.raises(PictureError, match=r"00\.jpg does not exist"):
            epoch(pictures, workers=workers)


# The cache --------------------------------------------------------------------------------------------------------


def kept(home: Path) -> list[Path]:
    return sorted(path for path in (home / "decoded").glob("*/??/*") if path.is_file())


def test_pictures_are_decoded_once(photos: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = train(photos)
    first = epoch(pictures, cache=True)
    assert len(kept(home)) == 21
    made = {path: path.stat().st_mtime_ns for path in kept(home)}

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(caching, "part", never)
    assert same(first, epoch(pictures, cache=True))
    assert {path: path.stat().st_mtime_ns for path in kept(home)} == made
    monkeypatch.undo()
    plain = epoch(pictures)
    apart = [float((a.float() - b.float()).abs().mean()) for (a, _), (b, _) in zip(first, plain, strict=True)]
    assert max(apart) < 5  # nearly the same: parts of smaller pictures begin and end at other pixels


def test_kept_pictures_are_large_enough_for_every_crop(photos: Path) -> None:
    cache = Cache(SMALL, 0.2)
    assert cache.side == 83  # 32 / √(0.2 · 3/4), rounded up
    for item in train(photos).items:
        assert isinstance(item.picture, Path)
        with Image.open(item.picture) as whole:
            high, wide = cache.picture(item).shape[:2]
            assert min(high, wide) == 83
            assert wide / high == pytest.approx(whole.width / whole.height, rel=0.02)


def test_another_picture_in_the_same_place(photos: Path, home: Path) -> None:
    pictures = train(photos)
    before = epoch(pictures, cache=True)
    Image.new("RGB", (130, 110), "white").save(photos / "a" / "00.jpg")
    after = epoch(pictures, cache=True)
    assert not same(before, after)
    assert same(after, epoch(pictures, cache=True))
    assert len(kept(home)) == 22


@pytest.mark.parametrize("how", ["cut", "empty", "other"])
def test_what_a_kill_may_leave(photos: Path, home: Path, how: str) -> None:
    pictures = train(photos)
    before = epoch(pictures, cache=True)
    for path in kept(home)[:5]:
        content = path.read_bytes()
        path.write_bytes({"cut": content[:-100], "empty": b"", "other": b"x" * len(content)}[how])
    (home / "decoded" / "left").mkdir()
    assert same(before, epoch(pictures, cache=True))
    assert same(before, epoch(pictures, cache=True, workers=2))


def _filled(source: str) -> None:
    torch.set_num_threads(1)
    epoch(train(Path(source)), cache=True)


def test_several_processes_at_once(photos: Path, home: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_filled, args=(str(photos),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert len(kept(home)) == 21
    assert not list((home / "decoded").glob("*/parts/*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_without_room(
    photos: Path, home: Path, workers: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = train(photos)
    expected = epoch(pictures, cache=True)
    for path in kept(home)[::2]:
        path.unlink()
    left = len(kept(home))
    monkeypatch.setattr(caching, "LEFT_FREE", 2**80)
    with caplog.at_level(logging.INFO, "effnet"):
        batches = TrainingBatches(pictures, SMALL, Augment(crop=0.2), 6, 3, workers=workers, cache=True)
        assert same(list(batches.epoch(0)), expected)
        list(batches.epoch(1))
    assert len(kept(home)) == left
    assert caplog.messages == [
        "the disk has no room for all decoded pictures: those that are not kept are decoded every time"
    ]


def test_members_of_an_archive_are_kept(shard: Path, home: Path) -> None:
    pictures = train(shard)
    first = epoch(pictures, cache=True)
    content = shard.read_bytes()
    shard.write_bytes(b"")
    assert same(first, epoch(pictures, cache=True))
    shard.write_bytes(content)


def test_pictures_in_memory(home: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (9, 9)).save(file, "PNG")
    pictures = open_data("digits").train
    assert pictures is not None
    batches = TrainingBatches(pictures.take(range(12)), SMALL, Augment(mirror=False), 6, 0, cache=True)
    assert len(list(batches.epoch(0))) == 2
    assert not kept(home)
