"""Calibration for int8: ranges of feature maps, bias correction and channel equalization, measured on images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from effnet.arch import Layer, Operation, layers, operations
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.net.layers import ConvNorm

DEFAULT_IMAGES, MIN_IMAGES = 128, 8  # to calibrate on
LEVELS = 255  # steps between the lowest and the highest 8-bit value
SAMPLED_VALUES = 16_384  # kept of each feature map, spread evenly over the images
CLIP_RATIOS = np.linspace(1, 0.05, 20)  # of the observed extremes, tried as limits of a range
MIN_RANGE = 1e-6  # width of a range whose feature map is zero everywhere
# Of a channel, for equalization: below it SiLU's valley (-1.28, -0.28) would be clipped with small channels
MIN_CHANNEL_SCALE = 2.0

TensorHook = Callable[[str, Tensor], Tensor]  # name and values of a feature map or weight -> values to continue with


def identity(name: str, x: Tensor) -> Tensor:
    """Return ``x``."""
    return x


def traced_forward(
    model: EfficientNet, x: Tensor, map_hook: TensorHook = identity, weight_hook: TensorHook = identity
) -> Tensor:
    """Run the folded ``model`` on normalized images (N, C, H, W); every feature map and weight passes through a hook.

    A weight follows its operation's input. Feature maps are named as in `effnet.runtime.onnx_writer`: "input", "stem",
    "stem.relu6", "stage2.0.squeeze_excite.expand.gated", "stage2.1.add", "embedding", "logits".
    """
    x = map_hook("input", x)
    for layer in layers(model.arch, model.classes, model.channels):
        x = forward_layer(model, layer, x, map_hook, weight_hook)
    return x if model.classes else _pool(x, map_hook)


def forward_layer(
    model: EfficientNet, layer: Layer, x: Tensor, map_hook: TensorHook = identity, weight_hook: TensorHook = identity
) -> Tensor:
    """Run one layer of `traced_forward`."""
    if layer.kind == "classifier":
        classifier = model.classifier
        assert isinstance(classifier, nn.Linear)
        x = _pool(x, map_hook)
        return map_hook("logits", nn.functional.linear(x, weight_hook(layer.name, classifier.weight), classifier.bias))
    start = whole = x
    for operation in operations(layer):
        if operation.name.endswith("squeeze_excite.reduce"):
            whole = x
            x = map_hook(f"{operation.name}.mean", x.mean((2, 3), keepdim=True))
        conv = weight_module(model, operation.name)
        x = map_hook(operation.name, functional_call(conv, {"weight": weight_hook(operation.name, conv.weight)}, (x,)))
        if activation := activation_of(model, operation):
            x = map_hook(f"{operation.name}.{activation}", ACTIVATIONS[activation](x))
        if operation.activation == "sigmoid":
            x = map_hook(f"{operation.name}.gated", whole * x)
    return map_hook(f"{layer.name}.add", x + start) if layer.residual else x


def _pool(x: Tensor, map_hook: TensorHook) -> Tensor:
    return map_hook("embedding", x.mean((2, 3)))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]]
ACTIVATIONS = {"": lambda x: x, "relu": torch.relu, "sigmoid": torch.sigmoid}
ACTIVATIONS |= {"silu": nn.functional.silu, "relu6": nn.functional.relu6}


def activation_of(model: EfficientNet, operation: Operation) -> str:
    """Return the name of the activation after ``operation``, or ""."""
    return model.arch.activation if operation.activation == "act" else operation.activation


def weight_module(model: EfficientNet, name: str) -> nn.Conv2d | nn.Linear:
    """Return the module that holds weight and bias of operation ``name``."""
    module = model.get_submodule(name)
    found = module.conv if isinstance(module, ConvNorm) else module
    assert isinstance(found, (nn.Conv2d, nn.Linear))
    return found


def all_operations(model: EfficientNet) -> Iterator[Operation]:
    """Yield every operation of the network in execution order."""
    for layer in layers(model.arch, model.classes, model.channels):
        yield from operations(layer)


# Channel equalization. One range serves all channels of a feature map if they have the same scale, which is possible
# before a SiLU that is computed in float anyway: if a convolution writes y = x / k, with k per channel, then
# y · σ(k · y) is SiLU's output divided by k, and the next convolution's weights are multiplied by k. It costs one
# multiplication of the feature map, before σ. This is arXiv:1906.04721, section 4.1, for an activation that is not
# linear on either side of zero.


def consumers(model: EfficientNet) -> dict[str, tuple[str, ...]]:
    """Return the readers of each operation that can be equalized: not if a residual adds it, or it is pooled."""
    found: dict[str, tuple[str, ...]] = {}
    stem = ""  # if no residual adds its feature map
    for layer in layers(model.arch, model.classes, model.channels):
        row = operations(layer)
        if layer.kind in ("head", "classifier"):
            continue
        if stem and row and not layer.residual:
            found[stem] = (row[0].name,)
        stem = ""
        for index, operation in enumerate(row):
            silu = operation.activation == "act" and activation_of(model, operation) == "silu"
            if not silu or "squeeze_excite" in operation.name:
                continue
            later = [other.name for other in row[index + 1 :]]
            gates = tuple(name for name in later[:1] if name.endswith("squeeze_excite.reduce"))
            readers = [name for name in later if "squeeze_excite" not in name]
            if readers:
                found[operation.name] = (*gates, readers[0])
            else:
                stem = operation.name if layer.kind == "stem" else ""
    return found


def measure_channel_scales(model: EfficientNet, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the largest value of each channel after SiLU, (channels,), for the operations in `consumers`."""
    names, scales = consumers(model), dict[str, Tensor]()

    def update(name: str, x: Tensor) -> Tensor:
        if name in names:
            scales[name] = torch.maximum(scales.get(name, torch.tensor(MIN_CHANNEL_SCALE)), x.amax((0, 2, 3)))
        return x

    if names:
        with torch.inference_mode():
            for batch in batches:
                traced_forward(model, batch, update)
    return scales


