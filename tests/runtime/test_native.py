"""The native engine against PyTorch in float64: every kind of network, size, number of threads and instruction set."""

import multiprocessing
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import effnet
from effnet.arch import Stage
from effnet.metadata import Numerics
from effnet.net import EfficientNet
from effnet.runtime import base, native, native_writer

effnet_native = pytest.importorskip("effnet_native", reason="effnet-native is not installed: it needs a C++ compiler")

INSTRUCTION_SETS = effnet_native.instruction_sets()
MAX_ERROR = 2e-5  # of the largest output
ROWS = effnet.ARCHS["b0"].stages


def network(name: str = "b0", classes: int = 10, seed: int = 0, **settings: Any) -> EfficientNet:
    """A network with random weights and random batch-norm statistics."""
    arch = settings.pop("arch", None) or effnet.ARCHS[name]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EfficientNet(arch, classes, **settings).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return model


def noise(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, channels, height, width)).astype(np.float32)


def expected(model: EfficientNet, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        out: np.ndarray = model.double()(torch.from_numpy(images).double()).numpy()
    model.float()
    return out


def opened(model: EfficientNet, threads: int = 1, instruction_set: str = "") -> native.NativeEngine:
    return native.NativeEngine(native_writer.build_plan(model), threads=threads, instruction_set=instruction_set)


def error(out: np.ndarray, reference: np.ndarray) -> float:
    assert out.shape == reference.shape
    return float(np.abs(out - reference).max() / np.abs(reference).max())


# Squeeze-excite or none, fused or not, each activation, kernels of 3 and 5, pruned rows, an unexpanded fused row
NETWORKS = ("b0", "lite0", "v2_b0", "edgetpu-s", "mobilenetv2_100", "tinynet_e")


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name in effnet.ARCHS])
def test_networks(name: str, padding: str) -> None:
    model = network(name, numerics=Numerics(padding=padding))
    for size in ((64, 64), (97, 71)):
        images = noise(1, *size)
        reference = expected(model, images)
        for instruction_set in INSTRUCTION_SETS:
            assert error(opened(model, 1, instruction_set).run(images), reference) < MAX_ERROR


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name, arch in effnet.ARCHS.items() if arch.resolution <= 800])
def test_family(name: str) -> None:
    model = network(name)
    side = min(effnet.ARCHS[name].resolution, 380)
    for size in ((side, side), (side // 2 + 1, side // 3)):
        images = noise(1, *size)
        reference = expected(model, images)
        for instruction_set in INSTRUCTION_SETS:
            engine = opened(model, 2, instruction_set)
            assert error(engine.run(images), reference) < MAX_ERROR


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_same_bits_for_any_number_of_threads(instruction_set: str) -> None:
    model = network("tinynet_e")
    images = noise(5, 75, 64)
    one = opened(model, 1, instruction_set).run(images)
    for threads in (2, 3, 5, 8):
        assert (opened(model, threads, instruction_set).run(images) == one).all()
    assert (opened(model, 2, instruction_set).run(images[3:4]) == one[3:4]).all()


def test_many_callers_get_the_bits_of_one() -> None:
    engine = opened(network("b0"), 2)
    inputs = [noise(1 + i % 3, 33 + 7 * (i % 4), 40) for i in range(12)]
    alone = [engine.run(images) for images in inputs]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda i: (engine.run(inputs[i % 12]) == alone[i % 12]).all(), range(120)))
    assert all(results)


