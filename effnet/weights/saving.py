"""Saving a network in any layout: atomically, and verified by reading it back if asked to."""

import logging
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from effnet.arch.serde import check_choice
from effnet.data.storage.atomic_write import atomic_write, atomic_write_with_companions, write_text
from effnet.metadata import Numerics
from effnet.net import EfficientNet, surgery
from effnet.weights import conversion, formats, key_maps, loading
from effnet.weights.formats import huggingface, timm_config

# float32 sums in another order differ by 1e-6 to 1e-5 of the largest logit; a wrong padding, ε or axis by far more.
TOLERANCE = 1e-4

log = logging.getLogger("effnet")


def save(model: EfficientNet, path: str | Path, layout: str = "effnet") -> Path:
    """Write ``model`` to ``path``; an existing file stays as it is until the new one is complete.

    If the ecosystem's networks compute with other numerics than these weights expect, that is logged;
    `effnet.weights.saving.save_verified` compares the outputs.

    Args:
        model: a network whose batch norm has not been folded.
        path: its suffix chooses the format: ``.safetensors``, ``.pth`` or ``.pt`` for PyTorch's ecosystems; ``.h5``,
            ``.weights.h5`` or ``.keras``; ``.index`` (a TensorFlow checkpoint, with ``.data-…`` beside it);
            ``.tflite``.
        layout: "effnet": one ``.safetensors`` that carries all metadata. Otherwise the tensors under that ecosystem's
            names. "huggingface": a file named as transformers' weights gets the two JSON files beside it that
            ``from_pretrained`` needs. "timm": a file called ``model.safetensors`` gets timm's ``config.json``, which
            says how images are prepared; with another name, what is lost is logged.

    Returns:
        ``path``.

    Raises:
        ValueError: for a wrong suffix, a network that the ecosystem does not have, or folded batch norm.
        OSError: if the disk is full or the folder cannot be written.

    Example:
        >>> effnet.save(model, "b0.pth", layout="timm")
    """
    path = Path(path)
    check_choice("layout", layout, tuple(key_maps.LAYOUTS))
    target = key_maps.LAYOUTS[layout]
    suffix = ".weights.h5" if path.name.endswith(".weights.h5") else path.suffix
    if suffix not in target.suffixes:
        raise ValueError(f"{path}: weights in {layout}'s layout are written to {' or '.join(target.suffixes)}")
    if surgery.is_folded(model):
        raise ValueError("batch norm has been folded in this copy: save the network that it was made from")
    if target.fixed_numerics and target.numerics(model.arch) != model.numerics:
        theirs, ours = target.numerics(model.arch).describe(), model.numerics.describe()
        log.warning("%s: %s's network computes with %s, these weights expect %s", path.name, layout, theirs, ours)
    tensors = conversion.convert(model.state_dict(), model.arch, "effnet", layout, model.numerics)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    companions = huggingface.config_files(path, model) if layout == "huggingface" else {}
    if layout == "timm":
        companions = timm_config.config_files(path, model)
        if lost := timm_config.describe_lost(model) if not companions else "":
            named = (
                "" if timm_config.timm_name(model.arch) is None else "; a file called model.safetensors gets it beside"
            )
            log.warning("%s does not say that %s%s", path.name, lost, named)
    with atomic_write(path) as temporary:
        formats.write_checkpoint(temporary, suffix, tensors, model, layout)
    for name, text in companions.items():
        write_text(path.with_name(name), text)
    return path


@dataclass(frozen=True)
class VerifiedFile:
    """A file that was written, and how much the network in it differs from the original."""

    path: Path
    layout: str
    numerics: Numerics  # what that ecosystem's network computes with
    max_difference: float  # largest difference of a logit over the largest logit; 0: bit for bit


def save_verified(model: EfficientNet, path: str | Path, layout: str, tolerance: float = TOLERANCE) -> VerifiedFile:
    """Write ``model`` to ``path``, read it back as that ecosystem would, and compare outputs for two random images.

    Raises ``ValueError`` if they differ by more than ``tolerance`` of the largest logit, and whatever `save` raises.
    Nothing is written then, and an existing file stays as it is.
    """
    path = Path(path)
    with atomic_write_with_companions(path) as written:
        save(model, written, layout)
        target = key_maps.LAYOUTS[layout]
        numerics = target.numerics(model.arch) if target.fixed_numerics else model.numerics
        weights = loading.read_weights(written, layout, model.arch, numerics)
        difference = max_relative_difference(model, loading.build_network(weights.metadata, weights.tensors))
        if not difference <= tolerance:  # also if it is NaN
            text = (
                f"nothing is written: in {layout}'s layout the logits of {model.arch.name} would differ by "
                f"{difference:.1e} of the largest (allowed: {tolerance:g})"
            )
            if numerics != model.numerics:
                text += (
                    f"; {layout}'s network computes with {numerics.describe()}, these weights expect "
                    f"{model.numerics.describe()}: use a layout that leaves both open, such as timm's"
                )
            raise ValueError(text)
    return VerifiedFile(path, layout, numerics, difference)


@torch.no_grad()
def max_relative_difference(one: EfficientNet, other: EfficientNet) -> float:
    """Return the largest difference of the two networks' logits over the largest logit, for two random images."""
    x = _random_images(one)  # (2, channels, H, W)
    # Copies, since weights that are not aligned in a memory-mapped file are summed in another order
    expected, got = (deepcopy(network).eval()(x) for network in (one, other))
    if expected.shape != got.shape:
        return float("nan")
    return float((expected - got).abs().max() / expected.abs().max().clamp_min(1e-30))


def _random_images(model: EfficientNet) -> torch.Tensor:
    """Return two normalized images with coarse and fine structure, always the same."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(2, model.channels, *model.preprocess.size)
    for cells in (3, 9, 27):
        noise = torch.randn(2, model.channels, cells, cells, generator=generator)
        total += torch.nn.functional.interpolate(noise, model.preprocess.size, mode="bilinear", align_corners=False)
    return total.to(model.stem.conv.weight)
