"""Opening engines, invalid input, and side effects that engines must not have."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import effnet
from effnet.metadata import ModelMetadata, Preprocess
from effnet.runtime import base, litert, onnx_writer, onnxruntime
from effnet.runtime.base import (
    ENGINE_KINDS,
    installed_engines,
    not_installed_error,
    open_exported,
    resolve_precision,
    resolve_threads,
    to_normalized,
    to_pixels,
)
from effnet.runtime.io_spec import IOSpec, to_file_input, to_logits
from effnet.runtime.litert import LiteRTEngine, _dequantize, _quantize
from effnet.runtime.onnxruntime import ONNXRuntimeEngine
from effnet.runtime.openvino import OpenVINOEngine
from effnet.runtime.torch import CompiledEngine, EagerEngine, find_cxx_compiler
from effnet.timing import describe_machine
from effnet.timing.machine import count_cores
from tests.exporting.networks import network
from tests.runtime.test_agreement import images, normalized_images

CACHED = IOSpec("floats", "logits", embedding=True, size=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """network.onnx and network.tflite."""
    directory = tmp_path_factory.mktemp("exported")
    onnx_writer.write_onnx(directory / "network.onnx", network("nano"), CACHED)
    litert.write_litert(directory / "network.tflite", network("nano"), CACHED)
    return directory


def test_threads(folder: Path) -> None:
    assert resolve_threads(None) == count_cores()
    for engine_class in (ONNXRuntimeEngine, OpenVINOEngine):
        assert engine_class(folder / "network.onnx", threads=2).threads == 2
        with pytest.raises(ValueError, match="threads must be an integer of at least 1, got 0"):
            engine_class(folder / "network.onnx", threads=0)
    with pytest.raises(ValueError, match="threads must be"):
        LiteRTEngine(folder / "network.tflite", threads=-1)
    with pytest.raises(ValueError, match="threads must be"):
        EagerEngine(network("nano"), threads=0)


def test_eager_thread_pool() -> None:
    model, x = network("nano"), images(2)
    before = torch.get_num_threads()
    default, pooled = EagerEngine(model), EagerEngine(model, threads=before + 1)
    assert (default.threads, pooled.threads) == (before, before + 1)
    assert pooled.run(x) == pytest.approx(default.run(x), abs=1e-5)
    assert pooled._pool is not None
    assert pooled._pool.submit(torch.get_num_threads).result() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="images must be"):
        pooled.run(x[0])


def test_eager_copies_the_model() -> None:
    model, x = network("nano"), images(1)
    engine = EagerEngine(model)
    before = engine.run(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert np.array_equal(engine.run(x), before)


def test_precisions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("eager", "int8", ("float32",), quantized=True) == "int8"
    assert resolve_precision("eager", "float32", ("float32",), quantized=True) == "int8"
    with pytest.raises(ValueError, match="this network is not quantized: export it"):
        ONNXRuntimeEngine(folder / "network.onnx", "int8")
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16"):
        LiteRTEngine(folder / "network.tflite", "double")
    with pytest.raises(ValueError, match=r"litert does not support bfloat16 on this machine: use float32$"):
        LiteRTEngine(folder / "network.tflite", "bfloat16")
    plain = describe_machine().__class__(**{**describe_machine().to_dict(), "instructions": ("avx2",)})
    monkeypatch.setattr("effnet.timing.machine.describe_machine", lambda: plain)
    with pytest.raises(ValueError, match=r"eager does not support bfloat16 on this machine: use float32$"):
        EagerEngine(network("nano"), "cpu", "bfloat16")
    rich = describe_machine().__class__(**{**describe_machine().to_dict(), "instructions": ("amx_bf16", "amx_fp16")})
    monkeypatch.setattr("effnet.timing.machine.describe_machine", lambda: rich)
    assert EagerEngine(network("nano"), "cpu", "float16").precision == "float16"


def test_invalid_images(folder: Path) -> None:
    for engine in (
        EagerEngine(network("nano")),
        open_exported(folder / "network.onnx"),
        open_exported(folder / "network.tflite"),
    ):
        for shape in ((33, 47, 3), (1, 33, 47, 4), (1, 1, 33, 47, 3)):
            with pytest.raises(ValueError, match=r"images must be \(N, H, W, 3\) with values 0 … 255, or normalized"):
                engine.run(np.zeros(shape, np.uint8))
        with pytest.raises(ValueError, match=r"uint8 images must be \(N, H, W, 3\)"):
            engine.run(np.zeros((1, 3, 33, 47), np.uint8))
        with pytest.raises(ValueError, match="images must not be empty"):
            engine.run(np.zeros((0, 33, 47, 3), np.uint8))


def test_pixels_and_normalized_images() -> None:
    model, x = network("nano"), images(2)
    preprocess = model.preprocess
    normalized = normalized_images(x, model)
    assert np.array_equal(to_pixels(x, preprocess), x)
    assert to_pixels(normalized, preprocess) == pytest.approx(x.astype(np.float32), abs=1e-3)
    assert to_normalized(x, preprocess) == pytest.approx(normalized, abs=1e-6)
    assert np.array_equal(to_normalized(normalized, preprocess), normalized)
    converted = to_file_input(normalized, model.metadata, IOSpec("pixels"), Path("a.onnx"))
    assert converted.dtype == np.uint8
    assert np.array_equal(converted, x)


def test_logits_of_zero_probabilities() -> None:
    out = to_logits(np.array([[0, 1]], np.float32), IOSpec(output="probabilities"), "classification")
    assert np.isfinite(out).all()
    assert out[0, 1] == 0


def test_quantized_tensors() -> None:
    for kind, zero in ((np.int8, -128), (np.uint8, 0)):
        tensor = {"dtype": kind, "quantization": (0.5, zero)}
        stored = _quantize(np.array([0, 0.5, 100, 1000], np.float32), tensor)
        assert stored.dtype == kind
        assert (stored.astype(int) - zero).tolist() == [0, 1, 200, 255]
        assert _dequantize(stored, tensor).tolist() == [0, 0.5, 100, 127.5]
    for scale in (0.0, 1.0):
        pixels = images(1)
        assert _quantize(pixels, {"dtype": np.uint8, "quantization": (scale, 0)}) is pixels


def test_open_exported(folder: Path) -> None:
    assert open_exported(folder / "network.onnx").kind == "onnxruntime"
    assert open_exported(folder / "network.onnx", "openvino").kind == "openvino"
    assert open_exported(folder / "network.tflite").kind == "litert"
    with pytest.raises(ValueError, match=r"is not an exported file: expected a name ending in \.onnx, \.xml, \.tflite"):
        open_exported(folder / "network.pth")
    with pytest.raises(ValueError, match=r"litert does not open \.onnx files: use onnxruntime or openvino"):
        open_exported(folder / "network.onnx", "litert")


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.tflite"])
def test_unreadable_files(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_exported(tmp_path / name)
    for content in (b"", b"no network\n" * 1000):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            open_exported(tmp_path / name)
    if name == "a.onnx":
        with pytest.raises(ValueError, match="openvino cannot open"):
            open_exported(tmp_path / name, "openvino")


def test_truncated_files(folder: Path, tmp_path: Path) -> None:
    for name in ("network.onnx", "network.tflite"):
        content = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=name):
            open_exported(tmp_path / name)


def test_foreign_and_outdated_files(tmp_path: Path) -> None:
    import onnx as onnx_package

    model = network("nano")
    path = tmp_path / "network.onnx"
    onnx_writer.write_onnx(path, model, CACHED)
    proto = onnx_package.load(path)
    for entry in proto.metadata_props:
        if entry.key == "effnet.interface":
            entry.value = '{"input": "pixels", "colors": "all"}'
    onnx_package.save(proto, path)
    with pytest.raises(ValueError, match=r"network\.onnx is damaged, or was changed after it was written"):
        open_exported(path)
    (digest,) = (entry for entry in proto.metadata_props if entry.key == "effnet.digest")
    proto.metadata_props.remove(digest)
    onnx_package.save(proto, path)
    for kind in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match="was exported by another version of effnet: export it again"):
            open_exported(path, kind)
    del proto.metadata_props[:]
    onnx_package.save(proto, path)
    for kind in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match="only files exported by effnet can be run"):
            open_exported(path, kind)


def test_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "eager" in installed_engines()
    assert set(installed_engines()) <= set(ENGINE_KINDS)
    for name in ("onnxruntime", "openvino", "ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, kind in (("network.onnx", "onnxruntime"), ("network.onnx", "openvino"), ("network.tflite", "litert")):
        package = "ai-edge-litert" if kind == "litert" else kind
        with pytest.raises(ImportError, match=rf'the {kind} engine requires {package}: pip install "effnet\['):
            open_exported(folder / name, kind)
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    assert installed_engines() == ("eager", "compiled")
    monkeypatch.setattr("effnet.runtime.base.installed_engines", lambda: ("eager", "compiled"))
    with pytest.raises(ImportError, match=str(not_installed_error("litert")).split(":")[0]):
        open_exported(folder / "network.tflite")


def test_openvino_opens_onnx_without_onnxruntime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.runtime.base.installed_engines", lambda: ("eager", "openvino"))
    assert open_exported(folder / "network.onnx").kind == "openvino"


def test_quantized_onnx_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for content, quantized in ((b"", False), (b"Conv", False), (b"..DequantizeLinear..", True)):
        path.write_bytes(content)
        assert onnxruntime._is_quantized(path) is quantized


def test_litert_is_silent(folder: Path) -> None:
    code = (
        "import sys, numpy; from effnet.runtime.litert import LiteRTEngine; "
        "LiteRTEngine(sys.argv[1]).run(numpy.zeros((1, 32, 32, 3), numpy.uint8)); print('still', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, folder / "network.tflite"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "still\n")


def test_file_engines_do_not_import_torch(folder: Path) -> None:
    code = (
        "import sys, numpy; from effnet.runtime.base import open_exported; "
        "x = numpy.zeros((1, 32, 32, 3), numpy.uint8); "
        "[open_exported(path, kind).run(x) for kind, path in zip(sys.argv[1::2], sys.argv[2::2])]; "
        "print('torch' in sys.modules)"
    )
    files = (("onnxruntime", "network.onnx"), ("openvino", "network.onnx"), ("litert", "network.tflite"))
    command = [sys.executable, "-c", code, *(part for kind, name in files for part in (kind, str(folder / name)))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler itself, which would take half a minute for a small network."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model, x = network("nano"), images(2)
    engine = CompiledEngine(model, "cpu")
    assert engine.kind == "compiled"
    assert engine.run(x) == pytest.approx(EagerEngine(model).run(x), abs=1e-5)


def test_compiled_requires_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert find_cxx_compiler() is None
    with pytest.raises(ValueError, match=r"requires a C\+\+ compiler: install g\+\+, or use the eager engine"):
        CompiledEngine(network("nano"), "cpu")


def test_one_channel(tmp_path: Path) -> None:
    model = effnet.create("nano", classes=4, channels=1).eval()
    model.preprocess = Preprocess((32, 32), mean=(0.5,), std=(0.25,))
    onnx_writer.write_onnx(tmp_path / "gray.onnx", model, CACHED)
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    engine = open_exported(tmp_path / "gray.onnx")
    assert engine.metadata == ModelMetadata.from_json(model.metadata.to_json())
    assert engine.run(x) == pytest.approx(EagerEngine(model).run(x), abs=1e-4)


def test_openvino_keeps_the_signal_stack(folder: Path) -> None:
    """Two overlapping cores would leave signals a stack that no longer exists."""
    code = (
        "import faulthandler, gc, os, signal, sys\n"
        "faulthandler.enable()\n"
        "from effnet.runtime.openvino import OpenVINOEngine\n"
        "signal.signal(signal.SIGCHLD, lambda *_: None)\n"
        "first, second = (OpenVINOEngine(sys.argv[1]) for _ in range(2))\n"
        "first.prepare(1); second.prepare(1)\n"
        "del first; gc.collect(); del second; gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGCHLD); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder / "network.onnx")], capture_output=True, text=True)
    assert done.stdout == "alive\n", done.stderr


def test_openvino_telemetry_is_disabled() -> None:
    code = (
        "import sys, threading; from effnet.runtime.openvino import get_core; get_core(); "
        "from openvino.tools.ovc import telemetry_utils; "
        "print(telemetry_utils.tm.__name__, threading.active_count(), 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "1", "False"]
