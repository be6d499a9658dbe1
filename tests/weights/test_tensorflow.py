"""TensorFlow's checkpoints, judged by TensorFlow: what it writes we read, what we write it reads."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.nn import functional as F

from effnet.arch import ARCHS, tensor_shapes
from effnet.metadata import Numerics
from effnet.net import EfficientNet, FusedMBConv, create
from effnet.weights import convert, defaults, load, save
from effnet.weights import key_maps as layout
from effnet.weights.conversion import drop_batch_counters, key_map, layout_shapes
from effnet.weights.detect import detect_layouts
from effnet.weights.formats import read_checkpoint
from effnet.weights.formats import tensorflow as formatted
from effnet.weights.formats.tensorflow import encode_field
from tests.quiet_tensorflow import tensorflow

tf = tensorflow()


NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def prefix(path: Path) -> str:
    return str(path.with_suffix(""))


def put(path: Path, weights: dict[str, Any], slices: dict[str, str] | None = None) -> Path:
    """A checkpoint by TensorFlow."""
    tf.raw_ops.SaveV2(
        prefix=prefix(path),
        tensor_names=list(weights),
        shape_and_slices=[(slices or {}).get(name, "") for name in weights],
        tensors=list(weights.values()),
    )
    return path


@pytest.fixture
def model() -> EfficientNet:
    """A small network in which every number differs from its default."""
    torch.manual_seed(0)
    network = create("nano", classes=3).eval()
    with torch.no_grad():
        for value in drop_batch_counters(network.state_dict()).values():
            value.uniform_(0.1, 0.9)
    return network


def same(found: EfficientNet, expected: EfficientNet) -> bool:
    theirs = drop_batch_counters(expected.state_dict())
    return all(torch.equal(value, theirs[name]) for name, value in drop_batch_counters(found.state_dict()).items())


# Names -----------------------------------------------------------------------------------------------------------

# tensorflow/tpu efficientnet_model.py, as lukemelas' load_tf_weights.py lists them for B0: variable → shape
B0 = {
    "stem/conv2d/kernel": (3, 3, 3, 32),
    "blocks_0/depthwise_conv2d/depthwise_kernel": (3, 3, 32, 1),
    "blocks_0/tpu_batch_normalization/gamma": (32,),
    "blocks_0/se/conv2d/kernel": (1, 1, 32, 8),
    "blocks_0/se/conv2d/bias": (8,),
    "blocks_0/se/conv2d_1/kernel": (1, 1, 8, 32),
    "blocks_0/se/conv2d_1/bias": (32,),
    "blocks_0/conv2d/kernel": (1, 1, 32, 16),
    "blocks_0/tpu_batch_normalization_1/moving_mean": (16,),
    "blocks_1/conv2d/kernel": (1, 1, 16, 96),
    "blocks_1/tpu_batch_normalization/beta": (96,),
    "blocks_1/depthwise_conv2d/depthwise_kernel": (3, 3, 96, 1),
    "blocks_1/tpu_batch_normalization_1/moving_variance": (96,),
    "blocks_1/se/conv2d/kernel": (1, 1, 96, 4),
    "blocks_1/se/conv2d_1/kernel": (1, 1, 4, 96),
    "blocks_1/conv2d_1/kernel": (1, 1, 96, 24),
    "blocks_1/tpu_batch_normalization_2/gamma": (24,),
    "head/conv2d/kernel": (1, 1, 320, 1280),
    "head/tpu_batch_normalization/moving_mean": (1280,),
    "head/dense/kernel": (1280, 1000),
    "head/dense/bias": (1000,),
}


# the same file's MBConvBlockWithoutDepthwise, as mmpretrain's efficientnet_to_mmpretrain.py expects it
EDGE_S = {
    "blocks_0/conv2d/kernel": (3, 3, 32, 96),
    "blocks_0/tpu_batch_normalization/gamma": (96,),
    "blocks_0/conv2d_1/kernel": (1, 1, 96, 24),
    "blocks_0/tpu_batch_normalization_1/gamma": (24,),
    "blocks_7/conv2d/kernel": (1, 1, 48, 384),
    "blocks_7/depthwise_conv2d/depthwise_kernel": (5, 5, 384, 1),
    "blocks_7/conv2d_1/kernel": (1, 1, 384, 96),
}


# google/automl effnetv2_model.py FusedMBConvBlock, as sebastian-sz' convert_weights.py expects it
V2_S = {
    "blocks_0/conv2d/kernel": (3, 3, 24, 24),
    "blocks_0/tpu_batch_normalization/gamma": (24,),
    "blocks_2/conv2d/kernel": (3, 3, 24, 96),
    "blocks_2/tpu_batch_normalization/gamma": (96,),
    "blocks_2/conv2d_1/kernel": (1, 1, 96, 48),
    "blocks_2/tpu_batch_normalization_1/gamma": (48,),
    "blocks_10/se/conv2d/kernel": (1, 1, 256, 16),
}


@pytest.mark.parametrize(("name", "facts"), [("b0", B0), ("edge_s", EDGE_S), ("v2_s", V2_S)])
def test_variables_are_called_as_in_the_official_code(name: str, facts: dict[str, tuple[int, ...]]) -> None:
    found = layout_shapes("tensorflow", ARCHS[name])
    assert {variable: found.get(variable) for variable in facts} == facts


def test_blocks_have_no_other_variables() -> None:
    def of(name: str, block: int) -> set[str]:
        start = f"blocks_{block}/"
        found = {
            each.removeprefix(start) for each in key_map("tensorflow", ARCHS[name]).values() if each.startswith(start)
        }
        return {each for each in found if each.rpartition("/")[2] not in NORM[1:]}

    ends = {"tpu_batch_normalization/gamma", "conv2d/kernel"}
    squeeze = {f"se/conv2d{count}/{part}" for count in ("", "_1") for part in ("kernel", "bias")}
    second = {"tpu_batch_normalization_1/gamma", "conv2d_1/kernel"}
    depthwise = "depthwise_conv2d/depthwise_kernel"
    third = "tpu_batch_normalization_2/gamma"
    assert of("v2_s", 0) == ends
    assert of("edge_s", 0) == of("v2_s", 2) == ends | second
    assert of("b0", 0) == ends | squeeze | {depthwise, "tpu_batch_normalization_1/gamma"}
    assert of("lite0", 1) == ends | second | {depthwise, third}
    assert of("b0", 1) == ends | second | squeeze | {depthwise, third}


# Stem and head 12 with the classifier; MBConv 19, 14 unexpanded, less 4 without squeeze-excite; fused 10, 5 unexpanded
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("b0", 12 + 14 + 15 * 19),
        ("lite0", 12 + 10 + 15 * 15),
        ("edge_s", 12 + 7 * 10 + 11 * 15),
        ("v2_b0", 12 + 5 + 4 * 10 + 16 * 19),
        ("v2_s", 12 + 2 * 5 + 8 * 10 + 30 * 19),
    ],
)
def test_as_many_variables_as_the_official_network(name: str, count: int) -> None:
    assert len(set(key_map("tensorflow", ARCHS[name]).values())) == count == len(tensor_shapes(ARCHS[name]))


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("b0", "efficientnet-b0"),
        ("l2", "efficientnet-l2"),
        ("lite4", "efficientnet-lite4"),
        ("edge_s", "efficientnet-edgetpu-S"),
        ("v2_xl", "efficientnetv2-xl"),
        ("v2_b3", "efficientnetv2-b3"),
        ("my own/φ 0.5", "efficientnet-my-own-0.5"),
    ],
)
def test_networks_are_called_as_the_official_ones(name: str, scope: str) -> None:
    assert formatted.variable_scope(name) == scope


@pytest.mark.parametrize("name", [name for name in ARCHS if name != "nano"])
def test_every_network_is_recognised_by_its_variables(name: str) -> None:
    variables = layout_shapes("tensorflow", ARCHS[name], 1001)
    tensors = {
        f"{formatted.variable_scope(name)}/{each}": torch.empty(shape, device="meta")
        for each, shape in variables.items()
    }
    assert [(each.layout, each.arch.name, each.classes) for each in detect_layouts(tensors)] == [
        ("tensorflow", name, 1001)
    ]


# TensorFlow writes -----------------------------------------------------------------------------------------------
def test_a_checkpoint_of_a_training_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A real graph of TensorFlow 1, with its own averages, optimiser, counter and Saver."""
    path, v1 = tmp_path / "model.ckpt-7.index", tf.compat.v1
    fused, *_, mbconv = ARCHS["nano"].stages
    model = create(replace(ARCHS["nano"], name="tiny", stages=(fused, replace(mbconv, layers=1)))).eval()
    tensors = convert(drop_batch_counters(model.state_dict()), model.arch, "effnet", "tensorflow")
    v1.logging.set_verbosity(v1.logging.ERROR)
    with tf.Graph().as_default(), v1.Session() as session:
        zeros, variables = v1.zeros_initializer(), {}
        with v1.variable_scope("efficientnet-tiny"):
            for name, tensor in tensors.items():
                trainable = "moving" not in name
                variables[name] = v1.get_variable(name, tensor.shape, initializer=zeros, trainable=trainable)
        step = v1.train.get_or_create_global_step()
        average = tf.train.ExponentialMovingAverage(0.99, step)
        average.apply(list(variables.values()))
        loss = tf.add_n([tf.reduce_sum(variable) for variable in v1.trainable_variables()])
        v1.train.RMSPropOptimizer(0.1, 0.9, 0.9, 1e-3).minimize(loss, step)
        session.run(v1.global_variables_initializer())
        for name, tensor in tensors.items():
            ema = average.average(variables[name])
            session.run(ema.initializer, {ema.initializer.inputs[1]: tensor.numpy()})
        v1.train.Saver().save(session, prefix(path), write_meta_graph=False, write_state=False)
    stored = set(tf.train.load_checkpoint(prefix(path)).get_variable_to_shape_map())
    assert {"global_step", "efficientnet-tiny/stem/conv2d/kernel/RMSProp_1"} < stored
    assert len(stored) == 1 + 2 * len(tensors) + 2 * sum("moving" not in name for name in tensors)
    with caplog.at_level(logging.WARNING, "effnet"):
        found = load(path, arch=model.arch)
    assert same(found, model)
    assert (found.provenance.layout, found.numerics) == ("tensorflow", Numerics())
    assert f"using the moving averages of {len(tensors)} of its {len(tensors)} variables" in caplog.text


