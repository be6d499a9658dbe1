"""How much each layer loses when it alone is in int8: simulated in torch, one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effnet.arch import Layer, layers
from effnet.arch.serde import Record
from effnet.exporting.calibration import Calibration, activation_of, all_operations, forward_layer, traced_forward
from effnet.net import EfficientNet
from effnet.tasks import Task, task_of

MIN_STD = 1e-6  # the least spread of a value


@dataclass(frozen=True)
class LayerSensitivity(Record):
    """One row of the table. ``divergence``: Kullback and Leibler's, in nats a picture, of the answers from float's.

    Of values it is the squared difference in units of their variance, and the shares are R².
    """

    layer: str  # as in `effnet.arch.counting`
    divergence: float
    agreement: float  # share of pictures with float's top-1, or of labels that are as float's
    accuracy_drop: float | None = None  # percentage points of what is right; None without labels


def layer_sensitivities(
    model: EfficientNet,
    calibration: Calibration,
    batches: Sequence[Tensor],
    targets: Sequence[Tensor] | None = None,
    names: Collection[str] | None = None,
    step_done: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[LayerSensitivity, ...]:
    """A row for each operation of ``chosen`` (all, if None), in the order in which they run.

    ``model`` is folded, ``batches`` are normalised (N, C, H, W), ``targets`` their classes (N,), or what each output
    should be (N, classes). Only what follows the layer is computed again, so that all rows together cost about half as
    many passes as there are layers.
    """
    task = task_of(model.labels.task)
    names = [each.name for _, each in all_operations(model) if names is None or each.name in names]
    around = _operation_maps(model)
    total = {name: torch.zeros(3) for name in names}  # divergence, agreement, correct
    correct, pictures, done = 0.0, sum(len(batch) for batch in batches), 0
    with torch.inference_mode():
        own_std, target_std = torch.ones(1), torch.ones(1)
        if not task.has_probabilities:
            own_std, target_std = _target_std(model, batches, targets)
        for number, batch in enumerate(batches):
            wanted = traced_forward(model, batch)
            own = torch.from_numpy(task.predict(wanted.numpy()))
            labels = targets[number] if targets is not None else own
            correct += _count_correct(task, wanted, labels, target_std)
            x = batch
            whole = tuple(layers(model.arch, model.classes, model.channels))
            for at, layer in enumerate(whole):
                for name in (name for name in names if name == layer.name or name.startswith(f"{layer.name}.")):
                    got = _run_with_int8_operation(model, calibration, name, around[name], x, whole[at:])
                    loss = _divergence(task, got / own_std, wanted / own_std)
                    same, right = (
                        _count_correct(task, got, own, own_std),
                        _count_correct(task, got, labels, target_std),
                    )
                    total[name] += torch.tensor([loss, same, right])
                    done += 1
                    step_done(done, len(names) * len(batches))
                x = forward_layer(model, layer, x)
    return tuple(
        LayerSensitivity(
            name,
            max(float(total[name][0]) / pictures, 0.0),
            float(total[name][1]) / pictures,
            100 * (correct - float(total[name][2])) / pictures if targets is not None else None,
        )
        for name in names
    )


def _divergence(task: Task, got: Tensor, expected: Tensor) -> float:
    """Return the divergence of ``got`` from ``expected``, summed over the images."""
    losses = [task.torch_distillation_losses(logits, expected, temperature=1.0) for logits in (got, expected)]
    return float((losses[0] - losses[1]).sum())


def _count_correct(task: Task, got: Tensor, targets: Tensor, std: Tensor) -> float:
    """Return the number of right predictions, or of values the share of the variance that is explained, times N."""
    if task.has_probabilities:
        return len(got) * task.score(got.numpy(), targets.numpy())
    return len(got) - float(task.torch_losses(got / std, targets / std).sum())


def _target_std(
    model: EfficientNet, batches: Sequence[Tensor], targets: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """The standard deviation of each value: as the network answers, and as it should."""
    own = torch.cat([traced_forward(model, batch) for batch in batches]).std(0, correction=0)
    wanted = own if targets is None else torch.cat(list(targets)).std(0, correction=0)
    return own.clamp(min=MIN_STD), wanted.clamp(min=MIN_STD)


def rank_by_divergence(table: Sequence[LayerSensitivity]) -> list[str]:
    """The layers, the most harmful first."""
    return [row.layer for row in sorted(table, key=lambda row: -row.divergence)]


def format_sensitivities(table: Sequence[LayerSensitivity], task: str = "classification") -> str:
    """The table for a person, the most harmful layer first; ``kind``: the labels'."""
    same = task_of(task).agreement
    width = max(len("layer"), *(len(row.layer) for row in table))
    labelled = any(row.accuracy_drop is not None for row in table)
    lines = [f"{'layer':{width}}  divergence  {same:>10}{'  lost' if labelled else ''}"]
    for row in sorted(table, key=lambda row: -row.divergence):
        lost = f"  {row.accuracy_drop:+.2f}" if row.accuracy_drop is not None else ""
        lines.append(f"{row.layer:{width}}  {row.divergence:10.2e}  {100 * row.agreement:8.2f} %{lost}")
    return "\n".join(lines)


def _run_with_int8_operation(
    model: EfficientNet, calibration: Calibration, name: str, ends: tuple[str, str], x: Tensor, rest: Sequence[Layer]
) -> Tensor:
    """The network's answer, from the layer of ``name`` on, with that operation alone in int8."""
    first = ends[0]

    def maps(map_name: str, y: Tensor) -> Tensor:
        rounds = map_name in ends and map_name not in ("embedding", "logits")
        return calibration.ranges[map_name].fake_quantize(y) if rounds else y

    def weights(weight_name: str, weight: Tensor) -> Tensor:
        return calibration.fake_quantize_weight(name, weight, model) if weight_name == name else weight

    own = first == "embedding" or first.startswith(f"{rest[0].name}.")  # or else an earlier layer has made it
    x = x if own else calibration.ranges[first].fake_quantize(x)
    for layer in rest:
        x = forward_layer(model, layer, x, maps, weights)
    return x


def _operation_maps(model: EfficientNet) -> dict[str, tuple[str, str]]:
    """Of each operation the maps that go in and come out, after an activation that is part of it."""
    before: dict[str, str] = {}
    latest = "input"

    def maps(name: str, x: Tensor) -> Tensor:
        nonlocal latest
        latest = name
        return x

    def weights(name: str, weight: Tensor) -> Tensor:
        before[name] = latest
        return weight

    height, width = (min(side, 64) for side in model.preprocess.size)
    with torch.inference_mode():
        traced_forward(model, torch.zeros(1, model.channels, height, width), maps, weights)
    found = {}
    for _, each in all_operations(model):
        activation = activation_of(model, each)
        fused = f".{activation}" if activation in ("relu", "relu6") else ""
        found[each.name] = before[each.name], "logits" if each.name == "classifier" else f"{each.name}{fused}"
    return found
