"""Where labelled pictures come from: what a source's text means."""

from __future__ import annotations

from pathlib import Path

from effnet.data import builtin_datasets
from effnet.data.dataset import Splits
from effnet.data.folders import open_folder


def open_data(source: str | Path) -> Splits:
    """The labelled pictures of ``source``: the word ``digits``, or a folder in one of these layouts.

    - ``train/CLASS/…``, with ``val/`` (or ``valid``, ``validation``) and ``test/`` beside it where there are such;
    - ``CLASS/…``: all of it is to learn from;
    - ImageNet: either of these, and ``val/`` flat with its ground truth (see `effnet.data.imagenet`).

    Classes are sorted by name; their folders are searched to the bottom. Hidden files and texts, tables and the like
    are passed over; any other file counts as a picture. Besides folders of classes:

    - ``cifar10``, ``pets`` and other sets by their names, or a folder of such a set as it is handed out
      (`effnet.data.builtin_datasets`);
    - ``photos-{000..031}.tar``, a folder or an address of such: shards (`effnet.data.webdataset_reader`);
    - ``hub:NAME``, or a folder of parquet files or of ``save_to_disk``: a Hugging Face dataset
      (`effnet.data.huggingface_datasets`);
    - a file ``.csv`` or ``.tsv``: a table (`effnet.data.table`).

    Raises ``ValueError`` where the layout is none of these, a class is empty, there are fewer than two, or val or test
    has a class that train has not.
    """
    if source == "digits":
        return builtin_datasets.load_digits_dataset()
    elsewhere = _open_other_source(str(source))
    if elsewhere is not None:
        return elsewhere
    root = Path(source)
    if not root.exists():
        from effnet.data.builtin_datasets import BUILTIN_DATASET_NAMES

        raise ValueError(
            f"{root} does not exist: give a folder with one folder a class, a table (.csv), shards (.tar), hub:NAME, "
            f"or one of the words {', '.join(('digits', *BUILTIN_DATASET_NAMES))}"
        )
    if not root.is_dir():
        raise ValueError(f"{root} is a file: give a folder with one folder a class, a table (.csv) or shards (.tar)")
    return open_folder(root)


def _open_other_source(source: str) -> Splits | None:
    """The pictures of a source that is no folder of class folders; None for one that is, or is nothing at all."""
    from effnet.data import builtin_datasets, huggingface_datasets
    from effnet.data.webdataset_reader import are_shards, open_shards

    if huggingface_datasets.is_huggingface_dataset(source):
        return huggingface_datasets.open_huggingface_dataset(source)
    if are_shards(source):
        return open_shards(source)
    name = builtin_datasets.find_builtin_name(source)
    if name:
        return builtin_datasets.open_builtin_dataset(name, source, open_data)
    root = Path(source)
    if root.suffix.lower() in (".csv", ".tsv") and not root.is_dir():
        from effnet.data.table import open_table

        return open_table(root)
    return None
