"""WebDataset shards as labelled pictures: which archives make up which split, and what is said of them beside them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from glob import glob, has_magic
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from effnet.data.ahead import ahead
from effnet.data.archive import Archive, Member, Missing, Raw
from effnet.data.folders import ROLES
from effnet.data.meaning import Meaning
from effnet.data.pictures import Item, Pictures, Splits
from effnet.data.storage.remote import fetched, is_remote, listed
from effnet.data.storage.tar import is_shard, spelled_out

INDEX = "index.json"  # beside the shards: what their writer says of them all
NAMES = "classes.txt"  # likewise: a class a line, in the order of their numbers
_ROLES = ("train", "val", "test")
_AT_ONCE = 8  # indices that are read or fetched


class _Found(NamedTuple):
    """A picture in a shard with its label as it stands there."""

    archive: Archive
    role: str
    name: str
    offset: int
    size: int
    label: Raw


def are_shards(source: str) -> bool:
    """Whether ``source`` means shards: some of them, an address, or a folder of this disk with nothing else in it."""
    if is_remote(source):
        return True
    if os.path.isdir(source):
        return bool(_in_folder(Path(source)))
    return all(map(is_shard, source.split("::")))


def open_shards(source: str) -> Splits:
    """The labelled pictures in the shards that ``source`` means, on this disk, over ``http(s)://`` or in a store.

    - ``photos-{000..031}.tar``, ``photos-*.tar``, one ``.tar``, or several such with ``::`` between them;
    - a folder with shards in it, or in its folders ``train``, ``val`` and ``test``; over http it needs the index that
      `effnet.data.sharding` writes.

    Shards whose names begin with ``train``, ``val`` or ``test`` (or stand in such folders) are of that split; all
    others are to learn from. Labels are the members ``.cls``, ``.json`` or ``.txt`` beside a picture; where there is
    none at all, the folder within the archive is the class. Numbers are named by ``classes.txt`` or the index beside
    the shards, if there is one. A shard that breaks off gives what lies before, and a picture whose reading says so;
    one without a label says so too. Raises ``ValueError`` and ``OSError`` with one sentence where there is nothing.
    """
    archives = list(ahead(Archive.of, [address for one in source.split("::") for address in _meant(one)], _AT_ONCE))
    indices = list(ahead(Archive.index, archives, _AT_ONCE))
    found = [
        _Found(archive, _role(archive.address), *sample)
        for archive, index in zip(archives, indices, strict=True)
        for sample in index.samples
    ]
    if not found:
        raise ValueError(next((index.error for index in indices if index.error), f"{source} has no pictures in it"))
    if all(one.label is None for one in found):
        found = _by_folder(found)
    if all(one.label is None for one in found):
        raise ValueError(
            f"{source} has no labels: beside each picture there should be one of the same name that ends in .cls, "
            ".json or .txt, or the pictures should lie in a folder a class"
        )
    leading = min({one.role for one in found}, key=_ROLES.index)
    names, named_by = _names(archives[0].address)
    meaning = Meaning.of((one.label for one in found if one.role == leading), names, named_by, f"{source} ({leading})")
    splits: dict[str, list[Item]] = {}
    for one in found:
        splits.setdefault(one.role, []).append(_item(one, meaning))
    for archive, index in zip(archives, indices, strict=True):
        if index.error:
            lost = Missing(archive.address, index.error)
            splits.setdefault(_role(archive.address), []).append(Item(lost, meaning.any(), archive.address))
    return Splits(*(Pictures(tuple(splits[role]), meaning.labels) if role in splits else None for role in _ROLES))


def _item(one: _Found, meaning: Meaning) -> Item:
    name = f"{one.archive.address}/{one.name}"
    brief = f"{os.path.basename(one.archive.address)}/{one.name}"
    if one.label is None:
        return Item(Missing(name, f"{name} has no label beside it"), meaning.any(), brief)
    return Item(Member(one.archive, one.name, one.offset, one.size), meaning.label(one.label, name), brief)


def _meant(source: str) -> list[str]:
    """The addresses of the shards that ``source`` means, in order. Raises ``ValueError`` where there is none."""
    spelled = spelled_out(source)
    if len(spelled) > 1:
        return [address for one in spelled for address in _meant(one)]
    if os.path.isdir(source):
        return [str(path) for path in _in_folder(Path(source))]
    magic = has_magic(source.partition("?")[0] if is_remote(source) else source)
    if is_shard(source) and not magic:
        return spelled
    found = [name for name in (_listed(source) if is_remote(source) else sorted(glob(source))) if is_shard(name)]
    if not found:
        raise ValueError(f"{source} has no shards: give them as photos-{{000..031}}.tar")
    return found


def _listed(folder: str) -> list[str]:
    """The shards in a folder elsewhere: as its index says, or else as its store does."""
    if not has_magic(folder):
        beside = folder.rstrip("/") + "/"
        index = _json(beside + INDEX)
        if "shards" in index:
            return [beside + str(one["name"]) for one in index["shards"]]
    return list(listed(folder))


def _in_folder(folder: Path) -> list[Path]:
    """The shards in a folder of this disk, or in its train, val and test; none where other folders lie beside them."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in inside if is_shard(path.name) and path.is_file()]
    for path in inside:
        if path.is_dir():
            deeper = sorted(one for one in path.iterdir() if not one.name.startswith("."))
            if path.name.lower() not in ROLES or any(one.is_dir() for one in deeper):
                return []
            found += [one for one in deeper if is_shard(one.name)]
    return found


def _role(address: str) -> str:
    """The split that a shard is of, by its name or its folder's."""
    folder, _, name = address.lower().replace(os.sep, "/").rpartition("/")
    first = re.match(r"[a-z]*", name)
    return ROLES.get(first[0] if first else "") or ROLES.get(folder.rpartition("/")[2]) or "train"


def _by_folder(found: Sequence[_Found]) -> list[_Found]:
    """The same with the folder within the archive as the label, below ``train``, ``val`` or ``test`` if it is there."""
    folders = [os.path.normpath(one.name).split("/")[:-1] for one in found]
    shared = os.path.commonpath(["/".join(parts) for parts in folders])
    depth = len(shared.split("/")) if shared else 0  # of a folder around it all
    labelled = []
    for one, parts in zip(found, folders, strict=True):
        role, label = one.role, parts[depth] if len(parts) > depth else None
        for split, below in pairwise(parts):
            if split.lower() in ROLES:
                role, label = ROLES[split.lower()], below
                break
        labelled.append(one._replace(label=label, role=role))
    return labelled


def _names(address: str) -> tuple[tuple[str, ...] | None, str]:
    """What the classes are called, by what lies beside the shard or one folder above, and which file says so."""
    folder = os.path.dirname(address)
    for place in (folder, os.path.dirname(folder)) if folder.rpartition("/")[2].lower() in ROLES else (folder,):
        index = _json(f"{place}/{INDEX}")
        if isinstance(index.get("classes"), list):
            return tuple(map(str, index["classes"])), f"{place}/{INDEX}"
        lines = _text(f"{place}/{NAMES}")
        if lines is not None:
            return tuple(line.strip() for line in lines.splitlines() if line.strip()), f"{place}/{NAMES}"
    return None, ""


def _json(address: str) -> dict[str, list[dict[str, object]]]:
    try:
        said = json.loads(_text(address) or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _text(address: str) -> str | None:
    """What lies at ``address``; None where there is nothing."""
    if is_remote(address):
        try:
            content = fetched(address)
        except FileNotFoundError:
            return None
        return content.decode("utf-8", "replace") if isinstance(content, bytes) else None
    try:
        return Path(address).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
