"""What every step of a network costs before anything is measured: a reading of `effnet.count`'s rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.hooks import RemovableHandle

from effnet.arch import Count, Operation
from effnet.arch.counting import LayerCount
from effnet.data.preprocessing import normalize
from effnet.lab.bench.backends import ImageBatch
from effnet.net import EfficientNet
from effnet.net.layers import Conv
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.base import not_installed_error
from effnet.runtime.openvino import get_core
from effnet.timing import THREAD_POOL_PAUSE, time_interleaved

INPUT, BETWEEN = "input", "between"


@dataclass(frozen=True)
class StepKey:
    """A step: the operation (or the layer) that it belongs to, and its part in it.

    Parts: "convolution" (a linear map too), "activation", "padding" (a copy for a lopsided one), "layout" (reordering
    in memory); of a squeeze-excite "mean" and "gate"; of a layer "residual"; of the classifier "pool".
    """

    operation: str
    part: str


@dataclass(frozen=True)
class StepCost:
    """Of one picture. ``values`` are read and written; ``weights`` are read once for all pictures."""

    group: str
    stage: str
    macs: int = 0
    values: int = 0
    weights: int = 0


def step_costs(counted: Count, channels: int = 3) -> dict[StepKey, StepCost]:
    """Every step that an engine may take, in the network's order."""
    high, wide = counted.size
    found = {StepKey(INPUT, "input"): StepCost(INPUT, INPUT, values=2 * channels * high * wide)}
    for row in counted.layers:
        found |= _layer_costs(row)
    return found


def stage_of(row: LayerCount) -> str:
    """The part of the network that a layer belongs to: "stem", "stage1" …, "head"; the classifier to "head"."""
    kind = row.layer.kind
    return {"stem": "stem", "head": "head", "classifier": "head"}.get(kind, f"stage{row.layer.stage}")