def test_inputs() -> None:
    """Bytes, floats and normalized floats give the same; so do the embedding and the features."""
    model = network("b0", classes=5)
    engine, eager = opened(model, 2), effnet.engine(model, "eager")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 50, 61, 3), np.uint8)
    for images in (pixels, pixels.astype(np.float32), base.to_normalized(pixels, model.preprocess)):
        assert error(engine.run(images), eager.run(images)) < MAX_ERROR
        assert error(engine.embed(images), eager.embed(images)) < MAX_ERROR
    with torch.inference_mode():
        maps = model.features(torch.from_numpy(base.to_normalized(pixels, model.preprocess)))
    found = engine.features(pixels)
    assert list(found) == list(maps)
    assert all(error(found[name], each.numpy()) < MAX_ERROR for name, each in maps.items())


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_channels(channels: int) -> None:
    model = network("b0", channels=channels)
    images = noise(1, 40, 40, channels)
    assert error(opened(model, 2).run(images), expected(model, images)) < MAX_ERROR


@pytest.mark.parametrize("classes", [0, 1, 17, 1000])
def test_classes(classes: int) -> None:
    model = network("lite0", classes)
    images = noise(1, 32, 32)
    engine = opened(model)
    assert engine.classes == classes
    assert error(engine.run(images), expected(model, images)) < MAX_ERROR


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 5), (7, 300), (31, 33)])
def test_sizes(size: tuple[int, int]) -> None:
    for name in ("b0", "v2_b0"):
        model = network(name)
        images = noise(1, *size)  # (a width of 3 would make it an image of 3 channels)
        reference = expected(model, images)
        for instruction_set in INSTRUCTION_SETS:
            assert error(opened(model, 2, instruction_set).run(images), reference) < MAX_ERROR


def test_odd_rows() -> None:
    """What no published network has but an `Arch` may: other kernels, a squeezed fused row, a strided 1 × 1."""
    stages = (
        replace(ROWS[0], kernel=7),
        Stage("fused", 1, 3, 2, 24, 1, squeeze=0.25),
        Stage("fused", 4, 5, 1, 24, 2, squeeze=0.5),
        Stage("mbconv", 3, 1, 2, 40, 1),
        Stage("mbconv", 2, 9, 1, 40, 2, squeeze=0.25),
    )
    model = network(arch=replace(effnet.ARCHS["b0"], stages=stages, stem_stride=1, divisor=1, stem=5, head=33))
    images = noise(2, 29, 43)
    for instruction_set in INSTRUCTION_SETS:
        assert error(opened(model, 3, instruction_set).run(images), expected(model, images)) < MAX_ERROR


def test_a_first_block_that_passes_over_columns() -> None:
    stages = (Stage("mbconv", 1, 1, 2, 8, 1), Stage("mbconv", 2, 1, 2, 8, 1), Stage("fused", 2, 1, 2, 8, 1))
    model = network(arch=replace(effnet.ARCHS["b0"], stages=stages, divisor=1))
    for size in ((7, 8), (31, 40), (6, 5)):
        images = noise(1, *size)
        assert error(opened(model, 3).run(images), expected(model, images)) < MAX_ERROR


def test_a_first_block_that_adds_the_stem() -> None:
    """The stem's map must exist then; elsewhere the first block makes its rows as it needs them."""
    model = network(arch=replace(effnet.ARCHS["b0"], stages=(Stage("mbconv", 1, 3, 1, 8, 2),), stem=8, divisor=1))
    images, engine = noise(1, 40, 40), opened(model, 2)
    engine.run(images + 1)  # what it leaves in the maps must not be added
    assert error(engine.run(images), expected(model, images)) < MAX_ERROR


rows = st.builds(
    Stage,
    st.sampled_from(["mbconv", "fused"]),
    st.integers(1, 4),
    st.sampled_from([1, 3, 5, 7]),
    st.integers(1, 2),
    st.integers(1, 60),
    st.integers(1, 2),
    squeeze=st.sampled_from([0.0, 0.25, 1.0]),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=4),
    st.sampled_from(["silu", "relu", "relu6"]),
    st.sampled_from(["same", "symmetric"]),
    st.tuples(st.integers(1, 50), st.integers(4, 50)),  # a width of 3 would make it an image of three channels
    st.integers(1, 4),
)
def test_any_network(stages: list[Stage], activation: str, padding: str, size: tuple[int, int], threads: int) -> None:
    arch = replace(effnet.ARCHS["b0"], stages=tuple(stages), activation=activation, divisor=1, stem=9, head=40)
    model = network(arch=arch, numerics=Numerics(padding=padding))
    images = noise(1, *size)
    reference = expected(model, images)
    for instruction_set in INSTRUCTION_SETS:
        assert error(opened(model, threads, instruction_set).run(images), reference) < MAX_ERROR


