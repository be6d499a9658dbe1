"""The folded network as a walk over named maps, so that each can be looked at, or replaced by its 8-bit image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from effnet.arch import Layer, Operation, layers, operations
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.net.layers import ConvNorm

TensorHook = Callable[[str, Tensor], Tensor]  # of a map or a weight: its name and its values -> its values


def identity(name: str, x: Tensor) -> Tensor:
    """Changes nothing."""
    return x


def traced_forward(
    model: EfficientNet, x: Tensor, map_hook: TensorHook = identity, weight_hook: TensorHook = identity
) -> Tensor:
    """The network's answer to ``x`` (N, C, H, W), normalised; every map and weight goes through what is given.

    ``model`` is folded. A weight is asked for right after its input was shown. The maps are called as in the ONNX graph
    (`effnet.runtime.onnx`): "input", "stem", "stem.relu6", "stage2.0.squeeze_excite.expand.gated", "stage2.1.add",
    "embedding", "logits".
    """
    x = map_hook("input", x)
    for layer in layers(model.arch, model.classes, model.channels):
        x = forward_layer(model, layer, x, map_hook, weight_hook)
    return x if model.classes else pool_embedding(x, map_hook)


def forward_layer(
    model: EfficientNet, layer: Layer, x: Tensor, map_hook: TensorHook = identity, weight_hook: TensorHook = identity
) -> Tensor:
    """One layer of `walk`."""
    if layer.kind == "classifier":
        classifier = model.classifier
        assert isinstance(classifier, nn.Linear)
        x = pool_embedding(x, map_hook)
        return map_hook("logits", F.linear(x, weight_hook(layer.name, classifier.weight), classifier.bias))
    start = whole = x
    for operation in operations(layer):
        if operation.name.endswith("squeeze_excite.reduce"):
            whole = x
            x = map_hook(f"{operation.name}.mean", x.mean((2, 3), keepdim=True))
        x = _forward_conv(model, operation, x, map_hook, weight_hook)
        if operation.activation == "sigmoid":
            x = map_hook(f"{operation.name}.gated", whole * x)
    return map_hook(f"{layer.name}.add", x + start) if layer.residual else x


def pool_embedding(x: Tensor, map_hook: TensorHook = identity) -> Tensor:
    """The head's map, averaged."""
    return map_hook("embedding", x.mean((2, 3)))


def _forward_conv(
    model: EfficientNet, operation: Operation, x: Tensor, map_hook: TensorHook, weight_hook: TensorHook
) -> Tensor:
    conv = weight_module(model, operation.name)
    x = map_hook(operation.name, functional_call(conv, {"weight": weight_hook(operation.name, conv.weight)}, (x,)))
    activation = activation_of(model, operation)
    return map_hook(f"{operation.name}.{activation}", ACTIVATIONS[activation](x)) if activation else x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "silu": F.silu,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
}


def activation_of(model: EfficientNet, operation: Operation) -> str:
    """What follows ``operation``: "silu", "relu", "relu6", "sigmoid", or "" for nothing."""
    return model.arch.activation if operation.activation == "act" else operation.activation


def weight_module(model: EfficientNet, name: str) -> nn.Conv2d | nn.Linear:
    """The module that holds the weight and the bias of operation ``name``."""
    module = model.get_submodule(name)
    found = module.conv if isinstance(module, ConvNorm) else module
    assert isinstance(found, (nn.Conv2d, nn.Linear))
    return found


def all_operations(model: EfficientNet) -> Iterator[tuple[Layer, Operation]]:
    """Every operation of the network, in the order in which they run, with its layer."""
    for layer in layers(model.arch, model.classes, model.channels):
        for operation in operations(layer):
            yield layer, operation


# Channels brought to one size where SiLU, computed in float anyway, allows it: one range then serves them all.
#
# Where a convolution writes y = x / k, k a size for each channel, y · σ(k · y) is SiLU's map divided by k, and the next
# convolution has its weights times k. It costs one multiplication of the map, before σ. This is the equalisation of
# arXiv:1906.04721, section 4.1, for an activation that is not linear on either side of zero.


