"""One network built twice, here and in timm, from the same weights, and how far apart the two answer."""

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
from effnet.metadata import IMAGENET_MEAN, IMAGENET_STD, PADDINGS, Numerics
from effnet.net import EfficientNet
from effnet.weights import convert
from effnet.weights.conversion import drop_batch_counters, key_map

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"

NAMES = tuple(name for name in ARCHS if name != "nano")  # every variant that timm has
GIANTS = ("l2", "v2_xl")  # judged at 256 pixels in place of 800 and 512
ODD = (197, 251)

# The largest difference allowed, over the largest value (of gradients: the norm of one over that of the other).
FLOAT64, GRADIENTS, FLOAT32 = 1e-8, 1e-7, 1e-5
# Networks up to this size meet FLOAT32. In deeper ones float32 itself is rougher: these may differ by as much as
# four times timm's own distance between float32 and float64.
SHALLOW = ("b0", "b1", "b2", "b3", "b4", *(name for name in NAMES if name.startswith(("lite", "edge", "v2_b"))), "v2_s")
GAPS = 4


def peer_name(name: str, prefix: str = "tf_") -> str:
    """timm's name of our ``name``: "tf_" for the twin with 'same' padding, "" for the native one."""
    if name.startswith("v2_"):
        return f"{prefix}efficientnetv2_{name.removeprefix('v2_')}"
    return f"{prefix}efficientnet_{name.replace('edge_', 'e')}"


def peer_numerics(padding: str) -> Numerics:
    """What timm's two twins compute with: TensorFlow's padding and ε, or PyTorch's."""
    return Numerics() if padding == "same" else Numerics("symmetric", 1e-5)


def build_peer(name: str, padding: str) -> nn.Module:
    """timm's network, dropping nothing in training."""
    if padding == "same":
        return timm.create_model(peer_name(name), drop_rate=0.0, drop_path_rate=0.0)
    if timm.is_model(peer_name(name, "")):
        return timm.create_model(peer_name(name, ""), drop_rate=0.0, drop_path_rate=0.0)
    return timm.create_model(peer_name(name), drop_rate=0.0, drop_path_rate=0.0, pad_type="", bn_eps=1e-5)


def build(name: str, padding: str) -> EfficientNet:
    """Our network, dropping nothing in training."""
    return EfficientNet(replace(ARCHS[name], dropout=0.0, drop_path=0.0), numerics=peer_numerics(padding))


def copy_weights(model: EfficientNet, peer: nn.Module) -> None:
    """Ours into timm's, strictly: every tensor has its place."""
    peer.load_state_dict(convert(drop_batch_counters(model.state_dict()), model.arch, "effnet", "timm"), strict=True)


def photos(count: int, size: tuple[int, int]) -> Tensor:
    """The first ``count`` real pictures, squashed to ``size`` and normalised, in float64."""
    files = sorted(file for file in PHOTOS.iterdir() if file.suffix in (".bmp", ".jpg"))[:count]
    pixels = [
        numpy.asarray(Image.open(file).convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC)) for file in files
    ]
    x = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2).double() / 255  # (N, 3, H, W)
    mean, std = (torch.tensor(values, dtype=torch.double)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


def random_pictures(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Pictures with coarse and fine structure, drawn by chance, in float64."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, *size, dtype=torch.double)
    for cells in (3, 9, 27):
        noise = torch.randn(count, 3, cells, cells, generator=generator, dtype=torch.double)
        total += nn.functional.interpolate(noise, size, mode="bilinear", align_corners=False)
    return total / 3**0.5


@torch.no_grad()
def randomise(model: EfficientNet, pictures: Tensor | None, seed: int = 0) -> None:
    """Random affine parameters and biases, and statistics that no default could stand in for.

    The statistics are those of ``pictures``, then perturbed; with None plainly random, which no deep network survives
    unharmed: see `chaos`.
    """
    torch.manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
        elif getattr(module, "bias", None) is not None:
            module.bias.normal_(0, 0.1)
    if pictures is None:
        for norm in norms:
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.5, 1.5)
        return
    momentum = norms[0].momentum
    for norm in norms:
        norm.momentum = 1.0
    model.train()(pictures.to(model.stem.conv.weight))
    for norm in norms:
        norm.momentum = momentum
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)


@dataclass
class Answers:
    """What one network says to everything that it is asked."""

    logits: dict[str, Tensor]
    gradients: dict[str, Tensor]