def _layer_costs(row: LayerCount) -> dict[StepKey, StepCost]:
    found: dict[StepKey, StepCost] = {}
    stage, layer = stage_of(row), row.layer
    area = row.size_in[0] * row.size_in[1]
    written = layer.inputs * area
    if layer.kind == "classifier":
        found[StepKey(row.name, "pool")] = StepCost("classifier", stage, values=written)
    for operation, (high, wide) in row.operations:
        group = _step_group(operation, layer.kind)
        read, out = operation.inputs * (1 if operation.pooled else area), operation.channels * high * wide
        if group == "squeeze-excite" and operation.activation != "sigmoid":
            found[StepKey(operation.name, "mean")] = StepCost(group, stage, values=written)
        found[StepKey(operation.name, "padding")] = StepCost("padding", stage, values=2 * read)
        found[StepKey(operation.name, "layout")] = StepCost("layout", stage, values=2 * read)
        weights = operation.channels * (operation.inputs // operation.groups * operation.kernel**2 + 1)
        found[StepKey(operation.name, "convolution")] = StepCost(
            group, stage, operation.macs(high, wide), read + out, weights
        )
        if operation.activation:
            found[StepKey(operation.name, "activation")] = StepCost(
                group if operation.pooled else "activation", stage, values=2 * out
            )
        if operation.activation == "sigmoid":
            found[StepKey(operation.name, "gate")] = StepCost(group, stage, values=2 * written)
        if not operation.pooled:
            area, written = high * wide, out
    if layer.residual:
        found[StepKey(row.name, "residual")] = StepCost("residual", stage, values=3 * written)
    return found


def _step_group(operation: Operation, kind: str) -> str:
    if kind in ("stem", "classifier"):
        return kind
    if operation.pooled:
        return "squeeze-excite"
    if operation.groups > 1:
        return "depthwise"
    return "fused" if operation.kernel > 1 else "pointwise"


# What an engine's profile says: seconds of every step it took, pass by pass.


StepSeconds = Mapping[StepKey, float]


PROFILE_RUNS, WARMUP_RUNS = 30, 3


T = TypeVar("T")


@dataclass(frozen=True)
class Profile:
    """``seconds`` is a whole call without any profiling, ``steps`` are of calls with it.

    Both are means over the faster half of the calls: medians of steps would not add up to a call.
    """

    engine: str
    precision: str
    threads: int
    seconds: float
    steps: dict[StepKey, float]


@dataclass(frozen=True)
class Profiler:
    """An engine opened twice: ``run`` as it is used, ``profiled`` with its profiling on.

    ``passes``, asked once at the end, gives the steps of every call of ``profiled``, in order.
    """

    engine: str
    precision: str
    threads: int
    run: Callable[[], object]
    run_profiled: Callable[[], object]
    read_passes: Callable[[], list[StepSeconds]]

    def measure(self, runs: int = PROFILE_RUNS, seconds: float = 30) -> Profile:
        """Both take turns, so that what disturbs the machine disturbs them alike."""
        takers = {"bare": self.run, "profiled": self.run_profiled}
        timing = time_interleaved(takers, runs, WARMUP_RUNS, 1, THREAD_POOL_PAUSE, seconds)["bare"]
        bare = _faster_half([call for one in timing.rounds for call in one], float)
        passes = _faster_half(self.read_passes()[WARMUP_RUNS:], lambda one: sum(one.values()))
        keys = dict.fromkeys(key for one in passes for key in one)
        steps = {key: mean(one.get(key, 0.0) for one in passes) for key in keys}
        taken = {key: took for key, took in steps.items() if took > 0}
        return Profile(self.engine, self.precision, self.threads, mean(bare), taken)


def _faster_half(calls: Sequence[T], seconds: Callable[[T], float]) -> list[T]:
    return sorted(calls, key=seconds)[: max(1, len(calls) // 2)]


class NodeMatcher:
    """From the names of an exported graph's nodes, and what runtimes make of them, to steps.

    Our ONNX calls every node as its operation, and runtimes add to that: ``stem_nchwc``, ``stem/WithoutBiases``,
    ``stage1.0.depthwise.silu/QuickGeluFusion/``. What they insert between nodes belongs to the node before it.
    """

    def __init__(self, counted: Count) -> None:
        self._known: dict[str, StepKey] = {
            name: StepKey(INPUT, "input") for name in ("floats", "centred", "channels_first", "pixels")
        }
        for row in counted.layers:
            for operation, _ in row.operations:
                at = operation.name
                if row.layer.kind == "classifier":
                    self._known |= {"pooled": StepKey(at, "pool"), "embedding": StepKey(at, "pool")}
                    at = "logits"
                self._known[at] = StepKey(operation.name, "convolution")
                self._known[f"{at}.mean"] = StepKey(operation.name, "mean")
                self._known[f"{at}.gated"] = StepKey(operation.name, "gate")
                for activation in ("relu", "relu6", "silu", "sigmoid"):
                    self._known[f"{at}.{activation}"] = StepKey(operation.name, "activation")
            self._known[f"{row.name}.add"] = StepKey(row.name, "residual")
        self._by_length = sorted(self._known, key=len, reverse=True)

    def sum_steps(self, nodes: Sequence[tuple[str, str, float]]) -> StepSeconds:
        """(name, "convolution" or "layout" where its kind says so, else "", seconds) of every node, in order."""
        found: dict[StepKey, float] = {}
        last = StepKey(INPUT, "input")
        for name, kind, seconds in nodes:
            key = self._match_step(name)
            if key is None or (kind == "layout" and key.part != "input"):
                key = last if last.part == "input" else StepKey(last.operation, "layout")
            else:  # a convolution that took its activation in is called as that
                last = key = StepKey(key.operation, "convolution") if kind == "convolution" else key
            found[key] = found.get(key, 0.0) + seconds
        return found

    def _match_step(self, name: str) -> StepKey | None:
        """The step whose name begins ``name``; None where none does."""
        for known in self._by_length:
            after = name[len(known) : len(known) + 1]
            if name.startswith(known) and not (after.isalnum() or after == "."):
                return self._known[known]
        return None


# Every step of torch's eager mode, timed as it is called.


EAGER_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def profile_eager(model: EfficientNet, precision: str, images: ImageBatch, threads: int) -> Profiler:
    """``model`` as the engine "eager" runs it: batch norm folded, channels-last.

    Raises ``ValueError`` for a precision other than float32 and bfloat16.
    """
    if precision not in EAGER_DTYPES:
        raise ValueError(f"eager computes in {' or '.join(EAGER_DTYPES)} here, not in {precision}")
    dtype = EAGER_DTYPES[precision]
    folded = fold_batch_norm(model).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    given = torch.from_numpy(images)

    def run() -> object:
        with torch.inference_mode():
            return folded(normalize(given, model.preprocess).to(dtype)).float().numpy()

    passes: list[StepSeconds] = []

    def profiled() -> None:
        with _StepTimer(folded) as steps, _track_modules(folded, steps):
            run()
        passes.append(steps.seconds)

    return Profiler("eager", precision, threads, run, profiled, lambda: passes)


class _StepTimer(TorchFunctionMode):
    """Times every call of torch that computes, under the module that makes it."""

    def __init__(self, model: EfficientNet) -> None:
        super().__init__()
        self.seconds: dict[StepKey, float] = {}
        self.module_stack: list[str] = []  # paths of the modules that are running, the innermost last
        self.convolutions = {name for name, module in model.named_modules() if isinstance(module, (Conv, nn.Linear))}

    def leave_module(self) -> None:
        """The innermost module has ended."""
        self.module_stack.pop()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        start = perf_counter()
        out = function(*args, **(kwargs or {}))
        taken = perf_counter() - start
        if isinstance(out, Tensor):
            key = self._key(function)
            self.seconds[key] = self.seconds.get(key, 0.0) + taken
        return out

    def _key(self, function: Callable[..., Any]) -> StepKey:
        path = self.module_stack[-1] if self.module_stack else None
        if path is None:
            return StepKey(INPUT, "input")
        called = (resolve_name(function) or "").rsplit(".", 1)[-1]
        if path in self.convolutions:
            operation = path.removesuffix(".conv")
            return StepKey(operation, "padding" if called == "pad" else "convolution")
        if path == "":  # the network itself: what is left to it is the mean over the head's map
            return StepKey("classifier", "pool")
        owner, _, own = path.rpartition(".")
        if own == "squeeze_excite":
            part = {"mean": "mean", "sigmoid": "activation"}.get(called, "gate")
            return StepKey(f"{path}.{'reduce' if part == 'mean' else 'expand'}", part)
        if own == "activation":
            return StepKey(f"{owner}.reduce" if owner.endswith("squeeze_excite") else owner, "activation")
        return StepKey(path, "residual")


@contextmanager
def _track_modules(model: EfficientNet, steps: _StepTimer) -> Iterator[None]:
    """In this block ``steps`` knows which module runs."""
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Identity, nn.Dropout, nn.Sequential)) or name == "":
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: steps.module_stack.append(name)))
            handles.append(module.register_forward_hook(lambda *_: steps.leave_module()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# Every node of an ONNX file as onnxruntime's profiler times it.


ORT_CONVOLUTIONS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul")


ORT_LAYOUTS = ("ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Cast")


ORT_TIME_SUFFIX = "_kernel_time"


ORT_ERRORS_ONLY = 3


def profile_onnxruntime(path: Path, counted: Count, precision: str, images: ImageBatch, threads: int) -> Profiler:
    """The file in ``path``, set up as the engine "onnxruntime" does it; the profile is written beside it.

    Raises ``ImportError`` without onnxruntime, and ``ValueError`` for a precision other than float32.
    """
    if precision != "float32":
        raise ValueError(f"onnxruntime computes in float32 here, not in {precision}")
    bare, profiled = _open_ort_session(path, threads), _open_ort_session(path, threads, profile=path.parent / "profile")
    given = {bare.get_inputs()[0].name: images.astype(np.float32)}
    nodes = NodeMatcher(counted)

    def passes() -> list[StepSeconds]:
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
        return [nodes.sum_steps(one) for one in _split_ort_runs(events)]

    return Profiler(
        "onnxruntime",
        precision,
        threads,
        lambda: bare.run(["logits"], given),
        lambda: profiled.run(["logits"], given),
        passes,
    )


def _open_ort_session(path: Path, threads: int, profile: Path | None = None) -> Any:
    try:
        import onnxruntime as runtime
    except ImportError:
        raise not_installed_error("onnxruntime") from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ORT_ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _split_ort_runs(events: list[dict[str, Any]]) -> list[list[tuple[str, str, float]]]:
    """The nodes of each call, in order: name, kind, seconds."""
    calls = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run")
    nodes = sorted((event for event in events if event["cat"] == "Node"), key=lambda event: event["ts"])
    found: list[list[tuple[str, str, float]]] = [[] for _ in calls]
    at = 0
    for event in nodes:
        if not event["name"].endswith(ORT_TIME_SUFFIX):
            continue
        while event["ts"] > calls[at][1]:
            at += 1
        made = event["args"]["op_name"]
        kind = "convolution" if made in ORT_CONVOLUTIONS else "layout" if made in ORT_LAYOUTS else ""
        found[at].append((event["name"].removesuffix(ORT_TIME_SUFFIX), kind, event["dur"] / 1e6))
    return found


# Every node of an ONNX file as OpenVINO's profiler times it.


OPENVINO_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


OPENVINO_CONVOLUTIONS = ("Convolution", "GroupConvolution", "MatMul", "FullyConnected")


OPENVINO_LAYOUTS = ("Reorder", "Transpose", "Reshape", "Convert")


def profile_openvino(path: Path, counted: Count, precision: str, images: ImageBatch, threads: int) -> Profiler:
    """The file in ``path``, set up as the engine "openvino" does it.

    Raises ``ImportError`` without openvino, and ``ValueError`` for a precision other than float32 and bfloat16.
    """
    if precision not in OPENVINO_PRECISIONS:
        raise ValueError(f"the steps of openvino are timed in {' or '.join(OPENVINO_PRECISIONS)}, not in {precision}")
    bare, request = (_open_openvino_request(path, precision, threads, profile) for profile in (False, True))
    given = images.astype(np.float32)
    nodes = NodeMatcher(counted)
    passes: list[StepSeconds] = []

    def profiled() -> None:
        request.infer([given], share_inputs=True)
        passes.append(nodes.sum_steps([_read_openvino_node(each) for each in request.get_profiling_info()]))

    return Profiler(
        "openvino", precision, threads, lambda: bare.infer([given], share_inputs=True), profiled, lambda: passes
    )


def _open_openvino_request(path: Path, precision: str, threads: int, profile: bool) -> Any:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[precision],
        "PERF_COUNT": profile,
    }
    return get_core().compile_model(path, "CPU", settings).create_infer_request()


def _read_openvino_node(each: Any) -> tuple[str, str, float]:
    made = each.node_type
    kind = "convolution" if made in OPENVINO_CONVOLUTIONS else "layout" if made in OPENVINO_LAYOUTS else ""
    return each.node_name, kind, each.real_time.total_seconds()
