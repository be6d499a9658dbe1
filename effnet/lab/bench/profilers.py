"""Profiles of torch, onnxruntime and OpenVINO, mapped to the steps of a network; and what each step costs."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from effnet.arch import Count, LayerCount, Operation
from effnet.data.preprocessing import normalize
from effnet.lab.bench.backends import DTYPES, ImageBatch
from effnet.net import EfficientNet, layers, surgery
from effnet.runtime import onnxruntime, openvino
from effnet.timing import THREAD_POOL_PAUSE, time_interleaved

INPUT, BETWEEN = "input", "between"
PROFILE_RUNS, WARMUP_RUNS = 30, 3
# The engines that can be profiled, and in which precisions
PRECISIONS = {"eager": tuple(DTYPES), "onnxruntime": ("float32",), "openvino": ("float32", "bfloat16")}
ORT_TIME_SUFFIX = "_kernel_time"
# Types of nodes in onnxruntime and OpenVINO
CONVOLUTIONS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Convolution", "GroupConvolution", "FullyConnected"}
LAYOUTS = {"ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Cast", "Reorder", "Convert"}

T = TypeVar("T")
StepSeconds = Mapping["StepKey", float]


@dataclass(frozen=True)
class StepKey:
    """A step: its operation or layer, and its part in that.

    Parts: "convolution" (also a linear map), "activation", "padding" (a copy for asymmetric padding), "layout"
    (reordering in memory); of squeeze-excite "mean" and "gate"; of a layer "residual"; of the classifier "pool".
    """

    operation: str
    part: str


@dataclass(frozen=True)
class StepCost:
    """The cost of a step per image. ``values`` are read and written; ``weights`` are read once per batch."""

    group: str
    stage: str
    macs: int = 0
    values: int = 0
    weights: int = 0


def step_costs(counted: Count, channels: int = 3) -> dict[StepKey, StepCost]:
    """Return the cost of every step that an engine may take, in the network's order."""
    height, width = counted.size
    costs = {StepKey(INPUT, "input"): StepCost(INPUT, INPUT, values=2 * channels * height * width)}
    for row in counted.layers:
        _add_layer_costs(row, costs)
    return costs


