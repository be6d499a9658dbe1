"""TensorFlow's checkpoints that are cut off, damaged, lie, or are of a kind that is not opened: one sentence each."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from effnet.net import create
from effnet.weights import load, save
from effnet.weights.formats import read, sstable
from effnet.weights.formats.protobuf import content, fixed, number
from tests.weights.test_tensorflow import prefix, put, tf


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Index and data of a good checkpoint."""
    path = save(create("nano", classes=3), tmp_path_factory.mktemp("whole") / "m.index", "tensorflow")
    return path.read_bytes(), Path(f"{prefix(path)}.data-00000-of-00001").read_bytes()


def placed(folder: Path, index: bytes, data: bytes | None) -> Path:
    path = folder / "m.index"
    path.write_bytes(index)
    if data is not None:
        (folder / "m.data-00000-of-00001").write_bytes(data)
    return path


@pytest.mark.parametrize("part", [0, 1], ids=["index", "data"])
def test_cut_off_anywhere(part: int, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    chance, size = random.Random(0), len(whole[part])
    for cut in (0, 1, size - 1, *(chance.randrange(size) for _ in range(100))):
        files = [*whole]
        files[part] = files[part][:cut]
        with pytest.raises(ValueError, match=r"m\.index: not a checkpoint that can be read: "):
            read(placed(tmp_path, *files))


@pytest.mark.parametrize("part", [0, 1], ids=["index", "data"])
def test_flipped_anywhere(part: int, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(200):
        place = chance.randrange(len(whole[part]))
        files = [bytearray(each) for each in whole]
        files[part][place] ^= 1 << chance.randrange(8)
        if part == 0 and len(files[0]) - 48 <= place < len(files[0]) - 8:
            continue  # most of the footer is filling
        with pytest.raises(ValueError, match=r"m\.index: not a checkpoint that can be read: "):
            read(placed(tmp_path, bytes(files[0]), bytes(files[1])))


def described(dtype: int = 1, sides: tuple[int, ...] = (2,), offset: int = 0, size: int = 8, shard: int = 0) -> bytes:
    shape = b"".join(content(2, number(1, side)) for side in sides)
    return number(1, dtype) + content(2, shape) + number(3, shard) + number(4, offset) + number(5, size) + fixed(6, 0)


HEADER = number(1, 1) + content(3, number(1, 1))


@pytest.mark.parametrize(
    ("header", "entry", "reason"),
    [
        (HEADER, described(size=2**40, sides=(2**38,)), "x is cut off"),
        (HEADER, described(size=2**64 - 8), "x is cut off"),
        (HEADER, described(offset=2**64 - 8), "x is cut off"),
        (HEADER, described(dtype=9, size=2**40), "x is cut off"),
        (HEADER, described(sides=(2**40,)), "another number of bytes than its shape"),
        (HEADER, described(sides=(2**63, 2**63)), "another number of bytes than its shape"),
        (HEADER, described(sides=(1,) * 1000), "another number of bytes than its shape"),
        (HEADER, described(sides=(2, 1) * 4 + (1,)), "another number of bytes than its shape"),
        (HEADER, described(), "the checksum of x is wrong"),
        (HEADER, described(shard=1), r"m\.data-00001-of-00001 is missing"),
        (number(1, 10**9), described(shard=10**8), r"m\.data-100000000-of-1000000000 is missing"),
        (number(1, 2), described(), r"m\.data-00000-of-00002 is missing"),
        (HEADER, content(1, b"?"), "what is said of x makes no sense"),
        (HEADER, number(2, 5), "what is said of x makes no sense"),
        (HEADER, b"\xff" * 20, "a number in it has no end"),
        (HEADER, b"\x0b", "of the unknown kind 3"),
        (HEADER, described()[:-2], "a field in it is cut off"),
        (number(1, 1) + number(2, 1), described(), "big-endian"),
    ],
)
def test_an_index_that_lies(header: bytes, entry: bytes, reason: str, tmp_path: Path) -> None:
    path = placed(tmp_path, sstable.packed([(b"", header), (b"x", entry)]), bytes(16))
    with pytest.raises(ValueError, match=rf"m\.index: not a checkpoint that can be read: .*{reason}"):
        read(path)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([(b"", HEADER), (b"y", b""), (b"x", b"")], "out of order"),
        ([(b"", HEADER), (b"x" * 5000, b"")], "makes no sense"),
    ],
)
def test_keys_that_make_no_sense(given: list[tuple[bytes, bytes]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"m\.index: .*{reason}"):
        read(placed(tmp_path, sstable.packed(given), bytes(16)))


def test_a_compressed_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sealed(block: bytes) -> bytes:
        block += b"\x01"
        return block + sstable.masked(sstable.google_crc32c.value(block)).to_bytes(4, "little")

    monkeypatch.setattr(sstable, "_sealed", sealed)
    with pytest.raises(ValueError, match="its index is compressed"):
        read(placed(tmp_path, sstable.packed([(b"", HEADER)]), bytes(16)))


def test_an_index_without_its_data(whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its data file m\.data-00000-of-00001 is missing beside it"):
        load(placed(tmp_path, whole[0], None))


def first_format(path: Path) -> Path:
    path = path.with_name("model.ckpt-7")
    tf.raw_ops.Save(filename=str(path), tensor_names=["n/stem/conv2d/kernel"], data=[tf.zeros((3, 3, 3, 8))])
    return path


def objects(path: Path) -> Path:
    tf.train.Checkpoint(kernel=tf.Variable(tf.zeros(3))).write(prefix(path))
    return path


def slices(path: Path) -> Path:
    return put(path, {"n/stem/conv2d/kernel": numpy.zeros((2, 2), "f")}, {"n/stem/conv2d/kernel": "4 2 0,2:0,2"})


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (first_format, r"TensorFlow's first format.* save it again by tf\.compat\.v1\.train\.Saver"),
        (objects, r"a graph of Python objects .* save the network's weights as \.h5"),
        (slices, r"stem/conv2d/kernel lies in slices \(a partitioned variable\)"),
    ],
)
def test_other_kinds_of_checkpoint_are_refused(made: Callable[[Path], Path], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        read(made(tmp_path / "m.index"))
