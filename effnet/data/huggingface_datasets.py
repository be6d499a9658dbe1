"""Data sets of the Hugging Face hub, and folders as its library keeps them, through ``datasets`` (``effnet[hub]``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from effnet.data.dataset import ImageDataset, Item, Splits
from effnet.data.folders import SPLIT_FOLDER_NAMES
from effnet.data.image_io import ImageError, UnreadableImage
from effnet.data.labels import LabelEncoder, RawLabel
from effnet.data.storage.cache_dir import is_offline
from effnet.data.storage.errors import describe_error
from effnet.metadata import Labels

HUB_SCHEME = "hub:"
_IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")  # columns by their usual names, the first that there is
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "targets", "cls", "category")


@dataclass(frozen=True, eq=False, slots=True)
class HubRowImage:
    """A picture's file in a row of a table: a `Held`."""

    table: Any  # a ``datasets.Dataset`` of one column, whose pictures are not decoded
    number: int
    source: str

    @property
    def name(self) -> str:
        """The data set's and the row's."""
        return f"{self.source}, row {self.number}"

    def read(self) -> bytes:
        """The file's bytes. Raises ``PictureError`` where the row has none."""
        (held,) = self.table[self.number].values()
        content = held.get("bytes") if isinstance(held, dict) else held
        if content is None and isinstance(held, dict) and held.get("path"):
            try:
                content = Path(held["path"]).read_bytes()
            except OSError as error:
                raise ImageError(f"{self.name} cannot be read: {describe_error(error)}") from None
        if not isinstance(content, bytes):
            raise ImageError(f"{self.name} has no picture")
        return content


def is_huggingface_dataset(source: str) -> bool:
    """Whether ``source`` is ``hub:NAME``, a folder that ``save_to_disk`` has written, or one of parquet files."""
    if source.startswith(HUB_SCHEME):
        return True
    root = Path(source.partition("#")[0])
    return root.is_dir() and (_is_saved_dataset(root) or bool(_find_parquet_files(root)))


def open_huggingface_dataset(source: str) -> Splits:
    """The labelled pictures of ``hub:NAME``, ``hub:NAME:CONFIG`` or a folder, each perhaps with ``#COLUMN`` of labels.

    Its splits ``train``, ``validation`` and ``test`` are ours, any other alone is to learn from. Pictures stay files
    until they are needed; classes keep the names that the data set gives them. Raises ``ValueError`` where it has no
    column of pictures or not one of labels, ``OSError`` where it cannot be had, ``ImportError`` without ``datasets``.
    """
    text, _, column = source.partition("#")
    tables = _load_tables(_import_datasets(source), text)
    roles = {
        SPLIT_FOLDER_NAMES[name.lower()]: table for name, table in tables.items() if name.lower() in SPLIT_FOLDER_NAMES
    }
    if not roles:
        if len(tables) != 1:
            raise ValueError(f"{text} has the splits {', '.join(tables)}: none of them is called train, val or test")
        roles = {"train": next(iter(tables.values()))}
    first = roles.get("train") or next(iter(roles.values()))
    shown, said = _find_image_column(first.features, text), _find_label_column(first.features, text, column)
    raw = {role: list(table.select_columns([said])[said]) for role, table in roles.items()}
    raw = {role: labels for role, labels in raw.items() if any(_has_label(label) for label in labels)}
    if not raw:
        raise ValueError(f"{text} has no labels in its column {said}")
    feature = first.features[said]
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    lead = next(role for role in ("train", "val", "test") if role in raw)
    meaning = LabelEncoder.fit(filter(_has_label, raw[lead]), names, f"its column {said}", f"{text} ({lead})")
    made = {
        role: _build_dataset(roles[role], shown, labels, meaning, f"{text}, {role}") for role, labels in raw.items()
    }
    return Splits(made.get("train"), made.get("val"), made.get("test"))


def _build_dataset(table: Any, column: str, labels: list[RawLabel], encoder: LabelEncoder, source: str) -> ImageDataset:
    held = _disable_decoding(table.select_columns([column]), column)
    items = []
    for number, label in enumerate(labels):
        row = HubRowImage(held, number, source)
        name = f"{number:08}"
        if _has_label(label):
            items.append(Item(row, encoder.encode(label, row.name), name))
        else:
            items.append(Item(UnreadableImage(row.name, f"{row.name} has no label"), encoder.placeholder(), name))
    return ImageDataset(tuple(items), Labels(encoder.labels.names, encoder.labels.task))


