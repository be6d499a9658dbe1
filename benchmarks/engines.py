"""The automatically options engine, compared with every installed runtime set up by hand, timm and torchvision.

    python benchmarks/engines.py PHOTOS [--rows b0-1-float32,b0-32-bfloat16] [--rounds 12] [--weights LITE0]

From cropped images to logits. Each runtime is given three graphs: effnet's, which takes the same uint8 pixels; effnet's
for images normalized beforehand, which is less work; and timm's network as ``torch.onnx.export`` and
``openvino.convert_model`` produce it, also for normalized images. Each is set up as an expert would: threads, a fixed
image and batch size, OpenVINO's hints, outputs requested by name. timm and torchvision run in inference mode. All sides
have the same weights, and their top-1 predictions are counted against timm's. Spinning thread pools of one side disturb
the next, so each turn is a pause, an untimed call and then a few timed ones.

At the end, float32 of the options engine is compared with eager PyTorch on every photo; with ``--weights`` also for a
pretrained Lite0, whose scores are closer to each other than those of random weights.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fixtures import build_timm, build_torchvision, create_calibrated, describe_setup, find_photos
from numpy.typing import NDArray

import effnet
from effnet.data.image_io import load_input
from effnet.data.preprocessing import normalize
from effnet.data.torchvision_compat import declare_operators
from effnet.net import EfficientNet
from effnet.prediction import Predictor
from effnet.runtime import autotune, litert, onnx_writer
from effnet.runtime.io_spec import IOSpec
from effnet.timing import THREAD_POOL_PAUSE, time_interleaved, time_ratio
from effnet.weights import save

Logits = NDArray[np.float32]
Calls = dict[str, Callable[[], Logits]]  # by the name of the side
AUTO = "effnet, auto"
ROWS = [
    f"{name}-{batch_size}-{precision}"
    for precision in ("float32", "bfloat16")
    for name in ("b0", "b4", "lite0")
    for batch_size in (1, 32)
]


def setup_onnxruntime(path: Path, x: NDArray[np.generic], threads: int) -> Callable[[], Logits]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    input_name, output_name = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda: session.run([output_name], {input_name: x})[0]  # type: ignore[no-any-return]


def setup_openvino(model: object, x: NDArray[np.generic], threads: int, precision: str) -> Callable[[], Logits]:
    """``model`` is a path or the result of ``openvino.convert_model``."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model) if isinstance(model, Path) else model
    network.reshape(list(x.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    }
    request = core.compile_model(network, "CPU", settings).create_infer_request()

    def run() -> Logits:
        request.infer([x], share_inputs=True)
        logits: Logits = request.get_output_tensor(0).data
        return logits

    return run


def setup_litert(path: Path, x: NDArray[np.generic], threads: int) -> Callable[[], Logits]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    input_index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(input_index, x.shape)
    interpreter.allocate_tensors()
    output_index = interpreter.get_output_details()[0]["index"]

    def run() -> Logits:
        interpreter.set_tensor(input_index, x)
        interpreter.invoke()
        logits: Logits = interpreter.get_tensor(output_index)
        return logits

    return run


def setup_pytorch(model: torch.nn.Module, x: torch.Tensor, bfloat16: bool = False) -> Callable[[], Logits]:
    def run() -> Logits:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return model(x).float().numpy()  # type: ignore[no-any-return]

    return run


def setup_runtimes(model: EfficientNet, crops: NDArray[np.uint8], precision: str, threads: int, folder: Path) -> Calls:
    """Set up every installed runtime with every graph."""
    x = np.ascontiguousarray(normalize(torch.from_numpy(crops), model.preprocess).numpy())
    inputs = {"pixels": crops, "normalized": x}
    bfloat16 = precision == "bfloat16"
    calls: Calls = {}

    def add(name: str, setup: Callable[[], Callable[[], Logits]]) -> None:
        try:
            calls[name] = setup()
        except ImportError as error:
            print(f"skipped: {name}: {error}", file=sys.stderr)

    for kind, values in inputs.items():
        io_spec = IOSpec(kind, "logits", size=model.preprocess.size)
        onnx_path, tflite_path = folder / f"{kind}.onnx", folder / f"{kind}.tflite"
        onnx_writer.write_onnx(onnx_path, model, io_spec)
        litert.write_litert(tflite_path, model, io_spec)
        add(f"OpenVINO, {kind}", lambda p=onnx_path, v=values: setup_openvino(p, v, threads, precision))
        if not bfloat16:  # which neither of the two supports on x86
            add(f"onnxruntime, {kind}", lambda p=onnx_path, v=values: setup_onnxruntime(p, v, threads))
            add(f"LiteRT, {kind}", lambda p=tflite_path, v=values: setup_litert(p, v, threads))
    timm_model = build_timm(model, folder)

    def convert_to_openvino() -> Callable[[], Logits]:
        import openvino

        converted = openvino.convert_model(timm_model, example_input=torch.from_numpy(x))
        return setup_openvino(converted, x, threads, precision)

    def export_to_onnx() -> Callable[[], Logits]:
        path = folder / "timm.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(timm_model, (torch.from_numpy(x),), str(path), dynamo=False, opset_version=17)
        return setup_onnxruntime(path, x, threads)

    add("OpenVINO, timm's network", convert_to_openvino)
    if not bfloat16:
        add("onnxruntime, timm's network", export_to_onnx)
    return calls


def setup_peers(model: EfficientNet, crops: NDArray[np.uint8], bfloat16: bool, folder: Path) -> Calls:
    """Set up timm and torchvision in PyTorch, on images normalized beforehand."""
    x = normalize(torch.from_numpy(crops), model.preprocess).contiguous()
    x_last = x.to(memory_format=torch.channels_last)
    timm_last = build_timm(model, folder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    calls = {
        "timm, eager float32": setup_pytorch(build_timm(model, folder), x),
        "timm, channels_last float32": setup_pytorch(timm_last, x_last),
    }
    if bfloat16:
        calls["timm, channels_last, autocast bfloat16"] = setup_pytorch(timm_last, x_last, bfloat16=True)
    if not model.arch.name.startswith("lite"):
        calls["torchvision, eager float32"] = setup_pytorch(build_torchvision(model, folder), x)
    return calls


def print_table(row: str, photos: list[Path], rounds: int, threads: int, folder: Path) -> None:
    """Time all sides for one network, batch size and precision, such as "b0-1-float32"."""
    name, size, precision = row.split("-")
    batch_size = int(size)
    model = create_calibrated(name, photos)
    path = save(model, folder / f"{name}.safetensors")
    sample = [photos[index % len(photos)] for index in range(batch_size)]
    crops = np.stack([np.asarray(load_input(photo, model.preprocess), np.uint8) for photo in sample])
    engine = autotune.engine(path, "auto", batch_size=batch_size, precision=precision, threads=threads)
    calls = {AUTO: lambda: engine.run(crops)}
    runtimes = setup_runtimes(model, crops, precision, threads, folder)
    calls |= runtimes | setup_peers(model, crops, precision == "bfloat16", folder)
    expected = calls["timm, eager float32"]().argmax(1)
    same = {side: int((call().argmax(1) == expected).sum()) for side, call in calls.items()}
    rounds, calls_per_round = (rounds, 5) if batch_size == 1 else (max(5, rounds // 2), 2)
    timings = time_interleaved(calls, rounds, 3, calls_per_round, THREAD_POOL_PAUSE)
    fastest = min(runtimes, key=lambda side: timings[side].seconds, default=AUTO)
    on_pixels = [side for side in runtimes if side.endswith("pixels")]
    fastest_on_pixels = min(on_pixels, key=lambda side: timings[side].seconds, default=AUTO)
    print(f"\n{name}, batch size {batch_size}, {precision}: auto is {engine.kind}, {engine.precision}\n")
    print("| | ms per image | p10–p90 | relative to auto | same top-1 as timm |\n|---|--:|--:|--:|--:|")
    for side, timing in sorted(timings.items(), key=lambda pair: pair[1].seconds):
        bold = "**" if side == AUTO else ""
        low, high = (value / batch_size * 1e3 for value in (timing.p10, timing.p90))
        print(
            f"| {bold}{side}{bold} | {timing.seconds / batch_size * 1e3:.2f} | {low:.2f}–{high:.2f} "
            f"| {time_ratio(timing, timings[AUTO])} | {same[side]} of {batch_size} |"
        )
    for label, side in (("runtime on the same pixels", fastest_on_pixels), ("of all runtimes", fastest)):
        print(f"\nauto / best {label} ({side}): {time_ratio(timings[AUTO], timings[side])}", flush=True)


def compare_with_eager(model: EfficientNet, path: Path, photos: list[Path], threads: int) -> None:
    """Print on how many photos the options engine's float32 and eager PyTorch have the same top-1."""
    auto, eager = Predictor(path, threads=threads), Predictor(path, engine="eager", threads=threads)
    auto.choose_engine()
    same = sum(a.label == b.label for a, b in zip(auto(photos), eager(photos), strict=True))
    name = model.arch.name
    print(f"\n{name}: auto ({auto.engine.kind}) has eager's top-1 on {same} of {len(photos)} photos", flush=True)


def main() -> None:
    """Print a table for each row, then the comparison on every photo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rows", default=",".join(ROWS), help="such as b0-1-float32,lite0-32-bfloat16")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="pretrained Lite0 in any layout")
    options = parser.parse_args()
    logging.getLogger("openvino").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    declare_operators()
    photos = find_photos(options.photos)
    packages = ("torch", "timm", "torchvision", "onnxruntime", "openvino", "ai-edge-litert")
    print(f"{describe_setup(*packages)}; {options.threads} threads")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["EFFNET_HOME"] = str(folder / "home")
        for row in filter(None, options.rows.split(",")):
            print_table(row, photos, options.rounds, options.threads, folder)
        for name in ("b0", "b4", "lite0"):
            model = create_calibrated(name, photos)
            path = save(model, folder / f"{name}.safetensors")
            compare_with_eager(model, path, photos, options.threads)
        if options.weights:
            compare_with_eager(*fit_head(options.weights, photos, folder), photos, options.threads)


def fit_head(weights: Path, photos: list[Path], folder: Path) -> tuple[EfficientNet, Path]:
    """Return a pretrained backbone with a linear probe that classifies the photos by their folders, and its file."""
    from effnet.net.surgery import set_classes
    from effnet.training.linear_probe import fit_linear_probe
    from effnet.training.validation import Targets

    model = effnet.load(weights)
    names = sorted({path.parent.name for path in photos})
    engine = autotune.engine(model, "eager")
    crops = (np.asarray(load_input(path, model.preprocess), np.uint8)[None] for path in photos)
    probe = fit_linear_probe(
        np.concatenate([engine.embed(crop) for crop in crops]),
        Targets(np.array([names.index(path.parent.name) for path in photos]), "classification", len(names)),
    )
    model = set_classes(model, len(names))
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(probe.weight))
        model.classifier.bias.copy_(torch.from_numpy(probe.bias))
    return model, save(model, folder / "probe.safetensors")


if __name__ == "__main__":
    main()
