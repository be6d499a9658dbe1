"""From a network to OpenVINO's own files: ``NAME.xml``, the graph, and ``NAME.bin``, its numbers."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from shutil import disk_usage

from effnet.engines.interface import Interface
from effnet.engines.openvino import the_core
from effnet.exporting import onnx
from effnet.exporting.check import Run
from effnet.net import EfficientNet


def write(path: Path, model: EfficientNet, interface: Interface, half: bool = False) -> None:
    """``model`` at ``path``, which ends in ``.xml``, and the ``.bin`` beside it: the graph that `onnx.made` makes.

    ``half``: weights are stored in 16 bits; they are computed with in float32 all the same. Contract and interface lie
    in the model's ``rt_info``. Raises ``ImportError`` without openvino or onnx, ``OSError`` where it cannot be written.
    """
    core = the_core()
    import openvino

    content = onnx.made(model, interface).SerializeToString()
    graph = core.read_model(model=content)
    for name, text in interface.metadata(model.contract).items():
        graph.set_rt_info(text, [name])
    try:
        openvino.save_model(graph, path, compress_to_fp16=half)
    except RuntimeError as error:  # which does not say why
        if disk_usage(path.parent).free < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise OSError(f"OpenVINO could not write {path.name}: {str(error).strip().splitlines()[-1]}") from error


def opened(path: Path) -> Run:
    """The file at ``path`` in OpenVINO, on the CPU. Raises ``ImportError`` without it."""
    # In float32: where a CPU has bfloat16, OpenVINO would take that by itself.
    compiled = the_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.any_name for output in compiled.outputs]
    return lambda pictures: dict(zip(names, compiled([pictures]).to_tuple(), strict=True))
