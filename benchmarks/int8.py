"""int8 quantization: its cost in accuracy and its gain in speed and size, for ONNX, OpenVINO and TFLite files.

    python benchmarks/int8.py MODEL IMAGES [--max-drop 0.5] [--calibration-images 128] [--threads 2] [--runs 40]
                              [--sensitivity] [--nncf]

MODEL is a file with a trained classifier, IMAGES a folder with train/ and val/ (or test/) class folders. Each format is
written in float and in int8; every file is opened by `effnet.runtime` and scored on as many validation images as fit
into 512 MiB. Times are medians at batch size 1, interleaved; --runs 0 omits them. --sensitivity prints the accuracy
that quantizing each layer alone costs. --nncf adds NNCF's post-training quantization of the same ONNX graph with the
same images, if NNCF is installed.
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
from effnet.runtime import litert, onnx_writer, openvino
from effnet.runtime.base import open_exported
from effnet.runtime.io_spec import IOSpec
from effnet.timing import time_interleaved
from effnet.weights import load

FLOAT = {".onnx": onnx_writer.write_onnx, ".xml": openvino.write_openvino, ".tflite": litert.write_litert}


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--calibration-images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--sensitivity", action="store_true")
    parser.add_argument("--nncf", action="store_true")
    options = parser.parse_args()
    logging.getLogger("effnet").setLevel(logging.ERROR)
    model = load(options.model).eval()
    io_spec = IOSpec(size=model.preprocess.size)
    image = np.random.default_rng(0).integers(0, 256, (1, *model.preprocess.size, 3), np.uint8)
    calls: dict[str, Callable[[], object]] = {}
    rows: dict[str, list[str]] = {}
    with TemporaryDirectory() as temporary:
        for suffix, write in FLOAT.items():
            float_path, int8_path = Path(temporary) / f"float{suffix}", Path(temporary) / f"int8{suffix}"
            write(float_path, model, io_spec)
            try:
                result = quantize(
                    model, int8_path, options.images, io_spec, options.max_drop, options.calibration_images
                )
            except ValueError as error:
                rows[suffix] = [str(error)]
                continue
            size = float_path.stat().st_size + (
                float_path.with_suffix(".bin").stat().st_size if suffix == ".xml" else 0
            )
            float_layers = [name for name in result.float_layers if "squeeze_excite" not in name]
            rows[suffix] = [
                f"{100 * result.float_score:.2f}",
                f"{100 * result.int8_score:.2f}",
                f"{result.drop:+.2f} ({result.metric}, {result.images:,})",
                f"{len(float_layers)} of {result.layers}{': ' + ', '.join(float_layers) if float_layers else ''}",
                f"{size / 1e6:.1f} → {result.bytes / 1e6:.1f}",
            ]
            for name, path in (("float", float_path), ("int8", int8_path)):
                engine = open_exported(path, threads=options.threads)
                calls[f"{suffix} {name}"] = partial(engine.run, image)
        timings = time_interleaved(calls, options.runs, 5) if options.runs else {}
        print(f"{model.arch.name}, {options.threads} threads, calibrated on {options.calibration_images} images\n")
        print("| file | float % | int8 % | drop in points | other layers in float | MB | float ms | int8 ms | ratio |")
        print("|:--|--:|--:|--:|:--|--:|--:|--:|--:|")
        for suffix, row in rows.items():
            times = [timings[f"{suffix} {name}"].seconds * 1e3 for name in ("float", "int8") if timings]
            cells = [f"{times[0]:.2f}", f"{times[1]:.2f}", f"{times[1] / times[0]:.2f}"] if times else ["–"] * 3
            print(f"| {suffix} | {' | '.join([*row, *cells])} |" if len(row) > 1 else f"| {suffix} | {row[0]} |")
    if options.nncf:
        print(f"\n{describe_nncf(model, options.images, options.calibration_images)}")
    if options.sensitivity:
        print(f"\n```text\n{format_sensitivities(measure_sensitivity(model, options.images))}\n```")


def describe_nncf(model: EfficientNet, folder: str, count: int) -> str:
    """Return the accuracies of NNCF's two presets for convolutional networks, on the same network and images."""
    try:
        import nncf
        import openvino
    except ImportError:
        return "nncf: not installed"
    nncf.set_log_level(logging.ERROR)
    data = load_quantization_data(folder, model, count)
    if data.targets is None:
        return "nncf: skipped, the folder's classes differ from the network's"
    onnx_model = onnx_writer.build_onnx_model(model, IOSpec("normalized", "logits", size=model.preprocess.size))
    network = openvino.Core().read_model(model=onnx_model.SerializeToString())
    calibration = nncf.Dataset([_normalize(image[None], model) for image in data.calibration])

    def accuracy(openvino_model: Any) -> float:
        run = openvino.Core().compile_model(
            openvino_model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )  # the default may be bfloat16
        batches = (data.evaluation[start : start + 16] for start in range(0, len(data.evaluation), 16))
        logits = np.concatenate([run(_normalize(batch, model))[0] for batch in batches])
        return float((logits.argmax(1) == data.targets).mean())

    results = [f"float {100 * accuracy(network):.2f} %"]
    for preset in (nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED):
        quantized = nncf.quantize(network, calibration, preset=preset, subset_size=len(data.calibration))
        results.append(f"{preset.value} {100 * accuracy(quantized):.2f} %")
    return f"nncf {nncf.__version__}: {', '.join(results)}"


def _normalize(images: InputImage, model: EfficientNet) -> NDArray[np.float32]:
    normalized: NDArray[np.float32] = normalize(torch.from_numpy(images), model.preprocess).numpy()
    return normalized


if __name__ == "__main__":
    main()