def test_averages_are_taken_where_there_are_any() -> None:
    raw, average = torch.zeros(2), torch.ones(2)
    weights = {
        "n/stem/conv2d/kernel": raw,
        "n/stem/conv2d/kernel/ExponentialMovingAverage": average,
        "n/head/dense/bias": raw,
    }
    tidied = layout.clean_tensorflow(
        {**weights, "n/head/dense/bias/Momentum": average, "n/beta1_power": raw, "global_step": raw}
    )
    assert {name: tensor.sum().item() for name, tensor in tidied.tensors.items()} == {
        "stem/conv2d/kernel": 2,
        "head/dense/bias": 0,
    }
    assert tidied.notes == ("using the moving averages of 1 of its 2 variables",)
    assert not layout.clean_tensorflow({"n/head/dense/bias": raw}).notes
    assert list(layout.clean_tensorflow({"n/head/dense/bias/ExponentialMovingAverage": raw}).tensors) == [
        "head/dense/bias"
    ]


@pytest.mark.parametrize("before", ["", "efficientnet-b0/", "model/encoder/net/"])
def test_any_scope_and_any_batch_norm(before: str, model: EfficientNet, tmp_path: Path) -> None:
    tensors = convert(drop_batch_counters(model.state_dict()), model.arch, "effnet", "tensorflow")
    plain = {before + name.replace("tpu_batch", "batch"): tensor.numpy() for name, tensor in tensors.items()}
    assert same(load(put(tmp_path / "m.index", plain)), model)


