"""The native engine against the bare sessions of onnxruntime, OpenVINO and LiteRT: interleaved, in one process.

    python benchmarks/native.py [NAMES] [--threads N] [--rounds N] [--batch-size N]

Each peer gets what a knowledgeable user gives it: a graph of one fixed shape whose input is normalized already, the
latency mode, as many threads as the native engine. A round calls each engine three times after a pause; printed are the
median and the minimum of all calls in milliseconds, and the ratio of the best peer's to the native engine's.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import effnet
from effnet.runtime import latency, litert, native, native_writer, onnx_writer, onnxruntime, openvino
from effnet.runtime.io_spec import IOSpec
from effnet.timing.machine import describe_machine

PAUSE = 0.15  # seconds: threads of the one before stop spinning


def open_engines(name: str, side: int, batch_size: int, threads: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Return a call of each engine on the same images."""
    model = latency.random_network(name)
    x = np.random.default_rng(0).normal(size=(batch_size, 3, side, side)).astype(np.float32)
    spec = IOSpec("normalized", "logits", size=(side, side))
    path = folder / f"{name}.onnx"
    onnx_writer.write_onnx(path, model, spec)
    session = onnxruntime.open_session(path, threads, {"batch": batch_size})
    core = openvino.get_core()
    graph = core.read_model(path)
    graph.reshape([batch_size, 3, side, side])
    request = core.compile_model(graph, "CPU", openvino.compile_settings("float32", threads)).create_infer_request()
    tflite = folder / f"{name}.tflite"
    litert.write_litert(tflite, model, IOSpec("floats", "logits", size=(side, side)))
    interpreter = litert.LiteRTEngine(tflite, threads=threads)
    interpreter.prepare(batch_size)
    pixels = np.ascontiguousarray(x.transpose(0, 2, 3, 1) * 50 + 128)
    engine = native.NativeEngine(native_writer.build_plan(model), threads=threads)
    engines: dict[str, Callable[[], object]] = {
        "native": lambda: engine.run(x),
        "onnxruntime": lambda: session.run(None, {"normalized": x}),
        "openvino": lambda: request.infer([x], share_inputs=True),
        "litert": lambda: interpreter.run(pixels),
    }
    reference = np.asarray(session.run(None, {"normalized": x})[0])
    difference = np.abs(engine.run(x) - reference).max() / np.abs(reference).max()
    assert difference < 1e-4, f"{name}: the outputs differ by {difference:.1e}"
    return engines


def main() -> None:
    """Print one row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["b0", "b4", "lite0", "v2_s"])
    parser.add_argument("--threads", type=int, default=describe_machine().cores)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=1)
    given = parser.parse_args()
    here = describe_machine()
    print(f"{here.cpu}, {given.threads} of {here.cores} cores, batch size {given.batch_size}, float32")
    for name in given.names:
        with TemporaryDirectory() as folder:
            side = effnet.ARCHS[name].resolution
            engines = open_engines(name, side, given.batch_size, given.threads, Path(folder))
            times: dict[str, list[float]] = {kind: [] for kind in engines}
            for _ in range(given.rounds):
                for kind, call in engines.items():
                    time.sleep(PAUSE)
                    call()
                    for _ in range(3):
                        start = time.perf_counter()
                        call()
                        times[kind].append(1e3 * (time.perf_counter() - start))
            texts = [f"{kind} {np.median(each):.2f} (min {min(each):.2f})" for kind, each in times.items()]
            peers = [kind for kind in times if kind != "native"]
            ratios = [min(take(times[kind]) for kind in peers) / take(times["native"]) for take in (np.median, min)]
            print(f"{name} {side}: {', '.join(texts)}; ratio {ratios[0]:.2f} (of minima {ratios[1]:.2f})", flush=True)


if __name__ == "__main__":
    main()
