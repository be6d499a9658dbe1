"""Accuracy lost and time saved by int8, in each of the formats.

    python benchmarks/int8.py MODEL IMAGES [--max-drop 0.5] [--calibration-images 128] [--threads 2] [--runs 40]
                              [--table] [--nncf]

MODEL is a file with a trained classifier, IMAGES a folder with train/ and val/ (or test/), each with class folders.
Each format is written in float and in int8; every file is opened by `effnet.runtime` and scored on as many images of
val as fit into half a gigabyte. Times are medians for one image, interleaved. --table prints the sensitivity of every
layer, --runs 0 omits the times. If NNCF is installed, --nncf adds its own post-training quantization of the same ONNX
graph on the same images.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from effnet.data.image_io import InputImage
from effnet.data.preprocessing import normalize
from effnet.exporting.quantize import load_quantization_data, measure_sensitivity, quantize
from effnet.exporting.sensitivity import format_sensitivities
from effnet.net import EfficientNet
from effnet.runtime import litert, onnx, openvino
from effnet.runtime.base import open_exported
from effnet.runtime.io_spec import IOSpec
from effnet.timing import time_interleaved
from effnet.weights import load

FLOAT = {".onnx": onnx.write_onnx, ".xml": openvino.write_openvino, ".tflite": litert.write_litert}


def main() -> None:
    """Print the tables as Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("images")
    options.add_argument("--max-drop", type=float, default=0.5)
    options.add_argument("--calibration-images", type=int, default=128)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--runs", type=int, default=40)
    options.add_argument("--table", action="store_true")
    options.add_argument("--nncf", action="store_true")
    given = options.parse_args()
    logging.getLogger("effnet").setLevel(logging.ERROR)
    model = load(given.model).eval()
    io_spec = IOSpec(size=model.preprocess.size)
    image = np.random.default_rng(0).integers(0, 256, (1, *model.preprocess.size, 3), np.uint8)
    calls: dict[str, Callable[[], object]] = {}
    rows: dict[str, list[str]] = {}
    with TemporaryDirectory() as folder:
        for suffix, write in FLOAT.items():
            plain, path = Path(folder) / f"float{suffix}", Path(folder) / f"int8{suffix}"
            write(plain, model, io_spec)
            try:
                quantized = quantize(model, path, given.images, io_spec, given.max_drop, given.calibration_images)
            except ValueError as error:
                rows[suffix] = [str(error)]
                continue
            size = plain.stat().st_size + (plain.with_suffix(".bin").stat().st_size if suffix == ".xml" else 0)
            floats = [name for name in quantized.float_layers if "squeeze_excite" not in name]
            rows[suffix] = [
                f"{100 * quantized.float_score:.2f}",
                f"{100 * quantized.int8_score:.2f}",
                f"{quantized.drop:+.2f} ({quantized.metric}, {quantized.images:,})",
                f"{len(floats)} of {quantized.layers}{': ' + ', '.join(floats) if floats else ''}",
                f"{size / 1e6:.1f} → {quantized.bytes / 1e6:.1f}",
            ]
            for name, file in (("float", plain), ("int8", path)):
                engine = open_exported(file, threads=given.threads)
                calls[f"{suffix} {name}"] = partial(engine.run, image)
        timing = time_interleaved(calls, given.runs, 5) if given.runs else {}
        print(f"{model.arch.name}, {given.threads} threads, calibrated on {given.calibration_images} images\n")
        print("| file | float % | int8 % | drop | other layers in float | MB | float ms | int8 ms | ratio |")
        print("|:--|--:|--:|--:|:--|--:|--:|--:|--:|")
        for suffix, row in rows.items():
            times = [timing[f"{suffix} {name}"].seconds * 1e3 for name in ("float", "int8") if timing]
            columns = [f"{times[0]:.2f}", f"{times[1]:.2f}", f"{times[1] / times[0]:.2f}"] if times else ["–"] * 3
            print(f"| {suffix} | {' | '.join([*row, *columns])} |" if len(row) > 1 else f"| {suffix} | {row[0]} |")
    if given.nncf:
        print(f"\n{describe_nncf(model, given.images, given.calibration_images)}")
    if given.table:
        print(f"\n```text\n{format_sensitivities(measure_sensitivity(model, given.images))}\n```")


def describe_nncf(model: EfficientNet, folder: str, count: int) -> str:
    """Return the accuracy of NNCF's two presets for convolutional networks, on the same network and images."""
    try:
        import nncf
        import openvino
    except ImportError:
        return "nncf: not installed"
    nncf.set_log_level(logging.ERROR)
    data = load_quantization_data(folder, model, count)
    if data.targets is None:
        return "nncf: skipped, the folder's classes are not the network's"
    proto = onnx.build_onnx_model(model, IOSpec("normalized", "logits", size=model.preprocess.size))
    plain = openvino.Core().read_model(model=proto.SerializeToString())
    calibration = nncf.Dataset([_normalized(image[None], model) for image in data.calibration])

    def accuracy(network: Any) -> float:
        run = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # not bfloat16
        batches = (data.evaluation[start : start + 16] for start in range(0, len(data.evaluation), 16))
        outputs = np.concatenate([run(_normalized(batch, model))[0] for batch in batches])
        return float((outputs.argmax(1) == data.targets).mean())

    parts = [f"float {100 * accuracy(plain):.2f} %"]
    for preset in (nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED):
        quantized = nncf.quantize(plain, calibration, preset=preset, subset_size=len(data.calibration))
        parts.append(f"{preset.value} {100 * accuracy(quantized):.2f} %")
    return f"nncf {nncf.__version__}: {', '.join(parts)}"


def _normalized(images: InputImage, model: EfficientNet) -> NDArray[np.float32]:
    out: NDArray[np.float32] = normalize(torch.from_numpy(images), model.preprocess).numpy()
    return out


if __name__ == "__main__":
    main()
