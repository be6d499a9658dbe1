"""From what a user calls weights to a file of them on this disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from effnet.arch import canonical_name
from effnet.weights import catalog
from effnet.weights.catalog.entry import CatalogEntry
from effnet.weights.fetch import (
    DownloadError,
    ProgressCallback,
    RemoteFile,
    describe_manual_download,
    fetch,
    find_local,
)
from effnet.weights.fetch.bundle import Bundle, list_bundles, list_bundles_at, open_bundle

# What files of weights are called; anything else after a dot is a part of a name, as in tf_efficientnet_b0.ns_jft_in1k
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".tflite", ".index")

_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")  # of a run, and of the hub's repositories
_COMPANION_NAMES = ("config.json", "preprocessor_config.json")
_URL_PREFIXES = ("https://", "http://")
_HUB_REPOSITORY = re.compile(r"(hf[-_]hub:)?\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, and what the catalogue says of it if it is published; of a checkpoint the ``.index``."""

    path: Path
    entry: CatalogEntry | None = None
    remote: RemoteFile | None = None  # where it was published; None for a file that was given


def resolve_weights(
    source: str | Path, offline: bool | None = None, progress: ProgressCallback | None = None
) -> WeightsFile:
    """The file that ``source`` means, downloaded if it is a published one that is not here yet.

    - a file; a folder of a run, of a Hugging Face repository, or with a TensorFlow checkpoint; a checkpoint's prefix;
    - ``weights.zip/b0``: what is in a bundle, packed or unpacked, by a card's name or that of its arch;
    - a card's name (``b0/ra_in1k``), or an arch's (``b0``) for the card that is its default;
    - an address (``https://…/b0.pth``), or a repository of the hub (``user/repository``).

    Raises ``FileNotFoundError`` for a path or a repository with nothing there, ``ValueError`` for a name that nothing
    has, with the nearest, and `DownloadError` (an ``OSError``), which says how to bring it by hand, for what cannot be
    downloaded.
    """
    text = str(source)
    here = None if text.startswith(_URL_PREFIXES) else _find_on_disk(Path(source)) or _find_in_bundle(Path(source))
    if here is not None:
        return here
    try:
        known = _find_entry(text)
    except ValueError:
        if text.startswith(_URL_PREFIXES):
            return _fetch_file(RemoteFile(text, url=text), None, offline, progress)
        if _looks_like_path(text):
            raise FileNotFoundError(f"{source}: there is no such file of weights") from None
        if _is_hub_repository(text):
            return _fetch_from_hub(text.partition(":")[2] or text, offline, progress)
        raise
    return _fetch_file(RemoteFile.from_entry(known), known, offline, progress)


def _find_on_disk(path: Path) -> WeightsFile | None:
    """A file, a folder with one that is known by its name, or a checkpoint of TensorFlow."""
    index = path.with_name(f"{path.name}.index")
    if path.is_dir():
        for name in _WEIGHTS_NAMES:
            if (path / name).is_file():
                return WeightsFile(path / name)
        if not list_bundles_at(path):
            return WeightsFile(_find_latest_checkpoint(path))
    elif path.is_file() and (path.suffix != ".zip" or open_bundle(path) is None):
        return WeightsFile(path)
    elif index.is_file():
        return WeightsFile(index)
    return None


def _find_latest_checkpoint(folder: Path) -> Path:
    """The ``.index`` that TensorFlow's own note ``checkpoint`` names, or the only one."""
    note, indices = folder / "checkpoint", list(folder.glob("*.index"))
    if note.is_file():
        said = re.search(r'^model_checkpoint_path: "(?:.*[/\\])?([^"/\\]+)"', note.read_text("utf-8", "replace"), re.M)
        indices = [folder / f"{said[1]}.index"] if said else []  # the folder may have been another when it was written
    if len(indices) != 1 or not indices[0].is_file():
        raise FileNotFoundError(
            f"{folder}: there is no such file of weights; a folder must have a model.safetensors, a pytorch_model.bin "
            "or a TensorFlow checkpoint"
        )
    return indices[0]


def _find_in_bundle(path: Path) -> WeightsFile | None:
    """``BUNDLE/NAME``, or a bundle with one card in it."""
    place = next((one for one in (path, *path.parents) if one.exists()), Path())
    brought = list_bundles_at(place) if place != Path() else []
    if not brought:
        return None
    bundle, named = _select_from_bundles(brought, path.relative_to(place).as_posix() if path != place else "", place)
    taken = bundle.extract_file(RemoteFile.from_entry(named))
    if taken is None:
        raise ValueError(f"{bundle.path} is not complete (the file of {named.name} is missing): bring it here again")
    return WeightsFile(taken, named, RemoteFile.from_entry(named))


def _select_from_bundles(bundles_here: list[Bundle], name: str, place: Path) -> tuple[Bundle, CatalogEntry]:
    """The card of that name or arch in the bundles; "" is the only one. Raises ``ValueError`` with what there is."""
    there = {one.name: (bundle, one) for bundle in reversed(bundles_here) for one in bundle.cards.values()}
    if name in there:
        return there[name]
    try:
        arch = canonical_name(name) if name and "/" not in name else None
    except ValueError:
        arch = None
    meant = [pair for pair in there.values() if pair[1].arch == arch or not name]
    meant = [pair for pair in meant if pair[1].default] if len(meant) > 1 and name else meant
    if len(meant) != 1:
        raise ValueError(
            f"{place}: say which weights, as {place}/NAME; there are {', '.join(there) or 'none with a card'}"
        )
    return meant[0]


def _looks_like_path(text: str) -> bool:
    parts = Path(text).parts
    return (
        Path(text).suffix in WEIGHTS_SUFFIXES
        or Path(text).is_absolute()
        or text.startswith((".", "~"))
        or "\\" in text
        or any(part.endswith(".zip") for part in parts)
        or len(parts) > 2
        or (len(parts) == 2 and Path(parts[0]).exists())
    )


def _is_hub_repository(text: str) -> bool:
    """Whether ``text`` is of the form ``user/repository``, and no card's name, which begins with an arch."""
    if not _HUB_REPOSITORY.fullmatch(text):
        return False
    try:
        canonical_name(text.partition("/")[0])
    except ValueError:
        return True
    return False


def _fetch_from_hub(repository: str, offline: bool | None, progress: ProgressCallback | None) -> WeightsFile:
    """The first file there that has a usual name."""
    origins = [RemoteFile(repository, repository, name, companions=_COMPANION_NAMES) for name in _WEIGHTS_NAMES]
    for origin in origins:
        path = find_local(origin)
        if path is not None:
            return WeightsFile(path, remote=origin)
    for origin in origins:
        try:
            return _fetch_file(origin, None, offline, progress)
        except DownloadError as error:
            why = error.cause
            if not error.not_found:
                break
    raise FileNotFoundError(
        f"{repository}: there is no such file of weights, and no {' or '.join(_WEIGHTS_NAMES)} can be had of the hub's "
        f"repository ({why}); {describe_manual_download(origins[0])}"
    )


def _fetch_file(
    remote: RemoteFile, entry: CatalogEntry | None, offline: bool | None, progress: ProgressCallback | None
) -> WeightsFile:
    return WeightsFile(fetch(remote, offline, progress), entry, remote)


def _find_entry(name: str) -> CatalogEntry:
    """The card of the catalogue, or of a bundle that was made with a later one. Raises ``ValueError`` if none is."""
    try:
        return catalog.find_entry(name)
    except ValueError:
        for bundle in list_bundles():
            if name in bundle.cards:
                return bundle.cards[name]
        raise
