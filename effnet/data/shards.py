"""WebDataset shards as labelled pictures: which archives make up which split, and what the labels in them mean."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from effnet.contract import Labels
from effnet.data.ahead import ahead
from effnet.data.archive import Archive, Index, Member, Missing, Raw
from effnet.data.pictures import Item, Pictures, Splits
from effnet.data.sources import ROLES
from effnet.data.storage.remote import fetched, is_remote, listed
from effnet.data.storage.tar import is_shard, spelled_out

INDEX = "index.json"  # beside the shards: what their writer says of them all
NAMES = "classes.txt"  # likewise: a class a line, in the order of their numbers
_AT_ONCE = 8  # indices that are read or fetched
_MANY = 5  # names in a message


def are_shards(source: str) -> bool:
    """Whether ``source`` means shards: one, a pattern of some, an address, or a folder of this disk with some in it."""
    if is_remote(source):
        return True
    if os.path.isdir(source):
        return any(_in_folder(source))
    return all(map(is_shard, source.split("::")))


def open_shards(source: str) -> Splits:
    """The labelled pictures in the shards that ``source`` means, on this disk, over ``http(s)://`` or in a store.

    - ``photos-{000..031}.tar``, ``photos-*.tar``, one ``.tar``, or several such with ``::`` between them;
    - a folder with shards in it, or in its folders ``train``, ``val`` and ``test``; over http it needs the index that
      `effnet.data.sharding` writes.

    Shards whose names begin with ``train``, ``val``, ``test`` (or as such folders may be called) are of that split; all
    others are to learn from. Labels are the members ``.cls``, ``.json`` or ``.txt`` beside a picture; where there is
    none at all, the folder within the archive is the class. Numbers are named by ``classes.txt`` or the index beside
    the shards, if there is one. A shard that breaks off gives what lies before, and an item whose reading says so.
    Raises ``ValueError`` and ``OSError`` with one sentence where there is nothing, or nothing sensible.
    """
    addresses = [address for one in source.split("::") for address in _meant(one)]
    compressed = next((one for one in addresses if not one.lower().partition("?")[0].endswith(".tar")), None)
    if compressed:
        raise ValueError(f"{compressed} is compressed, so that no picture in it can be found: unpack it to .tar")
    archives = list(ahead(Archive.of, addresses, _AT_ONCE))
    opened = list(zip(archives, ahead(Archive.index, archives, _AT_ONCE), strict=True))
    samples = [_Labelled(archive, *sample) for archive, index in opened for sample in index.samples]
    if not samples:
        raise ValueError(next((index.error for _, index in opened if index.error), f"{source} has no pictures in it"))
    if all(sample.label is None for sample in samples):
        samples = [sample.by_folder() for sample in samples]
    meaning = _Meaning.of(samples, _names(addresses[0]))
    splits: dict[str, list[Item]] = {}
    for sample in samples:
        splits.setdefault(sample.role, []).append(meaning.item(sample))
    for archive, index in opened:
        if index.error:
            items = splits.setdefault(_role(archive.address), [])
            items.append(Item(Missing(archive, archive.address, index.error), meaning.any(), archive.address))
    _compare(splits, meaning)
    return Splits(*(Pictures(tuple(splits[role]), meaning.labels) if role in splits else None for role in _ROLES))