def test_variables_of_another_network_are_left_aside(
    model: EfficientNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = convert(drop_batch_counters(model.state_dict()), model.arch, "effnet", "tensorflow")
    tensors = {f"n/{name}": tensor.numpy() for name, tensor in tensors.items()} | {
        "box_net/kernel": numpy.zeros(3, "f")
    }
    with caplog.at_level(logging.WARNING, "effnet"):
        assert same(load(put(tmp_path / "m.index", tensors), arch="nano"), model)
    assert "left aside: box_net/kernel" in caplog.text


def test_a_network_without_a_head(tmp_path: Path) -> None:
    headless = create("nano", classes=0).eval()
    found = load(save(headless, tmp_path / "m.index", "tensorflow"))
    assert found.classes == 0
    assert same(found, headless)
    assert (
        "efficientnet-nano/head/dense/kernel"
        not in tf.train.load_checkpoint(str(tmp_path / "m")).get_variable_to_shape_map()
    )


def test_all_kinds_of_numbers_in_several_files(tmp_path: Path) -> None:
    chance = numpy.random.default_rng(0)
    floats = {
        dtype: tf.cast(chance.normal(size=(3, 5, 2)), dtype) for dtype in ("float16", "bfloat16", "float32", "float64")
    }
    first = {"a flag": tf.constant([True, False, True]), **{f"b/{dtype}": value for dtype, value in floats.items()}}
    second = {f"c/{count:05d}": tf.constant(count, tf.float32) for count in range(9000)}  # an index of several blocks
    third = {"d": tf.constant(7, tf.int64), "e": tf.constant(["a text"]), "f": tf.zeros((0, 4))}
    parts = [put(tmp_path / f"{count}.index", part) for count, part in enumerate((first, second, third))]
    path = tmp_path / "m.index"
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[prefix(part) for part in parts], destination_prefix=prefix(path), allow_missing_files=False
    )
    assert len(list(tmp_path.glob("m.data-*-of-00003"))) == 3
    found, theirs = read_checkpoint(path).tensors, tf.train.load_checkpoint(prefix(path))
    assert set(found) == {*second, *(name for name in first if name.startswith("b/"))}
    for name, tensor in found.items():
        expected = theirs.get_tensor(name)
        assert tensor.dtype == getattr(torch, expected.dtype.name)
        assert tuple(tensor.shape) == expected.shape
        assert numpy.array_equal(tensor.double().numpy(), expected.astype("float64"))


