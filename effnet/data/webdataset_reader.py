"""WebDataset shards (tar archives) as labeled images in any order, or as a stream.

What lies where in a shard is found once, by reading it from end to end, and kept in an index. Own code rather than the
webdataset package, because training resumes at any image, and a truncated shard has to be reported.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import glob, has_magic
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from effnet.arch.serde import parse_json
from effnet.data import dataset, folders, image_io, prefetch
from effnet.data.storage import archive, cache_dir, errors, remote
from effnet.data.storage.atomic_write import write_text

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SHARDS_INDEX_FILE = "index.json"  # beside the shards: what their writer says about all of them
CLASS_NAMES_FILE = "classes.txt"  # beside the shards: one class per line, in the order of their indices
INDEX_SUFFIX = ".json"  # beside a shard: its index
_INDEX_FORMAT = 1  # to be raised whenever shards are read in another way
_LABEL_EXTENSIONS = ("cls", "json", "txt")  # members with the label of an image; the first that exists is used
_JSON_LABEL_KEYS = ("label", "labels", "cls", "class", "target", "targets")
_SPLIT_NAMES = ("train", "val", "test")
_PARALLEL_READS = 8  # indices that are read or downloaded at once
_STREAM_BUFFER_BYTES = 2**20
_NOT_IMAGE_EXTENSIONS = frozenset((".mpg", ".mpeg", ".pdf", ".hdf", ".h5"))  # though PIL has plug-ins for them


def is_shard(name: str) -> bool:
    """Return whether ``name`` ends as a tar archive does."""
    return name.lower().partition("?")[0].endswith(SHARD_SUFFIXES)


def are_shards(source: str) -> bool:
    """Return whether ``source`` stands for shards: names of shards, a URL, or a local folder of nothing else."""
    if remote.is_remote(source):
        return True
    if os.path.isdir(source):
        return bool(_list_local_folder(Path(source)))
    return all(map(is_shard, source.split("::")))


def open_shards(source: str) -> dataset.Splits:
    """Open the labeled images in shards, local, over HTTP or in a store.

    ``source`` is ``photos-{000..031}.tar``, ``photos-*.tar``, one ``.tar``, or several of these separated by ``::``; or
    a folder of shards, perhaps in ``train``, ``val`` and ``test`` folders. Over HTTP a folder needs the index that
    `effnet.data.webdataset_writer` writes.

    Shards whose names begin with ``train``, ``val`` or ``test``, or that lie in such folders, belong to that split; all
    others are for training. The label of an image is the member of the same name that ends in ``.cls``, ``.json`` or
    ``.txt``; if there is none at all, the folder within the archive is the class. Integers are named by ``classes.txt``
    or the index beside the shards. A truncated shard gives the images before its end and an item whose reading raises
    the error, as does an image without a label. Raises ``ValueError`` if there are no shards, images or labels, and
    ``OSError`` if a shard is not available.
    """
    urls = [url for part in source.split("::") for url in _expand_source(part)]
    shards = list(prefetch.prefetch_map(Shard.from_url, urls, _PARALLEL_READS))
    indices = list(prefetch.prefetch_map(Shard.read_index, shards, _PARALLEL_READS))
    members = [
        _LabeledMember(_split_from_name(shard.url), ShardMember(shard, *sample[:3]), sample.label)
        for shard, index in zip(shards, indices, strict=True)
        for sample in index.samples
    ]
    if not members:
        raise ValueError(next((index.error for index in indices if index.error), f"{source} contains no images"))
    if all(member.label is None for member in members):
        members = _label_by_folder(members)
    if all(member.label is None for member in members):
        raise ValueError(
            f"{source} has no labels: beside each image there should be a member of the same name that ends in .cls, "
            ".json or .txt, or the images should lie in one folder per class"
        )
    lead = min({member.split for member in members}, key=_SPLIT_NAMES.index)
    lead_labels = (member.label for member in members if member.split == lead)
    encoder = dataset.LabelEncoder.fit(lead_labels, *_read_class_names(shards[0].url), f"{source} ({lead})")
    items: dict[str, list[dataset.Item]] = {}
    for split, image, label in members:
        name = f"{os.path.basename(image.shard.url)}/{image.file}"
        items.setdefault(split, []).append(encoder.build_item(image, label, name, "has no label beside it"))
    for shard, index in zip(shards, indices, strict=True):
        if index.error:
            rest = dataset.Item(image_io.UnreadableImage(shard.url, index.error), encoder.placeholder(), shard.url)
            items.setdefault(_split_from_name(shard.url), []).append(rest)
    return dataset.Splits(**{split: dataset.ImageDataset(tuple(items[split]), encoder.labels) for split in items})


def read_shard_images(shard: str, start: int = 0) -> Iterator[tuple[str, bytes | image_io.ImageError]]:
    """Yield (``shard.tar/member.jpg``, its bytes) of every image from number ``start`` on, in one pass.

    The shard may be compressed and is never held as a whole. If it is truncated, damaged or unreachable, the last pair
    is (its name, `TruncatedShardError`); a shard without images gives an error as well.
    """
    number = 0
    try:
        raw = remote.ResumingReader(shard) if remote.is_remote(shard) else io.FileIO(shard)
        with io.BufferedReader(raw, _STREAM_BUFFER_BYTES) as file:
            for tar, member in archive.iter_tar_members(file, "r|*"):
                if is_image_member(member):
                    number += 1
                    if number > start:
                        name, content = f"{shard}/{member.name}", tar.extractfile(member)
                        assert content is not None, name
                        too_large = member.size > image_io.MAX_IMAGE_BYTES
                        yield name, image_io.too_large_error(name) if too_large else content.read()
    except MemoryError:
        raise
    except Exception as error:  # tarfile and the decompressors stumble in many ways
        yield shard, truncated_shard_error(shard, number, error)
        return
    if not number:
        yield shard, image_io.ImageError(f"{shard} contains no images")


class TruncatedShardError(image_io.ImageError):
    """A shard could not be read to its end; what follows the members before is not known."""


def is_image_member(member: tarfile.TarInfo) -> bool:
    """Return whether the extension is one of an image that PIL knows: in a WebDataset it says what a member is."""
    name = os.path.basename(member.name)
    extension = os.path.splitext(name)[1].lower()
    is_image = extension in Image.registered_extensions() and extension not in _NOT_IMAGE_EXTENSIONS
    return is_image and member.isreg() and not name.startswith(".")


def truncated_shard_error(shard: str, images_read: int, error: Exception) -> TruncatedShardError:
    """Return the error of a shard that failed with ``error`` after ``images_read`` images."""
    if isinstance(error, FileNotFoundError):
        return TruncatedShardError(f"{shard} does not exist")
    if isinstance(error, OSError) and error.errno is None:  # a sentence already
        return TruncatedShardError(f"{error}, after {images_read} images" if images_read else str(error))
    if isinstance(error, EOFError) or "unexpected end" in str(error):
        reason = "it is truncated"
    else:
        reason = errors.describe_error(error) if isinstance(error, (tarfile.TarError, OSError)) else "it is damaged"
    return TruncatedShardError(f"{shard} breaks off after {images_read} images: {reason}")


class ShardSample(NamedTuple):
    """An image in a shard: the member's name, the offset of its first byte, its size in bytes, and its label."""

    name: str
    offset: int
    size: int
    label: dataset.RawLabel


