"""Writes labeled images as WebDataset shards, which are read sequentially from a disk or a store."""

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

from effnet.arch.serde import check_float, check_int, read_json_object
from effnet.data import bit_depth, image_io, prefetch, webdataset_reader
from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.data.storage.atomic_write import atomic_write, write_text
from effnet.data.storage.process_lock import lock_output
from effnet.metadata import Preprocess

ShardProgress = Callable[[str, int, int], None]  # (split, images done, images in all)

_PLAN_FORMAT = 1
_PLAN_FILE = ".shards.plan.json"  # what is being written, while it is
_JPEG_QUALITY = 95  # of images that were resized
_FILE_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # of other formats PIL's name is used


@dataclass(frozen=True)
class ShardSummary:
    """What was written. ``skipped``: why images were left out; ``already_complete``: all of it existed before."""

    shards: tuple[str, ...]
    images: int
    skipped: tuple[str, ...]
    already_complete: bool = False


def write_shards(
    splits: Splits,
    out: Path,
    megabytes: float = 256,
    max_short_side: int | None = None,
    strict: bool = False,
    progress: ShardProgress | None = None,
    bits: int | None = None,
) -> ShardSummary:
    """Write ``train-000000.tar``, … and an index into the folder ``out``.

    Each image is a file beside its ``.cls`` (for one class) and its ``.json`` (label and name), in an order shuffled by
    name, so that every shard contains all classes. The same images give the same bytes. A shard is written completely
    or not at all, and the same call continues after a kill.

    Args:
        megabytes: approximate size of a shard.
        max_short_side: resize images whose short side is longer, as JPEG of quality 95; files are otherwise copied byte
            for byte.
        bits: how many bits 16-bit files hold, for those that are resized (default: as few as hold all of them).
        strict: raise ``ImageError`` for the first unreadable image instead of skipping and listing it.

    Raises:
        ValueError: if ``out`` contains anything else.
    """
    check_float("megabytes", megabytes, 0, exclusive=True)
    if max_short_side is not None:
        check_int("max_short_side", max_short_side, 1)
    stated = Preprocess(bits=bits or 0)
    if max_short_side is not None:
        every = (item.image for dataset in splits.available.values() for item in dataset.items)
        stated = bit_depth.choose_bits(stated, every)
    images = _fingerprint(splits.available)
    plan = {"format": _PLAN_FORMAT, "megabytes": megabytes, "max_short_side": max_short_side, "images": images}
    plan |= {"bits": stated.bits} if stated.bits else {}
    if index := _find_index(out, plan):
        return _summarize(index, already_complete=True)
    with lock_output(out):
        return _summarize(_write_all(splits, out, plan, strict, progress), already_complete=False)


def _write_all(
    splits: Splits, out: Path, plan: dict[str, Any], strict: bool, progress: ShardProgress | None
) -> dict[str, Any]:
    """Write what is missing of ``plan``, and return the index."""
    labels = next(iter(splits.available.values())).labels
    shards: list[dict[str, Any]] = []
    counts: dict[str, list[int]] = {}
    for split, dataset in splits.available.items():
        written = list(_write_split(split, dataset, out, plan, strict, progress))
        counts[split] = list(map(sum, zip(*(shard["counts"] for shard in written), strict=True)))
        shards += written
    listed = [{key: shard[key] for key in ("name", "images", "bytes")} for shard in shards]
    skipped = [reason for shard in shards for reason in shard["skipped"]]
    index = {"plan": plan, "classes": labels.names, "task": labels.task, "counts": counts, "shards": listed}
    index["skipped"] = skipped
    write_text(out / webdataset_reader.CLASS_NAMES_FILE, "".join(f"{name}\n" for name in labels.names))
    # Last: where it exists, everything does
    write_text(out / webdataset_reader.SHARDS_INDEX_FILE, json.dumps(index, ensure_ascii=False, indent=1))
    for note in (*out.glob(".*.done.json"), *out.glob(".*.part"), out / _PLAN_FILE):
        note.unlink(missing_ok=True)
    return index