# We write --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensorflow_reads_what_we_write(dtype: torch.dtype, model: EfficientNet, tmp_path: Path) -> None:
    path = save(model.to(dtype), tmp_path / "new" / "model.ckpt.index", "tensorflow")
    assert sorted(each.name for each in path.parent.iterdir()) == ["model.ckpt.data-00000-of-00001", path.name]
    reader = tf.train.load_checkpoint(prefix(path))
    tensors = convert(drop_batch_counters(model.state_dict()), model.arch, "effnet", "tensorflow")
    assert set(reader.get_variable_to_shape_map()) == {f"efficientnet-nano/{name}" for name in tensors}
    for name, tensor in tensors.items():
        variable = reader.get_tensor(f"efficientnet-nano/{name}")  # TensorFlow compares the checksum
        assert variable.dtype.name == str(dtype).removeprefix("torch.")
        assert torch.equal(torch.from_numpy(variable.astype("float32")), tensor.detach().float())


def test_a_network_of_the_family_round(tmp_path: Path) -> None:
    model = create("edge_s", classes=1001, numerics=defaults.tensorflow_numerics(ARCHS["edge_s"])).eval()
    path = save(model, tmp_path / "m.index", "tensorflow")
    found = load(path)
    assert (found.arch.name, found.classes, found.numerics) == ("edge_s", 1001, Numerics(fused_padding="symmetric"))
    assert found.preprocess.resampling == "tensorflow1"
    assert same(found, model)
    again = save(found, tmp_path / "again.index", "tensorflow")
    assert again.read_bytes() == path.read_bytes()
    assert (
        Path(f"{prefix(again)}.data-00000-of-00001").read_bytes()
        == Path(f"{prefix(path)}.data-00000-of-00001").read_bytes()
    )