def _add_layer_costs(row: LayerCount, costs: dict[StepKey, StepCost]) -> None:
    layer = row.layer
    stage = {"stem": "stem", "head": "head", "classifier": "head"}.get(layer.kind, f"stage{layer.stage}")
    area = row.size_in[0] * row.size_in[1]
    written = layer.inputs * area
    if layer.kind == "classifier":
        costs[StepKey(row.name, "pool")] = StepCost("classifier", stage, values=written)
    for operation, (height, width) in row.operations:
        group, name = _step_group(operation, layer.kind), operation.name
        read = operation.inputs * (1 if operation.pooled else area)
        out = operation.channels * height * width
        if group == "squeeze-excite" and operation.activation != "sigmoid":
            costs[StepKey(name, "mean")] = StepCost(group, stage, values=written)
        costs[StepKey(name, "padding")] = StepCost("padding", stage, values=2 * read)
        costs[StepKey(name, "layout")] = StepCost("layout", stage, values=2 * read)
        weights = operation.channels * (operation.inputs // operation.groups * operation.kernel**2 + 1)
        macs = operation.macs(height, width)
        costs[StepKey(name, "convolution")] = StepCost(group, stage, macs, read + out, weights)
        if operation.activation:
            activation_group = group if operation.pooled else "activation"
            costs[StepKey(name, "activation")] = StepCost(activation_group, stage, values=2 * out)
        if operation.activation == "sigmoid":
            costs[StepKey(name, "gate")] = StepCost(group, stage, values=2 * written)
        if not operation.pooled:
            area, written = height * width, out
    if layer.residual:
        costs[StepKey(row.name, "residual")] = StepCost("residual", stage, values=3 * written)


def _step_group(operation: Operation, kind: str) -> str:
    if kind in ("stem", "classifier"):
        return kind
    if operation.pooled:
        return "squeeze-excite"
    if operation.groups > 1:
        return "depthwise"
    return "fused" if operation.kernel > 1 else "pointwise"


@dataclass(frozen=True)
class Profile:
    """``seconds`` of a whole call without profiling, and the seconds of its ``steps`` with it.

    Both are means over the faster half of the calls: medians of steps would not add up to a call.
    """

    seconds: float
    steps: dict[StepKey, float]


@dataclass(frozen=True)
class Profiler:
    """An engine opened twice; ``read_passes``, called once at the end, returns the steps of every profiled call."""

    run: Callable[[], object]
    run_profiled: Callable[[], object]
    read_passes: Callable[[], list[StepSeconds]]

    def measure(self, runs: int = PROFILE_RUNS, seconds: float = 30) -> Profile:
        """Run both in turn, so that disturbances of the machine affect them alike."""
        calls = {"bare": self.run, "profiled": self.run_profiled}
        timing = time_interleaved(calls, runs, WARMUP_RUNS, 1, THREAD_POOL_PAUSE, seconds)["bare"]
        bare = _faster_half([call for each in timing.rounds for call in each], float)
        passes = _faster_half(self.read_passes()[WARMUP_RUNS:], lambda steps: sum(steps.values()))
        keys = dict.fromkeys(key for steps in passes for key in steps)
        means = {key: mean(steps.get(key, 0.0) for steps in passes) for key in keys}
        steps = {key: seconds for key, seconds in means.items() if seconds > 0}
        return Profile(mean(bare), steps)


def _faster_half(calls: Sequence[T], seconds: Callable[[T], float]) -> list[T]:
    return sorted(calls, key=seconds)[: max(1, len(calls) // 2)]


class NodeMatcher:
    """Maps the nodes of an exported graph to steps; nodes inserted between others count towards the node before.

    Our ONNX files name every node after its operation, and runtimes add to that: ``stem_nchwc``,
    ``stem/WithoutBiases``, ``stage1.0.depthwise.silu/QuickGeluFusion/``.
    """

    def __init__(self, counted: Count) -> None:
        self._keys = {name: StepKey(INPUT, "input") for name in ("floats", "centered", "channels_first", "pixels")}
        for row in counted.layers:
            for operation, _ in row.operations:
                step = node = operation.name
                if row.layer.kind == "classifier":
                    self._keys |= {"pooled": StepKey(step, "pool"), "embedding": StepKey(step, "pool")}
                    node = "logits"
                self._keys[node] = StepKey(step, "convolution")
                self._keys[f"{node}.mean"] = StepKey(step, "mean")
                self._keys[f"{node}.gated"] = StepKey(step, "gate")
                for activation in ("relu", "relu6", "silu", "sigmoid"):
                    self._keys[f"{node}.{activation}"] = StepKey(step, "activation")
            self._keys[f"{row.name}.add"] = StepKey(row.name, "residual")
        self._longest_first = sorted(self._keys, key=len, reverse=True)

    def sum_steps(self, nodes: Sequence[tuple[str, str, float]]) -> StepSeconds:
        """Sum the seconds of nodes, in order: (name, "convolution", "layout" or "" by its type, seconds)."""
        steps: dict[StepKey, float] = {}
        last = StepKey(INPUT, "input")
        for name, kind, seconds in nodes:
            key = self._match_step(name)
            if key is None or (kind == "layout" and key.part != "input"):
                key = last if last.part == "input" else StepKey(last.operation, "layout")
            else:  # a convolution with a fused activation is named after that
                last = key = StepKey(key.operation, "convolution") if kind == "convolution" else key
            steps[key] = steps.get(key, 0.0) + seconds
        return steps

    def _match_step(self, name: str) -> StepKey | None:
        """Return the step whose name is a prefix of ``name``; None if there is none."""
        for known in self._longest_first:
            after = name[len(known) : len(known) + 1]
            if name.startswith(known) and not (after.isalnum() or after == "."):
                return self._keys[known]
        return None


def profile_eager(model: EfficientNet, precision: str, images: ImageBatch) -> Profiler:
    """Profile ``model`` as the engine "eager" runs it: batch norm folded, channels-last."""
    dtype = DTYPES[precision]
    folded = surgery.fold_batch_norm(model).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.from_numpy(images)

    def run() -> object:
        with torch.inference_mode():
            return folded(normalize(pixels, model.preprocess).to(dtype)).float().numpy()

    passes: list[StepSeconds] = []

    def run_profiled() -> None:
        with _StepTimer(folded) as timer, _track_modules(folded, timer):
            run()
        passes.append(timer.seconds)

    return Profiler(run, run_profiled, lambda: passes)


class _StepTimer(TorchFunctionMode):
    """Times every torch function that computes, under the module that calls it."""

    def __init__(self, model: EfficientNet) -> None:
        super().__init__()
        self.seconds: dict[StepKey, float] = {}
        self.module_stack: list[str] = []  # paths of the running modules, the innermost last
        self.convolutions = {
            name for name, module in model.named_modules() if isinstance(module, (layers.Conv, nn.Linear))
        }

    def leave_module(self) -> None:
        self.module_stack.pop()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        start = perf_counter()
        out = function(*args, **(kwargs or {}))
        seconds = perf_counter() - start
        if isinstance(out, Tensor):
            key = self._step_key(function)
            self.seconds[key] = self.seconds.get(key, 0.0) + seconds
        return out

    def _step_key(self, function: Callable[..., Any]) -> StepKey:
        if not self.module_stack:
            return StepKey(INPUT, "input")
        path = self.module_stack[-1]
        name = (resolve_name(function) or "").rsplit(".", 1)[-1]
        if path in self.convolutions:
            return StepKey(path.removesuffix(".conv"), "padding" if name == "pad" else "convolution")
        if path == "":  # the network itself computes the mean over the head's map
            return StepKey("classifier", "pool")
        parent, _, own = path.rpartition(".")
        if own == "squeeze_excite":
            part = {"mean": "mean", "sigmoid": "activation"}.get(name, "gate")
            return StepKey(f"{path}.{'reduce' if part == 'mean' else 'expand'}", part)
        if own == "activation":
            return StepKey(f"{parent}.reduce" if parent.endswith("squeeze_excite") else parent, "activation")
        return StepKey(path, "residual")


@contextmanager
def _track_modules(model: EfficientNet, timer: _StepTimer) -> Iterator[None]:
    """Keep the module stack of ``timer`` up to date in this block."""
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if not isinstance(module, (nn.Identity, nn.Dropout, nn.Sequential)) or name == "":
                enter = module.register_forward_pre_hook(lambda *_, name=name: timer.module_stack.append(name))
                hooks.enter_context(enter)
                hooks.enter_context(module.register_forward_hook(lambda *_: timer.leave_module()))
        yield


def profile_onnxruntime(path: Path, counted: Count, images: ImageBatch, threads: int) -> Profiler:
    """Profile the file at ``path`` as the engine "onnxruntime" runs it; the profile is written beside it."""
    bare = onnxruntime.open_session(path, threads)
    profiled = onnxruntime.open_session(path, threads, profile=path.parent / "profile")
    inputs = {bare.get_inputs()[0].name: images.astype(np.float32)}
    matcher = NodeMatcher(counted)

    def read_passes() -> list[StepSeconds]:
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
        return [matcher.sum_steps(nodes) for nodes in _split_ort_runs(events)]

    return Profiler(lambda: bare.run(["logits"], inputs), lambda: profiled.run(["logits"], inputs), read_passes)


def _split_ort_runs(events: list[dict[str, Any]]) -> list[list[tuple[str, str, float]]]:
    """Return the nodes of each call, in order: name, kind, seconds."""
    calls = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run")
    kernels = (event for event in events if event["cat"] == "Node" and event["name"].endswith(ORT_TIME_SUFFIX))
    runs: list[list[tuple[str, str, float]]] = [[] for _ in calls]
    index = 0
    for event in sorted(kernels, key=lambda event: event["ts"]):
        while event["ts"] > calls[index][1]:
            index += 1
        kind = _node_kind(event["args"]["op_name"])
        runs[index].append((event["name"].removesuffix(ORT_TIME_SUFFIX), kind, event["dur"] / 1e6))
    return runs


def _node_kind(operator: str) -> str:
    return "convolution" if operator in CONVOLUTIONS else "layout" if operator in LAYOUTS else ""


def profile_openvino(path: Path, counted: Count, precision: str, images: ImageBatch, threads: int) -> Profiler:
    """Profile the file at ``path`` as the engine "openvino" runs it."""
    settings = openvino.compile_settings(precision, threads)
    bare, profiled = (
        openvino.get_core().compile_model(path, "CPU", settings | {"PERF_COUNT": profile}).create_infer_request()
        for profile in (False, True)
    )
    inputs = images.astype(np.float32)
    matcher = NodeMatcher(counted)
    passes: list[StepSeconds] = []

    def run_profiled() -> None:
        profiled.infer([inputs], share_inputs=True)
        infos = profiled.get_profiling_info()
        nodes = [(info.node_name, _node_kind(info.node_type), info.real_time.total_seconds()) for info in infos]
        passes.append(matcher.sum_steps(nodes))

    return Profiler(lambda: bare.infer([inputs], share_inputs=True), run_profiled, lambda: passes)
