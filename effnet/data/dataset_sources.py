"""`open_data`: opens the labeled images of a folder, a table, shards, a hub dataset or a dataset by name."""

from pathlib import Path

from effnet.data import dataset, folders


def open_data(source: str | Path) -> dataset.Splits:
    """Open labeled images.

    ``source`` is a folder in one of these layouts:

    - ``train/CLASS/…``, with ``val/`` (or ``valid``, ``validation``) and ``test/`` beside it if there are such;
    - ``CLASS/…``: all images are for training;
    - ImageNet: either of these, and a flat ``val/`` with its ground truth (see `effnet.data.imagenet`).

    Classes are sorted by name, and their folders searched recursively. Hidden files, texts, and tables are
    skipped; any other file counts as an image. Besides class folders, ``source`` may be

    - ``digits``, ``cifar10``, ``pets`` and other datasets by name, or a folder of such a dataset as it is distributed
      (see `effnet.data.builtin_datasets`);
    - ``photos-{000..031}.tar``, or a folder or URL of such: shards (see `effnet.data.webdataset_reader`);
    - ``hub:NAME``, or a folder of parquet files or of ``save_to_disk``: a Hugging Face dataset (see
      `effnet.data.huggingface_datasets`);
    - a ``.csv`` or ``.tsv`` file (see `effnet.data.table`).

    Raises:
        ValueError: if the layout is none of these, a class is empty, or val or test has a class that train does not
            have. A single class can be evaluated on, not trained on.

    Example:
        >>> splits = effnet.data.open_data("photos")
        >>> splits.train.labels.names, len(splits.train)
        (('cat', 'dog'), 1800)
    """
    from effnet.data import builtin_datasets, huggingface_datasets, table, webdataset_reader

    text, root = str(source), Path(source)
    if text == "digits":
        return builtin_datasets.open_digits()
    if huggingface_datasets.is_huggingface_dataset(text):
        return huggingface_datasets.open_huggingface_dataset(text)
    if webdataset_reader.are_shards(text):
        return webdataset_reader.open_shards(text)
    name = builtin_datasets.find_builtin_name(text)
    if name:
        return builtin_datasets.open_builtin_dataset(name, text, open_data)
    if table.is_table(text) and not root.is_dir():
        return table.open_table(root)
    expected = "a folder with one folder per class, a table (.csv), shards (.tar)"
    if not root.exists():
        names = ", ".join(builtin_datasets.BUILTIN_DATASET_NAMES)
        raise ValueError(f"{root} does not exist: use {expected}, hub:NAME, or one of {names}")
    if not root.is_dir():
        raise ValueError(f"{root} is a file: use {expected} or hub:NAME")
    return folders.open_folder(root)
