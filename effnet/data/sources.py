"""`open_data`: opens the labeled images of a folder, a table, shards, a hub dataset or a dataset by name."""

from __future__ import annotations

from pathlib import Path

from effnet.data.dataset import Splits
from effnet.data.folders import open_folder


def open_data(source: str | Path) -> Splits:
    """Open labeled images.

    ``source`` is a folder in one of these layouts:

    - ``train/CLASS/…``, with ``val/`` (or ``valid``, ``validation``) and ``test/`` beside it if there are such;
    - ``CLASS/…``: all images are for training;
    - ImageNet: either of these, and a flat ``val/`` with its ground truth (see `effnet.data.imagenet`).

    Classes are sorted by name, and their folders searched recursively. Hidden files, texts, tables and the like are
    skipped; any other file counts as an image. Besides class folders, ``source`` may be

    - ``digits``, ``cifar10``, ``pets`` and other datasets by name, or a folder of such a dataset as it is distributed
      (see `effnet.data.builtin_datasets`);
    - ``photos-{000..031}.tar``, or a folder or URL of such: shards (see `effnet.data.webdataset_reader`);
    - ``hub:NAME``, or a folder of parquet files or of ``save_to_disk``: a Hugging Face dataset (see
      `effnet.data.huggingface_datasets`);
    - a ``.csv`` or ``.tsv`` file (see `effnet.data.table`).

    Raises:
        ValueError: if the layout is none of these, a class is empty, there are fewer than two, or val or test has a
            class that train does not have.

    Example:
        >>> splits = effnet.data.open_data("photos")
        >>> splits.train.labels.names, len(splits.train)
        (('cat', 'dog'), 1800)
    """
    from effnet.data.builtin_datasets import BUILTIN_DATASET_NAMES, find_builtin_name, open_builtin_dataset, open_digits
    from effnet.data.huggingface_datasets import is_huggingface_dataset, open_huggingface_dataset
    from effnet.data.table import is_table, open_table
    from effnet.data.webdataset_reader import are_shards, open_shards

    text, root = str(source), Path(source)
    if text == "digits":
        return open_digits()
    if is_huggingface_dataset(text):
        return open_huggingface_dataset(text)
    if are_shards(text):
        return open_shards(text)
    name = find_builtin_name(text)
    if name:
        return open_builtin_dataset(name, text, open_data)
    if is_table(text) and not root.is_dir():
        return open_table(root)
    expected = "a folder with one folder per class, a table (.csv), shards (.tar)"
    if not root.exists():
        names = ", ".join(BUILTIN_DATASET_NAMES)
        raise ValueError(f"{root} does not exist: use {expected}, hub:NAME, or one of {names}")
    if not root.is_dir():
        raise ValueError(f"{root} is a file: use {expected} or hub:NAME")
    return open_folder(root)
