"""What a user may call weights: files, folders, checkpoints, names, addresses, repositories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from effnet.weights import catalog
from effnet.weights.download import DownloadError, cache_key
from effnet.weights.resolve import resolve_weights
from tests.weights.server import Shelf, serving


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, without a network."""
    for name in ("EFFNET_MIRROR", "EFFNET_BUNDLE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """A mirror that has timm's default b0 and a repository of nobody's."""
    with serving() as shelf:
        monkeypatch.setenv("EFFNET_OFFLINE", "0")
        monkeypatch.setenv("EFFNET_MIRROR", shelf.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        shelf.files["/huggingface.co/me/mine/resolve/main/pytorch_model.bin"] = b"mine"
        shelf.files["/huggingface.co/me/mine/resolve/main/config.json"] = b"{}"
        yield shelf


@pytest.mark.parametrize("name", ["m.safetensors", "m.weights.h5", "m.tflite", "b0", "m.unheard_of", "plain.zip"])
def test_a_file_is_itself(here: Path, name: str) -> None:
    (here / name).write_bytes(b"x")
    assert resolve_weights(name).path == Path(name)
    assert resolve_weights(here / name).entry is None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["model.safetensors", "report.html"], "model.safetensors"),
        (["config.json", "model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001"], "model.ckpt-7.index"),
    ],
)
def test_a_folder_means_the_weights_in_it(here: Path, names: list[str], found: str) -> None:
    (here / "run").mkdir()
    for name in names:
        (here / "run" / name).write_bytes(b"x")
    assert resolve_weights("run").path == Path("run") / found
    assert resolve_weights(here / "run").path == here / "run" / found


@pytest.mark.parametrize("folder", ["", "/elsewhere/in/training/", "C:\\\\elsewhere\\\\"])
def test_a_checkpoint_of_tensorflow(here: Path, folder: str) -> None:
    (here / "ckpt").mkdir()
    for step in (5, 12):
        (here / "ckpt" / f"model.ckpt-{step}.index").write_bytes(b"x")
    (here / "ckpt" / "checkpoint").write_text(
        f'model_checkpoint_path: "{folder}model.ckpt-5"\nall_model_checkpoint_paths: "{folder}model.ckpt-12"\n'
    )
    five = Path("ckpt/model.ckpt-5.index")
    assert resolve_weights("ckpt").path == five
    assert resolve_weights("ckpt/model.ckpt-5").path == five
    assert resolve_weights(five).path == five


@pytest.mark.parametrize(
    "names", [[], ["a.index", "b.index"], ["checkpoint"], ["notes.txt"]], ids=["empty", "two", "note alone", "other"]
)
def test_a_folder_without_weights(here: Path, names: list[str]) -> None:
    (here / "run").mkdir()
    for name in names:
        (here / "run" / name).write_text('model_checkpoint_path: "gone"')
    with pytest.raises(FileNotFoundError, match="no weights found; a folder must contain"):
        resolve_weights("run")


@pytest.mark.parametrize(
    "path", ["x.safetensors", "./b0", "a/b/c", "/b0", "model.ckpt", "x.weights.h5", "w.zip/b0", "w.zip", "a\\b", "~/b0"]
)
def test_a_path_with_nothing_there(path: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such weights file$"):
        resolve_weights(path)


def test_below_a_folder_that_is_there_nothing_is_looked_for_elsewhere(here: Path) -> None:
    (here / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^runs/two: no such weights file$"):
        resolve_weights("runs/two")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("efficientnet-b9", "did you mean b8"),
        ("b0/nope", "no weights are called 'b0/nope'"),
        ("nano", "no weights are published"),
    ],
)
def test_a_name_that_nothing_has(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        resolve_weights(name)


@pytest.mark.parametrize("name", ["b0", "EfficientNetB0", "b0/tf_aa_in1k", "timm/tf_efficientnet_b0.aa_in1k"])
def test_published_weights_that_are_not_here(name: str) -> None:
    card = catalog.find_entry(name)
    with pytest.raises(DownloadError) as raised:
        resolve_weights(name)
    assert str(raised.value).startswith(
        f"{card.name}: https://huggingface.co/{card.hub}/resolve/main/model.safetensors"
    )
    assert "--weights FILE, or --weights none" in str(raised.value)


def test_published_weights_come_with_their_card(mirror: Shelf) -> None:
    card = catalog.find_entry("b0")
    mirror.files[f"/huggingface.co/{card.hub}/resolve/main/model.safetensors"] = b"weights"
    for name in ("b0", card.name, card.hub, f"hf-hub:{card.hub}"):
        located = resolve_weights(name)
        assert located.entry == card
        assert located.path.read_bytes() == b"weights"
    assert len(mirror.requests) == 1


def test_progress_is_heard(mirror: Shelf) -> None:
    mirror.files["/huggingface.co/timm/tf_efficientnet_b0.aa_in1k/resolve/main/model.safetensors"] = b"weights"
    reported: list[tuple[int, int | None]] = []
    resolve_weights("b0/tf_aa_in1k", progress=lambda done, total: reported.append((done, total)))
    assert reported == [(7, 7)]


def test_an_address(mirror: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.files["/example.org/x.pth"] = b"x"
    located = resolve_weights("https://example.org/x.pth")
    assert (located.path, located.entry) == (tmp_path / "home" / cache_key("https://example.org/x.pth"), None)
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    assert resolve_weights("https://example.org/x.pth") == located


def test_a_repository_of_the_hub(mirror: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    located = resolve_weights("me/mine")
    assert (located.path.name, located.path.read_bytes(), located.entry) == ("pytorch_model.bin", b"mine", None)
    assert located.path.with_name("config.json").read_bytes() == b"{}"
    requests = len(mirror.requests)
    monkeypatch.setenv("EFFNET_OFFLINE", "1")
    assert resolve_weights("hf-hub:me/mine").path == located.path
    assert len(mirror.requests) == requests


def test_a_repository_that_is_not_there(mirror: Shelf) -> None:
    with pytest.raises(FileNotFoundError, match=r"^me/none: no such file, and no model\.safetensors"):
        resolve_weights("me/none")