@dataclass(frozen=True)
class ShardIndex:
    """The images in a shard of ``bytes`` bytes. ``error``: why it could not be read to its end, else ""."""

    bytes: int
    samples: list[ShardSample] = field(default_factory=list)
    error: str = ""

    def to_json(self) -> str:
        """Return the index as JSON."""
        fields = {"format": _INDEX_FORMAT, "bytes": self.bytes, "samples": self.samples, "error": self.error}
        return json.dumps(fields, ensure_ascii=False)


@dataclass(frozen=True, eq=False, slots=True)
class Shard:
    """One version of a shard, local or remote."""

    url: str
    version: str

    @classmethod
    def from_url(cls, url: str) -> "Shard":
        """Return the shard as it is now. Raises ``FileNotFoundError`` if it is local and does not exist."""
        is_remote = remote.is_remote(url)
        if not is_remote and not os.path.exists(url):
            raise FileNotFoundError(f"{url} does not exist")
        return cls(url if is_remote else os.path.abspath(url), remote.content_version(url))

    def local_path(self) -> Path:
        """Return its path on this disk, downloaded if need be. Raises ``OSError`` if that fails."""
        return cache_dir.cached_file(self.url, self.version) if remote.is_remote(self.url) else Path(self.url)

    def read_index(self) -> ShardIndex:
        """Return its index: as its writer left it beside the shard, as cached, or by scanning the shard now."""
        if not self.url.lower().partition("?")[0].endswith(".tar"):
            raise ValueError(f"{self.url} is compressed, so that its members cannot be found: unpack it to .tar")
        digest = sha256(f"{self.url} {self.version}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        cached = cache_dir.writable_cache_dir() / "shards" / f"{digest}.json"
        index = _read_index(self.url + INDEX_SUFFIX)
        if index and not remote.is_remote(self.url) and index.bytes != os.stat(self.url).st_size:
            index = None  # of another version
        index = index or _read_index(str(cached))
        if index is None:
            index = scan_shard(self.local_path(), self.url)
            if not index.error:
                with suppress(OSError):
                    write_text(cached, index.to_json())
        return index


@dataclass(frozen=True, eq=False, slots=True)
class ShardMember:
    """An image file within a shard: a `LazyImage`."""

    shard: Shard
    file: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """``shard.tar/file.jpg``."""
        return f"{self.shard.url}/{self.file}"

    def read(self) -> bytes:
        """Return its bytes. Raises ``ImageError`` if the shard does not contain them, ``OSError`` if unreachable."""
        for _ in range(3):  # a cached file may be evicted at any time
            with suppress(FileNotFoundError), self.shard.local_path().open("rb", buffering=0) as file:
                file.seek(self.offset)
                content = file.read(self.size)
                if len(content) < self.size:
                    raise image_io.ImageError(f"{self.name} is incomplete: the shard has become shorter")
                return content
        raise image_io.ImageError(f"{self.name} cannot be read: the shard no longer exists")


def scan_shard(path: Path, url: str) -> ShardIndex:
    """Read the shard at ``path`` from end to end, or as far as it is whole.

    Members belong together if their names differ only behind the first point of the last part, as WebDataset has it.
    """
    images: dict[str, ShardSample] = {}
    labels: dict[str, tuple[int, dataset.RawLabel]] = {}
    error = ""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            for _, member in archive.iter_tar_members(file, "r:"):
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                name = os.path.basename(member.name)
                stem, _, extension = name.partition(".")
                key, extension = member.name[: len(member.name) - len(name)] + stem, extension.lower()
                if is_image_member(member) and member.size <= image_io.MAX_IMAGE_BYTES:
                    if key not in images or ("." in images[key].name[len(key) + 1 :] and "." not in extension):
                        images[key] = ShardSample(member.name, member.offset_data, member.size, None)
                elif member.isreg() and extension in _LABEL_EXTENSIONS and member.size <= 2**16:
                    rank = _LABEL_EXTENSIONS.index(extension)
                    if key not in labels or rank < labels[key][0]:
                        file.seek(member.offset_data)
                        label = _parse_label(file.read(member.size), extension)
                        if label is not None:
                            labels[key] = rank, label
    except (tarfile.TarError, EOFError) as broken:
        error = str(truncated_shard_error(url, len(images), broken))
    samples = [sample._replace(label=labels[key][1] if key in labels else None) for key, sample in images.items()]
    return ShardIndex(size, samples, error)


def _parse_label(content: bytes, extension: str) -> dataset.RawLabel:
    text = content.decode("utf-8", "replace").strip()
    if extension == "json":
        try:
            value = parse_json(text, "a label")
        except ValueError:
            return None
        if isinstance(value, dict):
            value = next((value[key] for key in _JSON_LABEL_KEYS if key in value), None)
        return value if isinstance(value, (int, float, str, list)) else None
    with suppress(ValueError):
        return int(text)
    return text or None


def _read_index(url: str) -> ShardIndex | None:
    """Return the index at ``url``, or None if it is missing, damaged or of another format."""
    with suppress(ValueError, KeyError, TypeError):
        fields = read_json(url)
        if fields["format"] == _INDEX_FORMAT:
            samples = [ShardSample(*sample) for sample in fields["samples"]]
            return ShardIndex(int(fields["bytes"]), samples, str(fields["error"]))
    return None


class _LabeledMember(NamedTuple):
    split: str
    image: ShardMember
    label: dataset.RawLabel


def expand_braces(source: str) -> list[str]:
    """Return the names that ``shard-{008..011}.tar`` stands for; of any other text itself."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", source)
    if not found or not is_shard(source):
        return [source]
    first, last = int(found[1]), int(found[2])
    names = (f"{source[: found.start()]}{n:0{len(found[1])}}{source[found.end() :]}" for n in range(first, last + 1))
    return [expanded for name in names for expanded in expand_braces(name)]


def _expand_source(source: str) -> list[str]:
    expanded = expand_braces(source)
    if len(expanded) > 1:
        return [url for name in expanded for url in _expand_source(name)]
    if os.path.isdir(source):
        return [str(path) for path in _list_local_folder(Path(source))]
    is_remote = remote.is_remote(source)
    if is_shard(source) and not has_magic(source.partition("?")[0] if is_remote else source):
        return expanded
    found = [name for name in (_list_remote_folder(source) if is_remote else sorted(glob(source))) if is_shard(name)]
    if not found:
        raise ValueError(f"{source} has no shards: give them as photos-{{000..031}}.tar")
    return found


def _list_remote_folder(folder: str) -> list[str]:
    """List the shards as the folder's index says, or else as its store does."""
    if not has_magic(folder):
        prefix = folder.rstrip("/") + "/"
        index = read_json(prefix + SHARDS_INDEX_FILE)
        if "shards" in index:
            return [prefix + str(shard["name"]) for shard in index["shards"]]
    return list(remote.list_remote_files(folder))


def _list_local_folder(folder: Path) -> list[Path]:
    """List the shards in a folder or in its train, val and test; none if there are other folders beside them."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in inside if is_shard(path.name) and path.is_file()]
    for path in inside:
        if path.is_dir():
            deeper = sorted(file for file in path.iterdir() if not file.name.startswith("."))
            if path.name.lower() not in folders.SPLIT_FOLDER_NAMES or any(file.is_dir() for file in deeper):
                return []
            found += [file for file in deeper if is_shard(file.name)]
    return found


def _split_from_name(url: str) -> str:
    folder, _, name = url.lower().replace(os.sep, "/").rpartition("/")
    words = (*re.findall(r"^[a-z]+", name), folder.rpartition("/")[2])
    return next((folders.SPLIT_FOLDER_NAMES[word] for word in words if word in folders.SPLIT_FOLDER_NAMES), "train")


def _label_by_folder(members: Sequence[_LabeledMember]) -> list[_LabeledMember]:
    """Label members by their folder in the archive, the one below ``train``, ``val`` or ``test`` if there is such."""
    paths = [os.path.normpath(member.image.file).split("/")[:-1] for member in members]
    shared = os.path.commonpath(["/".join(parts) for parts in paths])
    depth = len(shared.split("/")) if shared else 0  # of a folder around everything
    labeled = []
    for member, parts in zip(members, paths, strict=True):
        split, label = member.split, parts[depth] if len(parts) > depth else None
        for name, below in pairwise(parts):
            if name.lower() in folders.SPLIT_FOLDER_NAMES:
                split, label = folders.SPLIT_FOLDER_NAMES[name.lower()], below
                break
        labeled.append(member._replace(label=label, split=split))
    return labeled


def _read_class_names(url: str) -> tuple[tuple[str, ...] | None, str]:
    """Return the classes' names and the file that defines them, beside the shard or one folder above it."""
    folder = os.path.dirname(url)
    in_split_folder = folder.rpartition("/")[2].lower() in folders.SPLIT_FOLDER_NAMES
    for place in (folder, os.path.dirname(folder)) if in_split_folder else (folder,):
        index = read_json(f"{place}/{SHARDS_INDEX_FILE}")
        if isinstance(index.get("classes"), list):
            return tuple(map(str, index["classes"])), f"{place}/{SHARDS_INDEX_FILE}"
        lines = _read_text(f"{place}/{CLASS_NAMES_FILE}")
        if lines is not None:
            return tuple(line.strip() for line in lines.splitlines() if line.strip()), f"{place}/{CLASS_NAMES_FILE}"
    return None, ""


def read_json(url: str) -> dict[str, Any]:
    """Return the JSON object at ``url``, empty if there is none."""
    try:
        value = parse_json(_read_text(url) or "{}", url)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_text(url: str) -> str | None:
    """Return the text at ``url``, or None if there is none."""
    if remote.is_remote(url):
        content = remote.read_remote_file(url)
        return content.decode("utf-8", "replace") if isinstance(content, bytes) else None
    try:
        return Path(url).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
