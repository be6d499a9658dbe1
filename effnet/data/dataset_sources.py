"""`open_data`: opens the labeled images of a folder, a table, shards, a hub dataset or a dataset by name."""

import logging
from pathlib import Path

from effnet.data import class_names, dataset, folders
from effnet.data.storage.file_names import existing_path

log = logging.getLogger("effnet")


def open_data(source: str | Path, task: str | None = None, is_class: folders.IsClass | None = None) -> dataset.Splits:
    """Open labeled images.

    ``task``: what the labels of a table mean (see `effnet.data.tables.table`). ``is_class``: which names are classes of
    a model that is evaluated on the images, perhaps of some of them only (see `effnet.data.folders`).

    ``source`` is a folder in one of these layouts:

    - ``train/CLASS/…``, with ``val/`` (or ``valid``, ``validation``) and ``test/`` beside it if there are such; also
      ``training_set``, ``test images``, ``seg_train`` and so on, and ``CLASS/train/…``;
    - ``CLASS/…``: all images are for training;
    - ImageNet: either of these, and a flat ``val/`` with its ground truth (see `effnet.data.imagenet`);
    - any of these in a folder that holds nothing else, as archives unpack.

    Classes are sorted by name, and their folders searched recursively, linked ones too. Hidden files, texts, and tables
    are skipped; any other file counts as an image. A split without class folders beside ``train`` is passed over, which
    is logged. Besides class folders, ``source`` may be

    - ``digits``, ``cifar10``, ``pets`` and other datasets by name, unless there is a folder of that name, or a folder
      of such a dataset as it is distributed (see `effnet.data.builtin_datasets`);
    - ``photos-{000..031}.tar``, or a folder or URL of such: shards (see `effnet.data.webdataset_reader`);
    - ``hub:NAME``, or a folder of parquet files or of ``save_to_disk``: a Hugging Face dataset (see
      `effnet.data.huggingface_datasets`);
    - a ``.csv`` or ``.tsv`` file (see `effnet.data.tables.table`).

    Raises:
        ValueError: if the layout is none of these, it is not sure which folders are the classes, a class is empty, or
            val or test has a class that train does not have. A single class can be evaluated on, not trained on.

    Example:
        >>> splits = effnet.data.open_data("photos")
        >>> splits.train.labels.names, len(splits.train)
        (('cat', 'dog'), 1800)
    """
    splits = _open_source(source, task, is_class)
    for images in list(splits.available.values())[:1]:
        for remark in class_names.describe_similar_names(images.labels.names):
            log.warning("%s: %s", source, remark)
    return splits


def _open_source(source: str | Path, task: str | None, is_class: folders.IsClass | None) -> dataset.Splits:
    from effnet.data import builtin_datasets, huggingface_datasets, webdataset_reader
    from effnet.data.tables import table

    text, root = str(source), existing_path(source)
    if task and not (table.is_table(text) and not root.is_dir()):
        raise ValueError(f"{source} is no table (.csv), whose labels a task is for")
    if huggingface_datasets.is_huggingface_dataset(text):
        return huggingface_datasets.open_huggingface_dataset(text)
    if webdataset_reader.are_shards(text):
        return webdataset_reader.open_shards(text)
    name = builtin_datasets.find_builtin_name(text)
    if name:
        return builtin_datasets.open_builtin_dataset(name, text, open_data)
    if table.is_table(text) and not root.is_dir():
        return table.open_table(root, task, evaluated=is_class is not None)
    expected = "a folder with one folder per class, a table (.csv), shards (.tar)"
    if not root.exists():
        names = ", ".join(builtin_datasets.BUILTIN_DATASET_NAMES)
        raise ValueError(f"{root} does not exist: use {expected}, hub:NAME, or one of {names}")
    if not root.is_dir():
        raise ValueError(f"{root} is a file: use {expected} or hub:NAME")
    if text in builtin_datasets.BUILTIN_DATASET_NAMES:
        log.info("using the folder %s of %s, not the dataset of that name", text, Path.cwd())
    return folders.open_folder(root, is_class)


def may_have_labels(source: str | Path) -> bool:
    """Return whether `open_data` is for ``source``: it is not an image, a pattern or a folder of images alone."""
    from effnet.data import builtin_datasets, huggingface_datasets, webdataset_reader
    from effnet.data.storage import remote
    from effnet.data.tables import table

    text, root = str(source), Path(source)
    if remote.is_remote(text):
        return webdataset_reader.is_shard(text.rpartition("/")[2])
    if huggingface_datasets.is_huggingface_dataset(text) or builtin_datasets.find_builtin_name(text):
        return True
    if root.is_dir():
        return webdataset_reader.are_shards(text) or any(entry.is_dir() for entry in root.iterdir())
    return table.is_table(text) or webdataset_reader.are_shards(text)
