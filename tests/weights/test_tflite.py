"""TFLite's files: written for its interpreter, read from every converter, refused with a sentence."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effnet.arch import ARCHS, Arch, tensor_shapes
from effnet.data.preprocessing import normalize
from effnet.metadata import Labels, Numerics, Preprocess, Provenance
from effnet.net import EfficientNet, create
from effnet.weights import load, save
from effnet.weights.conversion import drop_batch_counters, key_map
from effnet.weights.detect import detect_layouts
from effnet.weights.formats import read_checkpoint, tflite_schema
from effnet.weights.formats.graph_facts import UNCLEAR_INPUT, InputPreprocess, InputTransform, infer_preprocess
from effnet.weights.formats.tflite_schema import TfliteGraph, TfliteOperator, TfliteTensor, decode_tflite, encode_tflite

SE = replace(ARCHS["nano"].stages[0], squeeze=0.25)  # squeeze-excite in a fused block that does not expand
NANOS = {
    "silu": ARCHS["nano"],
    "relu6": replace(ARCHS["nano"], activation="relu6"),
    "relu": replace(ARCHS["nano"], activation="relu", stages=(SE, *ARCHS["nano"].stages[1:])),
}


def create_model(arch: str | Arch = "nano", classes: int = 3, numerics: Numerics | None = None) -> EfficientNet:
    """A network in which every number differs from its default."""
    torch.manual_seed(0)
    model = create(arch, classes, numerics=numerics).eval()
    with torch.no_grad():
        for name, value in drop_batch_counters(model.state_dict()).items():
            if ".norm." in name or name.endswith("bias"):
                value.uniform_(0.5, 1.5) if name.endswith(("norm.weight", "var")) else value.normal_(0, 0.1)
    return model


def same(found: EfficientNet, expected: EfficientNet) -> bool:
    theirs = drop_batch_counters(expected.state_dict())
    return all(torch.equal(value, theirs[name]) for name, value in drop_batch_counters(found.state_dict()).items())


def interpreted(path: Path, pictures: torch.Tensor) -> torch.Tensor:
    """What the interpreter answers to pixels (N, H, W, 3)."""
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, tuple(pictures.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, pictures.float().numpy())
    interpreter.invoke()
    return torch.from_numpy(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


# What we write ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b0", "lite0", "edge_s", "v2_b0", *NANOS])
@pytest.mark.parametrize("numerics", [Numerics(), Numerics("symmetric", 1e-5), Numerics("same", 1e-3, "symmetric")])
@torch.no_grad()
def test_the_interpreter_answers_as_we_do(name: str, numerics: Numerics, tmp_path: Path) -> None:
    model = create_model(NANOS.get(name, name), 5, numerics)
    model.preprocess = Preprocess((64, 96), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    path = save(model, tmp_path / "m.tflite", "tflite")
    for size in ((1, 64, 96, 3), (2, 37, 59, 3)):
        pictures = torch.randint(0, 256, size, dtype=torch.uint8)
        assert apart(interpreted(path, pictures), model(normalize(pictures, model.preprocess))) < 1e-5


@torch.no_grad()
def test_without_a_classifier_it_answers_with_the_embedding(tmp_path: Path) -> None:
    model = create_model(classes=0)
    pictures = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    path = save(model, tmp_path / "m.tflite", "tflite")
    assert apart(interpreted(path, pictures), model(normalize(pictures, model.preprocess))) < 1e-5
    assert load(path).classes == 0


@pytest.mark.parametrize("numerics", [Numerics("symmetric", 1e-5), Numerics("same", 1e-3, "symmetric")])
@torch.no_grad()
def test_a_round_trip_keeps_the_contract_and_then_every_bit(numerics: Numerics, tmp_path: Path) -> None:
    model = create_model(replace(ARCHS["nano"], name="mine", width=1.3), 3, numerics)  # recognised by no name
    model.preprocess = Preprocess((40, 48), 0.9, "squash", "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "reduced")
    model.labels = Labels(("Ameise", "蜂", 'a "quoted"\nname'))
    model.provenance = Provenance("somewhere", "timm", "Apache-2.0", ("trained", "again"))
    first = save(model, tmp_path / "a.tflite", "tflite")
    found = load(first)
    for record in ("arch", "numerics", "preprocess", "labels", "provenance", "classes", "channels"):
        assert getattr(found, record) == getattr(model, record), record
    x = torch.rand(2, 3, 40, 48)
    assert apart(found(x), model(x)) < 1e-5  # batch norm is folded into it
    second = save(found, tmp_path / "b.tflite", "tflite")
    assert second.read_bytes() == first.read_bytes()
    assert same(load(second), found)
    with pytest.raises(ValueError, match=r"a\.tflite contains mine, not b0"):
        load(first, arch="b0")


def test_other_tools_find_labels_and_the_range_of_pixels(tmp_path: Path) -> None:
    model = create_model()
    model.labels = Labels(("ant", "bee\nor wasp", "Käfer"))
    path = save(model, tmp_path / "m.tflite", "tflite")
    assert zipfile.ZipFile(path).read("labels.txt").decode().splitlines() == ["ant", "bee or wasp", "Käfer"]
    content = path.read_bytes()
    facts = tflite_schema.read_metadata(decode_tflite(content).metadata["TFLITE_METADATA"], content)
    assert facts.labels == ("ant", "bee or wasp", "Käfer")
    assert facts.mean_std is not None
    assert [value.tolist() for value in facts.mean_std] == [[0], [1]]


def test_buffers_lie_where_the_interpreter_may_compute_in_place(tmp_path: Path) -> None:
    content = save(create_model(), tmp_path / "m.tflite", "tflite").read_bytes()
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    places = [
        each.data.__array_interface__["data"][0] - start
        for each in decode_tflite(content).tensors
        if each.data is not None
    ]
    assert places
    assert all(0 < place < len(content) and place % 16 == 0 for place in places)


def test_a_network_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flatbuffers.Builder.MAX_BUFFER_SIZE", 2**24 + 1000)
    with pytest.raises(ValueError, match="a TFLite file holds at most 2 GiB"):
        save(create_model(), tmp_path / "m.tflite", "tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ARCHS)
def test_every_variant_is_recognised_as_itself_alone(name: str) -> None:
    arch = ARCHS[name]
    table = key_map("tflite", arch)
    shapes = tensor_shapes(arch)
    tensors = {table[ours]: torch.empty(shapes[ours], device="meta") for ours in table}
    for ours, theirs in table.items():
        if tensors[theirs].ndim == 4:
            order = (1, 2, 3, 0) if "depthwise" in ours else (0, 2, 3, 1)
            tensors[theirs] = tensors[theirs].permute(order)
    found = detect_layouts(tensors)
    assert [(each.layout, each.arch.name, each.classes) for each in found] == [("tflite", arch.name, 1000)]


# What others write: our own graph, spelled as they spell it ------------------------------------------------------

Change = Callable[[list[TfliteTensor], list[TfliteOperator]], None]


def foreign(model: EfficientNet, path: Path, change: Change | None = None) -> Path:
    """``model`` as a file of no particular origin: without our header, its picture normalised elsewhere."""
    graph = decode_tflite(save(model, path, "tflite").read_bytes())
    tensors, operators = list(graph.tensors), list(graph.operators)
    before = operators[2].outputs[0]  # behind the three operators that normalise
    tensors[before] = replace(tensors[before], name="input")
    del operators[:3]
    if change:
        change(tensors, operators)
    path.write_bytes(encode_tflite(TfliteGraph(tuple(tensors), tuple(operators), (before,), graph.outputs)))
    return path


def add(tensors: list[TfliteTensor], tensor: TfliteTensor) -> int:
    tensors.append(tensor)
    return len(tensors) - 1


def constant(tensors: list[TfliteTensor], numbers: Any) -> int:
    numbers = np.asarray(numbers, np.float32)
    return add(tensors, TfliteTensor("constant", numbers.shape, "FLOAT32", numbers))


def convolutions(operators: list[TfliteOperator]) -> Iterator[tuple[int, TfliteOperator]]:
    """Each convolution with its place, from the last to the first, so that others may be put behind it."""
    for place in reversed(range(len(operators))):
        if operators[place].kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            yield place, operators[place]


def behind(tensors: list[TfliteTensor], operators: list[TfliteOperator], place: int, kind: str, by: int) -> None:
    """Puts an operator with a constant behind the one at ``place``, whose fused activation moves to it."""
    operator = operators[place]
    (out,) = operator.outputs
    between = add(tensors, replace(tensors[out], name="between"))
    fused = operator.options["FusedActivationFunction"]
    operators[place] = replace(operator, outputs=(between,), options={**operator.options, "FusedActivationFunction": 0})
    operators.insert(place + 1, TfliteOperator(kind, (between, by), (out,), {"FusedActivationFunction": fused}))


def batch_norm_beside(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
    for place, operator in convolutions(operators):
        x, weight, bias = operator.inputs
        kernel, numbers = tensors[weight].data, tensors[bias].data
        assert kernel is not None
        assert numbers is not None
        axis = -1 if operator.kind == "DEPTHWISE_CONV_2D" else 0
        scale = np.linspace(0.5, 2, kernel.shape[axis], dtype=np.float32)
        spread = scale if axis else scale.reshape(-1, *(1,) * (kernel.ndim - 1))
        inputs = x, constant(tensors, kernel / spread), constant(tensors, np.ones_like(numbers))
        operators[place] = replace(operator, inputs=inputs)
        behind(tensors, operators, place, "ADD", constant(tensors, numbers - scale))
        behind(tensors, operators, place, "MUL", constant(tensors, scale[None]))


def biases_beside(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
    for index, (place, operator) in enumerate(convolutions(operators)):
        x, weight, bias = operator.inputs
        operators[place] = replace(operator, inputs=(x, weight, -1) if index % 2 else (x, weight))
        numbers = tensors[bias].data
        assert numbers is not None
        kind, by = ("ADD", numbers) if index % 3 else ("SUB", -numbers)
        behind(tensors, operators, place, kind, constant(tensors, by))


def squeezed_by_linear_maps(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
    """Squeeze-excite of 1×1 convolutions as linear maps, the classifier as a convolution."""
    for place, operator in convolutions(operators):
        x, weight, bias = operator.inputs
        kernel = tensors[weight].data
        assert kernel is not None
        if operator.kind == "FULLY_CONNECTED":
            kernel = kernel[:, None, None, :]
            options = {"Padding": 1, "StrideW": 1, "StrideH": 1, "DilationWFactor": 1, "DilationHFactor": 1}
            inputs = x, constant(tensors, kernel), bias
            operators[place] = TfliteOperator("CONV_2D", inputs, operator.outputs, options)
        elif "squeeze_excite" in tensors[weight].name:
            inputs = x, constant(tensors, kernel[:, 0, 0, :]), bias
            options = {"FusedActivationFunction": operator.options["FusedActivationFunction"]}
            operators[place] = TfliteOperator("FULLY_CONNECTED", inputs, operator.outputs, options)


def activations_apart(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
    """RELU6 as RELU and a MINIMUM, as Qualcomm's exporter writes it."""
    for place, operator in convolutions(operators):
        if operator.options["FusedActivationFunction"]:
            options = {**operator.options, "FusedActivationFunction": 1}
            between = add(tensors, replace(tensors[operator.outputs[0]], name="between"))
            operators[place] = replace(operator, outputs=(between,), options=options)
            operators.insert(place + 1, TfliteOperator("MINIMUM", (between, constant(tensors, 6)), operator.outputs))


