"""What is said of tar archives of pictures (WebDataset's shards) wherever they are read: names, members, breaks."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from glob import glob, has_magic
from hashlib import sha256
from itertools import pairwise
from os.path import basename, splitext
from pathlib import Path
from typing import IO, Any, NamedTuple

from PIL import Image

from effnet.data.dataset import ImageDataset, Item, LabelEncoder, RawLabel, Splits
from effnet.data.folders import SPLIT_FOLDER_NAMES
from effnet.data.image_io import MAX_IMAGE_BYTES, ImageError, UnreadableImage
from effnet.data.prefetch import prefetch_map
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.cache_dir import writable_cache_dir
from effnet.data.storage.errors import describe_error
from effnet.data.storage.file_cache import cached_file
from effnet.data.storage.remote import is_remote, list_remote_files, read_remote_image, remote_version

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


_BRACE_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class TruncatedShardError(ImageError):
    """A shard could not be read to its end; what follows the members before it is not known."""


def is_shard(name: str) -> bool:
    """Whether ``name`` ends as a tar archive's does."""
    return name.lower().partition("?")[0].endswith(SHARD_SUFFIXES)


def expand_braces(source: str) -> list[str]:
    """``shard-{008..011}.tar``, as WebDataset writes many shards, as their names; any other text as itself."""
    found = _BRACE_RANGE.search(source)
    if not found or not is_shard(source):
        return [source]
    first, last = int(found[1]), int(found[2])
    names = (f"{source[: found.start()]}{n:0{len(found[1])}}{source[found.end() :]}" for n in range(first, last + 1))
    return [whole for name in names for whole in expand_braces(name)]


class StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a header that is cut or damaged for the archive's end; here only the end mark is one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        """As of any header. Raises ``ReadError`` where it is not whole."""
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut there")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError("it is damaged there, or no tar archive") from error
            raise


def is_image_member(member: tarfile.TarInfo) -> bool:
    """In a WebDataset the ending says what a member is; those that PIL knows are pictures."""
    name = basename(member.name)
    return member.isreg() and not name.startswith(".") and splitext(name)[1].lower() in _image_extensions()


@cache
def _image_extensions() -> frozenset[str]:
    return frozenset(Image.registered_extensions()) - {".mpg", ".mpeg", ".pdf", ".hdf", ".h5"}


def truncated_shard_error(shard: str, images_read: int, error: Exception) -> TruncatedShardError:
    """The error of a shard of which ``read`` pictures could be read before ``error``."""
    return TruncatedShardError(_truncation_message(shard, images_read, error))


