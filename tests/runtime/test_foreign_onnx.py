"""ONNX classifiers of other programs, run as they stand, against a plain session of onnxruntime on the same input."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import effnet
from effnet.cli.app import main
from effnet.data.image_io import load_input
from effnet.runtime.foreign_onnx import ForeignEngine, OnnxFile, find_runnable, read_graph
from effnet.tasks import sigmoid, softmax

CLASSES, SIDE = 3, 16
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
STATED = "size=16,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"


def build(
    path: Path,
    outputs: int = CLASSES,
    batch: int | str = "n",
    side: int | str = SIDE,
    dtype: int = TensorProto.FLOAT,
    channels_last: bool = False,
    normalized: tuple[float, float] | None = None,  # (subtracted, divided by) in the graph
    end: str = "",
    more_outputs: tuple[str, ...] = (),
    metadata: dict[str, str] | None = None,
    dense: bool = True,
) -> Path:
    """Write a network that is no EfficientNet: convolution, ReLU, pooling, a linear layer, and what ``end`` adds."""
    noise = np.random.default_rng(0)
    nodes, weights, current = [], [], "image"

    def constant(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    if dtype != TensorProto.FLOAT:
        current = add("Cast", current, to=TensorProto.FLOAT)
    if normalized:
        current = add("Sub", current, constant("mean", np.array(normalized[0])))
        current = add("Div", current, constant("std", np.array(normalized[1])))
    if channels_last:
        current = add("Transpose", current, perm=[0, 3, 1, 2])
    stem = constant("stem", noise.normal(size=(8, 3, 5, 5)))
    current = add("Relu", add("Conv", current, stem, strides=[2, 2], pads=[2, 2, 2, 2]))
    current = add("GlobalAveragePool", current)
    if dense:
        current = add("Flatten", current)
        current = add("Gemm", current, constant("fc", noise.normal(size=(8, outputs)) / 9))
    if end:
        current = add(end, current, **({"axis": 1} if end == "Softmax" else {}))
    if dtype == TensorProto.FLOAT16:
        current = add("Cast", current, to=TensorProto.FLOAT16)
    shape = [batch, side, side, 3] if channels_last else [batch, 3, side, side]
    of_output = dtype if dtype == TensorProto.FLOAT16 else TensorProto.FLOAT
    rows = [batch, outputs] if dense else [batch, 8, 1, 1]
    made = [helper.make_tensor_value_info(current, of_output, rows)]
    for kind in more_outputs:
        number = add(kind, current, axis=1, keepdims=0)
        made.append(helper.make_tensor_value_info(number, TensorProto.INT64, [batch]))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("image", dtype, shape)], made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["effnet", *map(str, words)])
        status = main()
        return status, *capsys.readouterr()

    return call


def plain_outputs(path: Path, image: np.ndarray, mean: Any, std: Any, **form: Any) -> np.ndarray:
    """Return what onnxruntime itself answers for one image (H, W, 3) of 0 … 255."""
    import onnxruntime

    x = ((image.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std))[None]
    x = x if form.get("channels_last") else x.transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    count = session.get_inputs()[0].shape[0]
    x = np.repeat(x, count, 0) if isinstance(count, int) else x
    x = np.rint(x).astype(np.uint8) if form.get("dtype") == TensorProto.UINT8 else x
    x = x.astype(np.float16) if form.get("dtype") == TensorProto.FLOAT16 else x
    return np.asarray(session.run(None, {"image": np.ascontiguousarray(x)})[0][0], np.float64)


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "any size": {"side": "s"},
    "one image at a time": {"batch": 1},
    "four at a time": {"batch": 4},
    "channels last": {"channels_last": True},
    "bytes": {"dtype": TensorProto.UINT8, "channels_last": True},
    "bytes, channels first": {"dtype": TensorProto.UINT8},
    "half precision": {"dtype": TensorProto.FLOAT16},
    "normalizes 0 … 255": {"normalized": (127.5, 127.5)},
    "normalizes 0 … 1": {"normalized": (0.5, 0.5)},
    "softmax": {"end": "Softmax"},
    "a number beside": {"more_outputs": ("ArgMax",)},
}
RAW = {"bytes": 255, "bytes, channels first": 255, "normalizes 0 … 255": 255, "normalizes 0 … 1": 1}


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", FORMS)
def test_answers_are_the_runtimes_own(name: str, kind: str, tmp_path: Path, photo: Path) -> None:
    path = build(tmp_path / "net.onnx", **FORMS[name])
    own = {"mean": (0.0,) * 3, "std": (1 / RAW[name],) * 3} if name in RAW else IMAGENET
    stated = {} if name in RAW else {**IMAGENET, **({"size": (SIDE, SIDE)} if name == "any size" else {})}
    predict = effnet.Predictor(OnnxFile(path, stated), engine=kind)
    assert (predict.engine.kind, predict.classes, predict.arch) == (kind, CLASSES, None)
    assert predict.preprocess.size == (SIDE, SIDE)
    image = load_input(photo, predict.input_preprocess)
    expected = plain_outputs(path, image, own["mean"], own["std"], **FORMS[name])
    probabilities = expected if name == "softmax" else softmax(expected[None])[0]
    tolerance = 5e-3 if name == "half precision" or kind == "openvino" else 1e-5
    found = predict([photo] * 6, top=CLASSES)  # more than any batch
    for row in found:
        by_name = dict(zip(row.labels, row.probabilities, strict=True))
        assert [by_name[f"class {index}"] for index in range(CLASSES)] == pytest.approx(probabilities, abs=tolerance)


def test_one_output(tmp_path: Path, photo: Path, caplog: pytest.LogCaptureFixture) -> None:
    for end in ("", "Sigmoid"):
        path = build(tmp_path / f"one{end}.onnx", outputs=1, end=end)
        predict = effnet.Predictor(OnnxFile(path, IMAGENET))
        raw = plain_outputs(path, load_input(photo, predict.input_preprocess), **IMAGENET)[0]
        second = raw if end else sigmoid(np.array(raw))
        [row] = predict(photo, top=2)
        assert dict(zip(row.labels, row.probabilities, strict=True))["class 1"] == pytest.approx(second, abs=1e-5)
        assert "pass --task regression" in caplog.text
        value = effnet.Predictor(OnnxFile(path, IMAGENET, "regression"))(photo)[0].values
        assert value == pytest.approx({"class 0": raw}, abs=1e-5)


def test_several_sigmoids_are_labels(tmp_path: Path, photo: Path) -> None:
    path = build(tmp_path / "labels.onnx", end="Sigmoid")
    predict = effnet.Predictor(OnnxFile(path, IMAGENET))
    assert predict.labels.task == "multilabel"
    raw = plain_outputs(path, load_input(photo, predict.input_preprocess), **IMAGENET)
    assert predict(photo)[0].labels == tuple(f"class {index}" for index in np.argsort(-raw) if raw[index] >= 0.5)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("{0: 'ant', 1: 'bee', 2: 'cat'}", ("ant", "bee", "cat")),
        ('["ant", "bee", "cat"]', ("ant", "bee", "cat")),
        ('{"0": "ant", "2": "cat", "1": "bee"}', ("ant", "bee", "cat")),
        ("['ant', 'bee']", ()),
        ("__import__('os').system('true')", ()),
        ("[" * 5000, ()),
    ],
)
def test_names_in_the_file(names: str, found: tuple[str, ...], tmp_path: Path) -> None:
    path = build(tmp_path / "net.onnx", metadata={"names": names})
    assert effnet.Predictor(OnnxFile(path, IMAGENET)).labels.names == found


def test_a_config_beside_states_everything(tmp_path: Path, photo: Path) -> None:
    path = build(tmp_path / "net.onnx", side="s")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "resnet18",
                "num_classes": CLASSES,
                "label_names": ["ant", "bee", "cat"],
                "pretrained_cfg": {"input_size": [3, 16, 16], "mean": [0.1] * 3, "std": [0.2] * 3, "crop_pct": 1.0},
            }
        )
    )
    predict = effnet.Predictor(path)
    assert predict.labels.names == ("ant", "bee", "cat")
    assert (predict.preprocess.mean, predict.preprocess.crop_fraction) == ((0.1, 0.1, 0.1), 1.0)
    raw = plain_outputs(path, load_input(photo, predict.input_preprocess), (0.1,) * 3, (0.2,) * 3)
    assert predict(photo)[0].label == ("ant", "bee", "cat")[int(raw.argmax())]


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no EfficientNet known here, and it does not state mean and std, .* --pre"):
        effnet.Predictor(build(tmp_path / "net.onnx"))
    with pytest.raises(ValueError, match="does not state size and mean and std"):
        effnet.Predictor(build(tmp_path / "net.onnx", side="s"))
    with pytest.raises(ValueError, match="accepts images of 16×16 only: omit size="):
        effnet.Predictor(OnnxFile(build(tmp_path / "net.onnx"), {**IMAGENET, "size": (32, 32)}))
    with pytest.raises(ValueError, match="takes 3 channels, and mean and std are for 2"):
        effnet.Predictor(OnnxFile(build(tmp_path / "net.onnx"), {"mean": (0.5, 0.5), "std": (0.5, 0.5)}))


def test_features_are_no_classes(tmp_path: Path) -> None:
    path = build(tmp_path / "net.onnx", dense=False)
    assert read_graph(path).pooled  # type: ignore[union-attr]
    assert find_runnable(path) is None
    with pytest.raises(ValueError, match="those of no EfficientNet known here"):
        effnet.Predictor(path)


def test_other_engines_and_devices(tmp_path: Path) -> None:
    file = OnnxFile(build(tmp_path / "net.onnx"), IMAGENET)
    for words in ({"engine": "eager"}, {"engine": "litert"}, {"device": "cuda"}):
        with pytest.raises(ValueError, match="run as it stands by onnxruntime and openvino, on the CPU"):
            effnet.Predictor(file, **words)
    with pytest.raises(ValueError, match="has no embedding"):
        effnet.engine(file).embed(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    content = build(tmp_path / "net.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    for kind in ("auto", "onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=r"half\.onnx"):
            effnet.Predictor(tmp_path / "half.onnx", engine=kind)


def test_an_efficientnet_runs_as_it_stands_and_is_read_too(tmp_path: Path, photo: Path) -> None:
    model = effnet.create("nano", classes=CLASSES)
    effnet.export(model, tmp_path / "ours.onnx", input="normalized", output="logits")
    graph = onnx.load(tmp_path / "ours.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "theirs.onnx")
    predict = effnet.Predictor(tmp_path / "theirs.onnx")
    assert isinstance(predict.engine, ForeignEngine)
    assert predict.arch == model.arch
    expected = effnet.Predictor(effnet.load(tmp_path / "theirs.onnx"))(photo)[0]
    assert predict(photo)[0].probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    assert effnet.Predictor(tmp_path / "theirs.onnx", engine="eager").engine.kind == "eager"


@pytest.mark.parametrize("command", ["predict", "evaluate", "serve", "bench"])
def test_commands(
    command: str, tmp_path: Path, photo: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: Any
) -> None:
    path = build(tmp_path / "net.onnx")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    for name in ("ant", "bee"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(photo.read_bytes())
    served: list[Any] = []

    class Stopped:
        should_exit = False

        def run(self, sockets: Any) -> None: ...

        def handle_exit(self, *arguments: Any) -> None: ...

    monkeypatch.setattr("effnet.serve.server.make_server", lambda app, seconds: served.append(app) or Stopped())
    words: dict[str, tuple[object, ...]] = {
        "predict": (photo, "--model", path, "--json", "--labels", tmp_path / "names.txt"),
        "evaluate": (path, tmp_path / "set", "--json", "--labels", tmp_path / "names.txt"),
        "serve": (path, "--port", "0", "--batch-size", "1", "--labels", tmp_path / "names.txt"),
        "bench": (path, "--json", "--runs", "2"),
    }
    status, out, err = run(command, *words[command], "--preprocess", STATED)
    assert status == 0, err
    assert "run as it stands; images 16×16" in err
    if command == "predict":
        assert {row["label"] for row in json.loads(out)[0]["labels"]} == {"ant", "bee", "cat"}
    if command == "evaluate":
        assert [row["name"] for row in json.loads(out)["classes"]] == ["ant", "bee", "cat"]
    if command == "bench":
        assert {row["engine"] for row in json.loads(out)["rows"]} == {"onnxruntime", "openvino"}
    status, _, err = run(command, *words[command])
    assert status == 1
    assert err.count("\n") <= 2
    assert "--preprocess size=224" in err


def test_a_pickled_predictor_opens_the_file_again(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    predict = effnet.Predictor(OnnxFile(Path("net.onnx"), IMAGENET))
    content = pickle.dumps(predict)
    monkeypatch.chdir("/")
    assert pickle.loads(content)(photo) == predict(photo)


@pytest.mark.parametrize("way", ["QOperator", "QDQ", "dynamic"])
def test_quantized_files(way: str, tmp_path: Path, photo: Path) -> None:
    from onnxruntime import quantization

    path, target = build(tmp_path / "net.onnx"), tmp_path / "int8.onnx"
    if way == "dynamic":
        quantization.quantize_dynamic(path, target, weight_type=quantization.QuantType.QUInt8)
    else:
        noise = np.random.default_rng(2).normal(size=(4, 1, 3, SIDE, SIDE)).astype(np.float32)
        images = iter([{"image": each} for each in noise])

        class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> dict[str, Any] | None:
                return next(images, None)

        how = {"quant_format": quantization.QuantFormat[way], "op_types_to_quantize": ["Conv"]}
        quantization.quantize_static(path, target, Images(), **how)
    predict = effnet.Predictor(OnnxFile(target, IMAGENET))
    raw = plain_outputs(target, load_input(photo, predict.input_preprocess), **IMAGENET)
    row = predict(photo, top=CLASSES)[0]
    by_name = dict(zip(row.labels, row.probabilities, strict=True))
    assert [by_name[f"class {index}"] for index in range(CLASSES)] == pytest.approx(softmax(raw[None])[0], abs=1e-5)
