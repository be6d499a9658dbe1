"""Choosing the fastest engine, and remembering it."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effnet import EfficientNet
from effnet.runtime import autotune, base, engine_cache, onnx_writer
from effnet.runtime.autotune import cache_engine, engine, get_throughput, open_cached_engine
from effnet.runtime.base import Engine, ImageBatch
from effnet.runtime.engine_cache import EngineChoice, EngineTiming, TuningKey, find_choice
from effnet.runtime.io_spec import IOSpec
from effnet.runtime.torch import EagerEngine
from effnet.timing import describe_machine
from effnet.weights import save
from tests.exporting.networks import network


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(autotune, "TIMING_SECONDS", 0.05)
    engine_cache._warn_once.cache_clear()
    return tmp_path / "home"


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    return network("nano")


@pytest.fixture(scope="module")
def weights(model: EfficientNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model, tmp_path_factory.mktemp("run") / "model.safetensors")


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[EngineChoice]:
    """Record every choice of an engine."""
    found: list[EngineChoice] = []

    def recorded(*arguments: object) -> tuple[EngineChoice, Engine]:
        choice, fastest = original(*arguments)  # type: ignore[arg-type]
        found.append(choice)
        return choice, fastest

    original = autotune.autotune
    monkeypatch.setattr(autotune, "autotune", recorded)
    return found


def noise_images(count: int = 1) -> ImageBatch:
    return np.random.default_rng(3).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_fastest_engine(model: EfficientNet, choices: list[EngineChoice], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "effnet"):
        opened_engine = engine(model)
    (found,) = choices
    assert (opened_engine.kind, opened_engine.precision) == (found.kind, found.precision)
    assert {one.kind for one in found.timings} == set(base.installed_engines()) - {"compiled"}
    assert {one.precision for one in found.timings} == {"float32"}
    assert all(one.max_difference <= 1e-4 for one in found.timings)
    assert {one.kind for one in found.excluded} <= {"native"}  # where no compiler was found to install it
    assert found.describe() in caplog.messages
    assert opened_engine.run(noise_images(3)) == pytest.approx(EagerEngine(model).run(noise_images(3)), abs=1e-4)


def test_choice_is_remembered(model: EfficientNet, weights: Path, choices: list[EngineChoice]) -> None:
    first = engine(model)
    again = engine(model)
    assert len(choices) == 1
    assert again.kind == first.kind
    for other in ({"batch_size": 2}, {"size": (48, 48)}, {"threads": 1}):
        engine(model, **other)  # type: ignore[arg-type]
    engine(model, size=48)
    assert len(choices) == 4
    engine(weights)  # has another key
    assert len(choices) == 5
    engine(weights.parent)  # a run directory means its weights
    assert len(choices) == 5
    assert find_choice(engine_cache.file_key(weights), TuningKey.for_this_machine()) == choices[-1]
    assert find_choice(engine_cache.file_key(weights), TuningKey.for_this_machine(3)) is None


def test_timed_again_after_changes(
    model: EfficientNet, choices: list[EngineChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(model)
    with monkeypatch.context() as patched:
        patched.setattr("effnet.timing.machine.installed_versions", lambda: {"torch": "99"})
        engine(model)
        assert choices[-1].key.versions == (("torch", "99"),)
    with monkeypatch.context() as patched:
        patched.setattr("effnet.timing.machine.describe_machine", lambda: replace(describe_machine(), cpu="another"))
        engine(model)
    assert len(choices) == 3
    engine(model)
    assert len(choices) == 3


def test_damaged_cache_files_are_replaced(weights: Path, choices: list[EngineChoice], home: Path) -> None:
    opened_engine = engine(weights, "onnxruntime")
    folder = home / "engines" / engine_cache.file_key(weights)
    (folder / "network.onnx").write_bytes(b"no graph")
    assert engine(weights, "onnxruntime").run(noise_images()) == pytest.approx(opened_engine.run(noise_images()))
    (folder / "choices.json").write_text('{"choices": [{"kind": "warp"}]}')
    engine(weights)
    assert len(choices) == 1
    assert find_choice(engine_cache.file_key(weights), TuningKey.for_this_machine()) == choices[0]
    (folder / "network.onnx").write_bytes(b"no graph")
    (folder / "network.tflite").write_bytes(b"no graph")
    engine(weights)
    assert open_cached_engine(engine_cache.file_key(weights)) is None or choices[0].kind != "eager"


def test_disagreeing_engines_are_excluded(
    model: EfficientNet, choices: list[EngineChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def disagreeing(kind: str, *rest: object) -> Engine:
        opened_engine = original(kind, *rest)  # type: ignore[arg-type]
        if kind == "openvino":
            run = opened_engine.run
            opened_engine.run = lambda images: run(images) * np.float32(1.001)  # type: ignore[method-assign]
        if kind == "litert":
            opened_engine.run = lambda images: np.full((len(images), 5), np.nan, np.float32)  # type: ignore[method-assign]
        return opened_engine

    original = base.open_engine
    monkeypatch.setattr(base, "open_engine", disagreeing)
    engine(model)
    assert {one.kind for one in choices[0].timings} == set(base.installed_engines()) - {
        "compiled",
        "openvino",
        "litert",
    }
    reasons = {one.kind: one.reason for one in choices[0].excluded}
    assert set(reasons) - {"native"} == {"openvino", "litert"}
    assert reasons["openvino"] == "its outputs differ by 1.0e-03"
    for kind in ("openvino", "litert"):  # nor on request, although its file is cached
        for _ in range(2):
            with pytest.raises(
                ValueError, match=rf"the outputs of {kind} differ from the network's .* use the eager engine"
            ):
                engine(model, kind)


@pytest.mark.skipif("avx512_bf16" not in describe_machine().instructions, reason="no bfloat16 in this CPU")
def test_lower_precision(model: EfficientNet, choices: list[EngineChoice]) -> None:
    engine(model, precision="bfloat16")
    assert {(one.kind, one.precision) for one in choices[0].timings} >= {
        *(("eager", "float32"), ("eager", "bfloat16"), ("openvino", "float32"), ("openvino", "bfloat16"))
    }
    excluded = {(one.kind, one.precision): one.reason for one in choices[0].excluded if one.kind != "native"}
    assert set(excluded) == {("onnxruntime", "bfloat16"), ("litert", "bfloat16")}
    assert "does not support bfloat16 on this machine: use float32" in excluded["onnxruntime", "bfloat16"]
    assert engine(model, "openvino", precision="bfloat16").precision == "bfloat16"
    with pytest.raises(ValueError, match="litert does not support bfloat16"):
        engine(model, "litert", precision="bfloat16")


@pytest.mark.skipif("avx512_bf16" not in describe_machine().instructions, reason="no bfloat16 in this CPU")
def test_max_drop(model: EfficientNet, choices: list[EngineChoice], monkeypatch: pytest.MonkeyPatch) -> None:
    sample = noise_images(40)
    engine(model, precision="bfloat16", max_drop=100, images=sample)
    assert any(one.precision == "bfloat16" for one in choices[0].timings)

    def reversed_outputs(kind: str, path: Path, precision: str, *rest: object) -> Engine:
        opened_engine = original(kind, path, precision, *rest)  # type: ignore[arg-type]
        if precision == "bfloat16":
            run = opened_engine.run
            opened_engine.run = lambda x: run(x)[:, ::-1] if len(x) == 40 else run(x)  # type: ignore[method-assign]
        return opened_engine

    original = base.open_engine
    monkeypatch.setattr(base, "open_engine", reversed_outputs)
    engine(model, precision="bfloat16", max_drop=1.0, images=sample)
    reasons = {one.kind: one.reason for one in choices[1].excluded}
    assert reasons["openvino"].startswith("it changes ")
    with pytest.raises(ValueError, match="max_drop requires images and a precision other than float32"):
        engine(model, precision="bfloat16", max_drop=1.0)


def test_not_installed(model: EfficientNet, choices: list[EngineChoice], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "installed_engines", lambda: ("eager", "compiled", "litert"))
    engine(model)
    assert {one.kind for one in choices[0].timings} == {"eager", "litert"}
    reasons = {one.kind: one.reason for one in choices[0].excluded}
    assert set(reasons) == {"native", "onnxruntime", "openvino"}
    assert 'requires openvino: pip install "effnet[openvino]"' in reasons["openvino"]
    with pytest.raises(ImportError, match="the openvino engine requires openvino"):
        engine(model, "openvino")


def test_full_disk(model: EfficientNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("effnet.data.storage.cache_dir.writable_cache_dir", lambda: Path("/dev/null/nowhere"))
    with caplog.at_level(logging.WARNING, "effnet"):
        assert engine(model).kind == "eager"
    assert "cannot write to the engine cache" in caplog.text
    with pytest.raises(OSError, match="no space for the file that onnxruntime opens: free some"):
        engine(model, "onnxruntime")


@pytest.mark.parametrize("kind", ["eager", "onnxruntime", "openvino", "litert"])
def test_kind(kind: str, weights: Path, model: EfficientNet) -> None:
    opened_engine = engine(weights, kind, threads=2)
    assert (opened_engine.kind, opened_engine.threads) == (kind, 2)
    assert opened_engine.run(noise_images(2)) == pytest.approx(EagerEngine(model).run(noise_images(2)), abs=1e-4)
    assert opened_engine.embed(noise_images(2)) == pytest.approx(EagerEngine(model).embed(noise_images(2)), abs=1e-4)


def test_verified_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(weights, "openvino")
    monkeypatch.setattr(autotune.LazyModel, "_verify", None)
    assert engine(weights, "openvino").kind == "openvino"
    with pytest.raises(TypeError):
        engine(weights, "onnxruntime")
    monkeypatch.setattr("effnet.timing.machine.installed_versions", lambda: {"openvino": "99"})
    with pytest.raises(TypeError):
        engine(weights, "openvino")


def test_exported_files(model: EfficientNet, tmp_path: Path) -> None:
    path = tmp_path / "exported.onnx"
    onnx_writer.write_onnx(path, model, IOSpec())
    assert engine(path).kind == "onnxruntime"
    assert engine(str(path), "openvino").kind == "openvino"
    saved = engine(
        save(model, tmp_path / "saved.tflite", "tflite"), "eager"
    )  # holds weights, like any other weights file
    assert saved.run(noise_images()) == pytest.approx(EagerEngine(model).run(noise_images()), abs=1e-4)


def test_cached_engine_does_not_import_torch(model: EfficientNet, tmp_path: Path) -> None:
    path = save(model, tmp_path / "model.safetensors")
    assert open_cached_engine(engine_cache.file_key(path)) is None
    assert cache_engine(model, path)
    code = (
        "import sys; from pathlib import Path; import numpy; from effnet.runtime import autotune; "
        "engine = autotune.open_cached_engine(autotune.LazyModel(Path(sys.argv[1])).key); "
        "print(engine.kind, engine.run(numpy.zeros((1, 32, 32, 3), numpy.uint8)).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"{autotune.installed_file_engines()[0]} (1, 5) False"


def test_cache_engine_without_onnx(model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(model, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert cache_engine(model, path)  # for LiteRT
    monkeypatch.setattr(base, "installed_engines", lambda: ("eager", "onnxruntime"))
    assert not cache_engine(model, path)


def test_cache_engine_that_disagrees(model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training ends with this: it must not fail there."""
    monkeypatch.setattr(autotune, "max_relative_difference", lambda outputs, expected: 1.0)
    assert not cache_engine(model, save(model, tmp_path / "model.safetensors"))