def _truncation_message(shard: str, images_read: int, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{shard} does not exist"
    if isinstance(error, OSError) and error.errno is None:  # a sentence already
        return f"{error}, after {images_read} pictures" if images_read else str(error)
    cut = isinstance(error, EOFError) or "unexpected end" in str(error)
    why = (
        "it is cut there"
        if cut
        else describe_error(error)
        if isinstance(error, (tarfile.TarError, OSError))
        else "it is damaged"
    )
    return f"{shard} breaks off after {images_read} pictures: {why}"


# Tar shards whose members can be read in any order: what lies where in them is found once, and kept.


INDEX_SUFFIX = ".json"  # what ends the name of a shard's index that lies beside it


_INDEX_FORMAT = 1  # of an index that is kept: raised whenever shards are read otherwise


_MAX_LABEL_BYTES = 2**16


_LABEL_EXTENSIONS = ("cls", "json", "txt")  # members that say what a picture shows, the first of them that there is


_JSON_LABEL_KEYS = ("label", "labels", "cls", "class", "target", "targets")  # of a JSON object


class ShardSample(NamedTuple):
    """A picture in a shard: the member's name, where its bytes begin, how many there are, and its label."""

    name: str
    offset: int
    size: int
    label: RawLabel


@dataclass(frozen=True)
class ShardIndex:
    """What is in a shard of so many ``bytes``. ``error``: why it could not be read to its end; "" where it could."""

    bytes: int
    samples: list[ShardSample] = field(default_factory=list)
    error: str = ""

    def to_json(self) -> str:
        """As JSON."""
        said = {"format": _INDEX_FORMAT, "bytes": self.bytes, "samples": self.samples, "error": self.error}
        return json.dumps(said, ensure_ascii=False)


@dataclass(frozen=True, eq=False, slots=True)
class Shard:
    """A shard on this disk or elsewhere, of one version."""

    address: str
    version: str

    @classmethod
    def from_address(cls, address: str) -> Shard:
        """The shard as it is now. Raises ``FileNotFoundError`` for one on this disk that is not there."""
        if is_remote(address):
            return cls(address, remote_version(address))
        try:
            here = os.stat(address)
        except FileNotFoundError:
            raise FileNotFoundError(f"{address} does not exist") from None
        return cls(os.path.abspath(address), f"{here.st_size} {here.st_mtime_ns}")

    def local_path(self) -> Path:
        """Where it is on this disk, brought there if need be. Raises ``OSError`` where that cannot be done."""
        return cached_file(self.address, self.version) if is_remote(self.address) else Path(self.address)

    def read_index(self) -> ShardIndex:
        """What is in it: as its writer has left beside it, as it was found earlier, or else found now.

        Raises ``OSError`` where it cannot be had, and ``ValueError`` for one that is compressed.
        """
        if not self.address.lower().partition("?")[0].endswith(".tar"):
            raise ValueError(f"{self.address} is compressed, so that nothing in it can be found: unpack it to .tar")
        kept = (
            writable_cache_dir()
            / "shards"
            / f"{sha256(f'{self.address} {self.version}'.encode()).hexdigest()[:32]}.json"
        )
        known = _parse_index(self._read_index_beside()) or _parse_index(_read_if_exists(kept))
        if known is None:
            known = scan_shard(self.local_path(), self.address)
            if not known.error:
                with suppress(OSError), atomic_write(kept) as beside:
                    beside.write_text(known.to_json(), encoding="utf-8")
        return known

    def _read_index_beside(self) -> bytes | None:
        """The index that the writer has left, if it is of this very shard."""
        if is_remote(self.address):
            said = read_remote_image(self.address + INDEX_SUFFIX)
            return said if isinstance(said, bytes) else None
        content = _read_if_exists(Path(self.address + INDEX_SUFFIX))
        index = _parse_index(content)
        return content if index and index.bytes == os.stat(self.address).st_size else None


@dataclass(frozen=True, eq=False, slots=True)
class ShardMember:
    """A picture's file within a shard: a `Held`."""

    shard: Shard
    file: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """``shard.tar/file.jpg``."""
        return f"{self.shard.address}/{self.file}"

    def read(self) -> bytes:
        """Its bytes. Raises ``PictureError`` where the shard has none of it, ``OSError`` where it is out of reach."""
        for _ in range(3):  # a copy may be deleted to make room for others just now
            with suppress(FileNotFoundError), self.shard.local_path().open("rb", buffering=0) as file:
                file.seek(self.offset)
                content = file.read(self.size)
                if len(content) < self.size:
                    raise ImageError(f"{self.name} is not whole: the shard has become shorter")
                return content
        raise ImageError(f"{self.name} cannot be read: the shard is gone")


def scan_shard(path: Path, address: str) -> ShardIndex:
    """What is in the shard at ``path``, read once from end to end; where it is cut, what lies before.

    Members whose names differ only behind the first point of their last part belong together, as WebDataset has it.
    """
    pictures: dict[str, ShardSample] = {}
    labels: dict[str, tuple[int, RawLabel]] = {}
    error = ""
    whole = path.stat().st_size
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", tarinfo=StrictTarInfo) as members:
            while (member := members.next()) is not None:
                members.members = []  # type: ignore[attr-defined]  # or they would pile up
                if member.offset_data + member.size > whole:
                    raise tarfile.ReadError("unexpected end of data")
                _record_member(member, file, pictures, labels)
    except (tarfile.TarError, EOFError) as broken:
        error = str(truncated_shard_error(address, len(pictures), broken))
    samples = [sample._replace(label=labels[key][1] if key in labels else None) for key, sample in pictures.items()]
    return ShardIndex(whole, samples, error)


def _record_member(
    member: tarfile.TarInfo, file: IO[bytes], images: dict[str, ShardSample], labels: dict[str, tuple[int, RawLabel]]
) -> None:
    """Puts ``member`` down, if it is a picture or a label."""
    name = basename(member.name)
    stem, _, ending = name.partition(".")
    key, ending = member.name[: len(member.name) - len(name)] + stem, ending.lower()
    if is_image_member(member) and member.size <= MAX_IMAGE_BYTES:
        if key not in images or ("." in images[key].name[len(key) + 1 :] and "." not in ending):
            images[key] = ShardSample(member.name, member.offset_data, member.size, None)
    elif member.isreg() and ending in _LABEL_EXTENSIONS and member.size <= _MAX_LABEL_BYTES:
        rank = _LABEL_EXTENSIONS.index(ending)
        if key not in labels or rank < labels[key][0]:
            file.seek(member.offset_data)
            label = _parse_label(file.read(member.size), ending)
            if label is not None:
                labels[key] = rank, label


def _parse_label(content: bytes, ending: str) -> RawLabel:
    text = content.decode("utf-8", "replace").strip()
    if ending == "json":
        try:
            said = json.loads(text)
        except ValueError:
            return None
        if isinstance(said, dict):
            said = next((said[key] for key in _JSON_LABEL_KEYS if key in said), None)
        return said if isinstance(said, (int, float, str, list)) else None
    with suppress(ValueError):
        return int(text)
    return text or None


def _read_if_exists(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _parse_index(content: bytes | None) -> ShardIndex | None:
    """An index as it was written; None for whatever is none, or of another format."""
    if content is None:
        return None
    with suppress(ValueError, KeyError, TypeError):
        said = json.loads(content)
        if said["format"] == _INDEX_FORMAT:
            return ShardIndex(
                int(said["bytes"]), [ShardSample(*sample) for sample in said["samples"]], str(said["error"])
            )
    return None


# WebDataset shards as labelled pictures: which archives make up which split, and what is said of them beside them.


SHARDS_INDEX_FILE = "index.json"  # beside the shards: what their writer says of them all


CLASS_NAMES_FILE = "classes.txt"  # likewise: a class a line, in the order of their numbers


_SPLIT_NAMES = ("train", "val", "test")


_PARALLEL_READS = 8  # indices that are read or fetched


class _LabeledMember(NamedTuple):
    """A picture in a shard with its label as it stands there."""

    shard: Shard
    split: str
    name: str
    offset: int
    size: int
    label: RawLabel


def are_shards(source: str) -> bool:
    """Whether ``source`` means shards: some of them, an address, or a folder of this disk with nothing else in it."""
    if is_remote(source):
        return True
    if os.path.isdir(source):
        return bool(_list_local_folder(Path(source)))
    return all(map(is_shard, source.split("::")))


def open_shards(source: str) -> Splits:
    """The labelled pictures in the shards that ``source`` means, on this disk, over ``http(s)://`` or in a store.

    - ``photos-{000..031}.tar``, ``photos-*.tar``, one ``.tar``, or several such with ``::`` between them;
    - a folder with shards in it, or in its folders ``train``, ``val`` and ``test``; over http it needs the index that
      `effnet.data.webdataset_writer` writes.

    Shards whose names begin with ``train``, ``val`` or ``test`` (or stand in such folders) are of that split; all
    others are to learn from. Labels are the members ``.cls``, ``.json`` or ``.txt`` beside a picture; where there is
    none at all, the folder within the archive is the class. Numbers are named by ``classes.txt`` or the index beside
    the shards, if there is one. A shard that breaks off gives what lies before, and a picture whose reading says so;
    one without a label says so too. Raises ``ValueError`` and ``OSError`` with one sentence where there is nothing.
    """
    archives = list(
        prefetch_map(
            Shard.from_address,
            [address for one in source.split("::") for address in _expand_source(one)],
            _PARALLEL_READS,
        )
    )
    indices = list(prefetch_map(Shard.read_index, archives, _PARALLEL_READS))
    found = [
        _LabeledMember(archive, _split_from_name(archive.address), *sample)
        for archive, index in zip(archives, indices, strict=True)
        for sample in index.samples
    ]
    if not found:
        raise ValueError(next((index.error for index in indices if index.error), f"{source} has no pictures in it"))
    if all(one.label is None for one in found):
        found = _label_by_folder(found)
    if all(one.label is None for one in found):
        raise ValueError(
            f"{source} has no labels: beside each picture there should be one of the same name that ends in .cls, "
            ".json or .txt, or the pictures should lie in a folder a class"
        )
    leading = min({one.split for one in found}, key=_SPLIT_NAMES.index)
    names, named_by = _read_class_names(archives[0].address)
    meaning = LabelEncoder.fit(
        (one.label for one in found if one.split == leading), names, named_by, f"{source} ({leading})"
    )
    splits: dict[str, list[Item]] = {}
    for one in found:
        splits.setdefault(one.split, []).append(_build_item(one, meaning))
    for archive, index in zip(archives, indices, strict=True):
        if index.error:
            lost = UnreadableImage(archive.address, index.error)
            splits.setdefault(_split_from_name(archive.address), []).append(
                Item(lost, meaning.placeholder(), archive.address)
            )
    return Splits(
        *(ImageDataset(tuple(splits[role]), meaning.labels) if role in splits else None for role in _SPLIT_NAMES)
    )


def _build_item(member: _LabeledMember, encoder: LabelEncoder) -> Item:
    name = f"{member.shard.address}/{member.name}"
    brief = f"{os.path.basename(member.shard.address)}/{member.name}"
    if member.label is None:
        return Item(UnreadableImage(name, f"{name} has no label beside it"), encoder.placeholder(), brief)
    return Item(
        ShardMember(member.shard, member.name, member.offset, member.size), encoder.encode(member.label, name), brief
    )


def _expand_source(source: str) -> list[str]:
    """The addresses of the shards that ``source`` means, in order. Raises ``ValueError`` where there is none."""
    spelled = expand_braces(source)
    if len(spelled) > 1:
        return [address for one in spelled for address in _expand_source(one)]
    if os.path.isdir(source):
        return [str(path) for path in _list_local_folder(Path(source))]
    magic = has_magic(source.partition("?")[0] if is_remote(source) else source)
    if is_shard(source) and not magic:
        return spelled
    found = [
        name for name in (_list_remote_folder(source) if is_remote(source) else sorted(glob(source))) if is_shard(name)
    ]
    if not found:
        raise ValueError(f"{source} has no shards: give them as photos-{{000..031}}.tar")
    return found


def _list_remote_folder(folder: str) -> list[str]:
    """The shards in a folder elsewhere: as its index says, or else as its store does."""
    if not has_magic(folder):
        beside = folder.rstrip("/") + "/"
        index = _read_json(beside + SHARDS_INDEX_FILE)
        if "shards" in index:
            return [beside + str(one["name"]) for one in index["shards"]]
    return list(list_remote_files(folder))


def _list_local_folder(folder: Path) -> list[Path]:
    """The shards in a folder of this disk, or in its train, val and test; none where other folders lie beside them."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in inside if is_shard(path.name) and path.is_file()]
    for path in inside:
        if path.is_dir():
            deeper = sorted(one for one in path.iterdir() if not one.name.startswith("."))
            if path.name.lower() not in SPLIT_FOLDER_NAMES or any(one.is_dir() for one in deeper):
                return []
            found += [one for one in deeper if is_shard(one.name)]
    return found


def _split_from_name(address: str) -> str:
    """The split that a shard is of, by its name or its folder's."""
    folder, _, name = address.lower().replace(os.sep, "/").rpartition("/")
    first = re.match(r"[a-z]*", name)
    return (
        SPLIT_FOLDER_NAMES.get(first[0] if first else "")
        or SPLIT_FOLDER_NAMES.get(folder.rpartition("/")[2])
        or "train"
    )


def _label_by_folder(members: Sequence[_LabeledMember]) -> list[_LabeledMember]:
    """The same with the folder within the archive as the label, below ``train``, ``val`` or ``test`` if it is there."""
    folders = [os.path.normpath(one.name).split("/")[:-1] for one in members]
    shared = os.path.commonpath(["/".join(parts) for parts in folders])
    depth = len(shared.split("/")) if shared else 0  # of a folder around it all
    labelled = []
    for one, parts in zip(members, folders, strict=True):
        role, label = one.split, parts[depth] if len(parts) > depth else None
        for split, below in pairwise(parts):
            if split.lower() in SPLIT_FOLDER_NAMES:
                role, label = SPLIT_FOLDER_NAMES[split.lower()], below
                break
        labelled.append(one._replace(label=label, split=role))
    return labelled


def _read_class_names(address: str) -> tuple[tuple[str, ...] | None, str]:
    """What the classes are called, by what lies beside the shard or one folder above, and which file says so."""
    folder = os.path.dirname(address)
    for place in (
        (folder, os.path.dirname(folder)) if folder.rpartition("/")[2].lower() in SPLIT_FOLDER_NAMES else (folder,)
    ):
        index = _read_json(f"{place}/{SHARDS_INDEX_FILE}")
        if isinstance(index.get("classes"), list):
            return tuple(map(str, index["classes"])), f"{place}/{SHARDS_INDEX_FILE}"
        lines = _read_text(f"{place}/{CLASS_NAMES_FILE}")
        if lines is not None:
            return tuple(line.strip() for line in lines.splitlines() if line.strip()), f"{place}/{CLASS_NAMES_FILE}"
    return None, ""


def _read_json(address: str) -> dict[str, list[dict[str, object]]]:
    try:
        said = json.loads(_read_text(address) or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _read_text(address: str) -> str | None:
    """What lies at ``address``; None where there is nothing."""
    if is_remote(address):
        try:
            content = read_remote_image(address)
        except FileNotFoundError:
            return None
        return content.decode("utf-8", "replace") if isinstance(content, bytes) else None
    try:
        return Path(address).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
