"""Labelled pictures written as WebDataset shards: large files that are read from end to end, from a disk or a store."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from effnet.arch.record import number, whole
from effnet.data.ahead import ahead
from effnet.data.archive import BESIDE, Index, Sample
from effnet.data.pictures import Item, Pictures, Splits
from effnet.data.pixels import Held, PictureError, read
from effnet.data.shards import INDEX, NAMES
from effnet.data.storage.atomic import replacing

_FORMAT = 1
_PLAN = ".shards.plan.json"  # what is being written here, while it is
_QUALITY = 95  # of a picture that was made smaller
_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # others are called as PIL calls them

Progress = Callable[[str, int, int], None]  # (split, pictures done, pictures in all)


@dataclass(frozen=True)
class Written:
    """What was written: names of the shards, pictures in them, and why others are not."""

    shards: tuple[str, ...]
    pictures: int
    left_out: tuple[str, ...]
    before: bool = False  # all of it was there already


def write_shards(
    splits: Splits,
    out: Path,
    megabytes: float = 256,
    resize: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Writes ``train-000000.tar``, …, of about so many ``megabytes`` each, and an index, into the folder ``out``.

    Each picture is a file beside its ``.cls`` (of one class) and its ``.json`` (label and name), in an order that is
    shuffled by the names, so that whoever reads a shard alone sees all classes. Files stay as they are, byte for byte;
    with ``resize`` the short side of larger ones becomes so many pixels, as JPEG of quality 95. The same pictures make
    the same bytes. Each shard is there whole or not at all; the same call after a kill goes on behind the last.

    Pictures that cannot be read are left out and listed; with ``strict`` the first raises ``PictureError``. Raises
    ``ValueError`` where ``out`` holds anything else, ``OSError`` with one sentence where the disk is full.
    """
    number("megabytes", megabytes, 0, above=True)
    if resize is not None:
        whole("resize", resize, 1)
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    given = {role: pictures for role, pictures in named.items() if pictures is not None}
    labels = next(iter(given.values())).labels
    plan = {"format": _FORMAT, "megabytes": megabytes, "resize": resize, "pictures": _fingerprint(given)}
    if _finished(out, plan):
        index = json.loads((out / INDEX).read_text(encoding="utf-8"))
        return _summary(index, True)
    shards: list[dict[str, Any]] = []
    left_out: list[str] = []
    counts: dict[str, list[int]] = {}
    for role, pictures in given.items():
        total = np.zeros(len(labels.names), np.int64)
        for shard in _write_split(role, pictures, out, plan, strict, progress):
            shards.append({key: shard[key] for key in ("name", "pictures", "bytes")})
            left_out += shard["left_out"]
            total += np.array(shard["counts"])
        counts[role] = total.tolist()
    index = {"plan": plan, "classes": labels.names, "kind": labels.kind, "counts": counts, "shards": shards}
    with replacing(out / NAMES) as beside:
        beside.write_text("".join(f"{name}\n" for name in labels.names), encoding="utf-8")
    with replacing(out / INDEX) as beside:  # last: whoever finds it finds everything
        beside.write_text(json.dumps({**index, "left_out": left_out}, ensure_ascii=False, indent=1), encoding="utf-8")
    for note in (*out.glob(".*.done.json"), *out.glob(".*.part"), out / _PLAN):
        note.unlink(missing_ok=True)
    return _summary({**index, "left_out": left_out}, False)


def _finished(out: Path, plan: dict[str, Any]) -> bool:
    """Whether all is there; where nothing is, the plan is laid down. Raises ``ValueError`` where something else is."""
    for name in (INDEX, _PLAN):
        if (out / name).is_file():
            try:
                said = json.loads((out / name).read_text(encoding="utf-8"))
                same = (said["plan"] if name == INDEX else said) == plan
            except (ValueError, KeyError, TypeError):
                same = False
            if not same:
                raise ValueError(
                    f"{out} has shards of other pictures, or of these by other options: give another folder"
                )
            return name == INDEX
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: give a folder of its own to the shards")
    with replacing(out / _PLAN) as beside:
        beside.write_text(json.dumps(plan), encoding="utf-8")
    return False


def _summary(index: dict[str, Any], before: bool) -> Written:
    shards = index["shards"]
    return Written(
        tuple(one["name"] for one in shards),
        sum(one["pictures"] for one in shards),
        tuple(index["left_out"]),
        before,
    )


