"""Every engine agrees with the network, for every form of input."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from effnet import EfficientNet
from effnet.data.preprocessing import normalize
from effnet.metadata import Numerics
from effnet.runtime import litert, onnx_writer
from effnet.runtime import openvino as ir
from effnet.runtime.base import Engine, open_exported
from effnet.runtime.io_spec import IOSpec
from effnet.runtime.litert import LiteRTEngine
from effnet.runtime.onnxruntime import ONNXRuntimeEngine
from effnet.runtime.openvino import OpenVINOEngine
from effnet.runtime.torch import EagerEngine
from effnet.timing import describe_machine
from effnet.weights import save
from tests.exporting.networks import network

SIZES = ((33, 47), (48, 31))
CACHED = IOSpec("floats", "logits", embedding=True, size=None)  # what the engine cache holds
WRITERS: dict[str, Callable[[Path, EfficientNet, IOSpec], object]] = {
    ".onnx": onnx_writer.write_onnx,
    ".xml": ir.write_openvino,
    ".tflite": litert.write_litert,
}
OPENERS: dict[str, tuple[str, Callable[[Path], Engine]]] = {
    "onnxruntime": (".onnx", ONNXRuntimeEngine),
    "openvino": (".onnx", OpenVINOEngine),
    "openvino's own": (".xml", OpenVINOEngine),
    "litert": (".tflite", LiteRTEngine),
}

Pixels = NDArray[np.uint8]


def images(count: int, size: tuple[int, int] = SIZES[0]) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, *size, 3), np.uint8)


def normalized_images(x: Pixels, model: EfficientNet) -> NDArray[np.float32]:
    """(N, H, W, C) -> normalized (N, C, H, W)."""
    out: NDArray[np.float32] = normalize(torch.from_numpy(x), model.preprocess).contiguous().numpy()
    return out


def network_outputs(model: EfficientNet, x: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and embedding of the network itself."""
    normalized = normalize(torch.from_numpy(x), model.preprocess)
    with torch.inference_mode():
        return model(normalized).numpy(), model.embed(normalized).numpy()


@pytest.fixture(scope="module", params=["nano", "b0"])
def model(request: pytest.FixtureRequest) -> EfficientNet:
    return network(request.param)


