"""What pictures tell of every map and weight: the range that 8 bits stand for, and how far rounding shifts a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from effnet.contract import Preprocess
from effnet.exporting.quantise.even import by_map, image_of, readers, sizes
from effnet.exporting.quantise.walk import ACTIVATIONS, activation_of, all_operations, linear, walk
from effnet.net import EfficientNet

LEVELS = 255  # steps between the lowest and the highest of 8 bits
SAMPLE = 16_384  # values kept of each map, spread evenly over the pictures
SHARES = np.linspace(1, 0.05, 20)  # of the extremes that were seen: the ends that are tried
TINY = 1e-6  # the least width of a range: a map that is zero everywhere has none of its own


@dataclass(frozen=True)
class Range:
    """Real numbers from ``low`` to ``high``, zero among them, as 0 … 255."""

    low: float
    high: float
    sizes: Tensor | None = None  # (channels,): the map is divided by them first, see `effnet.exporting.quantise.even`

    @property
    def scale(self) -> float:
        """The step between two neighbours."""
        return max(self.high - self.low, TINY) / LEVELS

    @property
    def zero(self) -> int:
        """Which of 0 … 255 stands for 0: exactly, since padding is made of it."""
        return min(max(round(-self.low / self.scale), 0), LEVELS)

    def image(self, x: Tensor) -> Tensor:
        """``x`` as 8 bits hold it."""
        if self.sizes is None:
            return self._image(x)
        sizes = self.sizes.view(1, -1, 1, 1)
        return self._image(x / sizes) * sizes

    def _image(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, LEVELS)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the pictures told. ``ranges`` by map, see `walk`; ``shifts`` and ``sizes`` by operation: (channels,)."""

    ranges: Mapping[str, Range]
    shifts: Mapping[str, Tensor]
    sizes: Mapping[str, Tensor]

    def weight(self, name: str, weight: Tensor, model: EfficientNet) -> Tensor:
        """The weight of operation ``name`` as the file holds it."""
        return image_of(weight, _read(model, self.sizes).get(name), weight_image)


def calibrate(model: EfficientNet, batches: Iterable[Tensor]) -> Calibration:
    """The calibration of a folded network from normalised pictures (N, C, H, W), in batches.

    A range is as wide as what was seen, less what clipping saves in squared error; before a SiLU the error is that
    after it, to which everything far below zero is one. The input's range is that of all possible pictures.
    A shift is by how much an operation's output moves on average, channel by channel, when its weights are rounded;
    taken from its bias, it costs nothing at run time (section 4.2 of arXiv:1906.04721, measured instead of derived).
    """
    batches = list(batches)
    found = sizes(model, batches)
    divided = by_map(model, found)
    maps, shifts = _Maps(divided), _Shifts(model, _read(model, found))

    def look(name: str, x: Tensor) -> Tensor:
        maps.add(name, x)
        shifts.input = x
        return x

    pictures = sum(len(batch) for batch in batches)
    with torch.inference_mode():
        for batch in batches:
            share = len(batch) / pictures
            maps.quota, shifts.share = max(int(SAMPLE * share), 1), share
            walk(model, batch, look, shifts.add)
    before_silu = {each.name for _, each in all_operations(model) if activation_of(model, each) == "silu"}
    ranges = {
        name: _narrowed(
            torch.cat(sample), *maps.ends[name], ACTIVATIONS["silu" if name in before_silu else ""], divided.get(name)
        )
        for name, sample in maps.samples.items()
    }
    return Calibration(ranges | {"input": input_range(model.preprocess)}, shifts.total, found)