def test_an_unsupported_precision_leaves_the_cached_file(weights: Path) -> None:
    engine(weights, "litert")
    path = engine_cache.find_cached(engine_cache.file_key(weights), "network.tflite")
    assert path
    written = path.stat().st_mtime_ns
    with pytest.raises(ValueError, match="litert does not support bfloat16"):
        engine(weights, "litert", precision="bfloat16")
    assert path.stat().st_mtime_ns == written


def test_open_cached_engine(weights: Path) -> None:
    key = engine_cache.file_key(weights)
    engine(weights, "litert")
    timing = EngineTiming("litert", "float32", 0.001, 0.001, 0.001, 9, 0.0)
    now = TuningKey.for_this_machine(1, None, "float32", None)
    engine_cache.save_record(key, EngineChoice(now, "litert", "float32", (timing,), (), 1, "today"))
    opened_engine = open_cached_engine(key)
    assert opened_engine is not None
    assert opened_engine.kind == "litert"
    engine_cache.save_record(
        key, EngineChoice(now, "eager", "float32", (replace(timing, kind="eager"),), (), 1, "today")
    )
    assert open_cached_engine(key) is None
    assert engine(weights).kind == "eager"


def test_package_that_fails_to_import(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(weights, "onnxruntime")
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    assert open_cached_engine(engine_cache.file_key(weights)) is None
    opened_engine = engine(weights)
    assert opened_engine.kind in ("eager", "litert")


def test_lazy_model_is_loaded_once(weights: Path) -> None:
    one = autotune.LazyModel(weights)
    loaded = one.network
    assert engine(one, "eager").run(noise_images()) == pytest.approx(EagerEngine(loaded).run(noise_images()), abs=1e-5)
    assert one.network is loaded


def test_throughput(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_engine = engine(weights, "onnxruntime")
    model = autotune.LazyModel(weights)
    found = get_throughput(model, opened_engine)
    assert found.best_batch_size in autotune.BATCH_SIZES
    assert found.max_images_per_second == max(speed for _, speed in found.measured)
    monkeypatch.setattr(autotune, "measure_throughput", None)
    assert get_throughput(model, opened_engine) == found


def test_invalid_arguments(model: EfficientNet) -> None:
    for wrong, message in (
        ({"kind": "warp"}, "kind must be one of auto, eager"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"threads": 0}, "threads must be"),
        ({"size": (0, 32)}, "size must be"),
        ({"size": 0}, "size must be"),
        ({"precision": "double"}, "precision must be one of"),
        ({"precision": "int8"}, "this network is not quantized: export it with effnet.quantize"),
    ):
        with pytest.raises(ValueError, match=message):
            engine(model, **wrong)  # type: ignore[arg-type]
