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

from effnet.arch.serde import check_float, check_int
from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.data.image_io import ImageError, LazyImage, read_image
from effnet.data.prefetch import prefetch_map
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.webdataset_reader import CLASS_NAMES_FILE, INDEX_SUFFIX, SHARDS_INDEX_FILE, ShardIndex, ShardSample

_PLAN_FORMAT = 1
_PLAN_FILE = ".shards.plan.json"  # what is being written here, while it is
_JPEG_QUALITY = 95  # of a picture that was made smaller
_FILE_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # others are called as PIL calls them

ShardProgress = Callable[[str, int, int], None]  # (split, pictures done, pictures in all)


@dataclass(frozen=True)
class ShardSummary:
    """What was written: names of the shards, pictures in them, and why others are not."""

    shards: tuple[str, ...]
    num_images: int
    skipped: tuple[str, ...]
    already_complete: bool = False  # all of it was there already


def write_shards(
    splits: Splits,
    out: Path,
    megabytes: float = 256,
    max_short_side: int | None = None,
    strict: bool = False,
    progress: ShardProgress | None = None,
) -> ShardSummary:
    """Writes ``train-000000.tar``, …, of about so many ``megabytes`` each, and an index, into the folder ``out``.

    Each picture is a file beside its ``.cls`` (of one class) and its ``.json`` (label and name), in an order that is
    shuffled by the names, so that whoever reads a shard alone sees all classes. Files stay as they are, byte for byte;
    with ``resize`` the short side of larger ones becomes so many pixels, as JPEG of quality 95. The same pictures make
    the same bytes. Each shard is there whole or not at all; the same call after a kill goes on behind the last.

    Pictures that cannot be read are left out and listed; with ``strict`` the first raises ``PictureError``. Raises
    ``ValueError`` where ``out`` holds anything else, ``OSError`` with one sentence where the disk is full.
    """
    check_float("megabytes", megabytes, 0, exclusive=True)
    if max_short_side is not None:
        check_int("resize", max_short_side, 1)
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    given = {role: pictures for role, pictures in named.items() if pictures is not None}
    labels = next(iter(given.values())).labels
    plan = {"format": _PLAN_FORMAT, "megabytes": megabytes, "resize": max_short_side, "pictures": _fingerprint(given)}
    if _is_complete(out, plan):
        index = json.loads((out / SHARDS_INDEX_FILE).read_text(encoding="utf-8"))
        return _summarize(index, True)
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
    index = {"plan": plan, "classes": labels.names, "task": labels.task, "counts": counts, "shards": shards}
    with atomic_write(out / CLASS_NAMES_FILE) as beside:
        beside.write_text("".join(f"{name}\n" for name in labels.names), encoding="utf-8")
    with atomic_write(out / SHARDS_INDEX_FILE) as beside:  # last: whoever finds it finds everything
        beside.write_text(json.dumps({**index, "left_out": left_out}, ensure_ascii=False, indent=1), encoding="utf-8")
    for note in (*out.glob(".*.done.json"), *out.glob(".*.part"), out / _PLAN_FILE):
        note.unlink(missing_ok=True)
    return _summarize({**index, "left_out": left_out}, False)


def _is_complete(out: Path, plan: dict[str, Any]) -> bool:
    """Whether all is there; where nothing is, the plan is laid down. Raises ``ValueError`` where something else is."""
    for name in (SHARDS_INDEX_FILE, _PLAN_FILE):
        if (out / name).is_file():
            try:
                said = json.loads((out / name).read_text(encoding="utf-8"))
                same = (said["plan"] if name == SHARDS_INDEX_FILE else said) == plan
            except (ValueError, KeyError, TypeError):
                same = False
            if not same:
                raise ValueError(
                    f"{out} has shards of other pictures, or of these by other options: give another folder"
                )
            return name == SHARDS_INDEX_FILE
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: give a folder of its own to the shards")
    with atomic_write(out / _PLAN_FILE) as beside:
        beside.write_text(json.dumps(plan), encoding="utf-8")
    return False


def _summarize(index: dict[str, Any], already_complete: bool) -> ShardSummary:
    shards = index["shards"]
    return ShardSummary(
        tuple(one["name"] for one in shards),
        sum(one["pictures"] for one in shards),
        tuple(index["left_out"]),
        already_complete,
    )


