"""One published file: where its publisher keeps it, and what it must hash to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from effnet.weights.cards.card import Card
from effnet.weights.fetch.places import HUB, key

Progress = Callable[[int, int | None], None]  # (bytes here, bytes in all or None where not known)

_ARCHIVES = (".tar.gz", ".tgz", ".tar")


@dataclass(frozen=True)
class Origin:
    """Where a file comes from: ``file`` in the hub's repository ``hub``, the ``url``, or ``file`` in an archive there.

    ``hash`` is "sha256:HEX" or "md5:HEX" of what lies at the address; HEX may be the first digits only. ``file`` of an
    archive may be a TensorFlow checkpoint's prefix, or "" for its one checkpoint. ``beside`` are files of the same
    folder that are brought too, if there are such.
    """

    name: str
    hub: str = ""
    file: str = ""
    url: str = ""
    hash: str | None = None
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, card: Card) -> Origin:
        """The origin that ``card`` states."""
        return cls(card.name, card.hub, card.file, "" if card.hub else card.url, card.hash)

    @property
    def address(self) -> str:
        """The file's address, or its archive's."""
        return self.url or f"{HUB}/{self.hub}/resolve/main/{self.file}"

    @property
    def key(self) -> str:
        """The name below a home or in a bundle of what lies at the address. Raises ``ValueError`` if there is none."""
        return str(key(self.address))

    @property
    def archived(self) -> bool:
        """Whether the file must be taken out of an archive."""
        return self.key.endswith(_ARCHIVES)

    @property
    def unpacked(self) -> str:
        """The folder, named as `key` is, of what was taken out of the archive."""
        return f"{self.key}.unpacked"

    def among(self, names: Iterable[str]) -> list[str]:
        """The ``names`` that are this file's: what belongs to it first, itself last; empty where it is not there."""
        if not self.archived:
            near = [str(PurePosixPath(self.key).with_name(name)) for name in self.beside]
            names = set(names)
            return [name for name in (*near, self.key) if name in names] if self.key in names else []
        inside = f"{self.unpacked}/"
        members = {name.removeprefix(inside): name for name in names if name.startswith(inside)}
        return [members[member] for member in chosen(members, self.file)]


def chosen(members: Iterable[str], wanted: str) -> list[str]:
    """The ``members`` of an archive that ``wanted`` means: a file, or those of a checkpoint, its ``.index`` last.

    "" means the one checkpoint that there is. Empty where it is not there, or not whole.
    """
    names = list(members)
    if wanted in names:
        return [wanted]
    indices = [name for name in names if name.endswith(".index")]
    prefix = wanted or (indices[0].removesuffix(".index") if len(indices) == 1 else "")
    data = sorted(
        name for name in names if prefix and name.startswith(f"{prefix}.data-") and not name.endswith(".part")
    )
    return [*data, f"{prefix}.index"] if data and f"{prefix}.index" in indices else []
