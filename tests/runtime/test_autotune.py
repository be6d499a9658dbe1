"""The contest behind `engine`, and what is remembered of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effnet import EfficientNet
from effnet.runtime import autotune, base, engine_cache, onnx
from effnet.runtime.autotune import cache_engine, engine, get_throughput, open_cached_engine
from effnet.runtime.base import Engine, ImageBatch
from effnet.runtime.engine_cache import EngineChoice, EngineTiming, TuningKey, find_choice
from effnet.runtime.io_spec import IOSpec
from effnet.runtime.torch import EagerEngine
from effnet.timing import describe_machine
from effnet.weights import save
from tests.exporting.networks import network

QUESTION = TuningKey("a CPU", 2, ("avx2",), (("torch", "2"),), 1, None, "float32", None)


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
def held(monkeypatch: pytest.MonkeyPatch) -> list[EngineChoice]:
    """Every contest that is held."""
    found: list[EngineChoice] = []

    def watched(*arguments: object) -> tuple[EngineChoice, Engine]:
        chosen, winner = contest_hold(*arguments)  # type: ignore[arg-type]
        found.append(chosen)
        return chosen, winner

    contest_hold = autotune.autotune
    monkeypatch.setattr(autotune, "autotune", watched)
    return found


def noise(count: int = 1) -> ImageBatch:
    return np.random.default_rng(3).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_the_fastest_that_agrees(
    model: EfficientNet, held: list[EngineChoice], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "effnet"):
        made = engine(model)
    (found,) = held
    assert (made.kind, made.precision) == (found.kind, found.precision)
    assert {one.kind for one in found.timings} == {"eager", "onnxruntime", "openvino", "litert"}
    assert {one.precision for one in found.timings} == {"float32"}
    assert all(one.max_difference <= 1e-4 for one in found.timings)
    assert found.excluded == ()
    assert found.describe() in caplog.messages
    assert made.run(noise(3)) == pytest.approx(EagerEngine(model).run(noise(3)), abs=1e-4)


def test_remembered(model: EfficientNet, weights: Path, held: list[EngineChoice]) -> None:
    first = engine(model)
    again = engine(model)
    assert len(held) == 1
    assert again.kind == first.kind
    for other in ({"batch_size": 2}, {"size": (48, 48)}, {"threads": 1}):
        engine(model, **other)  # type: ignore[arg-type]
    engine(model, size=48)  # a side
    assert len(held) == 4
    engine(weights)  # another key: the file's own
    assert len(held) == 5
    engine(weights.parent)  # the run's folder means that file
    assert len(held) == 5
    assert find_choice(engine_cache.file_key(weights)) == held[-1]
    assert find_choice(engine_cache.file_key(weights), batch_size=3) is None


def test_measured_anew_when_something_changed(
    model: EfficientNet, held: list[EngineChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(model)
    with monkeypatch.context() as patched:
        patched.setattr("effnet.timing.machine.installed_versions", lambda: {"torch": "99"})
        engine(model)
        assert held[-1].key.versions == (("torch", "99"),)
    with monkeypatch.context() as patched:
        patched.setattr("effnet.timing.machine.describe_machine", lambda: replace(describe_machine(), cpu="another"))
        engine(model)
    assert len(held) == 3
    engine(model)
    assert len(held) == 3


def test_what_is_damaged_is_made_anew(weights: Path, held: list[EngineChoice], home: Path) -> None:
    made = engine(weights, "onnxruntime")
    place = home / "engines" / engine_cache.file_key(weights)
    (place / "network.onnx").write_bytes(b"no graph")
    assert engine(weights, "onnxruntime").run(noise()) == pytest.approx(made.run(noise()))
    (place / "choices.json").write_text('{"choices": [{"kind": "warp"}]}')
    engine(weights)
    assert len(held) == 1
    assert find_choice(engine_cache.file_key(weights)) == held[0]
    (place / "network.onnx").write_bytes(b"no graph")
    (place / "network.tflite").write_bytes(b"no graph")
    engine(weights)
    assert open_cached_engine(engine_cache.file_key(weights)) is None or held[0].kind != "eager"


def test_who_disagrees_is_left_out(
    model: EfficientNet, held: list[EngineChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(kind: str, *rest: object) -> Engine:
        made = opened(kind, *rest)  # type: ignore[arg-type]
        if kind == "openvino":
            run = made.run
            made.run = lambda pictures: run(pictures) * np.float32(1.001)  # type: ignore[method-assign]
        if kind == "litert":
            made.run = lambda pictures: np.full((len(pictures), 5), np.nan, np.float32)  # type: ignore[method-assign]
        return made

    opened = base.open_engine
    monkeypatch.setattr(base, "open_engine", off)
    engine(model)
    assert {one.kind for one in held[0].timings} == {"eager", "onnxruntime"}
    assert [one.kind for one in held[0].excluded] == ["openvino", "litert"]
    assert held[0].excluded[0].reason == "its outputs differ by 1.0e-03"
    for kind in ("openvino", "litert"):  # nor by its name, though its file is there
        for _ in range(2):
            with pytest.raises(
                ValueError, match=rf"the outputs of {kind} differ from the network's .* use the eager engine"
            ):
                engine(model, kind)


@pytest.mark.skipif("avx512_bf16" not in describe_machine().instructions, reason="no bfloat16 in this CPU")
def test_other_precisions_only_where_allowed(model: EfficientNet, held: list[EngineChoice]) -> None:
    engine(model, precision="bfloat16")
    assert {(one.kind, one.precision) for one in held[0].timings} >= {
        *(("eager", "float32"), ("eager", "bfloat16"), ("openvino", "float32"), ("openvino", "bfloat16"))
    }
    assert {(one.kind, one.precision) for one in held[0].excluded} == {
        *(("onnxruntime", "bfloat16"), ("litert", "bfloat16"))
    }
    assert "does not support bfloat16 on this machine: use float32" in held[0].excluded[0].reason
    assert engine(model, "openvino", precision="bfloat16").precision == "bfloat16"
    with pytest.raises(ValueError, match="litert does not support bfloat16"):
        engine(model, "litert", precision="bfloat16")


@pytest.mark.skipif("avx512_bf16" not in describe_machine().instructions, reason="no bfloat16 in this CPU")
def test_a_drop_is_held_to_pictures(
    model: EfficientNet, held: list[EngineChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = noise(40)
    engine(model, precision="bfloat16", max_drop=100, images=some)
    assert any(one.precision == "bfloat16" for one in held[0].timings)

    def turned(kind: str, path: Path, precision: str, *rest: object) -> Engine:
        made = opened(kind, path, precision, *rest)  # type: ignore[arg-type]
        if precision == "bfloat16":
            run = made.run
            made.run = lambda x: run(x)[:, ::-1] if len(x) == 40 else run(x)  # type: ignore[method-assign]
        return made

    opened = base.open_engine
    monkeypatch.setattr(base, "open_engine", turned)
    engine(model, precision="bfloat16", max_drop=1.0, images=some)
    why = {one.kind: one.reason for one in held[1].excluded}
    assert why["openvino"].startswith("it changes ")
    with pytest.raises(ValueError, match="max_drop requires images and a precision other than float32"):
        engine(model, precision="bfloat16", max_drop=1.0)


def test_not_installed(model: EfficientNet, held: list[EngineChoice], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "installed_engines", lambda: ("eager", "compiled", "litert"))
    engine(model)
    assert {one.kind for one in held[0].timings} == {"eager", "litert"}
    why = {one.kind: one.reason for one in held[0].excluded}
    assert set(why) == {"onnxruntime", "openvino"}
    assert 'requires openvino: pip install "effnet[openvino]"' in why["openvino"]
    with pytest.raises(ImportError, match="the openvino engine requires openvino"):
        engine(model, "openvino")


def test_a_full_disk_costs_time_alone(
    model: EfficientNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("effnet.data.storage.cache_dir.writable_cache_dir", lambda: Path("/dev/null/nowhere"))
    with caplog.at_level(logging.WARNING, "effnet"):
        assert engine(model).kind == "eager"
    assert "cannot write to the engine cache" in caplog.text
    with pytest.raises(OSError, match="no space for the file that onnxruntime opens: free some"):
        engine(model, "onnxruntime")


@pytest.mark.parametrize("kind", ["eager", "onnxruntime", "openvino", "litert"])
def test_a_kind_by_name(kind: str, weights: Path, model: EfficientNet) -> None:
    made = engine(weights, kind, threads=2)
    assert (made.kind, made.threads) == (kind, 2)
    assert made.run(noise(2)) == pytest.approx(EagerEngine(model).run(noise(2)), abs=1e-4)
    assert made.embed(noise(2)) == pytest.approx(EagerEngine(model).embed(noise(2)), abs=1e-4)


def test_compared_with_eager_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    onnx.write_onnx(path, model, IOSpec())
    assert engine(path).kind == "onnxruntime"
    assert engine(str(path), "openvino").kind == "openvino"
    saved = engine(save(model, tmp_path / "saved.tflite", "tflite"), "eager")  # weights, as any other file of them
    assert saved.run(noise()) == pytest.approx(EagerEngine(model).run(noise()), abs=1e-4)


def test_kept_for_a_start_without_torch(model: EfficientNet, tmp_path: Path) -> None:
    path = save(model, tmp_path / "model.safetensors")
    assert open_cached_engine(engine_cache.file_key(path)) is None
    assert cache_engine(model, path)
    code = (
        "import sys; from pathlib import Path; import numpy; from effnet.runtime import autotune; "
        "made = autotune.open_cached_engine(autotune.LazyModel(Path(sys.argv[1])).key); "
        "print(made.kind, made.run(numpy.zeros((1, 32, 32, 3), numpy.uint8)).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "onnxruntime (1, 5) False"


def test_at_hand_is_what_is_remembered(weights: Path) -> None:
    key = engine_cache.file_key(weights)
    engine(weights, "litert")
    contestant = EngineTiming("litert", "float32", 0.001, 0.001, 0.001, 9, 0.0)
    now = TuningKey.for_this_machine(1, None, "float32", None)
    engine_cache.save_record(key, EngineChoice(now, "litert", "float32", (contestant,), (), 1, "today"))
    made = open_cached_engine(key)
    assert made is not None
    assert made.kind == "litert"
    engine_cache.save_record(
        key, EngineChoice(now, "eager", "float32", (replace(contestant, kind="eager"),), (), 1, "today")
    )
    assert open_cached_engine(key) is None
    assert engine(weights).kind == "eager"


def test_a_package_that_does_not_load(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(weights, "onnxruntime")
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    assert open_cached_engine(engine_cache.file_key(weights)) is None
    made = engine(weights)
    assert made.kind in ("eager", "litert")


def test_an_origin_is_loaded_once(weights: Path) -> None:
    one = autotune.LazyModel(weights)
    loaded = one.network
    assert engine(one, "eager").run(noise()) == pytest.approx(EagerEngine(loaded).run(noise()), abs=1e-5)
    assert one.network is loaded


def test_the_best_batch(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(weights, "onnxruntime")
    model = autotune.LazyModel(weights)
    found = get_throughput(model, made)
    assert found.best_batch_size in autotune.BATCH_SIZES
    assert found.max_images_per_second == max(speed for _, speed in found.measured)
    monkeypatch.setattr(autotune, "measure_throughput", None)
    assert get_throughput(model, made) == found


def test_what_is_refused(model: EfficientNet) -> None:
    for wrong, said in (
        ({"kind": "warp"}, "kind must be one of auto, eager"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"threads": 0}, "threads must be"),
        ({"size": (0, 32)}, "size must be"),
        ({"size": 0}, "size must be"),
        ({"precision": "double"}, "precision must be one of"),
        ({"precision": "int8"}, "this network is not quantized: export it with effnet.quantize"),
    ):
        with pytest.raises(ValueError, match=said):
            engine(model, **wrong)  # type: ignore[arg-type]