def _has_label(label: RawLabel) -> bool:
    """-1 is what the hub's data sets have where labels are kept secret."""
    return label is not None and label != -1


def _import_datasets(source: str) -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise ImportError(f'{source} is read through datasets, which is not here: pip install "effnet[hub]"') from None
    module: ModuleType = datasets
    return module


def _load_tables(library: ModuleType, source: str) -> dict[str, Any]:
    """Split → table."""
    try:
        if source.startswith(HUB_SCHEME):
            name, _, config = source.removeprefix(HUB_SCHEME).partition(":")
            with _offline_mode(library) if is_offline() else nullcontext():
                found = library.load_dataset(name, config or None)
        elif _is_saved_dataset(Path(source)):
            found = library.load_from_disk(source)
        else:
            found = library.load_dataset("parquet", data_files=_find_parquet_files(Path(source)))
    except ValueError as error:  # of a config that there is not, with the names of those that there are
        raise ValueError(f"{source} cannot be opened: {' '.join(str(error).split())}") from None
    except Exception as error:  # what the library raises has changed with each of its HTTP clients
        if is_offline() and isinstance(error, ConnectionError):
            raise OSError(f"{source} is not on this disk, and the network is to be left alone") from None
        raise OSError(f"{source} cannot be had: {' '.join(str(error).split())}") from None
    return dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}


@contextmanager
def _offline_mode(library: ModuleType) -> Iterator[None]:
    """The network is not asked: both libraries look at the environment once, when they are imported."""
    from huggingface_hub import constants

    settings: tuple[Any, ...] = (library.config, constants)
    before = [one.HF_HUB_OFFLINE for one in settings]
    try:
        for one in settings:
            one.HF_HUB_OFFLINE = True
        yield
    finally:
        for one, value in zip(settings, before, strict=True):
            one.HF_HUB_OFFLINE = value


def _is_saved_dataset(root: Path) -> bool:
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


def _find_parquet_files(root: Path) -> dict[str, list[str]]:
    """Split → its files, by how their names begin; in ``root`` or in its folder ``data``."""
    found: dict[str, list[str]] = {}
    for file in sorted((*root.glob("*.parquet"), *root.glob("data/*.parquet"))):
        start = file.name.lower().split("-")[0].split(".")[0].split("_")[0]
        found.setdefault(SPLIT_FOLDER_NAMES.get(start, "train"), []).append(os.fspath(file))
    return found


def _disable_decoding(table: Any, column: str) -> Any:
    from datasets import Image

    return table.cast_column(column, Image(decode=False)) if isinstance(table.features[column], Image) else table


def _find_image_column(features: Any, source: str) -> str:
    from datasets import Image

    def holds(feature: Any) -> bool:
        bare = isinstance(feature, dict) and "bytes" in feature
        return bare or isinstance(feature, Image) or getattr(feature, "dtype", "") in ("binary", "large_binary")

    found = [name for name, feature in features.items() if holds(feature)]
    if not found:
        raise ValueError(f"{source} has no column of pictures, only {', '.join(features)}")
    return next((name for name in _IMAGE_COLUMNS if name in found), found[0])


def _find_label_column(features: Any, source: str, requested: str) -> str:
    from datasets import ClassLabel

    if requested:
        if requested not in features:
            raise ValueError(f"{source} has no column {requested}: it has {', '.join(features)}")
        return requested
    named = [
        name
        for name, feature in features.items()
        if isinstance(feature, ClassLabel) or isinstance(getattr(feature, "feature", None), ClassLabel)
    ]
    usual = [name for name in _LABEL_COLUMNS if name in (named or features)]
    if len(named) == 1 or usual:
        return named[0] if len(named) == 1 else usual[0]
    columns = named or list(features)
    raise ValueError(
        f"{source} does not say which of its columns {', '.join(columns)} is the label: write {source}#{columns[-1]}"
    )