def _run_in_child(engine: native.NativeEngine, images: np.ndarray, queue: Any) -> None:
    queue.put(engine.run(images))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork() -> None:
    engine, images = opened(network("b0"), 2), noise(3, 48, 48)
    before = engine.run(images)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_in_child, args=(engine, images, queue))
    child.start()
    assert (queue.get(timeout=120) == before).all()
    child.join()
    assert (engine.run(images) == before).all()


def test_saved_plan(tmp_path: Path) -> None:
    model, images = network("v2_b0"), noise(1, 40, 40)
    path = tmp_path / "network.effplan"
    native_writer.write_plan(path, model)
    engine = effnet.engine(path)
    assert isinstance(engine, native.NativeEngine)
    assert engine.metadata == model.metadata
    assert (engine.run(images) == opened(model).run(images)).all()


def test_damaged_plans(tmp_path: Path) -> None:
    path = tmp_path / "network.effplan"
    native_writer.write_plan(path, network("lite0"))
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    for index in range(60):
        damaged = bytearray(content)
        if index % 3 == 0:
            damaged = damaged[: random.integers(len(content))]
        else:
            where = int(random.integers(len(content) if index % 3 == 1 else 3000))
            damaged[where] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            native.NativeEngine(path)


def test_refused_plans() -> None:
    """Lying operations and weights are refused by the library itself, which checks what it is given."""
    plan = native_writer.build_plan(network("b0"))

    def refuse(ops: np.ndarray, weights: np.ndarray, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            effnet_native.Engine(ops, weights, "silu", 1)

    refuse(plan.ops, plan.weights[:-1], "too few weights")
    refuse(plan.ops, np.append(plan.weights, np.float32(0)), "more weights")
    refuse(plan.ops[:0], plan.weights, "no layers")
    for value in (np.nan, np.inf):
        weights = plan.weights.copy()
        weights[1000] = value
        refuse(plan.ops, weights, "not finite")
    random = np.random.default_rng(0)
    for _ in range(300):
        ops = plan.ops.copy()
        row, column = random.integers(ops.shape[0]), random.integers(ops.shape[1])
        ops[row, column] = random.choice([-1, 0, 1, 2, 3, 7, 100, 2**16, 2**31 - 1, -(2**31)])
        try:
            engine = effnet_native.Engine(ops, plan.weights, "silu", 1)
        except ValueError:
            continue
        engine.run(noise(1, 16, 16, engine.channels))
    with pytest.raises(ValueError, match="unknown instruction set"):
        effnet_native.Engine(plan.ops, plan.weights, "silu", 1, "sse")
    with pytest.raises(ValueError, match="threads"):
        effnet_native.Engine(plan.ops, plan.weights, "silu", 0)


@pytest.mark.parametrize("value", [0.0, 1e-40, 1e30, -1e30, np.nan, np.inf])
def test_extreme_pixels(value: float) -> None:
    """No input crashes; NaN is not turned into an answer."""
    images = noise(1, 32, 32)
    images[0, :, 5:9, 3] = value
    out = opened(network("b0"), 2).run(images)
    assert np.isfinite(value) or not np.isfinite(out).all() or value == np.inf


def test_refused_images() -> None:
    engine = opened(network("b0"))
    for images in (noise(1, 8, 8, 4), np.zeros((1, 8, 8, 3, 1), np.float32), np.zeros((0, 8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="images must"):
            engine.run(images)
    with pytest.raises(ValueError, match="bfloat16"):
        native.NativeEngine(native_writer.build_plan(network("lite0")), precision="bfloat16")
