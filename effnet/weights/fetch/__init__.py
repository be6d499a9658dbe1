"""Getting published weights: from this disk, from a bundle, from a mirror, or from their publisher."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path, PurePosixPath

from effnet.data.storage.patience import Patience as Patience
from effnet.weights.cards.card import Card
from effnet.weights.fetch import hub
from effnet.weights.fetch.archive import extract
from effnet.weights.fetch.bundles import bundles
from effnet.weights.fetch.download import DownloadError as DownloadError
from effnet.weights.fetch.download import download
from effnet.weights.fetch.origin import Origin as Origin
from effnet.weights.fetch.origin import Progress as Progress
from effnet.weights.fetch.places import home, key, mirror, mirrored, offline, store

_LINE = 25 * 10**6  # bytes that are worth a line in the log

log = logging.getLogger("effnet")


def fetch(
    wanted: Card | Origin,
    offline: bool | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """The file of a card on this disk, downloaded if it is not there; of a TensorFlow checkpoint its ``.index``.

    Looked for in bundles, in the home and in the hub's cache, then at the mirror or the publisher's. ``progress``
    hears (bytes here, bytes in all), and without it the log; the hub's library shows a bar of its own. ``offline``
    (None: as the environment says): the network is left alone. Raises `DownloadError`: one sentence on what was
    wanted, from where, and how to bring it by hand.
    """
    origin = wanted if isinstance(wanted, Origin) else Origin.of(wanted)
    return at_hand(origin) or _brought(origin, offline, progress, patience)


def at_hand(origin: Origin) -> Path | None:
    """The file, if it is on this disk already. Raises ``ValueError`` if it is in a bundle that is damaged."""
    for bundle in bundles():
        taken = bundle.take(origin)
        if taken is not None:
            return taken
    for folder in dict.fromkeys((home(), store())):
        names = origin.among(_names(folder, origin))
        if names:
            return folder / names[-1]
    return hub.cached(origin) if origin.hub else None


def belonging(origin: Origin, path: Path) -> dict[str, Path]:
    """Name in a bundle → file, of everything that belongs to the file ``path`` of ``origin``."""
    if not origin.archived:
        near = {name: path.with_name(name) for name in (*origin.beside, path.name)}
        return {str(PurePosixPath(origin.key).with_name(name)): file for name, file in near.items() if file.is_file()}
    inside = next(folder for folder in path.parents if folder.as_posix().endswith(origin.unpacked))
    names = {f"{origin.unpacked}/{one.relative_to(inside).as_posix()}": one for one in inside.rglob("*")}
    return {name: names[name] for name in origin.among(names)}


def by_hand(origin: Origin) -> str:
    """What a user can do where there is no network, as the end of a sentence."""
    return (
        f"bring it to {home() / origin.key} by hand, or pack it where there is a network (effnet models {origin.name} "
        "--bundle weights.zip) and set EFFNET_BUNDLE=weights.zip here, or give a file (--model FILE; to train: "
        "--weights FILE, or --weights none to start from random ones)"
    )


def _names(folder: Path, origin: Origin) -> list[str]:
    """What lies in ``folder`` near where ``origin`` would."""
    near = folder / origin.unpacked if origin.archived else (folder / origin.key).parent
    paths = near.rglob("*") if origin.archived else near.glob("*")
    return [path.relative_to(folder).as_posix() for path in paths if path.is_file()]


def _brought(origin: Origin, left_alone: bool | None, progress: Progress | None, patience: Patience | None) -> Path:
    place = next((one for one in (home() / origin.key, store() / origin.key) if one.is_file()), None)  # of an archive
    try:
        if place is None:
            if offline(left_alone):
                raise DownloadError("it is not on this disk, and the network is to be left alone")
            if origin.hub and not mirror():
                log.info("%s: downloading %s of %s from the hub", origin.name, origin.file, origin.hub)
                return hub.download(origin)
            place = _downloaded(origin, progress, patience)
        return extract(place, origin.file, store() / origin.unpacked) if origin.archived else place
    except DownloadError as error:
        named = f"{origin.name}: " * (origin.name != origin.address)
        said = f"{named}{mirrored(origin.address)} cannot be had ({error}); {by_hand(origin)}"
        raise DownloadError(said, error.absent, why=str(error)) from None


def _downloaded(origin: Origin, progress: Progress | None, patience: Patience | None) -> Path:
    """The file from the mirror or the publisher, after whatever belongs beside it."""
    for name in origin.beside:
        with suppress(DownloadError):  # not everyone publishes it
            other = origin.address.rpartition("/")[0] + f"/{name}"
            download(mirrored(other), store() / key(other), patience=patience)
    url = mirrored(origin.address)
    log.info("%s: downloading %s", origin.name, url)
    return download(url, store() / origin.key, origin.hash, patience, progress or _logged(origin.name))


def _logged(name: str) -> Progress:
    """Progress for whoever only reads the log: a line for every tenth, of what takes long enough to wonder."""
    told = 0

    def hear(here: int, total: int | None) -> None:
        nonlocal told
        if here - told >= max(_LINE, (total or 0) // 10):
            told = here
            log.info("%s: %d%s MB", name, here // 10**6, f" of {total // 10**6}" if total else "")

    return hear
