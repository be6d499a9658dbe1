"""What we write and someone else has changed is refused, whichever byte it is; older files open as before."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import effnet
from effnet.data.storage import embedded_digest
from effnet.exporting.export import WRITERS
from effnet.exporting.quantize_graphs import write_quantized
from effnet.runtime.base import open_exported
from effnet.runtime.io_spec import IOSpec
from effnet.runtime.litert import check_graph
from effnet.weights.formats import tflite_schema
from tests.exporting.networks import network

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
WRITE: dict[str, Callable[[Path], object]] = {
    "m.onnx": lambda path: WRITERS["onnx"](path, network(), IOSpec()),
    "m.xml": lambda path: WRITERS["openvino"](path, network(), IOSpec()),
    "m.tflite": lambda path: WRITERS["litert"](path, network(), IOSpec()),
    "saved.tflite": lambda path: effnet.save(network(), path, "tflite"),
    "m.safetensors": lambda path: effnet.save(network(), path),
}


def run(path: Path) -> np.ndarray:
    if path.suffix == ".safetensors":
        return effnet.load(path).stem.conv.weight.detach().numpy()
    return open_exported(path, threads=1).run(IMAGES)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("written")
    for name, write in WRITE.items():
        write(folder / name)
    return {name: folder / name for name in WRITE}


@pytest.mark.parametrize("name", WRITE)
def test_every_file_carries_its_digest(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    assert len(embedded_digest.verify(written[name])) == 64
    WRITE[name](tmp_path / name)  # the same network again
    if name != "m.xml":  # in which OpenVINO counts its constants through the process
        assert (tmp_path / name).read_bytes() == written[name].read_bytes()
    assert np.isfinite(run(written[name])).all()


@pytest.mark.parametrize("name", [*WRITE, "m.bin"])
def test_any_changed_byte_is_refused(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    chance, opened = random.Random(0), tmp_path / name.replace(".bin", ".xml")
    for part in (opened.name, opened.with_suffix(".bin").name):
        if (source := written[opened.name].with_name(part)).is_file() and part in (name, opened.name, "m.bin"):
            (tmp_path / part).write_bytes(source.read_bytes())
    whole = (tmp_path / name).read_bytes()
    mark = whole.find(b"effnet-sha256:")
    for number in range(20):
        damaged = bytearray(whole)
        place = chance.randrange(len(damaged)) if number else mark + 20  # the digest itself
        while mark <= place < mark + 14:  # without the mark it is a file of before, which opens and is whole
            place = chance.randrange(len(damaged))
        if number % 3:
            damaged[place] ^= 1 << chance.randrange(8)
        else:
            damaged[place : place + 600] = bytes(byte ^ 0x55 for byte in damaged[place : place + 600])
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(
            ValueError, match=rf"{opened.name}.* is damaged, or was changed after it was written: "
        ) as caught:
            run(opened)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*WRITE, "m.bin"])
def test_what_is_cut_off_is_refused(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    for source in written["m.xml"].parent.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    whole = (tmp_path / name).read_bytes()
    for size in (0, 1, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(ValueError, match=name.replace(".bin", ".xml")):
            run(tmp_path / name.replace(".bin", ".xml"))


@pytest.mark.parametrize("name", WRITE)
def test_files_of_before_open_as_ever(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    for source in (written[name], written["m.xml"].with_suffix(".bin")):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    path = tmp_path / name
    path.write_bytes(path.read_bytes().replace(b"effnet-sha256:", b"nothing-sha256"))
    assert embedded_digest.verify(path) == ""
    assert np.array_equal(run(path), run(written[name]))


def test_a_model_file_is_one_for_everyone(written: dict[str, Path], tmp_path: Path) -> None:
    with safe_open(written["m.safetensors"], "pt") as file:
        assert set(file.metadata()) == {"effnet", "effnet.digest"}
    tensors = load_file(written["m.safetensors"])
    save_file(tensors, tmp_path / "foreign.safetensors", {"format": "pt"})  # rewritten by others: without a digest
    assert embedded_digest.verify(tmp_path / "foreign.safetensors") == ""


@pytest.mark.parametrize("name", ["m.onnx", "m.tflite"])
def test_loading_the_weights_of_a_damaged_export(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    whole = bytearray(written[name].read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / name).write_bytes(whole)
    with pytest.raises(ValueError, match="is damaged, or was changed"):
        effnet.load(tmp_path / name)


def test_an_onnx_file_that_was_replaced_while_it_was_open(written: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(written["m.onnx"].read_bytes())
    engine = open_exported(path, "onnxruntime", threads=1)
    WRITERS["onnx"](path, network(classes=7), IOSpec())
    with pytest.raises(ValueError, match="was replaced while it was open"):
        engine.prepare(1)
    assert engine.run(IMAGES).shape == (2, 5)


@pytest.mark.parametrize(("before", "after"), [(b"probabilities", b"\xe8\xe8obabilities"), (b"\x04Conv", b"\x04Conx")])
def test_a_runtime_prints_nothing_of_its_own(
    before: bytes, after: bytes, written: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = written["m.onnx"].read_bytes().replace(b"effnet-sha256:", b"nothing-sha256")
    (tmp_path / "m.onnx").write_bytes(whole.replace(before, after))
    with pytest.raises(ValueError, match=r"onnxruntime cannot (open|run) .*m\.onnx") as caught:
        open_exported(tmp_path / "m.onnx", "onnxruntime", threads=1).run(IMAGES)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


# LiteRT trusts what a file says; without a digest our own reader is what stands before it


def mutate(graph: tflite_schema.TfliteGraph, chance: random.Random) -> tflite_schema.TfliteGraph:
    from dataclasses import replace

    operators = list(graph.operators)
    at = chance.randrange(len(operators))
    before = operators[at]
    match chance.randrange(4):
        case 0:
            operators[at] = replace(before, inputs=(-1, *before.inputs[1:]))
        case 1:
            operators[at] = replace(before, inputs=(len(graph.tensors) - 1, *before.inputs[1:]))  # of a later one
        case 2:
            operators[at] = replace(before, outputs=before.inputs[:1])
        case 3:
            operators[at] = replace(before, inputs=before.inputs[:-1])
    return replace(graph, operators=tuple(operators))


def test_graphs_that_would_crash_litert(written: dict[str, Path], tmp_path: Path) -> None:
    content, chance = written["m.tflite"].read_bytes(), random.Random(0)
    check_graph(content, tmp_path)
    graph, path = tflite_schema.decode_tflite(content), tmp_path / "m.tflite"
    texts = {name: value for name, value in graph.metadata.items() if name != "effnet.digest"}
    for _ in range(10):
        changed = mutate(graph, chance)
        path.write_bytes(tflite_schema.encode_tflite(type(changed)(**{**vars(changed), "metadata": texts})))
        with pytest.raises(ValueError, match=r"m\.tflite: damaged"):
            run(path)


def test_an_int8_file_passes_the_check(tmp_path: Path) -> None:
    from effnet.exporting import calibration
    from effnet.net import surgery

    model = network()
    folded = surgery.fold_batch_norm(model).float()
    folded.preprocess = model.preprocess
    calibrated = calibration.calibrate(folded, iter([torch.rand(2, 3, 32, 32)]))
    names = [each.name for each in calibration.all_operations(folded) if "squeeze_excite" not in each.name]
    for name in ("m.tflite", "m.onnx"):
        write_quantized(tmp_path / name, folded, IOSpec(), calibrated, names)
        assert len(embedded_digest.verify(tmp_path / name)) == 64
        assert np.isfinite(run(tmp_path / name)).all()