def equalize(model: EfficientNet, channel_scales: Mapping[str, Tensor]) -> EfficientNet:
    """Return a copy of the folded ``model`` whose operations divide their feature maps by ``channel_scales``."""
    copy, readers = deepcopy(model), consumers(model)
    with torch.no_grad():
        for name, scale in channel_scales.items():
            writer = weight_module(copy, name)
            assert writer.bias is not None
            writer.weight /= scale.view(-1, 1, 1, 1)
            writer.bias /= scale
            for reader in readers[name]:
                weight = weight_module(copy, reader).weight
                weight *= scale.view(-1, 1, 1, 1) if weight.shape[1] == 1 else scale.view(1, -1, 1, 1)
    return copy


def map_scales(model: EfficientNet, channel_scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the channel scales of every feature map that is divided."""
    found, readers = dict[str, Tensor](), consumers(model)
    for name, scale in channel_scales.items():
        found[name] = found[f"{name}.silu"] = scale
        if len(readers[name]) > 1:
            found[f"{readers[name][0].removesuffix('reduce')}expand.gated"] = scale
    return found


def input_scales(model: EfficientNet, channel_scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the channel scales of its input for each operation that reads a divided feature map."""
    readers = consumers(model)
    return {reader: scale for name, scale in channel_scales.items() for reader in readers[name]}


@dataclass(frozen=True)
class QuantizationRange:
    """Real numbers from ``low`` to ``high``, including 0, represented by 0 … 255."""

    low: float
    high: float
    channel_scales: Tensor | None = None  # (channels,): the feature map is divided by them first

    @property
    def scale(self) -> float:
        """Step between two neighboring values."""
        return max(self.high - self.low, MIN_RANGE) / LEVELS

    @property
    def zero_point(self) -> int:
        """Which of 0 … 255 represents 0: exactly, since padding consists of it."""
        return min(max(round(-self.low / self.scale), 0), LEVELS)

    def fake_quantize(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded to 8 bits."""
        if self.channel_scales is not None:
            scales = self.channel_scales.view(1, -1, 1, 1)
            return replace(self, channel_scales=None).fake_quantize(x / scales) * scales
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, LEVELS)


def fake_quantize_weight(weight: Tensor, input_scale: Tensor | None = None) -> Tensor:
    """Return ``weight``, (out, …), rounded to int8 per output channel. ``input_scale``: its input was divided by it."""
    if input_scale is not None and weight.shape[1] > 1:  # a depthwise weight has one scale per channel anyway
        return fake_quantize_weight(weight * input_scale.view(1, -1, 1, 1)) / input_scale.view(1, -1, 1, 1)
    scales = weight.flatten(1).abs().amax(1).clamp(min=MIN_RANGE) / 127
    zero_points = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zero_points, 0, -127, 127)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Measured ``ranges`` by feature map; ``shifts`` and ``channel_scales``, (channels,), by operation."""

    ranges: Mapping[str, QuantizationRange]
    shifts: Mapping[str, Tensor]
    channel_scales: Mapping[str, Tensor]

    def fake_quantize_weight(self, name: str, weight: Tensor, model: EfficientNet) -> Tensor:
        """Return the weight of operation ``name`` as the int8 file holds it."""
        return fake_quantize_weight(weight, input_scales(model, self.channel_scales).get(name))


def calibrate(model: EfficientNet, batches: Iterable[Tensor]) -> Calibration:
    """Calibrate a folded network on normalized images (N, C, H, W).

    A range spans the observed values, clipped as far as that reduces the squared error; before a SiLU it is the error
    after it, where all values far below zero are the same. The input's range is that of all possible images.
    A shift is the mean change of an operation's output, per channel, due to rounding its weights. Subtracted from the
    bias it costs nothing at run time (arXiv:1906.04721, section 4.2, measured instead of derived).
    """
    batches = list(batches)
    channel_scales = measure_channel_scales(model, batches)
    scales = map_scales(model, channel_scales)
    maps, shifts = _MapStatistics(scales), _BiasShifts(model, input_scales(model, channel_scales))

    def observe(name: str, x: Tensor) -> Tensor:
        maps.add(name, x)
        shifts.input = x
        return x

    images = sum(len(batch) for batch in batches)
    with torch.inference_mode():
        for batch in batches:
            fraction = len(batch) / images
            maps.quota, shifts.fraction = max(int(SAMPLED_VALUES * fraction), 1), fraction
            traced_forward(model, batch, observe, shifts.add)
    before_silu = {operation.name for operation in all_operations(model) if activation_of(model, operation) == "silu"}
    ranges = {
        name: _clip_range(
            torch.cat(samples), *maps.limits[name], ACTIVATIONS["silu" if name in before_silu else ""], scales.get(name)
        )
        for name, samples in maps.samples.items()
    }
    pairs = list(zip(model.preprocess.mean, model.preprocess.std, strict=True))
    low, high = (-mean / std for mean, std in pairs), ((1 - mean) / std for mean, std in pairs)  # black and white
    ranges["input"] = QuantizationRange(min(0.0, *low), max(0.0, *high))
    return Calibration(ranges, shifts.total, channel_scales)


def file_ranges(ranges: Mapping[str, QuantizationRange], preprocess: Preprocess) -> dict[str, QuantizationRange]:
    """Add the names that exported files give to their input: minus the mean, with or without division by std."""
    mean = [255 * value for value in preprocess.mean]
    centered = QuantizationRange(min(0.0, -max(mean)), max(0.0, 255 - min(mean)))
    normalized = dict.fromkeys(("normalized", "channels_last"), ranges["input"])
    return {**ranges, **normalized, "channels_first": centered, "centered": centered}


class _MapStatistics:
    """Limits and a sample of every feature map, after division by its channel scales."""

    def __init__(self, channel_scales: Mapping[str, Tensor]) -> None:
        self.channel_scales = channel_scales
        self.quota = SAMPLED_VALUES  # values to take from the present batch
        self.samples: dict[str, list[Tensor]] = {}  # (values, 2): divided value, and its channel's scale
        self.limits: dict[str, tuple[float, float]] = {}
        self.generator = torch.Generator().manual_seed(0)

    def add(self, name: str, x: Tensor) -> None:
        scales = self.channel_scales.get(name)
        divided = x if scales is None else x / scales.view(1, -1, 1, 1)
        smallest, largest = (float(limit) for limit in torch.aminmax(divided))
        low, high = self.limits.get(name, (0.0, 0.0))
        self.limits[name] = min(low, smallest), max(high, largest)
        # A view, not a copy, of channels-last memory
        flat = divided.permute(0, 2, 3, 1).reshape(-1) if x.ndim == 4 else divided.flatten()
        indices = torch.randint(flat.numel(), (self.quota,), generator=self.generator)
        sample_scales = torch.ones(self.quota) if scales is None else scales[indices % len(scales)]
        self.samples.setdefault(name, []).append(torch.stack((flat[indices], sample_scales), 1))


class _BiasShifts:
    def __init__(self, model: EfficientNet, scales: Mapping[str, Tensor]) -> None:
        self.model, self.scales, self.fraction = model, scales, 1.0
        self.input = torch.empty(0)
        self.total: dict[str, Tensor] = {}

    def add(self, name: str, weight: Tensor) -> Tensor:
        # Averaging the input over the images first gives the same, since the operation is linear, at less cost
        module, mean = weight_module(self.model, name), self.input.mean(0, keepdim=True)
        assert module.bias is not None
        change = fake_quantize_weight(weight, self.scales.get(name)) - weight
        shift: Tensor = functional_call(module, {"weight": change, "bias": torch.zeros_like(module.bias)}, (mean,))
        shift = shift.flatten(2).mean(2)[0] if shift.ndim == 4 else shift[0]
        self.total[name] = self.total.get(name, torch.zeros_like(shift)) + self.fraction * shift
        return weight


def _clip_range(
    sample: Tensor, low: float, high: float, activation: Callable[[Tensor], Tensor], channel_scales: Tensor | None
) -> QuantizationRange:
    divided, scales = sample.unbind(1)
    expected = activation(divided * scales)

    def error(candidate: QuantizationRange) -> float:
        return float((activation(candidate.fake_quantize(divided) * scales) - expected).square().mean())

    if low:
        low = min((QuantizationRange(low * ratio, high) for ratio in CLIP_RATIOS), key=error).low
    if high:
        high = min((QuantizationRange(low, high * ratio) for ratio in CLIP_RATIOS), key=error).high
    return QuantizationRange(low, high, channel_scales)
