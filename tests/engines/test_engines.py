"""What engines are refused, and what they leave alone."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import effnet
from effnet.clock import machine
from effnet.clock.machine import cores
from effnet.contract import Contract, Preprocess
from effnet.engines import compiled, engine, onnxruntime
from effnet.engines.compiled import Compiled
from effnet.engines.eager import Eager
from effnet.engines.engine import KINDS, as_normalised, as_pixels, granted, installed, missing, settled
from effnet.engines.filed import as_asked, as_logits
from effnet.engines.interface import Interface
from effnet.engines.litert import Litert, _meant, _stored
from effnet.engines.onnxruntime import Onnxruntime
from effnet.engines.opening import open_file
from effnet.engines.openvino import Openvino
from effnet.exporting import litert, onnx
from tests.engines.test_agreement import pictures, through
from tests.exporting.networks import network

SERVED = Interface("floats", "logits", embedding=True, size=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """network.onnx and network.tflite."""
    place = tmp_path_factory.mktemp("exported")
    onnx.write(place / "network.onnx", network("nano"), SERVED)
    litert.write(place / "network.tflite", network("nano"), SERVED)
    return place


def test_threads(folder: Path) -> None:
    assert granted(None) == cores()
    for opened in (Onnxruntime, Openvino):
        assert opened(folder / "network.onnx", threads=2).threads == 2
        with pytest.raises(ValueError, match="threads must be a whole number of at least 1, got 0"):
            opened(folder / "network.onnx", threads=0)
    with pytest.raises(ValueError, match="threads must be"):
        Litert(folder / "network.tflite", threads=-1)
    with pytest.raises(ValueError, match="threads must be"):
        Eager(network("nano"), threads=0)


def test_eagers_threads_are_its_own() -> None:
    model, x = network("nano"), pictures(2)
    before = torch.get_num_threads()
    alone, several = Eager(model), Eager(model, threads=before + 1)
    assert (alone.threads, several.threads) == (before, before + 1)
    assert several.run(x) == pytest.approx(alone.run(x), abs=1e-5)
    assert several._apart is not None
    assert several._apart.submit(torch.get_num_threads).result() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="pictures must be"):
        several.run(x[0])


def test_eager_is_a_copy() -> None:
    model, x = network("nano"), pictures(1)
    made = Eager(model)
    before = made.run(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert np.array_equal(made.run(x), before)


def test_precisions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled("eager", "int8", ("float32",), quantised=True) == "int8"
    assert settled("eager", "float32", ("float32",), quantised=True) == "int8"
    with pytest.raises(ValueError, match="int8 is a property of a file"):
        Onnxruntime(folder / "network.onnx", "int8")
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16"):
        Litert(folder / "network.tflite", "double")
    with pytest.raises(ValueError, match=r"litert does not compute in bfloat16 on this machine: it has float32$"):
        Litert(folder / "network.tflite", "bfloat16")
    plain = machine().__class__(**{**machine().to_dict(), "instructions": ("avx2",)})
    monkeypatch.setattr("effnet.engines.eager.machine", lambda: plain)
    with pytest.raises(ValueError, match=r"eager does not compute in bfloat16 on this machine: it has float32$"):
        Eager(network("nano"), "cpu", "bfloat16")
    rich = machine().__class__(**{**machine().to_dict(), "instructions": ("amx_bf16", "amx_fp16")})
    monkeypatch.setattr("effnet.engines.eager.machine", lambda: rich)
    assert Eager(network("nano"), "cpu", "float16").precision == "float16"


def test_pictures_that_are_none(folder: Path) -> None:
    for made in (Eager(network("nano")), open_file(folder / "network.onnx"), open_file(folder / "network.tflite")):
        for shape in ((33, 47, 3), (1, 33, 47, 4), (1, 1, 33, 47, 3)):
            with pytest.raises(ValueError, match=r"pictures must be \(N, H, W, 3\) of 0 … 255 or normalised"):
                made.run(np.zeros(shape, np.uint8))
        with pytest.raises(ValueError, match=r"uint8 pictures must be \(N, H, W, 3\)"):
            made.run(np.zeros((1, 3, 33, 47), np.uint8))
        with pytest.raises(ValueError, match="there are no pictures"):
            made.run(np.zeros((0, 33, 47, 3), np.uint8))


def test_there_and_back() -> None:
    model, x = network("nano"), pictures(2)
    seen = model.preprocess
    normalised = through(x, model)
    assert np.array_equal(as_pixels(x, seen), x)
    assert as_pixels(normalised, seen) == pytest.approx(x.astype(np.float32), abs=1e-3)
    assert as_normalised(x, seen) == pytest.approx(normalised, abs=1e-6)
    assert np.array_equal(as_normalised(normalised, seen), normalised)
    asked = as_asked(normalised, model.contract, Interface("pixels"), Path("a.onnx"))
    assert asked.dtype == np.uint8
    assert np.array_equal(asked, x)


def test_probabilities_of_zero_have_a_logarithm() -> None:
    out = as_logits(np.array([[0, 1]], np.float32), Interface(output="probabilities"), "one")
    assert np.isfinite(out).all()
    assert out[0, 1] == 0


def test_quantised_tensors() -> None:
    for kind, zero in ((np.int8, -128), (np.uint8, 0)):
        tensor = {"dtype": kind, "quantization": (0.5, zero)}
        stored = _stored(np.array([0, 0.5, 100, 1000], np.float32), tensor)
        assert stored.dtype == kind
        assert (stored.astype(int) - zero).tolist() == [0, 1, 200, 255]
        assert _meant(stored, tensor).tolist() == [0, 0.5, 100, 127.5]
    for scale in (0.0, 1.0):
        pixels = pictures(1)
        assert _stored(pixels, {"dtype": np.uint8, "quantization": (scale, 0)}) is pixels


def test_opening(folder: Path) -> None:
    assert open_file(folder / "network.onnx").kind == "onnxruntime"
    assert open_file(folder / "network.onnx", "openvino").kind == "openvino"
    assert open_file(folder / "network.tflite").kind == "litert"
    with pytest.raises(ValueError, match=r"is no exported file: their names end in \.onnx, \.xml, \.tflite"):
        open_file(folder / "network.pth")
    with pytest.raises(ValueError, match=r"litert does not open \.onnx files: onnxruntime and openvino do"):
        open_file(folder / "network.onnx", "litert")


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.tflite"])
def test_files_that_are_none(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such exported file"):
        open_file(tmp_path / name)
    for content in (b"", b"no network\n" * 1000):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            open_file(tmp_path / name)
    if name == "a.onnx":
        with pytest.raises(ValueError, match="cannot be opened by openvino"):
            open_file(tmp_path / name, "openvino")


def test_files_cut_off(folder: Path, tmp_path: Path) -> None:
    for name in ("network.onnx", "network.tflite"):
        content = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=name):
            open_file(tmp_path / name)


def test_files_of_others_and_of_other_versions(tmp_path: Path) -> None:
    import onnx as onnx_package

    model = network("nano")
    path = tmp_path / "network.onnx"
    onnx.write(path, model, SERVED)
    proto = onnx_package.load(path)
    for entry in proto.metadata_props:
        if entry.key == "effnet.interface":
            entry.value = '{"input": "pixels", "colours": "all"}'
    onnx_package.save(proto, path)
    for kind in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match="was exported by another version of effnet: export it again"):
            open_file(path, kind)
    del proto.metadata_props[:]
    onnx_package.save(proto, path)
    for kind in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match="only files that effnet exported can be run"):
            open_file(path, kind)


def test_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "eager" in installed()
    assert set(installed()) <= set(KINDS)
    for name in ("onnxruntime", "openvino", "ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, kind in (("network.onnx", "onnxruntime"), ("network.onnx", "openvino"), ("network.tflite", "litert")):
        package = "ai-edge-litert" if kind == "litert" else kind
        said = f"the engine {kind} is not installed here: pip install {package}; eager works without"
        with pytest.raises(ImportError, match=said):
            open_file(folder / name, kind)
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert installed() == ("eager", "compiled")
    monkeypatch.setattr("effnet.engines.opening.installed", lambda: ("eager", "compiled"))
    with pytest.raises(ImportError, match=str(missing("litert")).split(":")[0]):
        open_file(folder / "network.tflite")


def test_onnx_files_fall_to_openvino(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.engines.opening.installed", lambda: ("eager", "openvino"))
    assert open_file(folder / "network.onnx").kind == "openvino"


def test_quantised_onnx_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for content, quantised in ((b"", False), (b"Conv", False), (b"..DequantizeLinear..", True)):
        path.write_bytes(content)
        assert onnxruntime._quantised(path) is quantised


def test_litert_says_nothing(folder: Path) -> None:
    code = (
        "import sys, numpy; from effnet.engines.litert import Litert; "
        "Litert(sys.argv[1]).run(numpy.zeros((1, 32, 32, 3), numpy.uint8)); print('still', file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, folder / "network.tflite"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "still\n")


def test_files_need_no_torch(folder: Path) -> None:
    code = (
        "import sys, numpy; from effnet.engines.opening import open_file; "
        "x = numpy.zeros((1, 32, 32, 3), numpy.uint8); "
        "[open_file(path, kind).run(x) for kind, path in zip(sys.argv[1::2], sys.argv[2::2])]; "
        "print('torch' in sys.modules)"
    )
    named = (("onnxruntime", "network.onnx"), ("openvino", "network.onnx"), ("litert", "network.tflite"))
    words = [sys.executable, "-c", code, *(part for kind, name in named for part in (kind, str(folder / name)))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is around the compiler: with it, one small network takes half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    model, x = network("nano"), pictures(2)
    made = Compiled(model, "cpu")
    assert made.kind == "compiled"
    assert made.run(x) == pytest.approx(Eager(model).run(x), abs=1e-5)


def test_compiled_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled.compiler() is None
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler, and there is none: install g\+\+, or use eager"):
        Compiled(network("nano"), "cpu")


def test_one_channel(tmp_path: Path) -> None:
    model = effnet.create("nano", classes=4, channels=1).eval()
    model.preprocess = Preprocess((32, 32), mean=(0.5,), std=(0.25,))
    onnx.write(tmp_path / "grey.onnx", model, SERVED)
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    made = open_file(tmp_path / "grey.onnx")
    assert made.contract == Contract.from_json(model.contract.to_json())
    assert made.run(x) == pytest.approx(Eager(model).run(x), abs=1e-4)


def test_openvino_leaves_the_stack_of_signals_alone(folder: Path) -> None:
    """Two of its cores that overlap would leave signals a stack that is gone."""
    code = (
        "import faulthandler, gc, os, signal, sys\n"
        "faulthandler.enable()\n"
        "from effnet.engines.openvino import Openvino\n"
        "signal.signal(signal.SIGCHLD, lambda *_: None)\n"
        "first, second = (Openvino(sys.argv[1]) for _ in range(2))\n"
        "first.prepare(1); second.prepare(1)\n"
        "del first; gc.collect(); del second; gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGCHLD); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder / "network.onnx")], capture_output=True, text=True)
    assert done.stdout == "alive\n", done.stderr


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys, threading; from effnet.engines.openvino import the_core; the_core(); "
        "from openvino.tools.ovc import telemetry_utils; "
        "print(telemetry_utils.tm.__name__, threading.active_count(), 'openvino_telemetry' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["openvino.tools.ovc.telemetry_stub", "1", "False"]
