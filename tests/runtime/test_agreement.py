"""Every engine answers as the network does, whatever form pictures come in."""

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
from effnet.runtime import litert, onnx
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
SERVED = IOSpec("floats", "logits", embedding=True, size=None)  # what the engine cache holds
WRITERS: dict[str, Callable[[Path, EfficientNet, IOSpec], object]] = {
    ".onnx": onnx.write_onnx,
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


def pictures(count: int, size: tuple[int, int] = SIZES[0]) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, *size, 3), np.uint8)


def through(x: Pixels, model: EfficientNet) -> NDArray[np.float32]:
    """The pictures normalised, as torch's people have them: (N, C, H, W)."""
    out: NDArray[np.float32] = normalize(torch.from_numpy(x), model.preprocess).contiguous().numpy()
    return out


def direct(model: EfficientNet, x: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and embedding by the network itself."""
    given = normalize(torch.from_numpy(x), model.preprocess)
    with torch.inference_mode():
        return model(given).numpy(), model.embed(given).numpy()


@pytest.fixture(scope="module", params=["nano", "b0"])
def model(request: pytest.FixtureRequest) -> EfficientNet:
    return network(request.param)


@pytest.fixture(scope="module")
def symmetric() -> EfficientNet:
    return network("nano", numerics=Numerics("symmetric", 1e-5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


def made(folder: Path, suffix: str, model: EfficientNet, interface: IOSpec = SERVED) -> Path:
    path = folder / f"{model.arch.name}-{model.numerics.padding}-{abs(hash(interface))}{suffix}"
    if not path.exists():
        WRITERS[suffix](path, model, interface)
    return path


@pytest.mark.parametrize("name", ["eager", *OPENERS])
def test_as_the_network(name: str, model: EfficientNet, folder: Path) -> None:
    engine: Engine
    if name == "eager":
        engine = EagerEngine(model)
    else:
        suffix, opened = OPENERS[name]
        engine = opened(made(folder, suffix, model))
    assert (engine.kind, engine.precision) == (name.split("'")[0], "float32")
    assert engine.classes == model.classes
    assert engine.metadata == model.metadata
    for count, size in ((3, SIZES[0]), (1, SIZES[0]), (1, SIZES[1]), (3, SIZES[0])):
        x = pictures(count, size)
        logits, embedding = direct(model, x)
        most = np.abs(logits).max()
        for given in (x, x.astype(np.float32), through(x, model), x.astype(np.float64)):
            got = engine.run(given)
            assert got.dtype == np.float32
            assert got.shape == (count, model.classes)
            assert np.abs(got - logits).max() <= 1e-4 * most
        assert np.abs(engine.embed(x) - embedding).max() <= 1e-4 * np.abs(embedding).max()


@pytest.mark.parametrize("name", list(OPENERS))
def test_prepared(name: str, symmetric: EfficientNet, folder: Path) -> None:
    """What was made ready for one shape gives the same, of this shape and of others, in one thread and in two."""
    suffix, opened = OPENERS[name]
    engine = opened(made(folder, suffix, symmetric))
    for batch in (1, 2, 3, 2):
        engine.prepare(batch, SIZES[0])
    given = [pictures(count, size) for count, size in ((1, SIZES[0]), (3, SIZES[0]), (2, SIZES[1]), (2, SIZES[0]))]
    with ThreadPoolExecutor(2) as threads:
        for x, got in zip(given * 2, threads.map(engine.run, given * 2), strict=True):
            assert got == pytest.approx(direct(symmetric, x)[0], abs=1e-4)
    fixed = opened(made(folder, suffix, symmetric, IOSpec("normalized", size=SIZES[0])))
    fixed.prepare(2)
    assert fixed.run(given[3]).argmax(1).tolist() == direct(symmetric, given[3])[0].argmax(1).tolist()
    with pytest.raises(ValueError, match="accepts images of 33×47 only, got 48×31"):
        fixed.prepare(2, SIZES[1])


@pytest.mark.parametrize("name", list(OPENERS))
def test_symmetric_padding(name: str, symmetric: EfficientNet, folder: Path) -> None:
    suffix, opened = OPENERS[name]
    engine = opened(made(folder, suffix, symmetric))
    for size in SIZES:
        x = pictures(2, size)
        assert engine.run(x) == pytest.approx(direct(symmetric, x)[0], abs=1e-4)


@pytest.mark.parametrize("name", list(OPENERS))
@pytest.mark.parametrize("asked", ["pixels", "normalized"])
def test_files_of_every_interface(asked: str, name: str, symmetric: EfficientNet, folder: Path) -> None:
    suffix, opened = OPENERS[name]
    path = made(folder, suffix, symmetric, IOSpec(asked, "probabilities", embedding=False, size=SIZES[0]))
    engine = opened(path)
    x = pictures(2)
    logits = torch.from_numpy(direct(symmetric, x)[0]).log_softmax(1).numpy()
    for given in (x, x.astype(np.float32), through(x, symmetric)):
        assert engine.run(given) == pytest.approx(logits, abs=1e-4)
    with pytest.raises(ValueError, match="has no embedding output: export the network with embedding=True"):
        engine.embed(x)
    with pytest.raises(ValueError, match="accepts images of 33×47 only, got 48×31: resize the images"):
        engine.run(pictures(1, SIZES[1]))
    if asked == "pixels":
        with pytest.raises(ValueError, match="accepts integer pixels 0 … 255 only: round the images"):
            engine.run(x + np.float32(0.4))


@pytest.mark.parametrize("name", list(OPENERS))
def test_without_a_classifier(name: str, folder: Path) -> None:
    headless = network("nano", classes=0)
    suffix, opened = OPENERS[name]
    path = folder / f"headless{suffix}"
    WRITERS[suffix](path, headless, SERVED)
    engine = opened(path)
    x = pictures(2)
    assert engine.classes == 0
    for got in (engine.run(x), engine.embed(x), EagerEngine(headless).run(x)):
        assert got == pytest.approx(direct(headless, x)[1], abs=1e-4)


def test_a_saved_tflite(symmetric: EfficientNet, folder: Path) -> None:
    engine = LiteRTEngine(save(symmetric, folder / "saved.tflite", "tflite"))
    for size in SIZES:
        x = pictures(2, size)
        assert engine.run(x) == pytest.approx(direct(symmetric, x)[0], abs=1e-4)
    with pytest.raises(ValueError, match="has no embedding output"):
        engine.embed(x)


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino", "litert"])
def test_called_from_several_threads(name: str, symmetric: EfficientNet, folder: Path) -> None:
    engine = EagerEngine(symmetric) if name == "eager" else OPENERS[name][1](made(folder, OPENERS[name][0], symmetric))
    batches = [pictures(1 + index % 3, SIZES[index % 2]) for index in range(12)]
    expected = [direct(symmetric, x)[0] for x in batches]
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


def test_answers_are_the_callers(symmetric: EfficientNet, folder: Path) -> None:
    """An engine does not write its next answer over the last one."""
    for name, (suffix, opened) in OPENERS.items():
        engine = opened(made(folder, suffix, symmetric))
        first = engine.run(pictures(1))
        kept = first.copy()
        engine.run(255 - pictures(1))
        assert np.array_equal(first, kept), name


@pytest.mark.skipif("avx512_bf16" not in describe_machine().instructions, reason="no bfloat16 in this CPU")
def test_bfloat16(symmetric: EfficientNet, folder: Path) -> None:
    x = pictures(3)
    logits = direct(symmetric, x)[0]
    path = made(folder, ".onnx", symmetric)
    for engine in (EagerEngine(symmetric, "cpu", "bfloat16"), open_exported(path, precision="bfloat16")):
        apart = np.abs(engine.run(x) - logits).max() / np.abs(logits).max()
        assert engine.precision == "bfloat16"
        assert 1e-5 < apart < 5e-2


def test_openvino_from_its_own_cache(symmetric: EfficientNet, folder: Path, tmp_path: Path) -> None:
    """What it kept of one precision serves the other; what is damaged is made anew; a folder that cannot be, left."""
    x, path = pictures(2), made(folder, ".onnx", symmetric)
    logits = OpenVINOEngine(path).run(x)
    for _ in range(2):
        assert OpenVINOEngine(path, cache=tmp_path / "kept").run(x) == pytest.approx(logits, abs=1e-6)
    (blob,) = (tmp_path / "kept").iterdir()
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:1000])
    (tmp_path / "file").touch()
    for cache in (tmp_path / "kept", tmp_path / "file" / "within"):
        assert OpenVINOEngine(path, cache=cache).run(x) == pytest.approx(logits, abs=1e-6)
