"""Which pictures a run was made of, so that another can tell whether it had the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from effnet.data import Pictures
from effnet.data.pixels import Source
from effnet.training.report.page import folded, pairs, plain, table

PARTS = {"fit": "learned from", "select": "chosen by"}  # any other was only reported on


@dataclass(frozen=True, eq=False)
class Data:
    """The run's pictures: ``source``, as it was called, and its ``parts`` "fit", "select" and those reported on."""

    source: str
    parts: Mapping[str, Pictures]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal over all pictures: a line ``part<TAB>name<TAB>label<LF>`` each, in UTF-8, sorted.

        ``label`` is the class's name, several joined by ``|``, or the values as Python writes them. The same pictures
        in another order have the same; what is within a file does not count.
        """
        lines = (
            f"{part}\t{item.name}\t{_label(item.label, pictures)}\n".encode("utf-8", "surrogatepass")
            for part, pictures in self.parts.items()
            for item in pictures.items
        )
        return sha256(b"".join(sorted(lines))).hexdigest()

    def sources(self, part: str) -> dict[str, Source]:
        """The pictures of ``part`` by their names; none where there is no such part."""
        return {item.name: item.picture for item in self.parts[part].items} if part in self.parts else {}


def described(data: Data) -> str:
    """The section's body: where the pictures came from, their fingerprint, and how many of each class are where."""
    pictures = next(iter(data.parts.values()))
    names, kind = pictures.labels.names, pictures.labels.kind
    rows = [
        ("Source", plain(data.source) or "given as pictures"),
        ("Fingerprint", f"<code>{data.fingerprint}</code><br><small>SHA-256 over names, labels and parts</small>"),
        *((_upper(_called(part)), f"{len(found):,} pictures") for part, found in data.parts.items()),
    ]
    if kind == "value":
        return pairs(rows)
    counts = [found.counts() for found in data.parts.values()]
    lines = list(zip(names, *counts, strict=True))

    def shown(part: Iterable[tuple[str, *tuple[int, ...]]]) -> str:
        head = ("class" if kind == "one" else "label", *map(_called, data.parts))
        return table(head, ((plain(name), *(f"{number:,}" for number in numbers)) for name, *numbers in part))

    return pairs(rows) + folded(lines, shown)


def _called(part: str) -> str:
    return PARTS.get(part, f"reported on: {plain(part)}")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _label(label: int | tuple[int, ...] | tuple[float, ...], pictures: Pictures) -> str:
    if isinstance(label, int):
        return pictures.labels.name(label)
    if pictures.labels.kind == "value":
        return "|".join(map(repr, label))
    return "|".join(pictures.labels.name(int(one)) for one in label)