@pytest.fixture(scope="module")
def symmetric() -> EfficientNet:
    return network("nano", numerics=Numerics("symmetric", 1e-5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


def exported_path(folder: Path, suffix: str, model: EfficientNet, io_spec: IOSpec = CACHED) -> Path:
    path = folder / f"{model.arch.name}-{model.numerics.padding}-{abs(hash(io_spec))}{suffix}"
    if not path.exists():
        WRITERS[suffix](path, model, io_spec)
    return path


@pytest.mark.parametrize("name", ["eager", *OPENERS])
def test_engines_agree_with_the_network(name: str, model: EfficientNet, folder: Path) -> None:
    engine: Engine
    if name == "eager":
        engine = EagerEngine(model)
    else:
        suffix, open_engine = OPENERS[name]
        engine = open_engine(exported_path(folder, suffix, model))
    assert (engine.kind, engine.precision) == (name.split("'")[0], "float32")
    assert engine.classes == model.classes
    assert engine.metadata == model.metadata
    for count, size in ((3, SIZES[0]), (1, SIZES[0]), (1, SIZES[1]), (3, SIZES[0])):
        x = images(count, size)
        logits, embedding = network_outputs(model, x)
        largest = np.abs(logits).max()
        for form in (x, x.astype(np.float32), normalized_images(x, model), x.astype(np.float64)):
            got = engine.run(form)
            assert got.dtype == np.float32
            assert got.shape == (count, model.classes)
            assert np.abs(got - logits).max() <= 1e-4 * largest
        assert np.abs(engine.embed(x) - embedding).max() <= 1e-4 * np.abs(embedding).max()


@pytest.mark.parametrize("name", list(OPENERS))
def test_prepare(name: str, symmetric: EfficientNet, folder: Path) -> None:
    """An engine prepared for one shape runs this and other shapes, from one thread and from two."""
    suffix, open_engine = OPENERS[name]
    engine = open_engine(exported_path(folder, suffix, symmetric))
    for batch in (1, 2, 3, 2):
        engine.prepare(batch, SIZES[0])
    batches = [images(count, size) for count, size in ((1, SIZES[0]), (3, SIZES[0]), (2, SIZES[1]), (2, SIZES[0]))]
    with ThreadPoolExecutor(2) as threads:
        for x, got in zip(batches * 2, threads.map(engine.run, batches * 2), strict=True):
            assert got == pytest.approx(network_outputs(symmetric, x)[0], abs=1e-4)
    fixed = open_engine(exported_path(folder, suffix, symmetric, IOSpec("normalized", size=SIZES[0])))
    fixed.prepare(2)
    assert fixed.run(batches[3]).argmax(1).tolist() == network_outputs(symmetric, batches[3])[0].argmax(1).tolist()
    with pytest.raises(ValueError, match="accepts images of 33×47 only, got 48×31"):
        fixed.prepare(2, SIZES[1])


@pytest.mark.parametrize("name", list(OPENERS))
def test_symmetric_padding(name: str, symmetric: EfficientNet, folder: Path) -> None:
    suffix, open_engine = OPENERS[name]
    engine = open_engine(exported_path(folder, suffix, symmetric))
    for size in SIZES:
        x = images(2, size)
        assert engine.run(x) == pytest.approx(network_outputs(symmetric, x)[0], abs=1e-4)


@pytest.mark.parametrize("name", list(OPENERS))
@pytest.mark.parametrize("input_kind", ["pixels", "normalized"])
def test_fixed_size_files(input_kind: str, name: str, symmetric: EfficientNet, folder: Path) -> None:
    suffix, open_engine = OPENERS[name]
    path = exported_path(folder, suffix, symmetric, IOSpec(input_kind, "probabilities", embedding=False, size=SIZES[0]))
    engine = open_engine(path)
    x = images(2)
    logits = torch.from_numpy(network_outputs(symmetric, x)[0]).log_softmax(1).numpy()
    for form in (x, x.astype(np.float32), normalized_images(x, symmetric)):
        assert engine.run(form) == pytest.approx(logits, abs=1e-4)
    with pytest.raises(ValueError, match="has no embedding output: export the network with embedding=True"):
        engine.embed(x)
    with pytest.raises(ValueError, match="accepts images of 33×47 only, got 48×31: resize the images"):
        engine.run(images(1, SIZES[1]))
    if input_kind == "pixels":
        with pytest.raises(ValueError, match="accepts integer pixels 0 … 255 only: round the images"):
            engine.run(x + np.float32(0.4))


@pytest.mark.parametrize("name", list(OPENERS))
def test_no_classifier(name: str, folder: Path) -> None:
    headless = network("nano", classes=0)
    suffix, open_engine = OPENERS[name]
    path = folder / f"headless{suffix}"
    WRITERS[suffix](path, headless, CACHED)
    engine = open_engine(path)
    x = images(2)
    assert engine.classes == 0
    for got in (engine.run(x), engine.embed(x), EagerEngine(headless).run(x)):
        assert got == pytest.approx(network_outputs(headless, x)[1], abs=1e-4)


def test_saved_tflite(symmetric: EfficientNet, folder: Path) -> None:
    engine = LiteRTEngine(save(symmetric, folder / "saved.tflite", "tflite"))
    for size in SIZES:
        x = images(2, size)
        assert engine.run(x) == pytest.approx(network_outputs(symmetric, x)[0], abs=1e-4)
    with pytest.raises(ValueError, match="has no embedding output"):
        engine.embed(x)


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino", "litert"])
def test_thread_safety(name: str, symmetric: EfficientNet, folder: Path) -> None:
    engine: Engine = EagerEngine(symmetric)
    if name != "eager":
        suffix, open_engine = OPENERS[name]
        engine = open_engine(exported_path(folder, suffix, symmetric))
    batches = [images(1 + index % 3, SIZES[index % 2]) for index in range(12)]
    expected = [network_outputs(symmetric, x)[0] for x in batches]
    got: dict[int, NDArray[np.float32]] = {}

    def work(index: int) -> None:
        got[index] = engine.run(batches[index])

    threads = [Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, logits in enumerate(expected):
        assert got[index] == pytest.approx(logits, abs=1e-4)


def test_outputs_are_not_overwritten(symmetric: EfficientNet, folder: Path) -> None:
    for name, (suffix, open_engine) in OPENERS.items():
        engine = open_engine(exported_path(folder, suffix, symmetric))
        first = engine.run(images(1))
        copy = first.copy()
        engine.run(255 - images(1))
        assert np.array_equal(first, copy), name


@pytest.mark.skipif("avx512_bf16" not in describe_machine().instructions, reason="no bfloat16 in this CPU")
def test_bfloat16(symmetric: EfficientNet, folder: Path) -> None:
    x = images(3)
    logits = network_outputs(symmetric, x)[0]
    path = exported_path(folder, ".onnx", symmetric)
    for engine in (EagerEngine(symmetric, "cpu", "bfloat16"), open_exported(path, precision="bfloat16")):
        difference = np.abs(engine.run(x) - logits).max() / np.abs(logits).max()
        assert engine.precision == "bfloat16"
        assert 1e-5 < difference < 5e-2


def test_openvino_compile_cache(symmetric: EfficientNet, folder: Path, tmp_path: Path) -> None:
    """The cache serves later starts; a damaged one is rewritten, and one that cannot be created is not used."""
    x, path = images(2), exported_path(folder, ".onnx", symmetric)
    logits = OpenVINOEngine(path).run(x)
    for _ in range(2):
        assert OpenVINOEngine(path, cache=tmp_path / "cache").run(x) == pytest.approx(logits, abs=1e-6)
    (blob,) = (tmp_path / "cache").iterdir()
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:1000])
    (tmp_path / "file").touch()
    for cache in (tmp_path / "cache", tmp_path / "file" / "within"):
        assert OpenVINOEngine(path, cache=cache).run(x) == pytest.approx(logits, abs=1e-6)
