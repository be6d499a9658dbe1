"""Decoded pictures kept on disk, so that they are decoded once and not once an epoch."""

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

from effnet.contract import Preprocess
from effnet.data.archive import Member
from effnet.data.crop import RATIOS, cut_out, resized
from effnet.data.pictures import Item
from effnet.data.pixels import Chosen, Held, PictureError, Pixels, part
from effnet.data.storage.home import store

LEFT_FREE = 2 * 2**30  # bytes of the disk that are left to everybody else
_BEGIN, _END = b"effnet1\n", b"end\n"  # a file without its end was not written to it
_HEADER = struct.Struct("<8sII")  # the beginning, height, width
_LEFT_OVER = 3600.0  # seconds after which a file that is being written belongs to a process that was killed


class Cache:
    """Pictures as uint8 (H, W, 3), large enough for every random crop, one file each, below the store.

    What comes is the same whether it was kept, is kept now, or finds no room (``full``): a picture is made smaller by
    the same arithmetic in each case. A file takes its place when it is whole, so that processes may share the cache and
    be killed; it is found again by its picture's place, size and date (in an archive: the archive's), or else by the
    picture's own bytes, and by whatever changes the result. The folder may be deleted at any time.
    """

    def __init__(self, preprocess: Preprocess, least: float) -> None:
        self.preprocess = preprocess
        # A crop's sides are least where its share of the area is and its ratio is furthest from 1.
        self.side = ceil(max(preprocess.size) / (least * RATIOS[0]) ** 0.5)
        self.folder = store() / "decoded" / f"{self.side}-{preprocess.interpolation}-{preprocess.decode}"
        self._place = str(self.folder)
        self._full = torch.zeros(1, dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]  # of all workers
        self._parts = self.folder / "parts"
        self._parts.mkdir(parents=True, exist_ok=True)
        for left_over in self._parts.iterdir():
            with suppress(OSError):
                if time.time() - left_over.stat().st_mtime > _LEFT_OVER:
                    left_over.unlink()

    @property
    def full(self) -> bool:
        """Whether some picture found no room."""
        return bool(self._full.item())

    def picture(self, item: Item) -> Pixels:
        """The picture, decoded, its short side at most ``side``. Raises ``PictureError`` as `read` does."""
        if isinstance(item.picture, np.ndarray):
            return self._made(item.picture)
        source = item.picture
        if isinstance(source, Path):
            place = os.path.abspath(source)
            try:
                here = os.stat(place)
            except OSError:
                raise PictureError(f"{source} does not exist") from None
            said = f"{place} {here.st_size} {here.st_mtime_ns}".encode("utf-8", "surrogatepass")
        elif isinstance(source, Member):
            said = f"{source.archive.address} {source.archive.version} {source.offset} {source.size}".encode()
        else:
            said = source.read()
        name = blake2b(said, digest_size=16).hexdigest()
        kept = _opened(f"{self._place}/{name[:2]}/{name}")
        if kept is None:
            kept = self._made(source)
            self._keep(kept, self.folder / name[:2] / name)
        return kept

    def _made(self, source: Path | Held | Pixels) -> Pixels:
        wanted: list[tuple[int, int]] = []

        def whole(height: int, width: int) -> Chosen:
            scale = min(1.0, self.side / min(height, width))
            wanted.append((max(1, round(height * scale)), max(1, round(width * scale))))
            return (0, 0, width, height), wanted[0]

        pixels = cut_out(*part(source, whole, self.preprocess.decode == "reduced"))
        return resized(pixels, wanted[0], self.preprocess.interpolation)

    def _keep(self, pixels: Pixels, path: Path) -> None:
        """Writes the file, unless the disk is full."""
        if self.full:
            return
        beside = self._parts / f"{path.name}.{os.getpid()}"
        try:
            if shutil.disk_usage(self.folder).free - pixels.nbytes < LEFT_FREE:
                self._full.fill_(True)
                return
            path.parent.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                file.write(_HEADER.pack(_BEGIN, *pixels.shape[:2]))
                file.write(np.ascontiguousarray(pixels).data)
                file.write(_END)
            beside.replace(path)
        except OSError:
            self._full.fill_(True)
            beside.unlink(missing_ok=True)


def _opened(path: str) -> Pixels | None:
    """The picture in the file, mapped into memory; None where there is none, or not all of it."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            mapped = mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
        finally:
            os.close(file)
    except (OSError, ValueError):
        return None
    if len(mapped) < _HEADER.size or mapped[-len(_END) :] != _END:
        return None
    begin, height, width = _HEADER.unpack_from(mapped)
    if begin != _BEGIN or len(mapped) != _HEADER.size + height * width * 3 + len(_END):
        return None
    return np.frombuffer(mapped, np.uint8, height * width * 3, _HEADER.size).reshape(height, width, 3)
