"""How much each layer loses if it alone is in int8: simulated in torch, layer by layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effnet.arch import Layer, layers, serde
from effnet.exporting.calibration import Calibration, activation_of, all_operations, forward_layer, traced_forward
from effnet.net import EfficientNet
from effnet.tasks import Task, task_of

MIN_STD = 1e-6  # of regression values


@dataclass(frozen=True)
class LayerSensitivity(serde.Record):
    """What one layer loses if it alone is in int8."""

    layer: str  # name of an operation, see `effnet.arch.operations`
    divergence: float  # Kullback–Leibler, in nats per image; for regression the squared difference, in variances
    agreement: float  # fraction of images with float's top-1, of labels predicted as in float, or R²
    accuracy_drop: float | None = None  # percentage points of the metric; None without labels


def layer_sensitivities(
    model: EfficientNet,
    calibration: Calibration,
    batches: Sequence[Tensor],
    targets: Sequence[Tensor] | None,
    names: Sequence[str],
    step_done: Callable[[int, int], None],
) -> tuple[LayerSensitivity, ...]:
    """Return a row per operation in ``names``. ``batches`` are normalized (N, C, H, W), ``targets`` as in `Task`."""
    task = task_of(model.labels.task)
    map_names = _operation_maps(model)
    total = {name: torch.zeros(3) for name in names}  # divergence, agreement, correct
    correct, images, done = 0.0, sum(len(batch) for batch in batches), 0
    all_layers = tuple(layers(model.arch, model.classes, model.channels))
    with torch.inference_mode():
        float_std, target_std = _stds(task, model, batches, targets)
        for batch_index, x in enumerate(batches):
            expected = traced_forward(model, x)
            predicted = torch.from_numpy(task.predict(expected.numpy()))
            labels = targets[batch_index] if targets is not None else predicted
            correct += _count_correct(task, expected, labels, target_std)
            for index, layer in enumerate(all_layers):
                for name in (name for name in names if name == layer.name or name.startswith(f"{layer.name}.")):
                    got = _run_with_int8_operation(model, calibration, name, map_names[name], x, all_layers[index:])
                    total[name][0] += _divergence(task, got / float_std, expected / float_std)
                    total[name][1] += _count_correct(task, got, predicted, float_std)
                    total[name][2] += _count_correct(task, got, labels, target_std)
                    done += 1
                    step_done(done, len(names) * len(batches))
                x = forward_layer(model, layer, x)
    rows = []
    for name in names:
        divergence, agreement, right = (float(value) / images for value in total[name])
        drop = 100 * (correct / images - right) if targets is not None else None
        rows.append(LayerSensitivity(name, max(divergence, 0.0), agreement, drop))
    return tuple(rows)


def rank_by_divergence(table: Sequence[LayerSensitivity]) -> list[LayerSensitivity]:
    """Return the rows, the most harmful layer first."""
    return sorted(table, key=lambda row: -row.divergence)


def format_sensitivities(table: Sequence[LayerSensitivity], task: str = "classification") -> str:
    """Return the table as text, the most harmful layer first."""
    width = max(len("layer"), *(len(row.layer) for row in table))
    labeled = any(row.accuracy_drop is not None for row in table)
    lines = [f"{'layer':{width}}  divergence  {task_of(task).agreement:>10}{'  drop' if labeled else ''}"]
    for row in rank_by_divergence(table):
        drop = f"  {row.accuracy_drop:+.2f}" if row.accuracy_drop is not None else ""
        lines.append(f"{row.layer:{width}}  {row.divergence:10.2e}  {100 * row.agreement:8.2f} %{drop}")
    return "\n".join(lines)


def _divergence(task: Task, got: Tensor, expected: Tensor) -> float:
    losses = [task.torch_distillation_losses(logits, expected, temperature=1.0) for logits in (got, expected)]
    return float((losses[0] - losses[1]).sum())


def _count_correct(task: Task, got: Tensor, targets: Tensor, std: Tensor) -> float:
    """Return the number of correct predictions; for regression N times R²."""
    if task.has_probabilities:
        return len(got) * task.score(got.numpy(), targets.numpy())
    return len(got) - float(task.torch_losses(got / std, targets / std).sum())


def _stds(
    task: Task, model: EfficientNet, batches: Sequence[Tensor], targets: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor]:
    if task.has_probabilities:
        return torch.ones(1), torch.ones(1)
    outputs = torch.cat([traced_forward(model, batch) for batch in batches]).std(0, correction=0)
    expected = outputs if targets is None else torch.cat(list(targets)).std(0, correction=0)
    return outputs.clamp(min=MIN_STD), expected.clamp(min=MIN_STD)


def _run_with_int8_operation(
    model: EfficientNet, calibration: Calibration, name: str, maps: tuple[str, str], x: Tensor, rest: Sequence[Layer]
) -> Tensor:
    """Return the network's output with operation ``name`` alone in int8. ``x`` is the input of its layer."""
    first = maps[0]

    def round_map(map_name: str, y: Tensor) -> Tensor:
        rounds = map_name in maps and map_name not in ("embedding", "logits")
        return calibration.ranges[map_name].fake_quantize(y) if rounds else y

    def round_weight(weight_name: str, weight: Tensor) -> Tensor:
        return calibration.fake_quantize_weight(name, weight, model) if weight_name == name else weight

    if not (first == "embedding" or first.startswith(f"{rest[0].name}.")):  # an earlier layer computed it
        x = calibration.ranges[first].fake_quantize(x)
    for layer in rest:
        x = forward_layer(model, layer, x, round_map, round_weight)
    return x


def _operation_maps(model: EfficientNet) -> dict[str, tuple[str, str]]:
    """Return each operation's input and output feature maps, the latter after an activation that is part of it."""
    inputs, latest = dict[str, str](), "input"

    def map_hook(name: str, x: Tensor) -> Tensor:
        nonlocal latest
        latest = name
        return x

    def weight_hook(name: str, weight: Tensor) -> Tensor:
        inputs[name] = latest
        return weight

    height, width = (min(side, 64) for side in model.preprocess.size)
    with torch.inference_mode():
        traced_forward(model, torch.zeros(1, model.channels, height, width), map_hook, weight_hook)
    found = {}
    for operation in all_operations(model):
        activation = activation_of(model, operation)
        fused = f".{activation}" if activation in ("relu", "relu6") else ""
        output = "logits" if operation.name == "classifier" else f"{operation.name}{fused}"
        found[operation.name] = inputs[operation.name], output
    return found
