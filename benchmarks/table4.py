"""The paper's Table 4 on one core: EfficientNet-B1 against ResNet-152, each on its best engine, as Markdown.

    python benchmarks/table4.py [--runs 20] [--core 0]

Batch 1, one thread, pinned to one core, every network on every engine taking turns in one process: B1 at its 240
pixels, torchvision's ResNet-152 at its 224, as in the paper. Both are set up alike: evaluation mode, batch norm folded
into the convolutions, channels-last in torch. B1 starts from pixels and normalises them; ResNet-152 gets normalised
numbers, which is in its favour. Its ONNX is written by ``torch.onnx.export(dynamo=False)``, which folds batch norm and
needs no further package; onnxruntime and OpenVINO read that file. Weights are random, with batch norm's statistics of
noise: time does not depend on what was learned. Every engine must answer as eager does, within 1e-3 of the largest.

The ratio is of the medians of the best engine of either side, with its 95 % bootstrap interval over the rounds; below
it the ratio within each engine.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from effnet.arch import count
from effnet.bench.contestant import as_logits, difference, pictures, reference
from effnet.bench.network import BRANCH, random_network, settle
from effnet.clock import PAUSE, contest, machine, peaks, pinned, ratio, versions
from effnet.data.without_operators import declare_operators
from effnet.engines.engine import installed
from effnet.exporting.choose import engine

B1, RESNET = "EfficientNet-B1", "ResNet-152"
RESNET_MACS = (
    11_513_626_624  # of its convolutions and its linear map at 224 pixels, summed up over torchvision's modules
)
PAPER = 5.7
AGREE = 1e-3
CONSECUTIVE = 3

Call = Callable[[], NDArray[np.float32]]


def ours() -> tuple[dict[str, Call], NDArray[np.float32]]:
    """B1 through every engine that is installed, but compiled; and what torch answers."""
    model = random_network("b1")
    seen = pictures(1, model.preprocess.size)
    calls: dict[str, Call] = {}
    for kind in installed():
        if kind != "compiled":
            made = engine(model, kind, 1, model.preprocess.size, "float32", 1)
            calls[kind] = lambda made=made: made.run(seen)  # type: ignore[misc]
    return calls, reference(model, seen)


def resnet(folder: Path) -> tuple[dict[str, Call], NDArray[np.float32]]:
    """ResNet-152 in eager mode and through onnxruntime and OpenVINO; and what torch answers."""
    declare_operators()
    import torchvision
    from torch.fx.experimental.optimization import fuse

    torch.manual_seed(0)
    model = torchvision.models.resnet152()
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):  # as of B1: or rounding grows from block to block
            nn.init.constant_(module.bn3.weight, BRANCH)
    settle(model, torch.randn(4, 3, 224, 224))
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        right = as_logits(model(x))
    given, path = x.numpy(), folder / "resnet152.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is the older exporter
        torch.onnx.export(model, (x,), path, dynamo=False, input_names=["x"], output_names=["logits"], opset_version=17)
    fused: nn.Module = fuse(model).to(memory_format=torch.channels_last)
    last = x.to(memory_format=torch.channels_last)

    def eager() -> NDArray[np.float32]:
        with torch.inference_mode():
            return as_logits(fused(last))

    calls: dict[str, Call] = {"eager": eager}
    if "onnxruntime" in installed():
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        calls["onnxruntime"] = lambda: session.run(None, {"x": given})[0]
    if "openvino" in installed():
        import openvino

        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

        def run() -> NDArray[np.float32]:
            request.infer([given], share_inputs=True)
            out: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
            return out

        calls["openvino"] = run
    return calls, right


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=20, help="rounds of three calls of each")
    options.add_argument("--core", type=int, default=0, help="the number of the core to stay on")
    chosen = options.parse_args()
    here = machine()  # before this process is kept on one core
    with TemporaryDirectory() as folder, pinned([chosen.core]):
        torch.set_num_threads(1)
        sides = {B1: ours(), RESNET: resnet(Path(folder))}
        apart: dict[str, float] = {}
        for name, (calls, right) in sides.items():
            for kind, call in calls.items():
                apart[f"{name}, {kind}"] = far = difference(call(), right)
                assert far < AGREE, f"{name} through {kind} answers otherwise than torch: {far:.1g}"
        takers = {f"{name}, {kind}": call for name, (calls, _) in sides.items() for kind, call in calls.items()}
        timings = contest(takers, chosen.runs, 2, CONSECUTIVE, PAUSE)
        peak = peaks(1).float32
    print(f"{here.in_words()}; one thread on core {chosen.core}, {peak / 1e9:.0f} GMAC/s at most")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), "\n")
    print("| network | engine | ms | p10 | p99 | GMAC/s | of peak | off by |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    macs = {B1: count("b1").macs, RESNET: RESNET_MACS}
    best: dict[str, str] = {}
    for name, (calls, _) in sides.items():
        best[name] = min((f"{name}, {kind}" for kind in calls), key=lambda one: timings[one].seconds)
        for kind in calls:
            timing = timings[f"{name}, {kind}"]
            speed = macs[name] / timing.seconds
            shown = " | ".join(f"{value * 1e3:.1f}" for value in (timing.seconds, timing.p10, timing.p99))
            far = apart[f"{name}, {kind}"]
            print(f"| {name} | {kind} | {shown} | {speed / 1e9:.1f} | {speed / peak:.0%} | {far:.0e} |")
    print("\n| ResNet-152 / EfficientNet-B1 | ratio | 95 % interval |\n|---|--:|---|")
    first, second = (timings[best[name]] for name in (RESNET, B1))
    engines = " / ".join(best[name].split(", ")[1] for name in (RESNET, B1))
    rows = [(f"**each on its best engine: {engines}**", ratio(first, second))]
    for kind in sides[RESNET][0]:
        if kind in sides[B1][0]:
            rows.append((f"both through {kind}", ratio(timings[f"{RESNET}, {kind}"], timings[f"{B1}, {kind}"])))
    for name, found in rows:
        print(f"| {name} | {found.value:.2f}× | {found.low:.2f}–{found.high:.2f} |")
    print(f"| the paper | {PAPER}× | – |")


if __name__ == "__main__":
    main()
