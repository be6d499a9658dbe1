"""Where labelled pictures come from: what a source's text means."""

from __future__ import annotations

from pathlib import Path

from effnet.data import digits
from effnet.data.folders import open_folder
from effnet.data.pictures import Splits


def open_data(source: str | Path) -> Splits:
    """The labelled pictures of ``source``: the word ``digits``, or a folder in one of these layouts.

    - ``train/CLASS/…``, with ``val/`` (or ``valid``, ``validation``) and ``test/`` beside it where there are such;
    - ``CLASS/…``: all of it is to learn from;
    - ImageNet: either of these, and ``val/`` flat with its ground truth (see `effnet.data.imagenet`).

    Classes are sorted by name; their folders are searched to the bottom. Hidden files and texts, tables and the like
    are passed over; any other file counts as a picture. Besides folders of classes:

    - ``cifar10``, ``pets`` and other sets by their names, or a folder of such a set as it is handed out
      (`effnet.data.named`);
    - ``photos-{000..031}.tar``, a folder or an address of such: shards (`effnet.data.shards`);
    - ``hub:NAME``, or a folder of parquet files or of ``save_to_disk``: a Hugging Face data set (`effnet.data.hub`);
    - a file ``.csv`` or ``.tsv``: a table (`effnet.data.table`).

    Raises ``ValueError`` where the layout is none of these, a class is empty, there are fewer than two, or val or test
    has a class that train has not.
    """
    if source == "digits":
        return digits.splits()
    elsewhere = _elsewhere(str(source))
    if elsewhere is not None:
        return elsewhere
    root = Path(source)
    if not root.exists():
        from effnet.data.named import NAMES

        raise ValueError(
            f"{root} does not exist: give a folder with one folder a class, a table (.csv), shards (.tar), hub:NAME, "
            f"or one of the words {', '.join(('digits', *NAMES))}"
        )
    if not root.is_dir():
        raise ValueError(f"{root} is a file: give a folder with one folder a class, a table (.csv) or shards (.tar)")
    return open_folder(root)


def _elsewhere(source: str) -> Splits | None:
    """The pictures of a source that is no folder of class folders; None for one that is, or is nothing at all."""
    from effnet.data import hub, named
    from effnet.data.shards import are_shards, open_shards

    if hub.is_meant(source):
        return hub.splits(source)
    if are_shards(source):
        return open_shards(source)
    name = named.meant(source)
    if name:
        return named.splits(name, source, open_data)
    root = Path(source)
    if root.suffix.lower() in (".csv", ".tsv") and not root.is_dir():
        from effnet.data.table import open_table

        return open_table(root)
    return None