def _read(model: EfficientNet, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each operation that reads a divided map, the sizes by which it is."""
    return {reader: size for name, size in found.items() for reader in readers(model)[name]}


def of_files(ranges: Mapping[str, Range], preprocess: Preprocess) -> dict[str, Range]:
    """``ranges`` under the names that exported files give to the input: less its mean, with or without the std."""
    mean = [255 * value for value in preprocess.mean]
    centred = Range(min(0.0, -max(mean)), max(0.0, 255 - min(mean)))
    whole = dict.fromkeys(("normalised", "channels_last"), ranges["input"])
    return {**ranges, **whole, "channels_first": centred, "centred": centred}


def input_range(preprocess: Preprocess) -> Range:
    """From the blackest to the whitest picture, after normalisation."""
    pairs = list(zip(preprocess.mean, preprocess.std, strict=True))
    return Range(min(0.0, *(-mean / std for mean, std in pairs)), max(0.0, *((1 - mean) / std for mean, std in pairs)))


class _Maps:
    """The extremes and a sample of every map, where channels are ``divided`` after they are."""

    def __init__(self, divided: Mapping[str, Tensor]) -> None:
        self.divided = divided
        self.quota = SAMPLE  # values to take of one batch
        self.samples: dict[str, list[Tensor]] = {}  # (values, 2): divided, and by what
        self.ends: dict[str, tuple[float, float]] = {}
        self.dice = torch.Generator().manual_seed(0)

    def add(self, name: str, x: Tensor) -> None:
        sizes = self.divided.get(name)
        whole = x if sizes is None else x / sizes.view(1, -1, 1, 1)
        least, most = (float(end) for end in torch.aminmax(whole))
        low, high = self.ends.get(name, (0.0, 0.0))
        self.ends[name] = min(low, least), max(high, most)
        # No copy of what lies channels-last.
        flat = whole.permute(0, 2, 3, 1).reshape(-1) if x.ndim == 4 else whole.flatten()
        chosen = torch.randint(flat.numel(), (self.quota,), generator=self.dice)
        by = torch.ones(self.quota) if sizes is None else sizes[chosen % len(sizes)]
        self.samples.setdefault(name, []).append(torch.stack((flat[chosen], by), 1))


class _Shifts:
    """By how much each operation's output moves on average when its weights are rounded to int8."""

    def __init__(self, model: EfficientNet, read: Mapping[str, Tensor]) -> None:
        self.model, self.read, self.share = model, read, 1.0
        self.input = torch.empty(0)
        self.total: dict[str, Tensor] = {}

    def add(self, name: str, weight: Tensor) -> Tensor:
        # The map is averaged over pictures first: the operation is linear, and one picture costs less than many.
        module, mean = linear(self.model, name), self.input.mean(0, keepdim=True)
        assert module.bias is not None
        changed = {
            "weight": image_of(weight, self.read.get(name), weight_image) - weight,
            "bias": torch.zeros_like(module.bias),
        }
        moved: Tensor = functional_call(module, changed, (mean,))
        moved = moved.flatten(2).mean(2)[0] if moved.ndim == 4 else moved[0]
        self.total[name] = self.total.get(name, torch.zeros_like(moved)) + self.share * moved
        return weight


def _narrowed(
    sample: Tensor, low: float, high: float, through: Callable[[Tensor], Tensor], sizes: Tensor | None
) -> Range:
    """The range within ``low`` … ``high`` that loses least of ``sample`` after ``through``: lower end first."""
    divided, by = sample.unbind(1)
    wanted = through(divided * by)

    def loss(candidate: Range) -> float:
        return float((through(candidate.image(divided) * by) - wanted).square().mean())

    lower = min((Range(low * share, high) for share in SHARES), key=loss).low if low else low
    best = min((Range(lower, high * share) for share in SHARES), key=loss) if high else Range(lower, high)
    return Range(best.low, best.high, sizes)


def weight_scales(weight: Tensor) -> Tensor:
    """(out, …) -> (out,): the step of each output channel's weights, whose largest becomes 127."""
    return weight.flatten(1).abs().amax(1).clamp(min=TINY) / 127


def weight_image(weight: Tensor) -> Tensor:
    """``weight`` as int8 holds it, channel by channel."""
    scales = weight_scales(weight)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)
