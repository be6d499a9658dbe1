"""The automatically chosen engine, compared with every installed bare runtime, timm and torchvision.

    python benchmarks/predictor.py PHOTOS [--rows b0-1,b0-32] [--rounds 12] [--weights LITE0]

From cropped images to logits. A bare runtime gets our graph for the same uint8 pixels; our graph for normalized images,
which is less work; and timm's network as ``torch.onnx.export`` and ``openvino.convert_model`` convert it, also for
normalized images. Each is set up by hand as an expert would: threads, a fixed size and batch size, OpenVINO's hints,
named outputs. timm and torchvision run in inference mode. All have the same weights, and all must have the same top-1.
Thread pools that still spin disturb the next call: in a round each pauses, makes an untimed call, then a few timed
ones.

Finally the chosen engine's float32 top-1 must equal eager's on every photo, and with ``--weights`` for a pretrained
Lite0 too, whose logits are closer to each other than those of random weights.
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
from numpy.typing import NDArray
from subjects import network, photos_of, timms, torchvisions

import effnet
from effnet.data.image_io import load_input
from effnet.data.preprocessing import normalize
from effnet.data.torchvision_compat import declare_operators
from effnet.net import EfficientNet
from effnet.prediction import Predictor
from effnet.runtime import autotune, litert, onnx
from effnet.runtime.io_spec import IOSpec
from effnet.timing import THREAD_POOL_PAUSE, describe_machine, installed_versions, time_interleaved, time_ratio
from effnet.weights import save

Logits = NDArray[np.float32]
Sides = dict[str, Callable[[], Logits]]
AUTO = "effnet, auto"
ROWS = [
    f"{name}-{batch}-{precision}"
    for precision in ("float32", "bfloat16")
    for name in ("b0", "b4", "lite0")
    for batch in (1, 32)
]


def bare_onnxruntime(path: Path, x: NDArray[np.generic], threads: int) -> Callable[[], Logits]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda: session.run([output], {source: x})[0]  # type: ignore[no-any-return]


def bare_openvino(model: object, x: NDArray[np.generic], threads: int, precision: str) -> Callable[[], Logits]:
    """``model``: a path, or a model from ``openvino.convert_model``."""
    import openvino

    core = openvino.Core()
    read = core.read_model(model) if isinstance(model, Path) else model
    read.reshape(list(x.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    }
    request = core.compile_model(read, "CPU", settings).create_infer_request()

    def run() -> Logits:
        request.infer([x], share_inputs=True)
        found: Logits = request.get_output_tensor(0).data
        return found

    return run


def bare_litert(path: Path, x: NDArray[np.generic], threads: int) -> Callable[[], Logits]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    source = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(source, x.shape)
    interpreter.allocate_tensors()
    output = interpreter.get_output_details()[0]["index"]

    def run() -> Logits:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        found: Logits = interpreter.get_tensor(output)
        return found

    return run


def in_torch(model: torch.nn.Module, x: torch.Tensor, half: bool) -> Callable[[], Logits]:
    def run() -> Logits:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return model(x).float().numpy()  # type: ignore[no-any-return]

    return run


def bare(model: EfficientNet, crops: NDArray[np.uint8], precision: str, threads: int, folder: Path) -> Sides:
    """Every installed runtime, on every graph."""
    x = np.ascontiguousarray(normalize(torch.from_numpy(crops), model.preprocess).numpy())
    inputs = {"pixels": crops, "normalized": x}
    half = precision == "bfloat16"
    sides: Sides = {}
    missing: list[str] = []

    def add(name: str, make: Callable[[], Callable[[], Logits]]) -> None:
        try:
            sides[name] = make()
        except ImportError as error:
            missing.append(f"{name}: {error}")

    for kind, given in inputs.items():
        io_spec = IOSpec(kind, "logits", size=model.preprocess.size)
        graph, flat = folder / f"{kind}.onnx", folder / f"{kind}.tflite"
        onnx.write_onnx(graph, model, io_spec)
        litert.write_litert(flat, model, io_spec)
        add(f"OpenVINO, {kind}", lambda g=graph, v=given: bare_openvino(g, v, threads, precision))
        if not half:  # the other two have no bfloat16 on x86
            add(f"onnxruntime, {kind}", lambda g=graph, v=given: bare_onnxruntime(g, v, threads))
            add(f"LiteRT, {kind}", lambda f=flat, v=given: bare_litert(f, v, threads))
    theirs = timms(model, folder)

    def converted() -> Callable[[], Logits]:
        import openvino

        return bare_openvino(openvino.convert_model(theirs, example_input=torch.from_numpy(x)), x, threads, precision)

    def traced() -> Callable[[], Logits]:
        path = folder / "timm.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(theirs, (torch.from_numpy(x),), str(path), dynamo=False, opset_version=17)
        return bare_onnxruntime(path, x, threads)

    add("OpenVINO, timm's network", converted)
    if not half:
        add("onnxruntime, timm's network", traced)
    for name in missing:
        print(f"skipped: {name}", file=sys.stderr)
    return sides


def eager(model: EfficientNet, crops: NDArray[np.uint8], half: bool, folder: Path) -> Sides:
    """timm and torchvision in PyTorch, on normalized images."""
    x = normalize(torch.from_numpy(crops), model.preprocess).contiguous()
    last = x.to(memory_format=torch.channels_last)
    theirs = timms(model, folder)
    sides = {
        "timm, eager float32": in_torch(theirs, x, False),
        "timm, channels_last float32": in_torch(
            timms(model, folder).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            last,
            False,
        ),
    }
    if half:
        sides["timm, channels_last, autocast bfloat16"] = in_torch(
            timms(model, folder).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            last,
            True,
        )
    if not model.arch.name.startswith("lite"):
        sides["torchvision, eager float32"] = in_torch(torchvisions(model, folder), x, False)
    return sides


def row(spec: str, photos: list[Path], rounds: int, threads: int, folder: Path) -> None:
    """Print the table of one network, batch size and precision."""
    name, size, precision = spec.split("-")
    batch, half = int(size), precision == "bfloat16"
    model = network(name, photos)
    file = folder / f"{name}.safetensors"
    save(model, file)
    some = [photos[index % len(photos)] for index in range(batch)]
    crops = np.stack([np.asarray(load_input(path, model.preprocess), np.uint8) for path in some])
    chosen = autotune.engine(file, "auto", batch_size=batch, precision=precision, threads=threads)
    sides = {AUTO: lambda: chosen.run(crops), **bare(model, crops, precision, threads, folder)}
    runtimes = [each for each in sides if each != AUTO]
    sides |= eager(model, crops, half, folder)
    best = sides["timm, eager float32"]().argmax(1)
    agree = {each: int((call().argmax(1) == best).sum()) for each, call in sides.items()}
    times = time_interleaved(
        sides, rounds if batch == 1 else max(5, rounds // 2), 3, 5 if batch == 1 else 2, THREAD_POOL_PAUSE
    )
    fastest = min(runtimes, key=lambda each: times[each].seconds, default=AUTO)
    same_job = [each for each in runtimes if each.endswith("pixels")]
    fair = min(same_job, key=lambda each: times[each].seconds, default=AUTO)
    print(f"\n{name}, batch size {batch}, {precision}: auto is {chosen.kind}, {chosen.precision}\n")
    print("| | ms per image | p10–p90 | that / auto | same top-1 as timm |\n|---|--:|--:|--:|--:|")
    for each, timing in sorted(times.items(), key=lambda pair: pair[1].seconds):
        mark = "**" if each == AUTO else ""
        low, high = (value / batch * 1e3 for value in (timing.p10, timing.p90))
        print(
            f"| {mark}{each}{mark} | {timing.seconds / batch * 1e3:.2f} | {low:.2f}–{high:.2f} "
            f"| {time_ratio(timing, times[AUTO])} | {agree[each]} of {batch} |"
        )
    print(f"\nauto / best bare runtime on the same pixels ({fair}): {time_ratio(times[AUTO], times[fair])};", end=" ")
    print(f"auto / best of all bare runtimes ({fastest}): {time_ratio(times[AUTO], times[fastest])}", flush=True)


def compare_on_photos(model: EfficientNet, file: Path, photos: list[Path], threads: int) -> None:
    """Print how often auto's float32 top-1 equals eager's."""
    auto, plain = Predictor(file, threads=threads), Predictor(file, engine="eager", threads=threads)
    auto.choose_engine()
    same = sum(a.label == b.label for a, b in zip(auto(photos), plain(photos), strict=True))
    print(
        f"\n{model.arch.name}: auto ({auto.engine.kind}) has eager's top-1 on {same} of {len(photos)} photos",
        flush=True,
    )


def main() -> None:
    """Print a table per row, and the comparison on all photos."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photos", type=Path)
    options.add_argument("--rows", default=",".join(ROWS), help="such as b0-1-float32,lite0-32-bfloat16")
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--weights", type=Path, help="pretrained Lite0 in any layout")
    chosen = options.parse_args()
    logging.getLogger("openvino").setLevel(logging.ERROR)
    torch.set_num_threads(chosen.threads)
    declare_operators()
    photos = photos_of(chosen.photos)
    versions = installed_versions(("torch", "timm", "torchvision", "onnxruntime", "openvino", "ai-edge-litert"))
    print(f"{describe_machine().describe()}, {chosen.threads} threads; {versions}")
    with TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["EFFNET_HOME"] = str(folder / "home")
        for spec in filter(None, chosen.rows.split(",")):
            row(spec, photos, chosen.rounds, chosen.threads, folder)
        for name in ("b0", "b4", "lite0"):
            model = network(name, photos)
            file = save(model, folder / f"{name}.safetensors")
            compare_on_photos(model, file, photos, chosen.threads)
        if chosen.weights:
            compare_on_photos(*with_head(chosen.weights, photos, folder), photos, chosen.threads)


def with_head(weights: Path, photos: list[Path], folder: Path) -> tuple[EfficientNet, Path]:
    """A pretrained backbone with a linear probe for the photos' folders."""
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
    return model, save(model, folder / "headed.safetensors")


if __name__ == "__main__":
    main()