@pytest.mark.parametrize("name", ["b0", "v2_b0", "edge_s", "lite0"])
def test_there_and_back_again_changes_no_bit(name: str) -> None:
    torch.manual_seed(0)
    tensors = {each: torch.randn(shape) for each, shape in layout_shapes("timm", ARCHS[name], 4).items()}
    there = convert(tensors, ARCHS[name], "timm", "tensorflow")
    back = convert(there, ARCHS[name], "tensorflow", "timm")
    assert set(back) == set(tensors)
    assert all(torch.equal(back[each], tensors[each]) for each in tensors)


@pytest.mark.parametrize("place", ["effnet.weights.formats.tensorflow.write_table", "os.fsync"])
def test_a_failing_write_keeps_the_earlier_checkpoint(
    place: str, model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(model, tmp_path / "m.index", "tensorflow")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(place, fail)
        with pytest.raises(OSError, match="the disk is full; the previous file is unchanged"):
            save(create("nano"), path, "tensorflow")
    assert same(load(path), model)
    assert len(list(tmp_path.iterdir())) == 2


def test_only_an_index_is_written(model: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tensorflow's layout are written to \.index"):
        save(model, tmp_path / "model.ckpt", "tensorflow")


# Numerics --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(12, 16), (11, 16), (13, 9)])
def test_edgetpus_fused_blocks_stride_in_their_projection(size: tuple[int, int]) -> None:
    """A 3×3 convolution at every pixel, then the projection of every other one."""
    assert defaults.tensorflow_numerics(ARCHS["edge_m"]) == Numerics(fused_padding="symmetric")
    assert defaults.tensorflow_numerics(ARCHS["v2_m"]) == defaults.tensorflow_numerics(ARCHS["b0"]) == Numerics()
    fused = FusedMBConv(4, 8, 3, 2, 4, numerics=defaults.tensorflow_numerics(ARCHS["edge_m"])).eval().fused
    x = torch.randn(1, 4, *size)
    expected = fused.activation(fused.norm(F.conv2d(x, fused.conv.weight, padding=1)))[..., ::2, ::2]
    torch.testing.assert_close(fused(x), expected)


# TensorFlow's checkpoints that are cut off, damaged, lie, or are of a kind that is not opened: one sentence each.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Index and data of a good checkpoint."""
    path = save(create("nano", classes=3), tmp_path_factory.mktemp("whole") / "m.index", "tensorflow")
    return path.read_bytes(), Path(f"{prefix(path)}.data-00000-of-00001").read_bytes()


def placed(folder: Path, index: bytes, data: bytes | None) -> Path:
    path = folder / "m.index"
    path.write_bytes(index)
    if data is not None:
        (folder / "m.data-00000-of-00001").write_bytes(data)
    return path


@pytest.mark.parametrize("part", [0, 1], ids=["index", "data"])
def test_cut_off_anywhere(part: int, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    chance, size = random.Random(0), len(whole[part])
    for cut in (0, 1, size - 1, *(chance.randrange(size) for _ in range(100))):
        files = [*whole]
        files[part] = files[part][:cut]
        with pytest.raises(ValueError, match=r"m\.index: not a checkpoint that can be read: "):
            read_checkpoint(placed(tmp_path, *files))


@pytest.mark.parametrize("part", [0, 1], ids=["index", "data"])
def test_flipped_anywhere(part: int, whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(200):
        place = chance.randrange(len(whole[part]))
        files = [bytearray(each) for each in whole]
        files[part][place] ^= 1 << chance.randrange(8)
        if part == 0 and len(files[0]) - 48 <= place < len(files[0]) - 8:
            continue  # most of the footer is filling
        with pytest.raises(ValueError, match=r"m\.index: not a checkpoint that can be read: "):
            read_checkpoint(placed(tmp_path, bytes(files[0]), bytes(files[1])))


def described(dtype: int = 1, sides: tuple[int, ...] = (2,), offset: int = 0, size: int = 8, shard: int = 0) -> bytes:
    shape = b"".join(encode_field(2, encode_field(1, side)) for side in sides)
    return (
        encode_field(1, dtype)
        + encode_field(2, shape)
        + encode_field(3, shard)
        + encode_field(4, offset)
        + encode_field(5, size)
        + encode_field(6, 0, fixed=True)
    )


HEADER = encode_field(1, 1) + encode_field(3, encode_field(1, 1))


@pytest.mark.parametrize(
    ("header", "entry", "reason"),
    [
        (HEADER, described(size=2**40, sides=(2**38,)), "x is cut off"),
        (HEADER, described(size=2**64 - 8), "x is cut off"),
        (HEADER, described(offset=2**64 - 8), "x is cut off"),
        (HEADER, described(dtype=9, size=2**40), "x is cut off"),
        (HEADER, described(sides=(2**40,)), "size of x does not match its shape"),
        (HEADER, described(sides=(2**63, 2**63)), "size of x does not match its shape"),
        (HEADER, described(sides=(1,) * 1000), "size of x does not match its shape"),
        (HEADER, described(sides=(2, 1) * 4 + (1,)), "size of x does not match its shape"),
        (HEADER, described(), "the checksum of x is wrong"),
        (HEADER, described(shard=1), r"m\.data-00001-of-00001 is missing"),
        (encode_field(1, 10**9), described(shard=10**8), r"m\.data-100000000-of-1000000000 is missing"),
        (encode_field(1, 2), described(), r"m\.data-00000-of-00002 is missing"),
        (HEADER, encode_field(1, b"?"), "the entry of x is invalid"),
        (HEADER, encode_field(2, 5), "the entry of x is invalid"),
        (HEADER, b"\xff" * 20, "a number in it has no end"),
        (HEADER, b"\x0b", "of the unknown kind 3"),
        (HEADER, described()[:-2], "a field in it is cut off"),
        (encode_field(1, 1) + encode_field(2, 1), described(), "big-endian"),
    ],
)
def test_an_index_that_lies(header: bytes, entry: bytes, reason: str, tmp_path: Path) -> None:
    path = placed(tmp_path, formatted.write_table([(b"", header), (b"x", entry)]), bytes(16))
    with pytest.raises(ValueError, match=rf"m\.index: not a checkpoint that can be read: .*{reason}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("items", "reason"),
    [([(b"", HEADER), (b"y", b""), (b"x", b"")], "out of order"), ([(b"", HEADER), (b"x" * 5000, b"")], "is invalid")],
)
def test_keys_that_make_no_sense(items: list[tuple[bytes, bytes]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"m\.index: .*{reason}"):
        read_checkpoint(placed(tmp_path, formatted.write_table(items), bytes(16)))


def test_a_compressed_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sealed(block: bytes) -> bytes:
        block += b"\x01"
        return block + formatted.masked_checksum(block).to_bytes(4, "little")

    monkeypatch.setattr(formatted, "_seal_block", sealed)
    with pytest.raises(ValueError, match="its index is compressed"):
        read_checkpoint(placed(tmp_path, formatted.write_table([(b"", HEADER)]), bytes(16)))


def test_an_index_without_its_data(whole: tuple[bytes, bytes], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its data file m\.data-00000-of-00001 is missing"):
        load(placed(tmp_path, whole[0], None))


def first_format(path: Path) -> Path:
    path = path.with_name("model.ckpt-7")
    tf.raw_ops.Save(filename=str(path), tensor_names=["n/stem/conv2d/kernel"], data=[tf.zeros((3, 3, 3, 8))])
    return path


def objects(path: Path) -> Path:
    tf.train.Checkpoint(kernel=tf.Variable(tf.zeros(3))).write(prefix(path))
    return path


def slices(path: Path) -> Path:
    return put(path, {"n/stem/conv2d/kernel": numpy.zeros((2, 2), "f")}, {"n/stem/conv2d/kernel": "4 2 0,2:0,2"})


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (first_format, r"TensorFlow's first, single-file format.* save it again with tf\.compat\.v1\.train\.Saver"),
        (objects, r"a graph of Python objects .* save the network's weights as \.h5"),
        (slices, r"stem/conv2d/kernel is a partitioned variable"),
    ],
)
def test_other_kinds_of_checkpoint_are_refused(write: Callable[[Path], Path], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        read_checkpoint(write(tmp_path / "m.index"))
