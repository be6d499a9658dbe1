"""Hugging Face datasets, from the hub or from a folder, through ``datasets`` (``effnet[hub]``)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.arch.serde import import_extra
from effnet.data import dataset, folders, image_io
from effnet.data.storage import cache_dir, errors
from effnet.telemetry import disable_telemetry

HUB_SCHEME = "hub:"
_IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")  # words: allow. The first one that exists is used
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "targets", "cls", "category")


@dataclass(frozen=True, eq=False, slots=True)
class HubRowImage:
    """The image file in a row of a table: a `LazyImage`."""

    table: Any  # a ``datasets.Dataset`` of one column, whose images are not decoded
    number: int
    source: str

    @property
    def name(self) -> str:
        """The dataset and the row."""
        return f"{self.source}, row {self.number}"

    def read(self) -> bytes:
        """Return the file's bytes. Raises ``ImageError`` if the row has none."""
        (cell,) = self.table[self.number].values()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None and isinstance(cell, dict) and cell.get("path"):
            try:
                content = Path(cell["path"]).read_bytes()
            except OSError as error:
                raise image_io.ImageError(f"{self.name} cannot be read: {errors.describe_error(error)}") from None
        if not isinstance(content, bytes):
            raise image_io.ImageError(f"{self.name} has no image")
        return content


def is_huggingface_dataset(source: str) -> bool:
    """Return whether ``source`` is ``hub:NAME``, a folder written by ``save_to_disk``, or one of parquet files."""
    if source.startswith(HUB_SCHEME):
        return True
    root = Path(source.partition("#")[0])
    return root.is_dir() and (_is_saved_dataset(root) or bool(_find_parquet_files(root)))


def open_huggingface_dataset(source: str) -> dataset.Splits:
    """Open ``hub:NAME``, ``hub:NAME:CONFIG`` or a folder, each with ``#COLUMN`` appended to choose the label column.

    A single split of another name than ours is for training. Images stay encoded until they are needed. Raises
    ``ValueError`` if there is no image column or no unique label column, ``OSError`` if the dataset is not available.
    """
    text, _, column = source.partition("#")
    disable_telemetry("huggingface_hub")
    datasets = import_extra("datasets", "hub", f"{source}: Hugging Face datasets require")
    tables = _load_tables(datasets, text)
    splits = {
        folders.SPLIT_FOLDER_NAMES[name.lower()]: table
        for name, table in tables.items()
        if name.lower() in folders.SPLIT_FOLDER_NAMES
    }
    if not splits:
        if len(tables) != 1:
            raise ValueError(f"{text} has the splits {', '.join(tables)}: none of them is called train, val or test")
        splits = {"train": next(iter(tables.values()))}
    features = (splits.get("train") or next(iter(splits.values()))).features
    image_column = _find_image_column(datasets, features, text)
    label_column = column or _find_label_column(datasets, features, text)
    if label_column not in features:
        raise ValueError(f"{text} has no column {column}, only {', '.join(features)}")
    raw = {
        split: [None if label == -1 else label for label in table.select_columns([label_column])[label_column]]
        for split, table in splits.items()  # on the hub, -1 stands for a label that is kept secret
    }
    raw = {split: labels for split, labels in raw.items() if any(label is not None for label in labels)}
    if not raw:
        raise ValueError(f"{text} has no labels in its column {label_column}")
    feature = features[label_column]
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    lead = next(split for split in ("train", "val", "test") if split in raw)
    encoder = dataset.LabelEncoder.fit(raw[lead], names, f"its column {label_column}", f"{text} ({lead})")

    def build_split(split: str) -> dataset.ImageDataset:
        images = splits[split].select_columns([image_column])
        if isinstance(images.features[image_column], datasets.Image):
            images = images.cast_column(image_column, datasets.Image(decode=False))
        items = (
            encoder.build_item(HubRowImage(images, number, f"{text}, {split}"), label, f"{number:08}", "has no label")
            for number, label in enumerate(raw[split])
        )
        return dataset.ImageDataset(tuple(items), encoder.labels)

    return dataset.Splits(**{split: build_split(split) for split in raw})


def _load_tables(library: Any, source: str) -> dict[str, Any]:
    try:
        with _quiet(library):
            if source.startswith(HUB_SCHEME):
                name, _, config = source.removeprefix(HUB_SCHEME).partition(":")
                with _offline_mode(library):
                    found = library.load_dataset(name, config or None)
            elif _is_saved_dataset(Path(source)):
                found = library.load_from_disk(source)
            else:
                found = library.load_dataset("parquet", data_files=_find_parquet_files(Path(source)))
    except ValueError as error:  # an unknown config, with the names of the known ones
        raise ValueError(f"{source} cannot be opened: {' '.join(str(error).split())}") from None
    except Exception as error:  # what the library raises has changed with each of its HTTP clients
        if cache_dir.is_offline() and isinstance(error, ConnectionError):
            raise OSError(f"{source} is not cached and offline mode is on") from None
        raise OSError(f"{source} is not available: {' '.join(str(error).split())}") from None
    return dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Silence the library's own log, which says twice, once with a traceback, what its error says."""
    before = library.logging.get_verbosity()
    library.logging.set_verbosity(library.logging.CRITICAL)
    try:
        yield
    finally:
        library.logging.set_verbosity(before)


@contextmanager
def _offline_mode(library: Any) -> Iterator[None]:
    """Switch both libraries offline if we are: they read the environment only once, when they are imported."""
    from huggingface_hub import constants

    modules: tuple[Any, ...] = (library.config, constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE |= cache_dir.is_offline()
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _is_saved_dataset(root: Path) -> bool:
    one_split = (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    return one_split or (root / "dataset_dict.json").is_file()


def _find_parquet_files(root: Path) -> dict[str, list[str]]:
    """Return split → files, by the beginnings of their names, in ``root`` or its folder ``data``."""
    found: dict[str, list[str]] = {}
    for file in sorted((*root.glob("*.parquet"), *root.glob("data/*.parquet"))):
        start = file.name.lower().split("-")[0].split(".")[0].split("_")[0]
        found.setdefault(folders.SPLIT_FOLDER_NAMES.get(start, "train"), []).append(str(file))
    return found


def _find_image_column(library: Any, features: Any, source: str) -> str:
    def is_image(feature: Any) -> bool:
        if isinstance(feature, library.Image) or (isinstance(feature, dict) and "bytes" in feature):  # not decoded
            return True
        return getattr(feature, "dtype", "") in ("binary", "large_binary")

    found = [name for name, feature in features.items() if is_image(feature)]
    if not found:
        raise ValueError(f"{source} has no image column, only {', '.join(features)}")
    return next((name for name in _IMAGE_COLUMNS if name in found), found[0])


def _find_label_column(library: Any, features: Any, source: str) -> str:
    columns: list[str] = [
        name
        for name, feature in features.items()
        if any(isinstance(each, library.ClassLabel) for each in (feature, getattr(feature, "feature", None)))
    ]
    if len(columns) == 1:
        return columns[0]
    columns = columns or list(features)
    for name in _LABEL_COLUMNS:
        if name in columns:
            return name
    raise ValueError(
        f"{source} has several columns that may be the label ({', '.join(columns)}): choose one, as in "
        f"{source}#{columns[-1]}"
    )
