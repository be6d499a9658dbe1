"""Bundles: published weights in one ``.zip``, for machines without a network. Written, found and extracted from.

Single members of a ``.zip`` can be read, every system can unpack it, and a service that unpacks uploads leaves a folder
that works as well. Nothing is compressed, since float weights hardly shrink. Files have the names that they have below
``EFFNET_HOME``.
"""

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from effnet.arch import serde
from effnet.data.storage.archive import DamagedArchiveError, is_zip, open_zip
from effnet.data.storage.atomic_write import atomic_write
from effnet.data.storage.cache_dir import configured_cache_dir, writable_cache_dir
from effnet.weights import catalog, download

MANIFEST = "effnet-bundle.json"
MAX_MANIFEST_BYTES = 2**24  # that of all published weights has a twentieth

log = logging.getLogger("effnet")


@dataclass(frozen=True)
class Bundle:
    """A ``.zip``, or the folder it was unpacked to."""

    path: Path
    files: Mapping[str, str]  # key → sha256
    entries: Mapping[str, catalog.CatalogEntry]

    def extract_file(self, remote: download.RemoteFile) -> Path | None:
        """Return a file after verifying it, or None if the bundle has no such file.

        From a ``.zip`` it is extracted to the cache directory. Raises ``ValueError`` if it is damaged or missing.
        """
        names = remote.match_names(self.files)
        if not names:
            return None
        folder = self.path if self.path.is_dir() else writable_cache_dir()
        for name in names:
            if self._is_intact(folder / name, name):
                continue
            if folder != self.path:
                self._extract(name, folder / name)
            elif (folder / name).is_file():
                raise self._damaged_error(name)
            else:
                raise ValueError(f"{self.path} is not complete ({name} is missing): copy it here again")
        return folder / names[-1]

    def _extract(self, name: str, path: Path) -> None:
        try:
            with open_zip(self.path) as archive, atomic_write(path) as temporary:
                with temporary.open("wb") as file:
                    file.writelines(archive.iter_chunks(name))
                if not self._is_intact(temporary, name):
                    raise self._damaged_error(name)
        except DamagedArchiveError as error:
            raise self._damaged_error(name) from error

    def _is_intact(self, path: Path, name: str) -> bool:
        return path.is_file() and download.hash_file(path) == self.files[name]

    def _damaged_error(self, name: str) -> ValueError:
        return ValueError(f"{self.path} is damaged ({name}): copy it here again")


def open_bundle(path: Path) -> Bundle | None:
    """Return the bundle at ``path``, a file or a folder, or None. Raises ``ValueError`` if it is damaged."""
    try:
        if path.is_dir():
            with (path / MANIFEST).open("rb") as file:
                content = file.read(MAX_MANIFEST_BYTES)
        elif not path.is_file() or not is_zip(path):
            return None
        else:
            with open_zip(path) as archive:
                if MANIFEST not in archive:
                    return None
                content = archive.read(MANIFEST, MAX_MANIFEST_BYTES)
    except OSError:
        return None
    try:
        manifest = serde.parse_json(content, MANIFEST)
        entries = {name: catalog.CatalogEntry.from_dict(entry) for name, entry in manifest["entries"].items()}
        files = {_check_name(name): str(about["sha256"]) for name, about in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its {MANIFEST} cannot be read ({error})") from None
    return Bundle(path, files, entries)


def _check_name(name: str) -> str:
    """Return ``name``. Raises ``ValueError`` if it points outside of the bundle."""
    parts = PurePosixPath(name).parts
    if parts[:1] != ("weights",) or ".." in parts or "\\" in name or ":" in name:
        raise ValueError(f"{name!r} is not a valid name in a bundle")
    return name


def list_bundles() -> list[Bundle]:
    """Return the bundles in ``EFFNET_BUNDLE`` (separated by ``:``, on Windows ``;``) and in the cache directory.

    Raises ``ValueError`` if ``EFFNET_BUNDLE`` names something else.
    """
    found = []
    for name in filter(None, os.environ.get("EFFNET_BUNDLE", "").split(os.pathsep)):
        bundles = find_bundles(Path(os.path.expanduser(name)))
        if not bundles:
            raise ValueError(f"EFFNET_BUNDLE={name}: there is no bundle of weights there")
        found += bundles
    return found + find_bundles(configured_cache_dir())


def find_bundles(path: Path) -> list[Bundle]:
    """Return the bundles at ``path``: a ``.zip``, or a folder that is a bundle or contains some, packed or unpacked.

    Raises ``ValueError`` if ``path`` itself is damaged. Damaged ones in a folder are ignored with a warning.
    """
    bundles = [open_bundle(path)]
    if path.is_dir():
        for inside in (*sorted(path.glob("*.zip")), *(each.parent for each in sorted(path.glob(f"*/{MANIFEST}")))):
            try:
                bundles.append(open_bundle(inside))
            except ValueError as error:
                warn_once(f"ignoring a bundle of weights: {error}")
    return [bundle for bundle in bundles if bundle is not None]


@cache
def warn_once(text: str) -> None:
    """Log a warning: bundles are looked for several times while one name is resolved."""
    log.warning("%s", text)


@dataclass(frozen=True)
class BundledWeights:
    """What a bundle holds for one name: the name to use it by, and the size of its files."""

    name: str
    bytes: int


def write_bundle(
    names: Iterable[str], path: str | Path, progress: download.ProgressCallback | None = None
) -> list[BundledWeights]:
    """Pack published weights into ``path``, a ``.zip``, downloading what is not on disk.

    ``names``: anything that `resolve_weights` would download. The manifest holds their catalog entries and each file's
    sha256. Equal weights give equal bytes. Raises ``ValueError`` for a wrong suffix or name, and ``OSError``; nothing
    is written then.
    """
    from effnet.weights.resolve import resolve_weights  # which searches bundles itself

    path = Path(path)
    if path.suffix != ".zip":
        raise ValueError(f"{path}: a bundle must be a .zip")
    files: dict[str, Path] = {}
    entries: dict[str, object] = {}
    packed = []
    for name in names:
        found = resolve_weights(name, progress=progress)
        if found.remote is None:
            raise ValueError(f"{name} is a file of yours, not a published one: copy it as it is")
        members = _list_members(found.remote, found.path)
        files |= members
        if found.entry is not None:
            entries[found.entry.name] = found.entry.to_dict()
        packed.append(BundledWeights(found.remote.name, sum(file.stat().st_size for file in members.values())))
    if not packed:
        raise ValueError("name the weights to pack")
    files = dict(sorted(files.items()))
    about = {name: {"bytes": file.stat().st_size, "sha256": download.hash_file(file)} for name, file in files.items()}
    manifest = {"files": about, "entries": dict(sorted(entries.items()))}
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_zip_info(MANIFEST), json.dumps(manifest, indent=1).encode())
        for name, file in files.items():
            info = _zip_info(name)
            info.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target)
    return packed


def _list_members(remote: download.RemoteFile, path: Path) -> dict[str, Path]:
    """Return every file that belongs to ``path``, the downloaded ``remote``, by its name in a bundle."""
    if not remote.is_archived:
        files = {name: path.with_name(name) for name in (*remote.companions, path.name)}
        return {str(PurePosixPath(remote.key).with_name(name)): file for name, file in files.items() if file.is_file()}
    folder = next(parent for parent in path.parents if parent.as_posix().endswith(remote.unpacked_folder))
    files = {f"{remote.unpacked_folder}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*")}
    return {name: files[name] for name in remote.match_names(files)}


def _zip_info(name: str) -> zipfile.ZipInfo:
    """Return a member without a date, so that equal content gives equal bytes."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    return info
