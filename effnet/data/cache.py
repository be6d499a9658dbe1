"""Decoded images, kept in memory or on disk, so that files are decoded once and not once per epoch."""

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

from effnet.data import augment, image_io, webdataset_reader
from effnet.data.storage.cache_dir import writable_cache_dir
from effnet.metadata import Preprocess

MIN_FREE_DISK_BYTES = 2 * 2**30  # left to everybody else
_FILE_BEGIN, _FILE_END = b"effnet1\n", b"end\n"  # a file without its end is incomplete
_FILE_HEADER = struct.Struct("<8sII")  # _FILE_BEGIN, height, width
_STALE_SECONDS = 3600.0  # after which a partial file belongs to a process that was killed


class MemoryCache:
    """`load_input` with its results kept in up to ``max_bytes``; images that do not fit are read every time."""

    def __init__(self, max_bytes: int) -> None:
        self._remaining_bytes = max_bytes
        # By identity, since arrays have no hash. The source is kept too: its id is unique only as long as it lives.
        self._images: dict[tuple[int, Preprocess], tuple[image_io.ImageSource, image_io.InputImage]] = {}

    def __call__(self, source: image_io.ImageSource, preprocess: Preprocess) -> image_io.InputImage:
        """Return the image as `load_input` does."""
        key = id(source), preprocess
        if key in self._images:
            return self._images[key][1]
        image = image_io.load_input(source, preprocess)
        if image.nbytes <= self._remaining_bytes:
            self._remaining_bytes -= image.nbytes
            self._images[key] = source, image
        return image


class DiskCache:
    """Images as uint8 (H, W, C), large enough for every random crop, one file each, in the cache folder.

    They are RGB, or RGBA if alpha counts (`effnet.data.augment.working_color`).
    The result is the same whether an image was cached, is cached now, or finds no room. Processes may share the cache
    and be killed, and the folder be deleted at any time. An image is identified by its path, size and date (in a shard:
    the shard's), or else by its bytes.
    """

    def __init__(self, preprocess: Preprocess, min_crop_area: float) -> None:
        self.preprocess = preprocess
        # A crop's side is smallest if its area is, and its aspect ratio is furthest from 1.
        self.side = ceil(max(preprocess.size) / (min_crop_area * augment.CROP_ASPECT_RATIOS[0]) ** 0.5)
        self.color = augment.working_color(preprocess)
        color = ("" if self.color == "RGB" else f"-{self.color}") + (f"-{preprocess.bits}" if preprocess.bits else "")
        name = f"{self.side}-{preprocess.interpolation}-{preprocess.decode}{color}"
        self.folder = writable_cache_dir() / "decoded" / name
        self._is_full = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]  # by workers
        self._partial_folder = self.folder / "parts"
        self._partial_folder.mkdir(parents=True, exist_ok=True)
        for path in self._partial_folder.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    @property
    def is_full(self) -> bool:
        """Whether some image found no room."""
        return bool(self._is_full.item())

    def get_image(self, source: Path | image_io.LazyImage | image_io.Pixels) -> image_io.Pixels:
        """Return the decoded image, its short side at most ``side``. Raises ``ImageError`` as `read_image` does."""
        if isinstance(source, np.ndarray):
            return self._decode(source)
        if isinstance(source, Path):
            absolute = os.path.abspath(source)
            try:
                status = os.stat(absolute)
            except OSError:
                raise image_io.ImageError(f"{source} does not exist") from None
            identity = f"{absolute} {status.st_size} {status.st_mtime_ns}".encode("utf-8", "surrogatepass")
        elif isinstance(source, webdataset_reader.ShardMember):
            identity = f"{source.shard.url} {source.shard.version} {source.offset} {source.size}".encode(
                "utf-8", "surrogatepass"
            )
        else:
            identity = source.read()
        name = blake2b(identity, digest_size=16).hexdigest()
        path = self.folder / name[:2] / name
        if (pixels := _map_file(path, len(self.color))) is None:
            pixels = self._decode(source)
            self._write(pixels, path)
        return pixels

    def _decode(self, source: image_io.ImageSource) -> image_io.Pixels:
        sizes: list[tuple[int, int]] = []

        def choose_whole(height: int, width: int) -> image_io.CropRegion:
            scale = min(1.0, self.side / min(height, width))
            sizes.append((max(1, round(height * scale)), max(1, round(width * scale))))
            return (0, 0, width, height), sizes[0]

        may_reduce, bits = self.preprocess.decode == "reduced", self.preprocess.bits
        image, box = image_io.read_region(source, choose_whole, may_reduce, self.color, bits)
        return augment.resize_array(augment.crop_to_box(image, box), sizes[0], self.preprocess.interpolation)

    def _write(self, pixels: image_io.Pixels, path: Path) -> None:
        if self.is_full:
            return
        temporary = self._partial_folder / f"{path.name}.{os.getpid()}"
        try:
            if shutil.disk_usage(self.folder).free - pixels.nbytes < MIN_FREE_DISK_BYTES:
                self._is_full.fill_(True)
                return
            path.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                file.write(_FILE_HEADER.pack(_FILE_BEGIN, *pixels.shape[:2]))
                file.write(np.ascontiguousarray(pixels).data)
                file.write(_FILE_END)
            temporary.replace(path)
        except OSError:
            self._is_full.fill_(True)
            temporary.unlink(missing_ok=True)


def _map_file(path: Path, channels: int) -> image_io.Pixels | None:
    """Map the file into memory; None if it does not exist or is incomplete."""
    try:
        with path.open("rb", buffering=0) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    if len(mapped) < _FILE_HEADER.size or mapped[-len(_FILE_END) :] != _FILE_END:
        return None
    begin, height, width = _FILE_HEADER.unpack_from(mapped)
    if begin != _FILE_BEGIN or len(mapped) != _FILE_HEADER.size + height * width * channels + len(_FILE_END):
        return None
    pixels = np.frombuffer(mapped, np.uint8, height * width * channels, _FILE_HEADER.size)
    return pixels.reshape(height, width, channels)
