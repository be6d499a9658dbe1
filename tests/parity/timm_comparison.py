"""Compare our networks with timm's, given the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from effnet.arch import ARCHS
from effnet.arch.variants import RELATED_ARCHS
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, PADDINGS, Numerics
from effnet.net import EfficientNet
from effnet.weights import convert
from effnet.weights.conversion import drop_batch_counters, key_map

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"

NAMES = tuple(name for name in ARCHS if name != "nano")  # all variants in timm
GIANTS = ("l2", "v2_xl")  # compared at 256 pixels instead of 800 and 512
ODD = (197, 251)

# Limits of the largest difference relative to the largest value (for gradients: of the ratio of norms)
FLOAT64_LIMIT, GRADIENT_LIMIT, FLOAT32_LIMIT = 1e-8, 1e-7, 1e-5
# Networks up to this size meet FLOAT32_LIMIT. Deeper ones accumulate more rounding error in float32: their limit is a
# multiple of the difference between timm's own float32 and float64.
SHALLOW = ("b0", "b1", "b2", "b3", "b4", *(name for name in NAMES if name.startswith(("lite", "edge", "v2_b"))), "v2_s")
DEEP_FACTOR = 4


RELATIVES = tuple(arch.name for arch in RELATED_ARCHS)  # timm has each once, with one padding


def timm_name(name: str, prefix: str = "tf_") -> str:
    """Return timm's name of our ``name``; the ``tf_`` models have TensorFlow's 'same' padding."""
    if name in RELATIVES:
        prefix = ""
        if not name.startswith(("v2_", "b")):
            return name
    if name.startswith("v2_"):
        return f"{prefix}efficientnetv2_{name.removeprefix('v2_')}"
    return f"{prefix}efficientnet_{name.replace('edge_', 'e')}"


def timm_numerics(padding: str) -> Numerics:
    """Return the numerics of timm's models with and without ``tf_``."""
    return Numerics() if padding == "same" else Numerics("symmetric", 1e-5)


def build_timm(name: str, padding: str) -> nn.Module:
    """Build timm's network without dropout and stochastic depth."""
    if name in RELATIVES:
        numerics = {"pad_type": "same", "bn_eps": 1e-3} if padding == "same" else {"pad_type": "", "bn_eps": 1e-5}
        return timm.create_model(timm_name(name), drop_rate=0.0, drop_path_rate=0.0, **numerics)
    if padding == "same":
        return timm.create_model(timm_name(name), drop_rate=0.0, drop_path_rate=0.0)
    if timm.is_model(timm_name(name, "")):
        return timm.create_model(timm_name(name, ""), drop_rate=0.0, drop_path_rate=0.0)
    return timm.create_model(timm_name(name), drop_rate=0.0, drop_path_rate=0.0, pad_type="", bn_eps=1e-5)


def build(name: str, padding: str) -> EfficientNet:
    """Build our network without dropout and stochastic depth."""
    return EfficientNet(replace(ARCHS[name], dropout=0.0, drop_path=0.0), numerics=timm_numerics(padding))


def copy_weights(model: EfficientNet, timm_model: nn.Module) -> None:
    """Load the weights of our model into timm's, strictly."""
    timm_model.load_state_dict(
        convert(drop_batch_counters(model.state_dict()), model.arch, "effnet", "timm"), strict=True
    )


def load_photos(count: int, size: tuple[int, int]) -> Tensor:
    """Return the first ``count`` photos, squashed to ``size`` and normalized, in float64."""
    files = sorted(file for file in PHOTOS.iterdir() if file.suffix in (".bmp", ".jpg"))[:count]
    pixels = [
        numpy.asarray(Image.open(file).convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC)) for file in files
    ]
    x = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2).double() / 255  # (N, 3, H, W)
    mean, std = (torch.tensor(values, dtype=torch.double)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


def random_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Return random images with coarse and fine structure, in float64."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, *size, dtype=torch.double)
    for cells in (3, 9, 27):
        noise = torch.randn(count, 3, cells, cells, generator=generator, dtype=torch.double)
        total += nn.functional.interpolate(noise, size, mode="bilinear", align_corners=False)
    return total / 3**0.5


@torch.no_grad()
def randomize(model: EfficientNet, images: Tensor | None, seed: int = 0) -> None:
    """Set random affine parameters, biases and batch-norm statistics.

    Statistics are measured on ``images``, then perturbed. With None they are drawn at random, which makes deep networks
    chaotic: see `measure_sensitivity`.
    """
    torch.manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
        elif getattr(module, "bias", None) is not None:
            module.bias.normal_(0, 0.1)
    if images is None:
        for norm in norms:
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.5, 1.5)
        return
    momentum = norms[0].momentum
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images.to(model.stem.conv.weight))
    for norm in norms:
        norm.momentum = momentum
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)


@dataclass
class Outputs:
    """Logits and gradients of one network for all inputs."""

    logits: dict[str, Tensor]
    gradients: dict[str, Tensor]


