"""``make prove-cards`` against a local server in the publishers' place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import torch

import effnet
from effnet.data.class_names import imagenet_labels
from effnet.weights import catalog, convert
from effnet.weights.download import RemoteFile
from tests.weights.server import Shelf, serving

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import prove_cards

NAME = "b0/lukemelas"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shelf]:
    """A mirror that has B0 with random weights, and a catalog that knows their hash."""
    with serving() as shelf:
        for name, value in {
            "EFFNET_OFFLINE": "0",
            "EFFNET_MIRROR": shelf.url,
            "EFFNET_HOME": str(tmp_path / "home"),
            "no_proxy": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        content = BytesIO()
        torch.save(convert(effnet.create("b0").state_dict(), effnet.ARCHS["b0"], "effnet", "lukemelas"), content)
        entry = catalog.ENTRIES[NAME]
        known = replace(entry, hash=f"sha256:{sha256(content.getvalue()).hexdigest()[:8]}")
        monkeypatch.setattr(catalog, "ENTRIES", {**catalog.ENTRIES, NAME: known})
        shelf.files[RemoteFile.from_entry(entry).key.removeprefix("weights")] = content.getvalue()
        yield shelf


def test_proving(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove_cards, "PHOTO_CLASSES", imagenet_labels().names)
    assert prove_cards.main([NAME, "--output", str(tmp_path / "cards.md")]) == 1  # with its AdvProp twin, not served
    first, second = (tmp_path / "cards.md").read_text().splitlines()[-2:]
    digits = catalog.ENTRIES[NAME].hash.removeprefix("sha256:")
    assert first.startswith(f"| `{NAME}` | {digits} ✓ | b0, lukemelas, 1000 classes | ")
    assert first.endswith("| proved |")
    assert "404" in second
    assert not (tmp_path / "home").exists()  # downloaded elsewhere, and removed


def test_what_is_wrong(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, table = catalog.ENTRIES[NAME], tmp_path / "cards.md"
    monkeypatch.setattr(prove_cards, "PHOTO_CLASSES", ())
    assert "shows none of" in prove_cards.prove(entry, prove_cards.find_photo()).error
    assert not prove_cards.prove(entry, None).error
    assert "0 classes" in prove_cards.prove(replace(entry, classes=0), None).error
    monkeypatch.setattr(catalog, "ENTRIES", {NAME: replace(entry, hash="sha256:00000000")})
    assert prove_cards.main([NAME, "--output", str(table)]) == 1
    assert "not the published one" in table.read_text()
    with pytest.raises(SystemExit):
        prove_cards.main(["no such card"])
