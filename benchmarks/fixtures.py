"""Networks, photos and small functions that several benchmarks share.

Published weights are not needed, as speed does not depend on them. Weights are random, and the batch-norm statistics
are then measured on photos and on noise, so that activations have an ordinary size in every layer and predictions
differ between photos. Padding and ε are those of torchvision and timm, so that both can load the same weights.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from effnet import create
from effnet.data.image_io import load_input
from effnet.data.preprocessing import normalize
from effnet.metadata import Numerics
from effnet.net import EfficientNet
from effnet.timing import describe_machine, installed_versions
from effnet.weights import save

# The console script, run by this interpreter
EFFNET_COMMAND = (sys.executable, "-c", "from effnet.cli.app import main; raise SystemExit(main())")
MEGAPIXELS_12 = (4000, 3000)  # width, height
PHOTO_KINDS = {  # name: standard deviation of the sensor noise, JPEG quality, chroma subsampling
    "smooth": (0.0, 90, "4:2:0"),
    "ordinary": (2.0, 92, "4:2:0"),
    "grainy": (4.0, 92, "4:2:0"),
    "grainy, 4:4:4": (4.0, 92, "4:4:4"),
}


def describe_setup(*packages: str) -> str:
    """Return the machine and the versions of ``packages`` in one line."""
    return f"{describe_machine().describe()}; {installed_versions(packages)}"


def resident_mib(process: int) -> float:
    """Return the resident size of a process in MiB. Raises ``OSError`` or ``StopIteration`` once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def find_photos(folder: Path) -> list[Path]:
    """Return all images below ``folder``, sorted. Raises ``SystemExit`` if there are none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".gif"))
    if not paths:
        raise SystemExit(f"no photos in {folder}")
    return paths


def create_calibrated(name: str, photos: list[Path]) -> EfficientNet:
    """Create ``name`` with random weights (fixed seed) and batch-norm statistics of eight of ``photos``."""
    torch.manual_seed(0)
    model = create(name, numerics=Numerics("symmetric", 1e-5))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # type: ignore[assignment] – cumulative average
    images = np.stack(
        [np.asarray(load_input(path, model.preprocess), np.uint8) for path in photos[:: max(1, len(photos) // 8)][:8]]
    )
    # Noise as well: with statistics of photos alone, random layers amplify the rounding of unusual inputs
    noise = np.random.default_rng(0).integers(0, 256, images[:4].shape, np.uint8)
    model.train()
    for module in model.modules():
        if type(module).__name__ in ("StochasticDepth", "Dropout"):
            module.eval()
    with torch.no_grad():
        model(normalize(torch.from_numpy(np.concatenate([images, noise])), model.preprocess))
        for norm in norms:
            norm.momentum = 0.1
        x = normalize(torch.from_numpy(images), model.preprocess)
        model.eval().classifier.weight *= 3 / model(x).std()  # clear predictions, but not saturated ones
    return model


def build_timm(model: EfficientNet, folder: Path) -> nn.Module:
    """Return timm's network with the same weights, and leave ``{name}_timm.safetensors`` in ``folder``."""
    import timm
    from timm.models import load_checkpoint

    path = folder / f"{model.arch.name}_timm.safetensors"
    save(model, path, layout="timm")
    network = timm.create_model(f"efficientnet_{model.arch.name}")
    load_checkpoint(network, str(path))
    return network.eval()  # type: ignore[no-any-return]


def build_torchvision(model: EfficientNet, folder: Path) -> nn.Module:
    """Return torchvision's network with the same weights."""
    from safetensors.torch import load_file
    from torchvision.models import get_model

    path = folder / f"{model.arch.name}_torchvision.safetensors"
    save(model, path, layout="torchvision")
    network = get_model(f"efficientnet_{model.arch.name}")
    network.load_state_dict(load_file(path), strict=False)
    return network.eval()  # type: ignore[no-any-return]


def make_large_photo(photo: Path, kind: str) -> bytes:
    """Return ``photo`` enlarged to 12 megapixels, with sensor noise, which makes up most of the JPEG's bytes."""
    noise_std, quality, subsampling = PHOTO_KINDS[kind]
    image = Image.open(photo).convert("RGB")
    scale = max(target / side for target, side in zip(MEGAPIXELS_12, image.size, strict=True))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pixels = np.asarray(image.crop((0, 0, *MEGAPIXELS_12)), np.float32)
    if noise_std:
        draw = np.random.default_rng(0).standard_normal
        pixels = pixels + noise_std * draw((*pixels.shape[:2], 1), np.float32)
        pixels = pixels + noise_std / 2 * draw(pixels.shape, np.float32)
    file = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()
