"""Measuring padding and ε: under which do the running statistics fit the maps of natural images?

Batch norm's running statistics were measured in training, after convolutions with the true padding and after batch
norms with the true ε. Computed with others, the maps of the same network differ from them, most at the edges of small
maps (padding) and in channels of small variance (ε).

Two photos are nothing like ImageNet, so their own deviation must not count: each batch norm normalizes with the
statistics of *these* maps, and only the next convolution's output is compared with its stored mean and variance.
What the content shifts does not add up from layer to layer then: over EfficientNet-Lite0 the mean deviation of a
channel's mean sinks from 0.17 to 0.03 standard deviations, and the difference between the paddings hardly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from effnet.arch import Arch
from effnet.arch.counting import count
from effnet.data.preprocessing import normalize
from effnet.metadata import Numerics, Preprocess
from effnet.net import EfficientNet
from effnet.net.layers import ConvNorm

PADDINGS, EPSILONS = ("same", "symmetric"), (1e-3, 1e-5)
# Below these margins nothing is said. docs/preprocessing.md has what real, trained and random networks reach.
MIN_PADDING_RATIO, MIN_PADDING_ERRORS = 0.03, 3.0  # mean log ratio of the deviations, and in standard errors of layers
HINT_RATIO, SURE_ERRORS = 0.01, 4.0  # between these, larger images and more of them are worth their time
MIN_EPSILON_CHANNELS, MIN_EPSILON_SHARE = 30, 0.65  # channels that tell the two apart, and how many must agree
EPSILON_EFFECT = 0.2  # standard deviations by which the ε must move a channel's mean to be asked
MAX_MACS = 1.2e11  # of all passes: two or three seconds on a core
SIZE_STEP = 32  # multiples keep every map even, where the paddings differ
VARIANCE_FLOOR = 1e-5

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Deviation:
    """How far each channel of a layer is off its running statistics: of the mean in σ, and log of the variances."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class NumericsFit:
    """What fits better, None if the margin is too small, and by which margins.

    ``padding_ratio`` is the mean over layers of the log of symmetric's deviation over same's: above 0 same padding
    fits better; ``padding_errors`` is that in standard errors over layers. ``epsilon_share`` is the share of
    ``epsilon_channels`` that 1e-3 fits better than 1e-5.
    """

    padding: str | None = None
    bn_eps: float | None = None
    padding_ratio: float = 0.0
    padding_errors: float = 0.0
    epsilon_share: float = 0.5
    epsilon_channels: int = 0
    obstacle: str = ""  # why nothing was measured

    def describe(self) -> str:
        """Say what the running statistics tell."""
        if self.obstacle:
            return self.obstacle
        margin = f"{abs(self.padding_ratio):.1%}, {abs(self.padding_errors):.1f} standard errors"
        if self.padding is None:
            return f"its running statistics cannot tell (they fit natural photos about equally well: {margin})"
        text = f"the running statistics fit natural photos better with {self.padding} padding, by {margin}"
        if self.bn_eps is not None:
            share = max(self.epsilon_share, 1 - self.epsilon_share)
            text += f"; and with ε {self.bn_eps:g}, in {share:.0%} of {self.epsilon_channels} channels"
        return text


def fit_numerics(
    tensors: Mapping[str, Tensor], arch: Arch, preprocess: Preprocess, images: Sequence[Image.Image] | None = None
) -> NumericsFit:
    """Fit padding and ε of a network to natural images.

    Args:
        tensors: by our own names; the classifier is not needed.
        arch: their architecture.
        preprocess: mean, std and size of its images.
        images: RGB; by default crops of the two photos that scikit-learn ships.

    Returns:
        The fit, with an obstacle if it cannot be measured: no photos, other than three channels, statistics that were
        never measured, or a network too large to be run for this.
    """
    if tensors["stem.conv.weight"].shape[1] != 3 or len(preprocess.mean) != 3:
        return NumericsFit(obstacle="its images are not RGB, so that nothing can be measured on photos")
    if not any(bool(value.any()) for name, value in tensors.items() if name.endswith("running_mean")):
        return NumericsFit(obstacle="it has no running statistics that could tell")
    photos = list(images) if images is not None else sample_photos()
    if not photos:
        return NumericsFit(obstacle="scikit-learn's photos are not installed, by which it could be measured")
    fit = NumericsFit(obstacle=f"{arch.name} is too large to measure it")
    for side, mirrored in _plan(arch, preprocess):
        pixels = crop_images(photos, side, mirrored) if images is None else resize_images(photos, side)
        fit = _fit(tensors, arch, normalize(torch.from_numpy(pixels), preprocess))
        if not abs(fit.padding_ratio) > HINT_RATIO or abs(fit.padding_errors) > SURE_ERRORS:
            break  # more images would not change it
    return fit


def _fit(tensors: Mapping[str, Tensor], arch: Arch, x: Tensor) -> NumericsFit:
    by_padding = {padding: deviations(tensors, arch, Numerics(padding, EPSILONS[0]), x) for padding in PADDINGS}
    ratio, errors = compare_paddings(by_padding["same"], by_padding["symmetric"])
    if abs(ratio) < MIN_PADDING_RATIO or abs(errors) < MIN_PADDING_ERRORS:
        return NumericsFit(padding_ratio=ratio, padding_errors=errors)
    padding = "same" if ratio > 0 else "symmetric"
    with_smaller = deviations(tensors, arch, Numerics(padding, EPSILONS[1]), x)
    share, channels = compare_epsilons(by_padding[padding], with_smaller)
    sure = channels >= MIN_EPSILON_CHANNELS and max(share, 1 - share) >= MIN_EPSILON_SHARE
    return NumericsFit(padding, EPSILONS[share < 0.5] if sure else None, ratio, errors, share, channels)


