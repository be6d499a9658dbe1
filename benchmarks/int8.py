"""How much accuracy int8 costs, and how much time it saves, in each of the formats.

    python benchmarks/int8.py MODEL PICTURES [--max-drop 0.5] [--count 128] [--threads 2] [--runs 40] [--table] [--nncf]

MODEL is a file with a trained classifier, PICTURES a folder with train/ and val/ (or test/), a folder a class. Each
format is written in float and in int8; every file is opened by `effnet.runtime`, and judged on all pictures of val that
fit into half a gigabyte. Times are of one picture, all contestants taking turns, medians. --table prints what each
layer costs alone. --runs 0 leaves the times out. Where NNCF is installed, --nncf adds what its own post-training
quantisation of the same ONNX makes of the same pictures.
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
    """Prints the tables as Markdown."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model")
    options.add_argument("pictures")
    options.add_argument("--max-drop", type=float, default=0.5)
    options.add_argument("--count", type=int, default=128)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--runs", type=int, default=40)
    options.add_argument("--table", action="store_true")
    options.add_argument("--nncf", action="store_true")
    given = options.parse_args()
    logging.getLogger("effnet").setLevel(logging.ERROR)
    model = load(given.model).eval()
    interface = IOSpec(size=model.preprocess.size)
    picture = np.random.default_rng(0).integers(0, 256, (1, *model.preprocess.size, 3), np.uint8)
    contestants: dict[str, Callable[[], object]] = {}
    rows: dict[str, list[str]] = {}
    with TemporaryDirectory() as place:
        for suffix, write in FLOAT.items():
            plain, path = Path(place) / f"float{suffix}", Path(place) / f"int8{suffix}"
            write(plain, model, interface)
            try:
                found = quantize(model, path, given.pictures, interface, given.max_drop, given.count)
            except ValueError as error:
                rows[suffix] = [str(error)]
                continue
            size = plain.stat().st_size + (plain.with_suffix(".bin").stat().st_size if suffix == ".xml" else 0)
            floats = [name for name in found.float_layers if "squeeze_excite" not in name]
            rows[suffix] = [
                f"{100 * found.float_score:.2f}",
                f"{100 * found.int8_score:.2f}",
                f"{found.drop:+.2f} ({found.metric}, {found.images:,})",
                f"{len(floats)} of {found.layers}{': ' + ', '.join(floats) if floats else ''}",
                f"{size / 1e6:.1f} → {found.bytes / 1e6:.1f}",
            ]
            for name, file in (("float", plain), ("int8", path)):
                engine = open_exported(file, threads=given.threads)
                contestants[f"{suffix} {name}"] = partial(engine.run, picture)
        timing = time_interleaved(contestants, given.runs, 5) if given.runs else {}
        print(f"{model.arch.name}, {given.threads} threads, calibrated on {given.count} pictures\n")
        print("| file | float % | int8 % | points lost | further layers in float | MB | float ms | int8 ms | ratio |")
        print("|:--|--:|--:|--:|:--|--:|--:|--:|--:|")
        for suffix, row in rows.items():
            times = [timing[f"{suffix} {name}"].seconds * 1e3 for name in ("float", "int8") if timing]
            told = [f"{times[0]:.2f}", f"{times[1]:.2f}", f"{times[1] / times[0]:.2f}"] if times else ["–"] * 3
            print(f"| {suffix} | {' | '.join([*row, *told])} |" if len(row) > 1 else f"| {suffix} | {row[0]} |")
    if given.nncf:
        print(f"\n{nncf_in_words(model, given.pictures, given.count)}")
    if given.table:
        print(f"\n```text\n{format_sensitivities(measure_sensitivity(model, given.pictures))}\n```")


def nncf_in_words(model: EfficientNet, folder: str, count: int) -> str:
    """What NNCF, with its two presets for convolutional networks, makes of the same network and pictures."""
    try:
        import nncf
        import openvino
    except ImportError:
        return "nncf: not installed"
    nncf.set_log_level(logging.ERROR)
    taken = load_quantization_data(folder, model, count)
    if taken.targets is None:
        return "nncf: left out, since the folder's classes are not the network's"
    proto = onnx.build_onnx_model(model, IOSpec("normalized", "logits", size=model.preprocess.size))
    plain = openvino.Core().read_model(model=proto.SerializeToString())
    calibration = nncf.Dataset([_normalised(picture[None], model) for picture in taken.calibration])

    def share(network: Any) -> float:
        run = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # not bfloat16
        batches = (taken.evaluation[start : start + 16] for start in range(0, len(taken.evaluation), 16))
        answers = np.concatenate([run(_normalised(batch, model))[0] for batch in batches])
        return float((answers.argmax(1) == taken.targets).mean())

    said = [f"float {100 * share(plain):.2f} %"]
    for preset in (nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED):
        made = nncf.quantize(plain, calibration, preset=preset, subset_size=len(taken.calibration))
        said.append(f"{preset.value} {100 * share(made):.2f} %")
    return f"nncf {nncf.__version__}: {', '.join(said)}"


def _normalised(pictures: InputImage, model: EfficientNet) -> NDArray[np.float32]:
    out: NDArray[np.float32] = normalize(torch.from_numpy(pictures), model.preprocess).numpy()
    return out


if __name__ == "__main__":
    main()
