"""Every node of an ONNX file as OpenVINO's profiler times it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch import Count
from effnet.bench.contestant import Pictures
from effnet.bench.why.profile import Nodes, Pass, Profiled
from effnet.engines.openvino import the_core

HINTS = {"float32": "f32", "bfloat16": "bf16"}
CONVOLUTIONS = ("Convolution", "GroupConvolution", "MatMul", "FullyConnected")
LAYOUTS = ("Reorder", "Transpose", "Reshape", "Convert")


def openvino(path: Path, counted: Count, precision: str, seen: Pictures, threads: int) -> Profiled:
    """The file in ``path``, set up as the engine "openvino" does it.

    Raises ``ImportError`` without openvino, and ``ValueError`` for a precision other than float32 and bfloat16.
    """
    if precision not in HINTS:
        raise ValueError(f"the steps of openvino are timed in {' or '.join(HINTS)}, not in {precision}")
    bare, request = (_request(path, precision, threads, profile) for profile in (False, True))
    given = seen.astype(np.float32)
    nodes = Nodes(counted)
    passes: list[Pass] = []

    def profiled() -> None:
        request.infer([given], share_inputs=True)
        passes.append(nodes.steps([_node(each) for each in request.get_profiling_info()]))

    return Profiled(
        "openvino", precision, threads, lambda: bare.infer([given], share_inputs=True), profiled, lambda: passes
    )


def _request(path: Path, precision: str, threads: int, profile: bool) -> Any:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERF_COUNT": profile,
    }
    return the_core().compile_model(path, "CPU", settings).create_infer_request()


def _node(each: Any) -> tuple[str, str, float]:
    made = each.node_type
    kind = "convolution" if made in CONVOLUTIONS else "layout" if made in LAYOUTS else ""
    return each.node_name, kind, each.real_time.total_seconds()