def _write_split(
    role: str, pictures: Pictures, out: Path, plan: dict[str, Any], strict: bool, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """Writes the shards of one split, behind those that are there, and yields what is said of each."""
    items = sorted(pictures.items, key=lambda item: sha256(item.name.encode("utf-8", "surrogatepass")).digest())
    done, shard = 0, 0
    while (note := out / f".{role}-{shard:06}.done.json").is_file() and (out / f"{role}-{shard:06}.tar").is_file():
        said = json.loads(note.read_text(encoding="utf-8"))
        yield said
        done, shard = said["end"], shard + 1
    waiting = ahead(lambda item: _file(item, plan["resize"]), items[done:])
    files = zip(items[done:], waiting, strict=True)
    most = plan["megabytes"] * 1e6
    while done < len(items):
        name = f"{role}-{shard:06}.tar"
        begin, left_out, samples = done, [], []
        counts = np.zeros(len(pictures.labels.names), np.int64)
        with replacing(out / name) as beside:
            with tarfile.open(beside, "w", format=tarfile.GNU_FORMAT) as archive:
                for item, content in files:
                    done += 1
                    if isinstance(content, PictureError):
                        if strict:
                            raise content
                        left_out.append(str(content))
                    else:
                        samples.append(_add(archive, f"{done - 1:09}", item, *content, pictures.labels.kind))
                        counts[_counted(item, pictures.labels.kind)] += 1
                    if progress is not None:
                        progress(role, done, len(items))
                    if archive.offset >= most:
                        break
            size = beside.stat().st_size
        said = {
            "name": name,
            "pictures": len(samples),
            "bytes": size,
            "begin": begin,
            "end": done,
            "left_out": left_out,
            "counts": counts.tolist(),
        }
        with replacing(out / f"{name}{BESIDE}") as beside:
            beside.write_text(Index(size, samples).text(), encoding="utf-8")
        with replacing(out / f".{role}-{shard:06}.done.json") as beside:
            beside.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
        yield said
        shard += 1


def _add(archive: tarfile.TarFile, key: str, item: Item, content: bytes, ending: str, kind: str) -> Sample:
    """Adds a picture and what belongs to it; where it is, for the index."""
    label = item.label if isinstance(item.label, int) else list(item.label)
    offset = _member(archive, f"{key}.{ending}", content)
    if kind == "one":
        _member(archive, f"{key}.cls", str(label).encode())
    _member(archive, f"{key}.json", json.dumps({"label": label, "name": item.name}, ensure_ascii=False).encode())
    return Sample(f"{key}.{ending}", offset, len(content), label)


def _member(archive: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a file, and says where its bytes begin. No dates and owners: the same pictures make the same archive."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    begin = archive.offset + len(header.tobuf(tarfile.GNU_FORMAT))
    archive.addfile(header, io.BytesIO(content))
    return begin


def _file(item: Item, side: int | None) -> tuple[bytes, str] | PictureError:
    """The bytes of a picture's file, and its ending; or why there are none."""
    picture = item.picture
    if isinstance(picture, np.ndarray):
        return _encoded(_at_most(read(picture), side), "PNG"), "png"
    name = str(picture) if isinstance(picture, Path) else picture.name
    try:
        content = picture.read() if isinstance(picture, Held) else picture.read_bytes()
    except PictureError as error:
        return error
    except OSError as error:
        if isinstance(picture, Held):  # a store that is out of reach: no picture's fault
            raise
        return PictureError(f"{name} cannot be opened: {error.strerror}")
    try:
        image = read(content, None if side else (1, 1))
        with Image.open(io.BytesIO(content)) as opened:
            kind = opened.format or ""
    except PictureError as error:
        return PictureError(str(error).replace("the given file", name, 1))
    if side is not None and min(image.size) > side:
        return _encoded(_at_most(image, side), "JPEG", quality=_QUALITY), "jpg"
    return content, _ENDINGS.get(kind, kind.lower())


def _at_most(image: Image.Image, side: int | None) -> Image.Image:
    """The picture with a short side of ``side`` where it is longer."""
    if side is None or min(image.size) <= side:
        return image
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return image.resize((width, height), Resampling.LANCZOS)


def _encoded(image: Image.Image, kind: str, quality: int | None = None) -> bytes:
    file = io.BytesIO()
    options = {} if quality is None else {"quality": quality}
    image.save(file, kind, **options)
    return file.getvalue()


def _counted(item: Item, kind: str) -> list[int] | slice:
    """The classes of an item, to be counted."""
    if kind == "value":
        return slice(None)
    return [item.label] if isinstance(item.label, int) else [int(one) for one in item.label]


def _fingerprint(given: dict[str, Pictures]) -> str:
    """What tells these pictures from others: names, labels, and of files how large and from when they are."""
    hash = sha256()
    for role, pictures in given.items():
        hash.update(f"{role} {pictures.labels}\n".encode())
        for item in pictures.items:
            said = f"{item.name} {item.label}"
            if isinstance(item.picture, Path) and item.picture.exists():
                here = item.picture.stat()
                said += f" {here.st_size} {here.st_mtime_ns}"
            hash.update(f"{said}\n".encode("utf-8", "surrogatepass"))
    return hash.hexdigest()
