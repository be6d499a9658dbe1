"""An int8 file in each of the formats: our float one, rewritten by the same calibration."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effnet.engines.interface import Interface
from effnet.engines.openvino import the_core
from effnet.exporting import litert as float_litert
from effnet.exporting import onnx as float_onnx
from effnet.exporting.quantise import litert, onnx
from effnet.exporting.quantise.calibrate import Calibration, of_files
from effnet.exporting.quantise.even import evened
from effnet.exporting.quantise.walk import linear
from effnet.net import EfficientNet

FORMATS = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}


def write(
    path: Path, model: EfficientNet, interface: Interface, calibration: Calibration, chosen: Collection[str]
) -> None:
    """``model``, folded, at ``path`` in the format of its suffix, with the operations ``chosen`` in int8.

    OpenVINO reads the graph that ONNX gets: its own optimiser turns the QDQ pairs into its own form of them.
    Raises ``ImportError`` without the format's packages.
    """
    shifted = evened(unshifted(model, calibration, chosen), calibration.sizes)
    ranges = of_files(calibration.ranges, model.preprocess)
    sizes = {name: size.numpy() for name, size in calibration.sizes.items()}
    texts = interface.metadata(model.contract)
    if path.suffix == ".tflite":
        from effnet.weights.formats.tflite import metadata
        from effnet.weights.formats.tflite.schema import decode, encode

        with TemporaryDirectory() as folder:
            plain = Path(folder) / "float.tflite"
            float_litert.write(plain, shifted, interface)
            graph = decode(plain.read_bytes())
        path.write_bytes(encode(litert.quantise(graph, ranges, chosen, sizes)))
        if model.labels.names:
            metadata.append(model.labels.names, path)
        metadata.attach(texts, path)
        return
    proto = float_onnx.made(shifted, interface)
    onnx.quantise(proto, ranges, chosen, sizes)
    if path.suffix == ".onnx":
        path.write_bytes(proto.SerializeToString())
        return
    read = the_core().read_model(model=proto.SerializeToString())
    for name, text in texts.items():
        read.set_rt_info(text, [name])
    import openvino

    openvino.save_model(read, path, compress_to_fp16=False)


def unshifted(model: EfficientNet, calibration: Calibration, chosen: Collection[str]) -> EfficientNet:
    """A copy whose biases take back by how much rounding its weights shifts the operations ``chosen``."""
    copy = deepcopy(model)
    with torch.no_grad():
        for name in chosen:
            bias = linear(copy, name).bias
            assert bias is not None
            bias -= calibration.shifts[name]
    return copy