def _write_split(
    role: str, dataset: ImageDataset, out: Path, plan: dict[str, Any], strict: bool, progress: ShardProgress | None
) -> Iterator[dict[str, Any]]:
    """Writes the shards of one split, behind those that are there, and yields what is said of each."""
    items = sorted(dataset.items, key=lambda item: sha256(item.name.encode("utf-8", "surrogatepass")).digest())
    done, shard = 0, 0
    while (note := out / f".{role}-{shard:06}.done.json").is_file() and (out / f"{role}-{shard:06}.tar").is_file():
        said = json.loads(note.read_text(encoding="utf-8"))
        yield said
        done, shard = said["end"], shard + 1
    waiting = prefetch_map(lambda item: _encode_item(item, plan["resize"]), items[done:])
    files = zip(items[done:], waiting, strict=True)
    most = plan["megabytes"] * 1e6
    while done < len(items):
        name = f"{role}-{shard:06}.tar"
        begin, left_out, samples = done, [], []
        counts = np.zeros(len(dataset.labels.names), np.int64)
        with atomic_write(out / name) as beside:
            with tarfile.open(beside, "w", format=tarfile.GNU_FORMAT) as archive:
                for item, content in files:
                    done += 1
                    if isinstance(content, ImageError):
                        if strict:
                            raise content
                        left_out.append(str(content))
                    else:
                        samples.append(_add_sample(archive, f"{done - 1:09}", item, *content, dataset.labels.task))
                        counts[_classes_to_count(item, dataset.labels.task)] += 1
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
        with atomic_write(out / f"{name}{INDEX_SUFFIX}") as beside:
            beside.write_text(ShardIndex(size, samples).to_json(), encoding="utf-8")
        with atomic_write(out / f".{role}-{shard:06}.done.json") as beside:
            beside.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
        yield said
        shard += 1


def _add_sample(archive: tarfile.TarFile, key: str, item: Item, content: bytes, ending: str, kind: str) -> ShardSample:
    """Adds a picture and what belongs to it; where it is, for the index."""
    label = item.label if isinstance(item.label, int) else list(item.label)
    offset = _add_file(archive, f"{key}.{ending}", content)
    if kind == "classification":
        _add_file(archive, f"{key}.cls", str(label).encode())
    _add_file(archive, f"{key}.json", json.dumps({"label": label, "name": item.name}, ensure_ascii=False).encode())
    return ShardSample(f"{key}.{ending}", offset, len(content), label)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a file, and says where its bytes begin. No dates and owners: the same pictures make the same archive."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    begin = archive.offset + len(header.tobuf(tarfile.GNU_FORMAT))
    archive.addfile(header, io.BytesIO(content))
    return begin


def _encode_item(item: Item, side: int | None) -> tuple[bytes, str] | ImageError:
    """The bytes of a picture's file, and its ending; or why there are none."""
    picture = item.image
    if isinstance(picture, np.ndarray):
        return _encode(_shrink(read_image(picture), side), "PNG"), "png"
    name = str(picture) if isinstance(picture, Path) else picture.name
    try:
        content = picture.read() if isinstance(picture, LazyImage) else picture.read_bytes()
    except ImageError as error:
        return error
    except OSError as error:
        if isinstance(picture, LazyImage):  # a store that is out of reach: no picture's fault
            raise
        return ImageError(f"{name} cannot be opened: {error.strerror}")
    try:
        image = read_image(content, None if side else (1, 1))
        with Image.open(io.BytesIO(content)) as opened:
            kind = opened.format or ""
    except ImageError as error:
        return ImageError(str(error).replace("the given file", name, 1))
    if side is not None and min(image.size) > side:
        return _encode(_shrink(image, side), "JPEG", quality=_JPEG_QUALITY), "jpg"
    return content, _FILE_EXTENSIONS.get(kind, kind.lower())


def _shrink(image: Image.Image, side: int | None) -> Image.Image:
    """The picture with a short side of ``side`` where it is longer."""
    if side is None or min(image.size) <= side:
        return image
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return image.resize((width, height), Resampling.LANCZOS)


def _encode(image: Image.Image, kind: str, quality: int | None = None) -> bytes:
    file = io.BytesIO()
    options = {} if quality is None else {"quality": quality}
    image.save(file, kind, **options)
    return file.getvalue()


def _classes_to_count(item: Item, kind: str) -> list[int] | slice:
    """The classes of an item, to be counted."""
    if kind == "regression":
        return slice(None)
    return [item.label] if isinstance(item.label, int) else [int(one) for one in item.label]


def _fingerprint(given: dict[str, ImageDataset]) -> str:
    """What tells these pictures from others: names, labels, and of files how large and from when they are."""
    hash = sha256()
    for role, pictures in given.items():
        hash.update(f"{role} {pictures.labels}\n".encode())
        for item in pictures.items:
            said = f"{item.name} {item.label}"
            if isinstance(item.image, Path) and item.image.exists():
                here = item.image.stat()
                said += f" {here.st_size} {here.st_mtime_ns}"
            hash.update(f"{said}\n".encode("utf-8", "surrogatepass"))
    return hash.hexdigest()
