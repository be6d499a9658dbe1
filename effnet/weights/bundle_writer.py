"""Weights in one file, to be carried to where there is no network.

The file is a ``.zip``: one member can be read without the others, every system can unpack it, and sites that unpack
what is uploaded leave a folder that serves as well. Nothing in it is compressed, for float weights do not shrink. Files
have the names that they have below ``EFFNET_HOME``, so that an unpacked bundle is one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from effnet.data.storage.atomic_write import atomic_write
from effnet.weights.catalog.entry import CatalogEntry
from effnet.weights.fetch import ProgressCallback, bundle_members
from effnet.weights.fetch.bundle import MANIFEST
from effnet.weights.resolve import resolve_weights


@dataclass(frozen=True)
class BundledWeights:
    """What a bundle has of one source: the name to ask for it, its card if it has one, and the size of its files."""

    name: str
    card: CatalogEntry | None
    bytes: int


def write_bundle(
    names: Iterable[str], path: str | Path, offline: bool | None = None, progress: ProgressCallback | None = None
) -> list[BundledWeights]:
    """Packs published weights, downloaded where they are not here yet, into ``path``, a ``.zip``; says what is in it.

    ``names``: anything that `resolve_weights` would download: catalog names, archs, addresses, the hub's repositories.
    The manifest holds each card and the sha256 of each file. The same weights give the same bytes. Raises
    ``ValueError`` for a wrong suffix or name, `DownloadError` for what cannot be downloaded, ``OSError`` where ``path``
    cannot be written; then nothing is.
    """
    path = Path(path)
    if path.suffix != ".zip":
        raise ValueError(f"{path}: a bundle is written to a .zip")
    files: dict[str, Path] = {}
    cards: dict[str, CatalogEntry] = {}
    packed = []
    for name in names:
        found = resolve_weights(name, offline, progress)
        if found.remote is None:
            raise ValueError(f"{name} is a file of yours, not a published one: carry it as it is")
        its = bundle_members(found.remote, found.path)
        files |= its
        if found.entry is not None:
            cards[found.entry.name] = found.entry
        size = sum(file.stat().st_size for file in its.values())
        packed.append(BundledWeights(found.remote.name, found.entry, size))
    if not packed:
        raise ValueError("name the weights to pack")
    with atomic_write(path) as beside, ZipFile(beside, "w", ZIP_STORED) as zipped:
        _write_bundle_member(zipped, MANIFEST, _build_manifest(files, cards).encode())
        for name, file in sorted(files.items()):
            _write_bundle_member(zipped, name, file)
    return packed


def _build_manifest(files: dict[str, Path], cards: dict[str, CatalogEntry]) -> str:
    about = {name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for name, file in sorted(files.items())}
    return json.dumps({"files": about, "cards": {name: cards[name].to_dict() for name in sorted(cards)}}, indent=1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _write_bundle_member(zipped: ZipFile, name: str, content: bytes | Path) -> None:
    """One member, without the day on which it was packed."""
    about = ZipInfo(name)
    about.external_attr = 0o644 << 16
    if isinstance(content, bytes):
        zipped.writestr(about, content)
        return
    about.file_size = content.stat().st_size
    with content.open("rb") as source, zipped.open(about, "w") as target:
        shutil.copyfileobj(source, target)
