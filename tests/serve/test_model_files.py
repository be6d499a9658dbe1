"""Model files that are replaced, truncated or removed while they are served."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import effnet
from effnet.serve.errors import RequestError
from effnet.serve.model_files import ModelFiles
from effnet.serve.models import ServedModel
from effnet.serve.server import ServerLimits
from tests.serve.conftest import Running

PNG = {"content-type": "image/png"}
REFUSED = "the file of x was replaced since the server opened it: restart the server"


@pytest.fixture(scope="module")
def other(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as long as ``weights``, of another network."""
    model = effnet.load(weights)
    model.classifier.weight.data.neg_()  # type: ignore[union-attr]
    path: Path = effnet.save(model, tmp_path_factory.mktemp("other") / "model.safetensors")
    return path


def overwrite(path: Path, content: bytes) -> None:
    """Write into the file that is there, and give it the time that it had."""
    times = path.stat()
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def rename_over(path: Path, content: bytes) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(content)
    beside.replace(path)


def remove_and_write(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def truncate(path: Path, content: bytes) -> None:
    os.truncate(path, 100)


def empty(path: Path, content: bytes) -> None:
    os.truncate(path, 0)


REPLACEMENTS = (overwrite, rename_over, remove_and_write, truncate, empty)


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_replaced_weights_are_refused(
    replace: Callable[[Path, bytes], None],
    weights: Path,
    other: Path,
    tmp_path: Path,
    photos: list[tuple[bytes, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path(shutil.copy(weights, tmp_path / "model.safetensors"))
    running = Running({"x": ServedModel("x", str(tmp_path), "eager", 1)}, ServerLimits())

    async def work() -> None:
        async with running.client() as client:

            async def ask(path: str) -> tuple[int, Any]:
                found = await client.post(path, content=photos[0][0], headers=PNG)
                return found.status_code, found.json()

            predicted = await ask("/v1/predict")
            replace(path, other.read_bytes())
            for where in ("/v1/predict", "/v1/explain?format=json", "/v1/predict"):
                assert await ask(where) == (503, {"error": REFUSED})
            rename_over(path, weights.read_bytes())  # restored
            assert (await ask("/v1/predict"))[1]["labels"] == predicted[1]["labels"]
            assert (await ask("/v1/explain?format=json"))[0] == 200

    asyncio.run(work())
    running.queue.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} was replaced since it was opened: requests for it are refused until a restart"
    ]


@pytest.mark.parametrize(
    ("suffix", "package"), [(".onnx", "onnxruntime"), (".xml", "openvino"), (".tflite", "ai_edge_litert")]
)
@pytest.mark.parametrize("replace", [overwrite, truncate])
def test_replaced_exported_files_are_refused(
    suffix: str, package: str, replace: Callable[[Path, bytes], None], weights: Path, other: Path, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    effnet.export(weights, path := tmp_path / f"x{suffix}")
    effnet.export(other, tmp_path / f"other{suffix}")
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    model = ServedModel("x", path, batch_size=1)
    before = model.predictor.compute(images, 1)
    weights_path = path.with_suffix(".bin") if suffix == ".xml" else path
    replace(weights_path, weights_path.with_stem("other").read_bytes())
    with pytest.raises(RequestError, match="was replaced since"):
        model.check_files()
    # What had been accepted before is computed with what was opened
    np.testing.assert_allclose(model.predictor.compute(images, 1), before, atol=1e-6)
    assert not model.can_explain
    model.close()


def test_maps_are_of_the_network_that_predicts(weights: Path, other: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    path = Path(shutil.copy(weights, tmp_path / "model.safetensors"))
    late, early = (ServedModel("x", tmp_path, "eager", 1) for _ in range(2))
    expected = early.activation_map(image, 0)
    for replace in REPLACEMENTS:
        replace(path, other.read_bytes())
        with pytest.raises(RequestError, match=r"was replaced since|can no longer be read"):
            late.activation_map(image, 0)  # whose network had not been needed before
        np.testing.assert_array_equal(early.activation_map(image, 0), expected)  # in memory, not mapped
        rename_over(path, weights.read_bytes())
    path.unlink()
    shutil.copy(other, tmp_path / "pytorch_model.bin")
    with pytest.raises(RequestError, match=r"found in another file|can no longer be read"):
        late.activation_map(image, 0)
    shutil.copy(weights, path)
    np.testing.assert_array_equal(late.activation_map(image, 0), expected)
    for model in (late, early):
        model.close()


def test_network_in_memory_keeps_its_weights(weights: Path, other: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    path = Path(shutil.copy(weights, tmp_path / "model.safetensors"))
    model = ServedModel("x", str(path), "eager", 1, open_source=effnet.load)
    expected = model.activation_map(image, 0)
    overwrite(path, other.read_bytes())
    np.testing.assert_array_equal(model.activation_map(image, 0), expected)
    with pytest.raises(RequestError, match="was replaced since"):
        model.check_files()
    model.close()


def test_replaced_while_opening(weights: Path, other: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(weights, tmp_path / "model.safetensors"))

    def replace_and_open(source: str) -> str:
        rename_over(path, other.read_bytes())
        return source

    with pytest.raises(ValueError, match="was replaced while it was being opened: start the server again"):
        ServedModel("x", str(path), "eager", 1, open_source=replace_and_open)


def test_what_counts_as_replaced(weights: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(weights, tmp_path / "model.safetensors"))
    files = ModelFiles(path)
    rename_over(path, weights.read_bytes())
    os.utime(path)
    assert not files.were_replaced()  # written again with the same content
    path.unlink()
    assert not files.were_replaced()  # what was read from it is still right
    path.mkdir()
    assert files.were_replaced()
    path.rmdir()
    shutil.copy(weights, path)
    assert not files.were_replaced()
    (tmp_path / "config.json").write_text("{}")  # states how weights are to be read
    assert files.were_replaced()

    (target := tmp_path / "first").mkdir()
    shutil.copy(weights, target)
    (link := tmp_path / "latest").symlink_to(target)
    linked = ModelFiles(link)
    assert not linked.were_replaced()
    (second := tmp_path / "second").mkdir()
    effnet.save(effnet.create("nano", classes=6), second / "model.safetensors")
    link.unlink()
    link.symlink_to(second)
    assert linked.were_replaced()


def test_files_of_several_parts(tmp_path: Path, weights: Path) -> None:
    for name in ("x.xml", "x.bin"):
        (tmp_path / name).write_bytes(b"x")
    files = ModelFiles(tmp_path / "x.xml")
    (tmp_path / "x.bin").write_bytes(b"y")
    assert files.were_replaced()
    for name in ("ckpt.index", "ckpt.data-00000-of-00001"):
        (tmp_path / name).write_bytes(b"x")
    files = ModelFiles(tmp_path / "ckpt")
    (tmp_path / "ckpt.data-00000-of-00001").write_bytes(b"y")
    assert files.were_replaced()
