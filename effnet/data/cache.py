"""Pictures that are looked at again and again, decoded once where there is room."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import time
from contextlib import suppress
from hashlib import blake2b
from math import ceil
from pathlib import Path

import numpy as np
import torch

from effnet.data.augment import CROP_ASPECT_RATIOS, crop_to_box, resize_array
from effnet.data.dataset import Item
from effnet.data.image_io import (
    CropRegion,
    ImageError,
    ImageSource,
    InputImage,
    LazyImage,
    Pixels,
    load_input,
    read_region,
)
from effnet.data.storage.cache_dir import writable_cache_dir
from effnet.data.webdataset_reader import ShardMember
from effnet.metadata import Preprocess


class MemoryCache:
    """`pixels` that keeps what it gave, up to ``most`` bytes; what finds no room is decoded every time."""

    def __init__(self, max_bytes: int) -> None:
        self._remaining_bytes = max_bytes
        # By identity, since arrays have no hash; with the source beside it, whose number is its own as long as it lives
        self._images: dict[tuple[int, Preprocess], tuple[ImageSource, InputImage]] = {}

    def __call__(self, source: ImageSource, preprocess: Preprocess) -> InputImage:
        """As `pixels`."""
        key = id(source), preprocess
        if key in self._images:
            return self._images[key][1]
        found = load_input(source, preprocess)
        if found.nbytes <= self._remaining_bytes:
            self._remaining_bytes -= found.nbytes
            self._images[key] = source, found
        return found


# Decoded pictures kept on disk, so that they are decoded once and not once an epoch.


MIN_FREE_DISK_BYTES = 2 * 2**30  # bytes of the disk that are left to everybody else


_FILE_BEGIN, _FILE_END = b"effnet1\n", b"end\n"  # a file without its end was not written to it


_FILE_HEADER = struct.Struct("<8sII")  # the beginning, height, width


_STALE_SECONDS = 3600.0  # seconds after which a file that is being written belongs to a process that was killed


class DiskCache:
    """Pictures as uint8 (H, W, 3), large enough for every random crop, one file each, below the store.

    What comes is the same whether it was kept, is kept now, or finds no room (``full``): a picture is made smaller by
    the same arithmetic in each case. A file takes its place when it is whole, so that processes may share the cache and
    be killed; it is found again by its picture's place, size and date (in an archive: the archive's), or else by the
    picture's own bytes, and by whatever changes the result. The folder may be deleted at any time.
    """

    def __init__(self, preprocess: Preprocess, min_crop_area: float) -> None:
        self.preprocess = preprocess
        # A crop's sides are least where its share of the area is and its ratio is furthest from 1.
        self.side = ceil(max(preprocess.size) / (min_crop_area * CROP_ASPECT_RATIOS[0]) ** 0.5)
        self.folder = writable_cache_dir() / "decoded" / f"{self.side}-{preprocess.interpolation}-{preprocess.decode}"
        self._folder_path = str(self.folder)
        self._is_full = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]  # of all workers
        self._partial_folder = self.folder / "parts"
        self._partial_folder.mkdir(parents=True, exist_ok=True)
        for left_over in self._partial_folder.iterdir():
            with suppress(OSError):
                if time.time() - left_over.stat().st_mtime > _STALE_SECONDS:
                    left_over.unlink()

    @property
    def is_full(self) -> bool:
        """Whether some picture found no room."""
        return bool(self._is_full.item())

    def get_image(self, item: Item) -> Pixels:
        """The picture, decoded, its short side at most ``side``. Raises ``PictureError`` as `read` does."""
        if isinstance(item.image, np.ndarray):
            return self._decode(item.image)
        source = item.image
        if isinstance(source, Path):
            place = os.path.abspath(source)
            try:
                here = os.stat(place)
            except OSError:
                raise ImageError(f"{source} does not exist") from None
            said = f"{place} {here.st_size} {here.st_mtime_ns}".encode("utf-8", "surrogatepass")
        elif isinstance(source, ShardMember):
            said = f"{source.shard.url} {source.shard.version} {source.offset} {source.size}".encode()
        else:
            said = source.read()
        name = blake2b(said, digest_size=16).hexdigest()
        kept = _map_file(f"{self._folder_path}/{name[:2]}/{name}")
        if kept is None:
            kept = self._decode(source)
            self._write(kept, self.folder / name[:2] / name)
        return kept

    def _decode(self, source: Path | LazyImage | Pixels) -> Pixels:
        wanted: list[tuple[int, int]] = []

        def whole(height: int, width: int) -> CropRegion:
            scale = min(1.0, self.side / min(height, width))
            wanted.append((max(1, round(height * scale)), max(1, round(width * scale))))
            return (0, 0, width, height), wanted[0]

        pixels = crop_to_box(*read_region(source, whole, self.preprocess.decode == "reduced"))
        return resize_array(pixels, wanted[0], self.preprocess.interpolation)

    def _write(self, pixels: Pixels, path: Path) -> None:
        """Writes the file, unless the disk is full."""
        if self.is_full:
            return
        beside = self._partial_folder / f"{path.name}.{os.getpid()}"
        try:
            if shutil.disk_usage(self.folder).free - pixels.nbytes < MIN_FREE_DISK_BYTES:
                self._is_full.fill_(True)
                return
            path.parent.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                file.write(_FILE_HEADER.pack(_FILE_BEGIN, *pixels.shape[:2]))
                file.write(np.ascontiguousarray(pixels).data)
                file.write(_FILE_END)
            beside.replace(path)
        except OSError:
            self._is_full.fill_(True)
            beside.unlink(missing_ok=True)


def _map_file(path: str) -> Pixels | None:
    """The picture in the file, mapped into memory; None where there is none, or not all of it."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            mapped = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None
    if len(mapped) < _FILE_HEADER.size or mapped[-len(_FILE_END) :] != _FILE_END:
        return None
    begin, height, width = _FILE_HEADER.unpack_from(mapped)
    if begin != _FILE_BEGIN or len(mapped) != _FILE_HEADER.size + height * width * 3 + len(_FILE_END):
        return None
    return np.frombuffer(mapped, np.uint8, height * width * 3, _FILE_HEADER.size).reshape(height, width, 3)