MIN_CHANNEL_SCALE = (
    2.0  # of a channel's size: below it SiLU's valley (-1.28, -0.28) would be cut off with the others' small values
)


def consumers(model: EfficientNet) -> dict[str, tuple[str, ...]]:
    """Of each operation whose channels can be evened, the operations that read its map.

    What a residual adds cannot, nor what is averaged for the embedding.
    """
    found: dict[str, tuple[str, ...]] = {}
    before = ""  # the stem, where no residual adds its map
    for layer in layers(model.arch, model.classes, model.channels):
        row = operations(layer)
        if layer.kind in ("head", "classifier"):
            continue
        if before and row and not layer.residual:
            found[before] = (row[0].name,)
        before = ""
        for at, each in enumerate(row):
            if each.activation != "act" or activation_of(model, each) != "silu" or "squeeze_excite" in each.name:
                continue
            rest = [other.name for other in row[at + 1 :]]
            gates = tuple(name for name in rest[:1] if name.endswith("squeeze_excite.reduce"))
            whole = [name for name in rest if "squeeze_excite" not in name]
            if not whole:
                before = each.name if layer.kind == "stem" else ""
            else:
                found[each.name] = (*gates, whole[0])
    return found


def measure_channel_scales(model: EfficientNet, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The largest value of each channel after SiLU, (channels,), of each operation that `readers` names."""
    wanted, found = consumers(model), dict[str, Tensor]()

    def look(name: str, x: Tensor) -> Tensor:
        if name in wanted:
            found[name] = torch.maximum(found.get(name, torch.tensor(MIN_CHANNEL_SCALE)), x.amax((0, 2, 3)))
        return x

    if wanted:
        with torch.inference_mode():
            for batch in batches:
                traced_forward(model, batch, look)
    return found


def equalize(model: EfficientNet, channel_scales: Mapping[str, Tensor]) -> EfficientNet:
    """A copy of the folded ``model`` whose operations leave their maps divided ``by`` their channels' sizes.

    It is the same network once every σ of those SiLUs is given its map times the sizes.
    """
    copy, wanted = deepcopy(model), consumers(model)
    with torch.no_grad():
        for name, size in channel_scales.items():
            writer = weight_module(copy, name)
            assert writer.bias is not None
            writer.weight /= size.view(-1, 1, 1, 1)
            writer.bias /= size
            for reader in wanted[name]:
                weight = weight_module(copy, reader).weight
                weight *= size.view(-1, 1, 1, 1) if weight.shape[1] == 1 else size.view(1, -1, 1, 1)
    return copy


def map_scales(model: EfficientNet, channel_scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each map that is divided, its channels' sizes."""
    found, wanted = dict[str, Tensor](), consumers(model)
    for name, size in channel_scales.items():
        found[name] = found[f"{name}.silu"] = size
        if len(wanted[name]) > 1:
            found[f"{wanted[name][0].removesuffix('reduce')}expand.gated"] = size
    return found


def fake_quantize_scaled(weight: Tensor, scale: Tensor | None, fake_quantize: Callable[[Tensor], Tensor]) -> Tensor:
    """``image`` of a weight that reads a divided map, as it counts for the whole one."""
    if scale is None or weight.shape[1] == 1:  # a depthwise one has a scale a channel
        return fake_quantize(weight)
    return fake_quantize(weight * scale.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)


# What pictures tell of every map and weight: the range that 8 bits stand for, and how far rounding shifts a layer.


LEVELS = 255  # steps between the lowest and the highest of 8 bits


SAMPLED_VALUES = 16_384  # values kept of each map, spread evenly over the pictures


CLIP_RATIOS = np.linspace(1, 0.05, 20)  # of the extremes that were seen: the ends that are tried


MIN_RANGE = 1e-6  # the least width of a range: a map that is zero everywhere has none of its own


@dataclass(frozen=True)
class QuantizationRange:
    """Real numbers from ``low`` to ``high``, zero among them, as 0 … 255."""

    low: float
    high: float
    channel_scales: Tensor | None = (
        None  # (channels,): the map is divided by them first, see `effnet.exporting.calibration`
    )

    @property
    def scale(self) -> float:
        """The step between two neighbours."""
        return max(self.high - self.low, MIN_RANGE) / LEVELS

    @property
    def zero_point(self) -> int:
        """Which of 0 … 255 stands for 0: exactly, since padding is made of it."""
        return min(max(round(-self.low / self.scale), 0), LEVELS)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """``x`` as 8 bits hold it."""
        if self.channel_scales is None:
            return self._fake_quantize(x)
        sizes = self.channel_scales.view(1, -1, 1, 1)
        return self._fake_quantize(x / sizes) * sizes

    def _fake_quantize(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, LEVELS)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the pictures told. ``ranges`` by map, see `walk`; ``shifts`` and ``sizes`` by operation: (channels,)."""

    ranges: Mapping[str, QuantizationRange]
    shifts: Mapping[str, Tensor]
    channel_scales: Mapping[str, Tensor]

    def fake_quantize_weight(self, name: str, weight: Tensor, model: EfficientNet) -> Tensor:
        """The weight of operation ``name`` as the file holds it."""
        return fake_quantize_scaled(
            weight, _input_scales(model, self.channel_scales).get(name), fake_quantize_per_channel
        )


def calibrate(model: EfficientNet, batches: Iterable[Tensor]) -> Calibration:
    """The calibration of a folded network from normalised pictures (N, C, H, W), in batches.

    A range is as wide as what was seen, less what clipping saves in squared error; before a SiLU the error is that
    after it, to which everything far below zero is one. The input's range is that of all possible pictures.
    A shift is by how much an operation's output moves on average, channel by channel, when its weights are rounded;
    taken from its bias, it costs nothing at run time (section 4.2 of arXiv:1906.04721, measured instead of derived).
    """
    batches = list(batches)
    found = measure_channel_scales(model, batches)
    divided = map_scales(model, found)
    maps, shifts = _MapStatistics(divided), _BiasShifts(model, _input_scales(model, found))

    def look(name: str, x: Tensor) -> Tensor:
        maps.add(name, x)
        shifts.input = x
        return x

    pictures = sum(len(batch) for batch in batches)
    with torch.inference_mode():
        for batch in batches:
            share = len(batch) / pictures
            maps.quota, shifts.share = max(int(SAMPLED_VALUES * share), 1), share
            traced_forward(model, batch, look, shifts.add)
    before_silu = {each.name for _, each in all_operations(model) if activation_of(model, each) == "silu"}
    ranges = {
        name: _clip_range(
            torch.cat(sample), *maps.ends[name], ACTIVATIONS["silu" if name in before_silu else ""], divided.get(name)
        )
        for name, sample in maps.samples.items()
    }
    return Calibration(ranges | {"input": input_range(model.preprocess)}, shifts.total, found)


def _input_scales(model: EfficientNet, channel_scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each operation that reads a divided map, the sizes by which it is."""
    return {reader: size for name, size in channel_scales.items() for reader in consumers(model)[name]}


def file_ranges(ranges: Mapping[str, QuantizationRange], preprocess: Preprocess) -> dict[str, QuantizationRange]:
    """``ranges`` under the names that exported files give to the input: less its mean, with or without the std."""
    mean = [255 * value for value in preprocess.mean]
    centred = QuantizationRange(min(0.0, -max(mean)), max(0.0, 255 - min(mean)))
    whole = dict.fromkeys(("normalised", "channels_last"), ranges["input"])
    return {**ranges, **whole, "channels_first": centred, "centred": centred}


def input_range(preprocess: Preprocess) -> QuantizationRange:
    """From the blackest to the whitest picture, after normalisation."""
    pairs = list(zip(preprocess.mean, preprocess.std, strict=True))
    return QuantizationRange(
        min(0.0, *(-mean / std for mean, std in pairs)), max(0.0, *((1 - mean) / std for mean, std in pairs))
    )


class _MapStatistics:
    """The extremes and a sample of every map, where channels are ``divided`` after they are."""

    def __init__(self, divided: Mapping[str, Tensor]) -> None:
        self.channel_scales = divided
        self.quota = SAMPLED_VALUES  # values to take of one batch
        self.samples: dict[str, list[Tensor]] = {}  # (values, 2): divided, and by what
        self.ends: dict[str, tuple[float, float]] = {}
        self.generator = torch.Generator().manual_seed(0)

    def add(self, name: str, x: Tensor) -> None:
        sizes = self.channel_scales.get(name)
        whole = x if sizes is None else x / sizes.view(1, -1, 1, 1)
        least, most = (float(end) for end in torch.aminmax(whole))
        low, high = self.ends.get(name, (0.0, 0.0))
        self.ends[name] = min(low, least), max(high, most)
        # No copy of what lies channels-last.
        flat = whole.permute(0, 2, 3, 1).reshape(-1) if x.ndim == 4 else whole.flatten()
        chosen = torch.randint(flat.numel(), (self.quota,), generator=self.generator)
        by = torch.ones(self.quota) if sizes is None else sizes[chosen % len(sizes)]
        self.samples.setdefault(name, []).append(torch.stack((flat[chosen], by), 1))


class _BiasShifts:
    """By how much each operation's output moves on average when its weights are rounded to int8."""

    def __init__(self, model: EfficientNet, read: Mapping[str, Tensor]) -> None:
        self.model, self.input_scales, self.share = model, read, 1.0
        self.input = torch.empty(0)
        self.total: dict[str, Tensor] = {}

    def add(self, name: str, weight: Tensor) -> Tensor:
        # The map is averaged over pictures first: the operation is linear, and one picture costs less than many.
        module, mean = weight_module(self.model, name), self.input.mean(0, keepdim=True)
        assert module.bias is not None
        changed = {
            "weight": fake_quantize_scaled(weight, self.input_scales.get(name), fake_quantize_per_channel) - weight,
            "bias": torch.zeros_like(module.bias),
        }
        moved: Tensor = functional_call(module, changed, (mean,))
        moved = moved.flatten(2).mean(2)[0] if moved.ndim == 4 else moved[0]
        self.total[name] = self.total.get(name, torch.zeros_like(moved)) + self.share * moved
        return weight


def _clip_range(
    sample: Tensor, low: float, high: float, activation: Callable[[Tensor], Tensor], channel_scales: Tensor | None
) -> QuantizationRange:
    """The range within ``low`` … ``high`` that loses least of ``sample`` after ``through``: lower end first."""
    divided, by = sample.unbind(1)
    wanted = activation(divided * by)

    def loss(candidate: QuantizationRange) -> float:
        return float((activation(candidate.fake_quantize(divided) * by) - wanted).square().mean())

    lower = min((QuantizationRange(low * share, high) for share in CLIP_RATIOS), key=loss).low if low else low
    best = (
        min((QuantizationRange(lower, high * share) for share in CLIP_RATIOS), key=loss)
        if high
        else QuantizationRange(lower, high)
    )
    return QuantizationRange(best.low, best.high, channel_scales)


def weight_scales(weight: Tensor) -> Tensor:
    """(out, …) -> (out,): the step of each output channel's weights, whose largest becomes 127."""
    return weight.flatten(1).abs().amax(1).clamp(min=MIN_RANGE) / 127


def fake_quantize_per_channel(weight: Tensor) -> Tensor:
    """``weight`` as int8 holds it, channel by channel."""
    scales = weight_scales(weight)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)