def compute_outputs(model: nn.Module, inputs: dict[str, Tensor], channels_last: bool = False) -> Outputs:
    """Run the model on ``inputs``, whose keys select the mode: "eval …", "train …" or "gradients"."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    dtype = next(model.parameters()).dtype
    outputs = Outputs({}, {})
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    for name, x in inputs.items():
        x = x.to(dtype).contiguous(memory_format=layout)
        model.train(not name.startswith("eval"))
        with torch.set_grad_enabled(name == "gradients"):
            logits = model(x)
        if name == "gradients":
            direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            (logits * direction).sum().backward()
            outputs.gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
            model.zero_grad(set_to_none=True)
        else:
            outputs.logits[name] = logits
        for key, value in model.named_buffers():  # undo the updates of training mode
            value.copy_(statistics[key])
    return outputs


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference relative to the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def relative_gradient_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor], name: str) -> float:
    """Return the norm of the difference over all parameters, relative to the norm of the gradient."""
    keys = {key: timm_key for key, timm_key in key_map("timm", ARCHS[name]).items() if timm_key in theirs}
    assert set(keys) == set(ours)
    assert set(keys.values()) == set(theirs)
    difference = sum((ours[key] - theirs[timm_key]).square().sum().item() for key, timm_key in keys.items())
    return (difference / sum(value.square().sum().item() for value in theirs.values())) ** 0.5


# What was compared → the difference with both contiguous, and with ours in channels_last
Differences = dict[str, tuple[float, float]]


def compare(name: str, padding: str, images: Tensor | None, inputs: dict[str, Tensor], float32: bool) -> Differences:
    """Compare with timm in float64 on all inputs, and with ``float32`` also in float32 on "eval native".

    Only one model exists at a time, as the largest do not fit into memory twice. All weights are representable in
    float32, so that both precisions use the same ones.
    """
    torch.manual_seed(0)
    model = build(name, padding)
    randomize(model, images)
    differences: Differences = {}

    timm_model = build_timm(name, padding)
    copy_weights(model, timm_model)
    native = {key: x for key, x in inputs.items() if key == "eval native"}
    if float32:
        theirs_float32 = compute_outputs(timm_model, native)
    theirs = compute_outputs(timm_model.double(), inputs)
    del timm_model

    if float32:
        reference = theirs_float32.logits["eval native"].double()
        pair = [
            relative_difference(compute_outputs(model, native, last).logits["eval native"].double(), reference)
            for last in (False, True)
        ]
        differences["float32"] = pair[0], pair[1]
        own = relative_difference(reference, theirs.logits["eval native"])
        differences["timm's own float32"] = own, own
    model.double()
    by_format = []
    for last in (False, True):
        ours = compute_outputs(model, inputs, last)
        row = {key: relative_difference(ours.logits[key], value) for key, value in theirs.logits.items()}
        if ours.gradients:
            row["gradients"] = relative_gradient_difference(ours.gradients, theirs.gradients, name)
        by_format.append(row)
        del ours
    return differences | {key: (value, by_format[1][key]) for key, value in by_format[0].items()}


def exceeded_limits(name: str, differences: Differences) -> list[str]:
    """Return a message for each difference that exceeds its limit."""

    def limit(key: str) -> float:
        if key == "float32":
            return FLOAT32_LIMIT if name in SHALLOW else DEEP_FACTOR * differences["timm's own float32"][0]
        return GRADIENT_LIMIT if key == "gradients" else FLOAT64_LIMIT

    return [
        f"{name}: {key} differs by {max(pair):.1e}, more than {limit(key):.1e}"
        for key, pair in differences.items()
        if key != "timm's own float32" and not max(pair) <= limit(key)
    ]


def native_size(name: str) -> int:
    """Return the "native" size in pixels at which ``name`` is compared."""
    return 256 if name in GIANTS else ARCHS[name].resolution


def compare_variant(name: str, padding: str) -> Differences:
    """Compare one variant on photos, at all sizes and in both precisions."""
    native = native_size(name), native_size(name)
    inputs = {
        "eval native": load_photos(1, native),
        "eval 197×251": load_photos(2, ODD),
        "train native": load_photos(2, native),
        "train 197×251": load_photos(2, ODD),
        "gradients": load_photos(2, (128, 128)),
    }
    return compare(name, padding, load_photos(8, (160, 160)), inputs, float32=True)


def all_cases() -> Iterator[tuple[str, str]]:
    """Yield all pairs of variant and padding, small variants first."""
    for name in sorted(NAMES, key=lambda name: (name in GIANTS, ARCHS[name].resolution)):
        for padding in PADDINGS:
            yield name, padding


@torch.no_grad()
def measure_sensitivity(name: str, images: Tensor | None, x: Tensor, seed: int) -> float:
    """Return how much timm's logits change in float64 when its input ``x`` changes by one unit in the last place."""
    torch.manual_seed(seed)
    model = build(name, "same")
    randomize(model, images, seed)
    timm_model = build_timm(name, "same")
    copy_weights(model, timm_model)
    timm_model.double().eval()
    return relative_difference(timm_model(torch.nextafter(x, torch.full_like(x, torch.inf))), timm_model(x))
