"""Weights in one file: packed where there is a network, found where there is none."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest
import torch

import effnet
from effnet.weights import catalog
from effnet.weights.bundle import MANIFEST, BundledWeights, write_bundle
from effnet.weights.download import DownloadError, RemoteFile
from effnet.weights.resolve import resolve_weights
from tests.weights.server import Shelf, serving

B0 = catalog.find_entry("b0")
CHECKPOINT = catalog.find_entry("b0/google")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with nothing in it, and no network."""
    for name in ("EFFNET_MIRROR", "EFFNET_BUNDLE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    with serving() as shelf, monkeypatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w:gz") as packed:
            for name in ("b0/model.ckpt.index", "b0/model.ckpt.data-00000-of-00001", "b0/other.txt"):
                info = tarfile.TarInfo(name)
                info.size = len(name)
                packed.addfile(info, io.BytesIO(name.encode()))
        shelf.files = {
            f"/huggingface.co/{B0.hub}/resolve/main/model.safetensors": b"b0's weights",
            "/huggingface.co/me/mine/resolve/main/model.safetensors": b"mine",
            "/huggingface.co/me/mine/resolve/main/config.json": b"{}",
            CHECKPOINT.url.replace("https:/", ""): tar.getvalue(),
        }
        yield shelf


@pytest.fixture
def weights(mirror: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that was packed on another machine."""
    with monkeypatch.context() as patch:
        patch.setenv("EFFNET_OFFLINE", "0")
        patch.setenv("EFFNET_MIRROR", mirror.url)
        patch.setenv("EFFNET_HOME", str(tmp_path / "elsewhere"))
        packed = write_bundle(["b0", "b0/google", "me/mine"], tmp_path / "weights.zip")
    assert [one.name for one in packed] == [B0.name, "b0/google", "me/mine"]
    assert packed[0] == BundledWeights(B0.name, len(b"b0's weights"))
    return tmp_path / "weights.zip"


def unpack(path: Path, folder: Path) -> Path:
    with ZipFile(path) as zipped:
        zipped.extractall(folder)
    return folder


def test_what_is_in_it(weights: Path) -> None:
    with ZipFile(weights) as zipped:
        assert {info.compress_type for info in zipped.infolist()} == {ZIP_STORED}
        manifest = json.loads(zipped.read(MANIFEST))
        names = set(zipped.namelist()) - {MANIFEST}
        assert {n: hashlib.sha256(zipped.read(n)).hexdigest() for n in names} == {
            name: about["sha256"] for name, about in manifest["files"].items()
        }
    google = (
        "weights/storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/ckpts/efficientnet-b0.tar.gz.unpacked/b0/"
    )
    assert names == {
        f"weights/huggingface.co/{B0.hub}/resolve/main/model.safetensors",
        "weights/huggingface.co/me/mine/resolve/main/model.safetensors",
        "weights/huggingface.co/me/mine/resolve/main/config.json",
        f"{google}model.ckpt.index",
        f"{google}model.ckpt.data-00000-of-00001",
    }
    assert catalog.CatalogEntry.from_dict(manifest["entries"][B0.name]) == B0


def test_the_same_weights_give_the_same_bytes(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "elsewhere"))
    write_bundle(["me/mine", "b0/google", "b0"], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize("how", ["named", "folder named", "unpacked", "unpacked below", "in the home", "home itself"])
def test_it_is_found_without_a_network(
    how: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    if how == "named":
        monkeypatch.setenv("EFFNET_BUNDLE", str(weights))
    elif how == "folder named":
        (tmp_path / "input").mkdir()
        weights.rename(tmp_path / "input" / "weights.zip")
        monkeypatch.setenv("EFFNET_BUNDLE", str(tmp_path / "input"))
    elif how == "in the home":
        home.mkdir()
        weights.rename(home / "weights.zip")
    else:
        folder = tmp_path / "input"
        unpack(weights, folder / "weights_zip" if how == "unpacked below" else folder)
        monkeypatch.setenv("EFFNET_HOME" if how == "home itself" else "EFFNET_BUNDLE", str(folder))
    weights.unlink(missing_ok=True) if "unpacked" in how else None
    located = resolve_weights("b0")
    assert (located.entry, located.path.read_bytes()) == (B0, b"b0's weights")
    checkpoint = resolve_weights("b0/google").path
    assert checkpoint.name == "model.ckpt.index"
    assert checkpoint.with_name("model.ckpt.data-00000-of-00001").is_file()
    mine = resolve_weights("me/mine").path
    assert mine.read_bytes() == b"mine"
    assert mine.with_name("config.json").is_file()
    assert resolve_weights("b0") == located
    with pytest.raises(DownloadError):
        resolve_weights("b1")


def test_several_are_named_as_in_a_path(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = unpack(weights, tmp_path / "other")
    (other / MANIFEST).write_text(json.dumps({"files": {}, "entries": {}}))
    monkeypatch.setenv("EFFNET_BUNDLE", f"{other}{os.pathsep}{weights}")
    assert resolve_weights("b0").path.read_bytes() == b"b0's weights"


def test_a_network_comes_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, lite0 = effnet.create("lite0"), catalog.find_entry("lite0")
    with monkeypatch.context() as patch:
        patch.setenv("EFFNET_HOME", str(tmp_path / "elsewhere"))
        path = tmp_path / "elsewhere" / RemoteFile.from_entry(lite0).key
        path.parent.mkdir(parents=True)
        effnet.save(model, path, layout="timm")
        write_bundle(["lite0"], tmp_path / "weights.zip")
    loaded = effnet.load(tmp_path / "weights.zip")
    assert (loaded.arch, loaded.preprocess) == (model.arch, lite0.preprocess)
    assert torch.equal(loaded.stem.conv.weight, model.stem.conv.weight)


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("name", ["b0", "EfficientNetB0", B0.name])
def test_a_path_into_it(name: str, unpacked: bool, weights: Path, tmp_path: Path) -> None:
    place = unpack(weights, tmp_path / "input") if unpacked else weights
    located = resolve_weights(f"{place}/{name}")
    assert (located.entry, located.path.read_bytes()) == (B0, b"b0's weights")


def test_a_path_into_a_folder_with_it(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    weights.rename(tmp_path / "input" / "weights.zip")
    assert resolve_weights("input/b0").path.read_bytes() == b"b0's weights"
    with pytest.raises(ValueError, match=r"^input: say which weights"):
        resolve_weights("input")


def test_what_lies_about_of_another_bundle_is_not_taken_for_this_ones(weights: Path) -> None:
    path = resolve_weights(f"{weights}/b0").path
    path.write_bytes(b"others")
    assert resolve_weights(f"{weights}/b0").path.read_bytes() == b"b0's weights"


def test_it_says_what_it_has(weights: Path) -> None:
    for wanted in (str(weights), f"{weights}/b1", f"{weights}/b0/nope"):
        with pytest.raises(ValueError, match=rf"say which weights, as .*/NAME; it contains b0/google, {B0.name}$"):
            resolve_weights(wanted)


def test_a_read_only_place_is_enough(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a site mounts the unpacked data set: nothing is written, there or elsewhere."""
    folder = unpack(weights, tmp_path / "input")
    before = sorted(folder.rglob("*"))
    monkeypatch.setenv("EFFNET_HOME", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert resolve_weights("b0").path.is_relative_to(folder)
    assert sorted(folder.rglob("*")) == before
    assert not [one for one in (tmp_path / "temporary").rglob("*") if one.is_file()]


def test_a_bundle_in_a_read_only_home(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    weights.rename(tmp_path / "home" / "weights.zip")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = resolve_weights("b0").path
    assert path.read_bytes() == b"b0's weights"
    assert [one.name for one in (tmp_path / "home").iterdir()] == ["weights.zip"]


@pytest.mark.parametrize("unpacked", [False, True])
def test_damage_is_found_when_a_file_is_taken_out(
    unpacked: bool, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unpacked:
        damaged = unpack(weights, tmp_path / "input")
        next(damaged.rglob("timm/**/model.safetensors")).write_bytes(b"b0's weighty")
    else:
        damaged = weights
        weights.write_bytes(weights.read_bytes().replace(b"b0's weights", b"b0's weighty"))
    monkeypatch.setenv("EFFNET_BUNDLE", str(damaged))
    with pytest.raises(ValueError, match=r"is damaged \(weights/huggingface.*: copy it here again$"):
        resolve_weights("b0")
    assert not [one for one in (tmp_path / "home").rglob("*") if one.is_file()]


def test_a_file_that_is_missing_is_named(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpack(weights, tmp_path / "input")
    next(folder.rglob("*.data-*")).unlink()
    monkeypatch.setenv("EFFNET_BUNDLE", str(folder))
    with pytest.raises(ValueError, match=r"is not complete \(.*data-00000-of-00001 is missing\)"):
        resolve_weights("b0/google")


@pytest.mark.parametrize("content", ["{", "[]", '{"files": {}}', '{"files": {"a": 1}, "entries": {}}'])
def test_a_manifest_that_is_none(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MANIFEST).write_text(content)
    monkeypatch.setenv("EFFNET_BUNDLE", str(tmp_path))
    with pytest.raises(ValueError, match=f"its {MANIFEST} cannot be read"):
        resolve_weights("b0")


@pytest.mark.parametrize(
    "name", ["weights/../../x.index", "/etc/x.index", "x.index", "weights\\..\\x", "C:/x.index", ""]
)
def test_a_manifest_that_leads_elsewhere_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ZipFile(tmp_path / "weights.zip", "w") as zipped:
        zipped.writestr(MANIFEST, json.dumps({"files": {name: {"sha256": ""}}, "entries": {}}))
    monkeypatch.setenv("EFFNET_BUNDLE", "weights.zip")
    with pytest.raises(ValueError, match="is not a valid name in a bundle"):
        resolve_weights("b0")


def test_a_card_without_its_file(weights: Path, tmp_path: Path) -> None:
    folder = unpack(weights, tmp_path / "input")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": {}}))
    with pytest.raises(ValueError, match="is not complete"):
        resolve_weights("input/b0")


def test_a_bundle_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_BUNDLE", str(tmp_path / "none.zip"))
    with pytest.raises(ValueError, match=r"^EFFNET_BUNDLE=.*none\.zip: there is no bundle of weights there$"):
        resolve_weights("b0")


def test_a_card_that_the_catalogue_has_not_is_found_by_its_name(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle may be a later version's."""
    folder = unpack(weights, tmp_path / "input")
    later = replace(B0, name="b0/later", default=False)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"entries": {"b0/later": later.to_dict()}}))
    monkeypatch.setenv("EFFNET_BUNDLE", str(folder))
    assert resolve_weights("b0/later").entry == later


@pytest.mark.parametrize(("names", "path", "sentence"), [
    (["b0"], "weights.tar", r"a bundle must be a \.zip"),
    ([], "weights.zip", "name the weights to pack"),
    (["m.pth"], "weights.zip", "is a file of yours"),
    (["b99"], "weights.zip", "no EfficientNet is called 'b99'"),
])  # fmt: skip
def test_what_cannot_be_packed(names: list[str], path: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match=sentence):
        write_bundle(names, path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.pth"]


def test_nothing_is_written_where_one_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        write_bundle(["b0"], tmp_path / "weights.zip")
    assert not (tmp_path / "weights.zip").exists()