def _plan(arch: Arch, preprocess: Preprocess) -> list[tuple[int, bool]]:
    """Return sides of the images, and whether mirrored ones are added: first few and small, then more."""
    native = max(round(min(preprocess.size) / SIZE_STEP), 1) * SIZE_STEP
    steps = dict.fromkeys(((min(native, 128), False), (min(native, 192), True)))
    return [
        (side, mirrored)
        for side, mirrored in steps
        if (len(PADDINGS) + 1) * (24 if mirrored else 12) * count(arch, side, classes=0).macs <= MAX_MACS
    ]


def sample_photos() -> list[Image.Image]:
    """Return the two photos that scikit-learn ships (a temple and a flower, 640×427), [] if it is not installed."""
    package = find_spec("sklearn")
    folder = Path(next(iter(package.submodule_search_locations or ("",)))) if package else Path()
    paths = [folder / "datasets" / "images" / name for name in ("china.jpg", "flower.jpg")]
    return [Image.open(path).convert("RGB") for path in paths if path.is_file()]


def crop_images(photos: Sequence[Image.Image], side: int, mirrored: bool) -> Pixels:
    """Return square crops, (N, side, side, 3): per photo two at full and four at half height, and mirror images."""
    crops = []
    for photo in photos:
        width, height = photo.size
        full = min(width, height)
        for edge, rows in ((full, (0,)), (full // 2, (0, height - full // 2))):
            for top in rows:
                for left in (0, width - edge):
                    crop = photo.crop((left, top, left + edge, top + edge))
                    crops.append(np.asarray(crop.resize((side, side), Image.Resampling.BICUBIC)))
    stacked = np.stack(crops)
    return np.concatenate([stacked, stacked[:, :, ::-1]]) if mirrored else stacked


def resize_images(images: Sequence[Image.Image], side: int) -> Pixels:
    """Return the images' middle squares, (N, side, side, 3)."""
    squares = []
    for image in images:
        width, height = image.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        crop = image.crop((left, top, left + edge, top + edge))
        squares.append(np.asarray(crop.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(squares)


@torch.inference_mode()
def deviations(tensors: Mapping[str, Tensor], arch: Arch, numerics: Numerics, x: Tensor) -> dict[str, Deviation]:
    """Return each convolution's deviation from the running statistics, on normalized images (N, 3, H, W).

    Batch norm normalizes with the statistics of these images.
    """
    with torch.device("meta"):
        network = EfficientNet(arch, 0, x.shape[1], numerics)
    state = {name: value.float() for name, value in tensors.items() if not name.startswith("classifier.")}
    network.load_state_dict(state, strict=False, assign=True)
    network.eval()
    found: dict[str, Deviation] = {}
    for name, module in network.named_modules():
        if isinstance(module, ConvNorm):
            assert isinstance(module.norm, nn.BatchNorm2d)
            module.conv.register_forward_hook(_Recorder(name, module.norm, found))
            module.norm.track_running_stats, module.norm.training = (False, True)  # the batch's own
    network(x)
    return found


class _Recorder:
    """A hook on a convolution that compares its output with the stored statistics of the batch norm behind it."""

    def __init__(self, name: str, norm: nn.BatchNorm2d, found: dict[str, Deviation]) -> None:
        self.name, self.found = name, found
        self.mean, self.variance = norm.get_buffer("running_mean").float(), norm.get_buffer("running_var").float()

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        variance, mean = torch.var_mean(output, (0, 2, 3), correction=0)
        stored = self.variance.clamp_min(0) + VARIANCE_FLOOR
        self.found[self.name] = Deviation(
            (mean - self.mean) / stored.sqrt(), ((variance + VARIANCE_FLOOR) / stored).log()
        )


def compare_paddings(same: Mapping[str, Deviation], symmetric: Mapping[str, Deviation]) -> tuple[float, float]:
    """Return the mean over layers of the log ratio of symmetric's deviation to same's, and it in standard errors.

    The stem is left out: its maps depend on the images more than on their edges.
    """
    ratios = []
    for name in [*same][1:]:
        parts = [
            (
                getattr(symmetric[name], part).abs().mean() / getattr(same[name], part).abs().mean().clamp_min(1e-12)
            ).log()
            for part in ("mean", "variance")
        ]
        ratios.append(float(sum(parts)) / len(parts))
    values = np.array(ratios)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / sqrt(len(values))
    return mean, mean / max(error, 1e-12)


def compare_epsilons(larger: Mapping[str, Deviation], smaller: Mapping[str, Deviation]) -> tuple[float, int]:
    """Return the share of channels that the larger ε fits better, and the number of those that tell the two apart."""
    agree = asked = 0
    for name in [*larger][1:]:
        one, other = larger[name].mean, smaller[name].mean
        apart = (one - other).abs() > EPSILON_EFFECT
        asked += int(apart.sum())
        agree += int((other.abs() > one.abs())[apart].sum())
    return (agree / asked if asked else 0.5), asked
