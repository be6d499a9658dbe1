"""Getting published weights: from this disk, from a bundle, from a mirror, or from their publisher."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path, PurePosixPath

from effnet.data.storage.errors import RetryPolicy as RetryPolicy
from effnet.weights.catalog.entry import CatalogEntry
from effnet.weights.fetch.bundle import list_bundles
from effnet.weights.fetch.download import DownloadError as DownloadError
from effnet.weights.fetch.download import download_file, download_from_hub, extract_member, find_in_hub_cache
from effnet.weights.fetch.remote_file import ProgressCallback as ProgressCallback
from effnet.weights.fetch.remote_file import RemoteFile as RemoteFile
from effnet.weights.fetch.remote_file import (
    apply_mirror,
    cache_key,
    configured_cache_dir,
    is_offline,
    mirror_url,
    writable_cache_dir,
)

_LOG_EVERY_BYTES = 25 * 10**6  # bytes that are worth a line in the log

log = logging.getLogger("effnet")


def fetch(
    source: CatalogEntry | RemoteFile,
    offline: bool | None = None,
    progress: ProgressCallback | None = None,
    patience: RetryPolicy | None = None,
) -> Path:
    """The file of a card on this disk, downloaded if it is not there; of a TensorFlow checkpoint its ``.index``.

    Looked for in bundles, in the home and in the hub's cache, then at the mirror or the publisher's. ``progress``
    hears (bytes here, bytes in all), and without it the log; the hub's library shows a bar of its own. ``offline``
    (None: as the environment says): the network is left alone. Raises `DownloadError`: one sentence on what was
    wanted, from where, and how to bring it by hand.
    """
    origin = source if isinstance(source, RemoteFile) else RemoteFile.from_entry(source)
    return find_local(origin) or _fetch_remote(origin, offline, progress, patience)


def find_local(remote: RemoteFile) -> Path | None:
    """The file, if it is on this disk already. Raises ``ValueError`` if it is in a bundle that is damaged."""
    for bundle in list_bundles():
        taken = bundle.extract_file(remote)
        if taken is not None:
            return taken
    for folder in dict.fromkeys((configured_cache_dir(), writable_cache_dir())):
        names = remote.match_names(_list_names(folder, remote))
        if names:
            return folder / names[-1]
    return find_in_hub_cache(remote) if remote.hub else None


def bundle_members(remote: RemoteFile, path: Path) -> dict[str, Path]:
    """Name in a bundle → file, of everything that belongs to the file ``path`` of ``origin``."""
    if not remote.is_archived:
        near = {name: path.with_name(name) for name in (*remote.companions, path.name)}
        return {str(PurePosixPath(remote.key).with_name(name)): file for name, file in near.items() if file.is_file()}
    inside = next(folder for folder in path.parents if folder.as_posix().endswith(remote.unpacked_folder))
    names = {f"{remote.unpacked_folder}/{one.relative_to(inside).as_posix()}": one for one in inside.rglob("*")}
    return {name: names[name] for name in remote.match_names(names)}


def describe_manual_download(remote: RemoteFile) -> str:
    """What a user can do where there is no network, as the end of a sentence."""
    return (
        f"bring it to {configured_cache_dir() / remote.key} by hand, or pack it where there is a network "
        f"(effnet models {remote.name} --bundle weights.zip) and set EFFNET_BUNDLE=weights.zip here, or give a file "
        "(--model FILE; to train: "
        "--weights FILE, or --weights none to start from random ones)"
    )


def _list_names(folder: Path, remote: RemoteFile) -> list[str]:
    """What lies in ``folder`` near where ``origin`` would."""
    near = folder / remote.unpacked_folder if remote.is_archived else (folder / remote.key).parent
    paths = near.rglob("*") if remote.is_archived else near.glob("*")
    return [path.relative_to(folder).as_posix() for path in paths if path.is_file()]


def _fetch_remote(
    remote: RemoteFile, offline_requested: bool | None, progress: ProgressCallback | None, patience: RetryPolicy | None
) -> Path:
    place = next(
        (one for one in (configured_cache_dir() / remote.key, writable_cache_dir() / remote.key) if one.is_file()), None
    )  # of an archive
    try:
        if place is None:
            if is_offline(offline_requested):
                raise DownloadError("it is not on this disk, and the network is to be left alone")
            if remote.hub and not mirror_url():
                log.info("%s: downloading %s of %s from the hub", remote.name, remote.file, remote.hub)
                return download_from_hub(remote)
            place = _download_with_companions(remote, progress, patience)
        return (
            extract_member(place, remote.file, writable_cache_dir() / remote.unpacked_folder)
            if remote.is_archived
            else place
        )
    except DownloadError as error:
        named = f"{remote.name}: " * (remote.name != remote.download_url)
        said = f"{named}{apply_mirror(remote.download_url)} cannot be had ({error}); {describe_manual_download(remote)}"
        raise DownloadError(said, error.not_found, cause=str(error)) from None


def _download_with_companions(
    remote: RemoteFile, progress: ProgressCallback | None, patience: RetryPolicy | None
) -> Path:
    """The file from the mirror or the publisher, after whatever belongs beside it."""
    for name in remote.companions:
        with suppress(DownloadError):  # not everyone publishes it
            other = remote.download_url.rpartition("/")[0] + f"/{name}"
            download_file(apply_mirror(other), writable_cache_dir() / cache_key(other), patience=patience)
    url = apply_mirror(remote.download_url)
    log.info("%s: downloading %s", remote.name, url)
    return download_file(
        url, writable_cache_dir() / remote.key, remote.hash, patience, progress or _log_progress(remote.name)
    )


def _log_progress(name: str) -> ProgressCallback:
    """Progress for whoever only reads the log: a line for every tenth, of what takes long enough to wonder."""
    told = 0

    def hear(here: int, total: int | None) -> None:
        nonlocal told
        if here - told >= max(_LOG_EVERY_BYTES, (total or 0) // 10):
            told = here
            log.info("%s: %d%s MB", name, here // 10**6, f" of {total // 10**6}" if total else "")

    return hear
