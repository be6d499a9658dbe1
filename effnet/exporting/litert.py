"""From a network to a ``.tflite`` for LiteRT, the interpreter that was TensorFlow Lite's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from effnet.engines.interface import Interface
from effnet.engines.litert import without_notices
from effnet.exporting.check import Run
from effnet.net import EfficientNet
from effnet.net.surgery import fold
from effnet.weights.formats.tflite.write import Ends, write_export
from effnet.weights.layouts.tflite import names


def write(path: Path, model: EfficientNet, interface: Interface, half: bool = False) -> None:
    """``model`` as a TFLite file for one picture; its input may be resized to more, and to any size.

    It is laid out at ``interface.size``, or with None at the network's own. ``half``: weights are stored in 16 bits and
    computed with in float32. XNNPACK takes all of the graph but one operator: the cast of uint8 pixels to floats.
    The texts of `Interface.metadata` lie in the archive behind the flatbuffer, where ``zipfile`` reads them, with the
    labels as TFLite's own tools look for them. Raises ``ValueError`` for a network above 2 GiB.
    """
    folded = fold(model).float()
    folded.preprocess = replace(model.preprocess, size=interface.size or model.preprocess.size)
    ends = Ends(interface.input, interface.output, interface.embedding, half)
    write_export(path, _kernels(folded), folded, ends, interface.metadata(model.contract))


def _kernels(folded: EfficientNet) -> dict[str, Tensor]:
    """Weights and biases by TFLite's names, in its order of axes."""
    state, found = folded.state_dict(), {}
    for ours, theirs in names(folded.arch, folded.classes).items():
        tensor = state[ours.replace(".norm.bias", ".conv.bias")].detach().cpu()
        if tensor.ndim == 4:  # (out, in, height, width) -> (out, height, width, in), depthwise (1, height, width, out)
            tensor = tensor.permute((1, 2, 3, 0) if ours.endswith("depthwise.conv.weight") else (0, 2, 3, 1))
        found[theirs] = tensor.contiguous()
    return found


def opened(path: Path) -> Run:
    """The file at ``path`` in LiteRT's interpreter. Raises ``ImportError`` without it."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ImportError("TFLite files are checked by ai-edge-litert: pip install ai-edge-litert") from None
    interpreter = Interpreter(str(path))
    (given,), outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pictures: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        with without_notices():
            interpreter.resize_tensor_input(given["index"], pictures.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], pictures)
        interpreter.invoke()
        return {each["name"]: interpreter.get_tensor(each["index"]) for each in outputs}

    return run