def _find_index(out: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Return the index if all of ``plan`` is written; else store the plan. Raises ``ValueError`` for other files."""
    for name in (webdataset_reader.SHARDS_INDEX_FILE, _PLAN_FILE):
        if (out / name).is_file():
            content = webdataset_reader.read_json(str(out / name))
            if plan not in (content, content.get("plan")):
                raise ValueError(f"{out} has shards of other images or with other options: use another folder")
            return content if name == webdataset_reader.SHARDS_INDEX_FILE else None
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: use a new folder for the shards")
    write_text(out / _PLAN_FILE, json.dumps(plan))
    return None


def _summarize(index: dict[str, Any], already_complete: bool) -> ShardSummary:
    names = tuple(shard["name"] for shard in index["shards"])
    images = sum(shard["images"] for shard in index["shards"])
    return ShardSummary(names, images, tuple(index["skipped"]), already_complete)


def _write_split(
    split: str, dataset: ImageDataset, out: Path, plan: dict[str, Any], strict: bool, progress: ShardProgress | None
) -> Iterator[dict[str, Any]]:
    """Write the shards of one split after those that exist, and yield a summary of each."""
    items = sorted(dataset.items, key=lambda item: sha256(item.name.encode("utf-8", "surrogatepass")).digest())
    done, number = 0, 0
    while (note := _note_path(out, split, number)).is_file() and (out / f"{split}-{number:06}.tar").is_file():
        summary = read_json_object(note, dict[str, Any])
        yield summary
        done, number = summary["end"], number + 1
    encoded = prefetch.prefetch_map(
        lambda item: _encode_item(item, plan["max_short_side"], plan.get("bits", 0)), items[done:]
    )
    files = zip(items[done:], encoded, strict=True)
    while done < len(items):
        name = f"{split}-{number:06}.tar"
        skipped, samples = [], []
        counts = np.zeros(len(dataset.labels.names), np.int64)
        with atomic_write(out / name) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
                for item, content in files:
                    done += 1
                    if isinstance(content, image_io.ImageError):
                        if strict:
                            raise content
                        skipped.append(str(content))
                    else:
                        samples.append(_add_sample(archive, f"{done - 1:09}", item, *content))
                        classes = range(len(counts)) if dataset.labels.task == "regression" else item.classes
                        np.add.at(counts, list(classes), 1)
                    if progress is not None:
                        progress(split, done, len(items))
                    if archive.offset >= plan["megabytes"] * 1e6:
                        break
            size = temporary.stat().st_size
        summary = {"name": name, "images": len(samples), "bytes": size, "end": done, "skipped": skipped}
        summary["counts"] = counts.tolist()
        index = webdataset_reader.ShardIndex(size, samples)
        write_text(out / f"{name}{webdataset_reader.INDEX_SUFFIX}", index.to_json())
        write_text(_note_path(out, split, number), json.dumps(summary, ensure_ascii=False))
        yield summary
        number += 1


def _note_path(out: Path, split: str, number: int) -> Path:
    """Return the file that says that a shard is complete, while others are being written."""
    return out / f".{split}-{number:06}.done.json"


def _add_sample(
    archive: tarfile.TarFile, key: str, item: Item, content: bytes, extension: str
) -> webdataset_reader.ShardSample:
    label = item.label if isinstance(item.label, int) else list(item.label)
    offset = _add_file(archive, f"{key}.{extension}", content)
    if isinstance(label, int):
        _add_file(archive, f"{key}.cls", str(label).encode())
    _add_file(
        archive,
        f"{key}.json",
        json.dumps({"label": label, "name": item.name}, ensure_ascii=False).encode("utf-8", "backslashreplace"),
    )
    return webdataset_reader.ShardSample(f"{key}.{extension}", offset, len(content), label)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file and return the offset of its bytes. Without dates and owners, equal images give equal archives."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    offset = archive.offset + len(header.tobuf(tarfile.GNU_FORMAT))
    archive.addfile(header, io.BytesIO(content))
    return offset


def _encode_item(item: Item, max_short_side: int | None, bits: int) -> tuple[bytes, str] | image_io.ImageError:
    source = item.image
    if isinstance(source, np.ndarray):
        return _encode(_shrink(image_io.read_image(source), max_short_side), "PNG"), "png"
    name = str(source) if isinstance(source, Path) else source.name
    try:
        content = source.read() if isinstance(source, image_io.LazyImage) else source.read_bytes()
    except image_io.ImageError as error:
        return error
    except OSError as error:
        if isinstance(source, image_io.LazyImage):  # a store is unreachable: the image is not to blame
            raise
        return image_io.ImageError(f"{name} cannot be opened: {error.strerror}")
    try:
        image = image_io.read_image(content, None if max_short_side else (1, 1), bits=bits)
        with Image.open(io.BytesIO(content)) as file:
            format = file.format or ""
    except image_io.ImageError as error:
        return image_io.ImageError(str(error).replace("the given file", name, 1))
    if max_short_side is not None and min(image.size) > max_short_side:
        return _encode(_shrink(image, max_short_side), "JPEG", quality=_JPEG_QUALITY), "jpg"
    return content, _FILE_EXTENSIONS.get(format, format.lower())


def _shrink(image: Image.Image, short_side: int | None) -> Image.Image:
    if short_side is None or min(image.size) <= short_side:
        return image
    scale = short_side / min(image.size)
    width, height = (max(short_side, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encode(image: Image.Image, format: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _fingerprint(splits: dict[str, ImageDataset]) -> str:
    digest = sha256()
    for split, dataset in splits.items():
        digest.update(f"{split} {dataset.labels}\n".encode("utf-8", "surrogatepass"))
        for item in dataset.items:
            text = f"{item.name} {item.label}"
            if isinstance(item.image, Path) and item.image.exists():
                status = item.image.stat()
                text += f" {status.st_size} {status.st_mtime_ns}"
            digest.update(f"{text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
