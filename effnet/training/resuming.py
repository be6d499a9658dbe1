"""Whether a run may be resumed: by the content of its images, weights and settings, wherever these lie now."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, NamedTuple

from effnet.data.storage.atomic_write import atomic_write

DIGEST_BYTES = 16
_FILE_SETTINGS = ("weights", "teacher")  # they name files, whose content counts and not their path
_MAX_NAMES = 3  # of images in a message


class ImageRow(NamedTuple):
    """What is recorded of an image; ``bytes`` and ``digest`` are empty where not known."""

    image: str
    label: str
    split: str
    bytes: str = ""  # size of the file
    digest: str = ""  # of its content


def write_rows(path: Path, rows: Iterable[ImageRow]) -> None:
    """Write the images of a run as a CSV."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.writer(file)
        table.writerow(ImageRow._fields)
        table.writerows(rows)


def read_rows(path: Path) -> list[ImageRow] | None:
    """Return what `write_rows` has written, older versions without sizes and digests; None if it is not there."""
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [
                ImageRow(**{field: row.get(field) or "" for field in ImageRow._fields}) for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return None


def digest_weights(source: object) -> str | None:
    """Return a digest of a file of weights, of the names and sizes of the files in a folder; None for anything else."""
    path = Path(source) if isinstance(source, (str, Path)) else Path()
    if path.is_file():
        with path.open("rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=DIGEST_BYTES)).hexdigest()
    if source and path.is_dir():
        files = sorted(file for file in path.glob("*") if file.is_file())
        listing = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
        return blake2b(listing.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
    return None


def describe_changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs: ``["seed was 0, now 5"]``. Where the data and files lie does not count."""
    ignored = {"data", "images", *_FILE_SETTINGS, *(f"{name}_digest" for name in _FILE_SETTINGS)}
    changes = dict(_iter_changes({name: before.get(name) for name in now if name not in ignored},
                                 {name: value for name, value in now.items() if name not in ignored}))  # fmt: skip
    for name in _FILE_SETTINGS:
        old, new = before.get(f"{name}_digest"), now.get(f"{name}_digest")
        equal = old == new if old and new else _is_same_path(before.get(name), now.get(name))
        if not equal:
            same_name = "another file of that name" if before.get(name) == now.get(name) else _format(now.get(name))
            changes[name] = f"{name} was {_format(before.get(name))}, now {same_name}"
    return list(changes.values())


def _iter_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that differs, also of one within a recipe or an architecture, and how."""
    for name in dict.fromkeys((*now, *before)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _iter_changes(old, new)
        elif old != new:
            yield name, f"{name} was {_format(old)}, now {_format(new)}"


def _format(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("name", "another"))
    return "not given" if value is None else str(value)


def _is_same_path(before: object, now: object) -> bool:
    if before == now:
        return True
    return all(isinstance(path, str) for path in (before, now)) and os.path.realpath(str(before)) == os.path.realpath(
        str(now)
    )


def describe_changed_images(
    before: Sequence[ImageRow], now: Sequence[ImageRow], compare_splits: bool = True
) -> list[str]:
    """Return how the images differ: ``["2 images are gone (a.jpg, b.jpg)"]``. What is not known on a side is equal."""
    old, new = _index_by_name(before), _index_by_name(now)
    common = [(old[key], new[key]) for key in old.keys() & new.keys()]
    relabeled = [row.image for known, row in common if known.label != row.label]
    changed = [
        row.image for known, row in common if _differ(known.digest, row.digest) or _differ(known.bytes, row.bytes)
    ]
    moved = [row.image for known, row in common if compare_splits and known.split != row.split]
    descriptions = [
        _count("gone", [name for name, number in old if (name, number) not in new], "is", "are"),
        _count("new", [name for name, number in new if (name, number) not in old], "is", "are"),
        _count("another label", relabeled, "has", "have"),
        _count("changed", changed, "has", "have"),
        _count("in another split", moved, "is", "are"),
    ]
    found = [text for text in descriptions if text]
    if not found and compare_splits and [row.image for row in before] != [row.image for row in now]:
        return ["the images are in another order"]
    return found


def _index_by_name(rows: Iterable[ImageRow]) -> dict[tuple[str, int], ImageRow]:
    """Index rows by name and, as train and val may both have an a/1.jpg, by how often it occurred before."""
    seen: dict[str, int] = {}
    index = {}
    for row in rows:
        seen[row.image] = number = seen.get(row.image, -1) + 1
        index[row.image, number] = row
    return index


def _differ(before: str, now: str) -> bool:
    return bool(before and now) and before != now


def _count(how: str, names: Sequence[str], singular: str, plural: str) -> str:
    if not names:
        return ""
    listed = ", ".join(sorted(names)[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")
    count = f"1 image {singular}" if len(names) == 1 else f"{len(names):,} images {plural}"
    return f"{count} {how} ({listed})"
