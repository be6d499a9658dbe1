"""Bundles of weights that were brought here: found, and files taken out of them, each checked on its way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from zipfile import BadZipFile, ZipFile

from effnet.weights.catalog.entry import CatalogEntry
from effnet.weights.fetch.remote_file import RemoteFile, configured_cache_dir, writable_cache_dir

MANIFEST = "effnet-bundle.json"


@dataclass(frozen=True)
class Bundle:
    """A ``.zip``, or the folder it was unpacked to. Files have in it the names that they have below a home."""

    path: Path
    files: Mapping[str, str]  # key → sha256
    cards: Mapping[str, CatalogEntry]

    def extract_file(self, remote: RemoteFile) -> Path | None:
        """The file of ``origin``, checked; None where the bundle has it not. Out of a ``.zip`` it goes to the `store`.

        Raises ``ValueError`` where it is damaged.
        """
        names = remote.match_names(self.files)
        if not names:
            return None
        folder = self.path if self.path.is_dir() else writable_cache_dir()
        for name in names:
            if self._matches_hash(folder / name, name):
                continue
            if folder != self.path:
                self._extract_member(name, folder / name)
            elif (folder / name).is_file():
                raise self._damage_error(name)
            else:
                raise ValueError(f"{self.path} is not complete ({name} is missing): bring it here again")
        return folder / names[-1]

    def _extract_member(self, name: str, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f"{place.name}.{os.getpid()}.part")
        try:
            with ZipFile(self.path) as packed, packed.open(name) as source, beside.open("wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
            if not self._matches_hash(beside, name):
                raise self._damage_error(name)
            beside.replace(place)
        except (BadZipFile, KeyError) as error:
            raise self._damage_error(name) from error
        finally:
            beside.unlink(missing_ok=True)

    def _matches_hash(self, path: Path, name: str) -> bool:
        """Whether ``path`` is what was packed under ``name``."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest() == self.files[name]

    def _damage_error(self, name: str) -> ValueError:
        return ValueError(f"{self.path} is damaged ({name}): bring it here again")


def open_bundle(path: Path) -> Bundle | None:
    """The bundle at ``path``, a file or a folder; None where there is none. Raises ``ValueError`` if it is damaged."""
    try:
        if path.is_dir():
            text = (path / MANIFEST).read_text(encoding="utf-8")
        else:
            with ZipFile(path) as packed:
                text = packed.read(MANIFEST).decode()
    except (OSError, BadZipFile, KeyError):
        return None
    try:
        said = json.loads(text)
        cards = {name: CatalogEntry.from_dict(card) for name, card in said["cards"].items()}
        files = {_check_member_name(name): str(about["sha256"]) for name, about in said["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its {MANIFEST} cannot be read ({error})") from None
    return Bundle(path, MappingProxyType(files), MappingProxyType(cards))


def _check_member_name(name: str) -> str:
    """``name`` itself. Raises ``ValueError`` where it leads out of the bundle."""
    parts = PurePosixPath(name).parts
    if parts[:1] != ("weights",) or ".." in parts or "\\" in name or ":" in name:
        raise ValueError(f"{name!r} is no name of a file in it")
    return name


def list_bundles() -> list[Bundle]:
    """Every bundle that ``EFFNET_BUNDLE`` names (with ``:`` between, on Windows ``;``), and those in the home.

    Raises ``ValueError`` where ``EFFNET_BUNDLE`` names something else.
    """
    found = []
    for name in filter(None, os.environ.get("EFFNET_BUNDLE", "").split(os.pathsep)):
        here = list_bundles_at(Path(name).expanduser())
        if not here:
            raise ValueError(f"EFFNET_BUNDLE={name}: there is no bundle of weights there")
        found += here
    return found + list_bundles_at(configured_cache_dir())


def list_bundles_at(path: Path) -> list[Bundle]:
    """The bundles at ``path``: a ``.zip``, or a folder that is one, or has some in it, packed or unpacked."""
    places = [path]
    if path.is_dir():
        places += [*sorted(path.glob("*.zip")), *(note.parent for note in sorted(path.glob(f"*/{MANIFEST}")))]
    return [bundle for bundle in map(open_bundle, places) if bundle is not None]