def ask(model: nn.Module, questions: dict[str, Tensor], channels_last: bool = False) -> Answers:
    """Logits to every question, which its name says how to put: "eval …", "train …", "gradients"."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    dtype = next(model.parameters()).dtype
    answers = Answers({}, {})
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    for name, x in questions.items():
        x = x.to(dtype).contiguous(memory_format=layout)
        model.train(not name.startswith("eval"))
        with torch.set_grad_enabled(name == "gradients"):
            logits = model(x)
        if name == "gradients":
            direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            (logits * direction).sum().backward()
            answers.gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
            model.zero_grad(set_to_none=True)
        else:
            answers.logits[name] = logits
        for key, value in model.named_buffers():  # what a training step does to them is not the next one's business
            value.copy_(statistics[key])
    return answers


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def gradients_apart(ours: dict[str, Tensor], theirs: dict[str, Tensor], name: str) -> float:
    """Norm of the difference over all parameters, over the norm of the whole gradient."""
    called = {ours_: theirs_ for ours_, theirs_ in key_map("timm", ARCHS[name]).items() if theirs_ in theirs}
    assert set(called) == set(ours)
    assert set(called.values()) == set(theirs)
    difference = sum((ours[key] - theirs[value]).square().sum().item() for key, value in called.items())
    return (difference / sum(value.square().sum().item() for value in theirs.values())) ** 0.5


# What was measured → the difference with both in the same memory format, and with ours in channels_last.
Figures = dict[str, tuple[float, float]]


def measure(name: str, padding: str, pictures: Tensor | None, questions: dict[str, Tensor], narrow: bool) -> Figures:
    """How far we are from timm in float64 on every question, and with ``narrow`` in float32 on "eval native".

    One model is alive at a time: the giants would not fit into memory otherwise. All weights are float32 numbers, so
    that both precisions compute with the same ones.
    """
    torch.manual_seed(0)
    model = build(name, padding)
    randomise(model, pictures)
    figures: Figures = {}

    peer = build_peer(name, padding)
    copy_weights(model, peer)
    native = {key: x for key, x in questions.items() if key == "eval native"}
    if narrow:
        theirs32 = ask(peer, native)
    theirs = ask(peer.double(), questions)
    del peer

    if narrow:
        wide = theirs32.logits["eval native"].double()
        pair = [apart(ask(model, native, last).logits["eval native"].double(), wide) for last in (False, True)]
        figures["float32"] = pair[0], pair[1]
        own = apart(wide, theirs.logits["eval native"])
        figures["timm's own float32"] = own, own
    model.double()
    found = []
    for last in (False, True):
        ours = ask(model, questions, last)
        line = {key: apart(ours.logits[key], value) for key, value in theirs.logits.items()}
        if ours.gradients:
            line["gradients"] = gradients_apart(ours.gradients, theirs.gradients, name)
        found.append(line)
        del ours
    figures |= {key: (found[0][key], found[1][key]) for key in found[0]}
    return figures


def excesses(name: str, figures: Figures) -> list[str]:
    """The figures that are larger than is allowed, in words."""

    def limit(key: str) -> float:
        if key == "float32":
            return FLOAT32 if name in SHALLOW else GAPS * figures["timm's own float32"][0]
        return GRADIENTS if key == "gradients" else FLOAT64

    return [
        f"{name}: {key} differs by {max(pair):.1e}, more than {limit(key):.1e}"
        for key, pair in figures.items()
        if key != "timm's own float32" and not max(pair) <= limit(key)
    ]


def side(name: str) -> int:
    """The "native" size in pixels at which ``name`` is compared."""
    return 256 if name in GIANTS else ARCHS[name].resolution


def sweep(name: str, padding: str) -> Figures:
    """The long comparison of one variant, on real pictures."""
    native = side(name), side(name)
    questions = {
        "eval native": photos(1, native),
        "eval 197×251": photos(2, ODD),
        "train native": photos(2, native),
        "train 197×251": photos(2, ODD),
        "gradients": photos(2, (128, 128)),
    }
    return measure(name, padding, photos(8, (160, 160)), questions, narrow=True)


def every() -> Iterator[tuple[str, str]]:
    """All pairs of variant and padding, the small ones first."""
    for name in sorted(NAMES, key=lambda name: (name in GIANTS, ARCHS[name].resolution)):
        for padding in PADDINGS:
            yield name, padding


@torch.no_grad()
def chaos(name: str, pictures: Tensor | None, x: Tensor, seed: int) -> float:
    """How far timm's network moves from itself in float64 when its input ``x`` moves by one unit in the last place."""
    torch.manual_seed(seed)
    model = build(name, "same")
    randomise(model, pictures, seed)
    peer = build_peer(name, "same")
    copy_weights(model, peer)
    peer.double().eval()
    return apart(peer(torch.nextafter(x, torch.full_like(x, torch.inf))), peer(x))
