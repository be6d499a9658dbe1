"""Every node of an ONNX file as onnxruntime's profiler times it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch import Count
from effnet.bench.contestant import Pictures
from effnet.bench.why.profile import Nodes, Pass, Profiled
from effnet.engines.engine import missing

CONVOLUTIONS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul")
LAYOUTS = ("ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Cast")
SUFFIX = "_kernel_time"
ERRORS_ONLY = 3


def onnxruntime(path: Path, counted: Count, precision: str, seen: Pictures, threads: int) -> Profiled:
    """The file in ``path``, set up as the engine "onnxruntime" does it; the profile is written beside it.

    Raises ``ImportError`` without onnxruntime, and ``ValueError`` for a precision other than float32.
    """
    if precision != "float32":
        raise ValueError(f"onnxruntime computes in float32 here, not in {precision}")
    bare, profiled = _session(path, threads), _session(path, threads, profile=path.parent / "profile")
    given = {bare.get_inputs()[0].name: seen.astype(np.float32)}
    nodes = Nodes(counted)

    def passes() -> list[Pass]:
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
        return [nodes.steps(one) for one in _runs(events)]

    return Profiled(
        "onnxruntime",
        precision,
        threads,
        lambda: bare.run(["logits"], given),
        lambda: profiled.run(["logits"], given),
        passes,
    )


def _session(path: Path, threads: int, profile: Path | None = None) -> Any:
    try:
        import onnxruntime as runtime
    except ImportError:
        raise missing("onnxruntime") from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _runs(events: list[dict[str, Any]]) -> list[list[tuple[str, str, float]]]:
    """The nodes of each call, in order: name, kind, seconds."""
    calls = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run")
    nodes = sorted((event for event in events if event["cat"] == "Node"), key=lambda event: event["ts"])
    found: list[list[tuple[str, str, float]]] = [[] for _ in calls]
    at = 0
    for event in nodes:
        if not event["name"].endswith(SUFFIX):
            continue
        while event["ts"] > calls[at][1]:
            at += 1
        made = event["args"]["op_name"]
        kind = "convolution" if made in CONVOLUTIONS else "layout" if made in LAYOUTS else ""
        found[at].append((event["name"].removesuffix(SUFFIX), kind, event["dur"] / 1e6))
    return found