def padded_by_hand(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
    """'Same' padding as Keras writes it: one row less at the top of an even map."""
    for place, operator in convolutions(operators):
        options = operator.options
        if options.get("StrideW") == 2:
            numbers = np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32)
            around = add(tensors, TfliteTensor("around", (4, 2), "INT32", numbers))
            padded = add(tensors, TfliteTensor("padded", (1, 0, 0, 0)))
            valid = {**options, "Padding": 1}
            operators[place] = replace(operator, inputs=(padded, *operator.inputs[1:]), options=valid)
            operators.insert(place, TfliteOperator("PAD", (operator.inputs[0], around), (padded,)))


def in_half_precision(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
    """Weights of float16, each behind an operator that widens it."""
    for index, tensor in enumerate(list(tensors)):
        if tensor.data is not None and tensor.type == "FLOAT32":
            stored = add(tensors, TfliteTensor("half", tensor.shape, "FLOAT16", tensor.data.astype(np.float16)))
            tensors[index] = replace(tensor, data=None)
            operators.insert(0, TfliteOperator("DEQUANTIZE", (stored,), (index,)))


@pytest.mark.parametrize(
    ("arch", "change", "limit"),
    [
        ("silu", None, 0),
        ("silu", batch_norm_beside, 2e-6),
        ("relu6", batch_norm_beside, 2e-6),
        ("relu", biases_beside, 0),
        ("silu", biases_beside, 0),
        ("silu", squeezed_by_linear_maps, 0),
        ("relu", squeezed_by_linear_maps, 0),
        ("relu6", activations_apart, 0),
        ("silu", padded_by_hand, 0),
        ("silu", in_half_precision, 2**-11),
    ],
)
@torch.no_grad()
def test_other_spellings_are_the_same_network(arch: str, change: Change | None, limit: float, tmp_path: Path) -> None:
    model = load(save(create_model(NANOS[arch]), tmp_path / "own.tflite", "tflite"))
    found = load(foreign(model, tmp_path / "m.tflite", change), arch=NANOS[arch])
    assert found.numerics == Numerics()
    assert found.preprocess.size == (32, 32)
    for name, value in drop_batch_counters(model.state_dict()).items():
        assert apart(drop_batch_counters(found.state_dict())[name], value) <= limit if value.any() else True, name


def test_symmetric_padding_is_seen(tmp_path: Path) -> None:
    assert (
        load(foreign(create_model(numerics=Numerics("symmetric")), tmp_path / "m.tflite")).numerics.padding
        == "symmetric"
    )
    mixed = Numerics("same", fused_padding="symmetric")
    assert load(foreign(create_model("edge_s", numerics=mixed), tmp_path / "e.tflite")).numerics == mixed


def replaced(kind: str, by: str) -> Change:
    def change(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
        operators[:] = [replace(each, kind=by) if each.kind == kind else each for each in operators]

    return change


def with_option(**options: int) -> Change:
    def change(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
        operators[0] = replace(operators[0], options={**operators[0].options, **options})

    return change


def with_stored(kind: str) -> Change:
    def change(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
        index = operators[0].inputs[1]
        tensors[index] = replace(tensors[index], type=kind)

    return change


def scaled_behind_the_activation(tensors: list[TfliteTensor], operators: list[TfliteOperator]) -> None:
    behind(tensors, operators, 0, "MUL", constant(tensors, [2.0]))
    operators[:2] = [with_fused(operators[0], 1), with_fused(operators[1], 0)]


def with_fused(operator: TfliteOperator, activation: int) -> TfliteOperator:
    return replace(operator, options={**operator.options, "FusedActivationFunction": activation})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (replaced("LOGISTIC", "HARD_SWISH"), "a network with HARD_SWISH, which no EfficientNet has"),
        (replaced("LOGISTIC", "VAR_HANDLE"), "its weights are variables: convert it from a frozen function"),
        (with_option(DilationHFactor=2), "a dilated convolution"),
        (with_option(StrideW=2), "no square of this family"),
        (with_option(Padding=1), "padded by .*, as no EfficientNet is"),
        (with_stored("INT4"), "its weights are stored as INT4, which is not read here"),
        (scaled_behind_the_activation, "MUL of an activated map by constants"),
        (lambda tensors, operators: operators.clear(), "there are no convolutions in it"),
        (with_option(StrideW=2, StrideH=2), "tensors are those of no known EfficientNet"),
        (with_option(FusedActivationFunction=3), "tensors are those of no known EfficientNet"),
        (replaced("LOGISTIC", "ABS"), "tensors are those of no known EfficientNet"),
    ],
)
def test_another_network_is_refused_with_a_sentence(change: Change, sentence: str, tmp_path: Path) -> None:
    path = foreign(create_model(), tmp_path / "m.tflite", change)
    with pytest.raises(ValueError, match=rf"m\.tflite: .*{sentence}"):
        load(path)


# What a file says of its pictures --------------------------------------------------------------------------------

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FLOAT, BYTES = TfliteTensor("x", (1, 20, 30, 3)), TfliteTensor("x", (1, 20, 30, 3), "UINT8", None, (1 / 128,), (127,))


def seen(*operators: tuple[str, Any]) -> InputTransform:
    """What the stem sees behind these operators and their constants."""
    picture = InputTransform()
    for kind, by in operators:
        picture = picture.then(kind, np.atleast_1d(np.float32(by)))
    return picture


def infer(source: TfliteTensor, picture: InputTransform | None, mean_std: Any, channels: int) -> InputPreprocess:
    quantization = (source.scale or (1.0,))[0], (source.zero_point or (0,))[0]
    return infer_preprocess(source.type, source.shape, quantization, picture, mean_std, channels)


@pytest.mark.parametrize(
    ("source", "picture", "normalised", "mean", "std", "factor"),
    [
        # In the graph, as Keras', TensorFlow's and our files have it; then with the division moved into the stem
        (FLOAT, seen(("MUL", 1 / 255), ("SUB", MEAN), ("DIV", STD)), None, MEAN, STD, 1),
        (FLOAT, seen(("DIV", 128), ("ADD", -1)), None, 128 / 255, 128 / 255, 1),
        (FLOAT, seen(("SUB", MEAN), ("DIV", STD)), None, MEAN, STD, 1),  # of an input of 0 … 1
        (FLOAT, seen(("MUL", 1 / 255), ("SUB", MEAN)), None, MEAN, STD, STD),
        (FLOAT, seen(("SUB", 127)), None, 127 / 255, 128 / 255, 128),
        # In the metadata
        (FLOAT, seen(), (127, 128), 127 / 255, 128 / 255, 1),
        (FLOAT, seen(), (MEAN * 255, STD * 255), MEAN, STD, 1),
        (FLOAT, seen(("MUL", 255), ("ADD", -127)), (0, 255), 127 / 255, 128 / 255, 128),
        # In the quantisation of the input
        (BYTES, seen(), None, 127 / 255, 128 / 255, 1),
        (replace(BYTES, type="INT8", zero_point=(-1,)), seen(), None, 127 / 255, 128 / 255, 1),
        (replace(BYTES, scale=(), zero_point=()), seen(("SUB", 100)), None, 100 / 255, 1 / 255, 1),
    ],
)
def test_normalisation_is_read(
    source: TfliteTensor, picture: InputTransform, normalised: Any, mean: Any, std: Any, factor: Any
) -> None:
    mean_std = normalised and (np.atleast_1d(np.float64(normalised[0])), np.atleast_1d(np.float64(normalised[1])))
    found = infer(source, picture, mean_std, 3)
    assert found.preprocess["size"] == (20, 30)
    assert found.preprocess["mean"] == tuple(np.broadcast_to(mean, 3))  # exactly: .485, not a float32 near it
    assert found.preprocess["std"] == pytest.approx(tuple(np.broadcast_to(std, 3)), rel=1e-7)
    np.testing.assert_allclose(found.stem_factor, factor, 1e-6)
    assert len(found.notes) == int(np.any(found.stem_factor != 1))


@pytest.mark.parametrize("picture", [None, seen(("MUL", 3)), seen(("MUL", 0))])
def test_a_normalisation_that_is_not_understood_is_said_to_be(picture: InputTransform | None) -> None:
    found = infer(FLOAT, picture, None, 3)
    assert (found.preprocess, found.notes) == ({"size": (20, 30)} if picture else {}, (UNCLEAR_INPUT,))


def test_a_plain_input_says_nothing_but_its_size() -> None:
    for shape in ((1, 20, 30, 3), (1, 3, 20, 30)):
        assert infer(replace(FLOAT, shape=shape), InputTransform(), None, 3).preprocess == {"size": (20, 30)}
    assert infer(replace(FLOAT, shape=(1, 1, 1, 3)), InputTransform(), None, 3).preprocess == {}


def labelled(path: Path, count: int, labels: tuple[str, ...]) -> Path:
    graph = decode_tflite(foreign(create_model(classes=count), path).read_bytes())
    content = encode_tflite(
        replace(graph, metadata={tflite_schema.METADATA_NAME: tflite_schema.build_metadata("nano", labels)})
    )
    path.write_bytes(content)
    tflite_schema.append_files(path, labels, {})
    return path


def test_labels_are_read_from_behind_the_network(tmp_path: Path) -> None:
    path = labelled(tmp_path / "m.tflite", 4, ("crane", "ant", "crane", "bee"))
    assert load(path).labels.names == ("crane (0)", "ant", "crane (2)", "bee")
    path = labelled(tmp_path / "m.tflite", 4, ("ant", "bee"))
    assert read_checkpoint(path).labels == Labels()
    assert "its 2 labels do not match its outputs and are ignored" in read_checkpoint(path).notes


# What is damaged -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("whole") / "m.tflite", 2, ("ant", "bee"))


def test_a_file_that_is_cut_off_anywhere_is_refused(whole: Path, tmp_path: Path) -> None:
    content, path = whole.read_bytes(), tmp_path / "m.tflite"
    assert read_checkpoint(whole).labels.names == ("ant", "bee")
    chance = random.Random(0)
    for place in (*(chance.randrange(len(content)) for _ in range(100)), *range(len(content) - 250, len(content), 3)):
        path.write_bytes(content[:place])
        with pytest.raises(ValueError, match=r"m\.tflite: (damaged or cut off|cut off or damaged|not a TFLite file)"):
            read_checkpoint(path)


@pytest.mark.parametrize("number", [2**31 - 1, 2**32 - 1, 2**20, 2**30, 0])
def test_lengths_and_offsets_that_lie_end_in_a_sentence(number: int, whole: Path, tmp_path: Path) -> None:
    content, path, chance = whole.read_bytes(), tmp_path / "m.tflite", random.Random(number)
    start = int.from_bytes(content[:4], "little")
    complaints = []
    for _ in range(60):
        place = 4 * chance.randrange(start // 4 + 3000)
        path.write_bytes(content[:place] + number.to_bytes(4, "little") + content[place + 4 :])
        try:
            read_checkpoint(path)
        except ValueError as error:
            complaints.append(str(error))
    assert complaints
    assert all(complaint.startswith(f"{path}: ") for complaint in complaints)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"<html>404 Not Found</html>", bytes(64), b"\x08\0\0\0TFL3" * 8])
def test_a_file_of_something_else_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.tflite: "):
        load(tmp_path / "m.tflite")


# What TensorFlow's converter makes -------------------------------------------------------------------------------


def in_float16(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]


def dynamic(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def integers(converter: Any) -> None:
    import tensorflow as tf

    chance = np.random.default_rng(0)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter([[chance.uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)]])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> EfficientNet:
    """A Lite0 of random numbers, as its float32 file has it."""
    pytest.importorskip("tensorflow")
    from tests.parity.peers import tflite

    path = tmp_path_factory.mktemp("exact") / "m.tflite"
    path.write_bytes(tflite.convert_network("lite0"))
    return load(path)


@pytest.mark.parametrize("how", [in_float16, dynamic, integers])
def test_what_the_converter_quantised_comes_back_within_half_a_step(
    how: Callable[[Any], None], exact: EfficientNet, tmp_path: Path
) -> None:
    from tests.parity.peers import tflite

    path = tmp_path / "m.tflite"
    path.write_bytes(tflite.convert_network("lite0", how))
    assert path.stat().st_size < 0.6 * 4 * sum(value.numel() for value in exact.parameters())
    found = load(path)
    assert found.preprocess == exact.preprocess
    quantised = 0
    for name, value in exact.state_dict().items():
        if not name.endswith(("conv.weight", "classifier.weight")):
            continue
        largest = value.abs().amax(tuple(range(1, value.ndim)), keepdim=True)
        largest = value.abs().max() if name == "classifier.weight" else largest  # one scale for all of it
        step = value.abs() * 2**-10 if how is in_float16 else largest / 127
        error = (found.state_dict()[name] - value).abs()
        least = 128 * 2**-25  # of float16, in the stem that the converter divided by 128
        assert (error <= step / 2 * (1 + 1e-4) + least).all(), name
        quantised += bool(error.any())
    assert quantised == (46 if how is dynamic else 50)  # it leaves kernels below 1024 numbers alone
