"""OpenVINO IR files: agreement in OpenVINO, metadata, full disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from effnet.exporting.verify import open_openvino_runner
from effnet.metadata import Numerics
from effnet.runtime.io_spec import IOSpec, read_metadata
from effnet.runtime.openvino import OpenVINOEngine, write_openvino
from tests.exporting.networks import MIXED, SYMMETRIC, agreement, network

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnx")


@pytest.mark.parametrize(
    ("name", "numerics"), [("nano", Numerics()), ("nano", SYMMETRIC), ("b0", Numerics()), ("edge_s", MIXED)]
)
def test_agrees_at_any_size(name: str, numerics: Numerics, tmp_path: Path) -> None:
    model, io_spec = network(name, numerics, (48, 61)), IOSpec(output="logits", embedding=True)
    write_openvino(tmp_path / "m.xml", model, io_spec)
    assert agreement(open_openvino_runner(tmp_path / "m.xml"), model, io_spec, (48, 61), (37, 32)).difference < 1e-5


@pytest.mark.parametrize("input", ["pixels", "floats", "normalized"])
def test_inputs(input: str, tmp_path: Path) -> None:
    model, io_spec = network(), IOSpec(input, size=(37, 50))
    write_openvino(tmp_path / "m.xml", model, io_spec)
    assert agreement(open_openvino_runner(tmp_path / "m.xml"), model, io_spec, (37, 50)).difference < 1e-5


def test_metadata(tmp_path: Path) -> None:
    model, io_spec = network(), IOSpec(size=(40, 41))
    write_openvino(tmp_path / "m.xml", model, io_spec)
    read = openvino.Core().read_model(tmp_path / "m.xml")
    texts = {key: read.get_rt_info(key).astype(str) for key in ("effnet", "effnet.interface")}
    assert read_metadata(texts, "m.xml") == (model.metadata, io_spec)


def test_half_precision(tmp_path: Path) -> None:
    model, io_spec = network(), IOSpec(size=(32, 32))
    bytes = {}
    for half_precision in (False, True):
        write_openvino(tmp_path / "m.xml", model, io_spec, half_precision)
        bytes[half_precision] = (tmp_path / "m.bin").stat().st_size
    assert bytes[True] < 0.52 * bytes[False]
    assert 1e-6 < agreement(open_openvino_runner(tmp_path / "m.xml"), model, io_spec, (32, 32)).difference < 3e-3


@pytest.mark.parametrize(
    "begin", [b"\x00\x01\x02", b"node {", b"<?xml", b"\xff\xfe<\0n\0e\0t\0", b'<net version="99">']
)
def test_a_damaged_graph_is_refused_without_a_word_of_the_runtime(
    begin: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """OpenVINO tries what is no IR as a text of TensorFlow, whose reader prints what it thinks of that."""
    (tmp_path / "m.xml").write_bytes(begin + b"\x03 damaged")
    with pytest.raises(ValueError, match=r"openvino cannot open .*m\.xml: the file is damaged"):
        OpenVINOEngine(tmp_path / "m.xml")
    assert capfd.readouterr() == ("", "")


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise RuntimeError("Check failed\nCan't write")

    monkeypatch.setattr(openvino, "save_model", refuse)
    with pytest.raises(OSError, match=r"OpenVINO could not write m\.xml: Can't write"):
        write_openvino(tmp_path / "m.xml", network(), IOSpec())


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match="requires openvino: pip install"):
        write_openvino(Path("m.xml"), network(), IOSpec())
