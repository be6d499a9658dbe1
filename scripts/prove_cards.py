"""Prove the catalog: download published weights, open each, and write a table of what was found (``make prove-cards``).

Needs a network, and room for one file at a time: 34 GB are downloaded in all. Of each card it is checked that the file
has the stated hash, opens in the stated layout with the stated classes, and gives a plausible answer for a photo. The
exit status is 1 if a card is not as the catalog states.

Usage: python scripts/prove_cards.py [NAME]... [--output FILE] [--keep]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from effnet.data.storage.atomic_write import write_text
from effnet.weights import catalog

DEFAULT_OUTPUT = Path("docs", "proved-cards.md")
PHOTO = "china.jpg"  # of scikit-learn: Beijing's Summer Palace. Lite0 and Lite2 say palace, and then the next three
PHOTO_CLASSES = ("palace", "bell cote", "castle", "lakeside", "monastery", "stupa")
HEAD = """# Proved cards

Written by `make prove-cards`: each published file is downloaded, compared with its hash, opened, and asked about one
photo. Where a publisher states no hash, the beginning of the file's own is shown.

| weights | sha256 or md5 | opened as | answer | seconds | |
|---|---|---|---|--:|---|"""


@dataclass(frozen=True)
class Proof:
    """What was found of one card; ``error`` is empty if all of it is as the catalog states."""

    name: str
    hash: str = "–"
    opened: str = "–"
    answer: str = "–"
    seconds: float = 0.0
    error: str = ""

    def row(self) -> str:
        """Return its row of the table."""
        verdict = self.error.replace("|", "/") or "proved"
        return f"| `{self.name}` | {self.hash} | {self.opened} | {self.answer} | {self.seconds:.0f} | {verdict} |"


def prove(entry: catalog.CatalogEntry, photo: Path | None) -> Proof:
    """Download the weights of ``entry`` and compare them with what it states; an error is part of the result."""
    from effnet.prediction import Predictor
    from effnet.weights import download, load, resolve

    proof, started = Proof(entry.name), time.monotonic()
    try:
        path = resolve.resolve_weights(entry.name).path  # a download is compared with the stated hash
        found = entry.hash or f"sha256:{download.hash_file(path)}"
        proof = replace(proof, hash=f"{found.partition(':')[2][:8]}{' ✓' if entry.hash else ''}")
        model = load(entry.name)
        proof = replace(proof, opened=f"{model.arch.name}, {model.provenance.layout}, {model.classes} classes")
        if (model.arch.name, model.provenance.layout, model.classes) != (entry.arch, entry.layout, entry.classes):
            proof = replace(proof, error=f"not {entry.arch}, {entry.layout}, {entry.classes} classes")
        elif photo is not None and entry.label_set.startswith("imagenet-1k"):
            proof = replace(proof, answer=Predictor(model, engine="eager", device="cpu")(photo)[0].label)
            if proof.answer not in PHOTO_CLASSES:
                proof = replace(proof, error=f"{photo.name} shows none of {', '.join(PHOTO_CLASSES)}")
    except (OSError, ValueError, ImportError) as error:
        proof = replace(proof, error=str(error).splitlines()[0][:200])
    return replace(proof, seconds=time.monotonic() - started)


def find_photo() -> Path | None:
    """Return the photo that scikit-learn ships, or None if it is not installed."""
    spec = find_spec("sklearn")
    folders = (spec.submodule_search_locations if spec else None) or ()
    paths = (Path(folder, "datasets", "images", PHOTO) for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prove the cards that the arguments name, by default all; return 1 if one is not as the catalog states."""
    parser = argparse.ArgumentParser(description="Download published weights and compare them with the catalog.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only cards with this in their name: b0, timm, lite")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, metavar="FILE", help="the table to write")
    parser.add_argument("--keep", action="store_true", help="keep what was downloaded in the cache")
    given = parser.parse_args(arguments)
    entries = [
        entry
        for entry in catalog.ENTRIES.values()
        if not given.names or any(name in (entry.publisher, entry.name) or name in entry.name for name in given.names)
    ]
    if not entries:
        parser.error(f"no card has {' or '.join(given.names)} in its name")
    proofs, photo = [], find_photo()
    for number, entry in enumerate(entries, start=1):
        with tempfile.TemporaryDirectory(prefix="effnet-proof-") as folder:
            if not given.keep:
                _use_cache(Path(folder))
            proofs.append(prove(entry, photo))
        print(f"{number} of {len(entries)}: {proofs[-1].row().strip('| ')}", flush=True)
        # After each, so that an interrupted proof has its part of the table
        write_text(given.output, "\n".join([HEAD, *(proof.row() for proof in proofs)]) + "\n")
    failed = sum(bool(proof.error) for proof in proofs)
    print(f"{len(proofs) - failed} of {len(proofs)} cards are proved: {given.output}")
    return 1 if failed else 0


def _use_cache(folder: Path) -> None:
    """Make ``folder`` the cache of downloads, of effnet's own and of the hub's."""
    import huggingface_hub.constants

    os.environ["EFFNET_HOME"] = str(folder / "effnet")
    huggingface_hub.constants.HF_HUB_CACHE = str(folder / "hub")


if __name__ == "__main__":
    sys.exit(main())
