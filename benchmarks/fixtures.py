"""Networks with realistic statistics and photos of 12 megapixels, for the other benchmarks.

Published weights are not needed: weights do not change the speed. They are random, and batch-norm statistics are
measured on real photos and on noise, so that every layer sees values of typical size and predictions differ from photo
to photo. Padding and ε are torchvision's and timm's, so that these can load the same weights.
"""

from __future__ import annotations

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
from effnet.weights import save

MEGAPIXELS_12 = (4000, 3000)  # width, height
KINDS = {  # what a camera's 12 megapixels may be: noise, JPEG quality, chroma subsampling
    "smooth": (0.0, 90, "4:2:0"),
    "ordinary": (2.0, 92, "4:2:0"),
    "grainy": (4.0, 92, "4:2:0"),
    "grainy, 4:4:4": (4.0, 92, "4:4:4"),
}


def photos_of(folder: Path) -> list[Path]:
    """Return every image below ``folder``, sorted. Raises ``SystemExit`` if there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".gif"))
    if not found:
        raise SystemExit(f"there are no photos in {folder}")
    return found


def network(name: str, photos: list[Path]) -> EfficientNet:
    """``name`` with random weights, the same every time, and statistics of a few of ``photos``."""
    torch.manual_seed(0)
    model = create(name, numerics=Numerics("symmetric", 1e-5))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # type: ignore[assignment] – a cumulative mean
    some = np.stack(
        [np.asarray(load_input(path, model.preprocess), np.uint8) for path in photos[:: max(1, len(photos) // 8)][:8]]
    )
    # noise too: with statistics without it, random layers would magnify it to the last bit
    noise = np.random.default_rng(0).integers(0, 256, some[:4].shape, np.uint8)
    model.train()
    for module in model.modules():
        if type(module).__name__ in ("StochasticDepth", "Dropout"):
            module.eval()
    with torch.no_grad():
        model(normalize(torch.from_numpy(np.concatenate([some, noise])), model.preprocess))
        for norm in norms:
            norm.momentum = 0.1
        seen = normalize(torch.from_numpy(some), model.preprocess)
        model.eval().classifier.weight *= 3 / model(seen).std()  # confident predictions, but not saturated ones
    return model


def timms(model: EfficientNet, folder: Path) -> nn.Module:
    """timm's own network with the same weights, through a file in its layout that stays in ``folder``."""
    import timm
    from timm.models import load_checkpoint

    path = folder / f"{model.arch.name}_timm.safetensors"
    save(model, path, layout="timm")
    theirs = timm.create_model(f"efficientnet_{model.arch.name}")
    load_checkpoint(theirs, str(path))
    return theirs.eval()  # type: ignore[no-any-return]


def torchvisions(model: EfficientNet, folder: Path) -> nn.Module:
    """torchvision's own network with the same weights."""
    from safetensors.torch import load_file
    from torchvision.models import get_model

    path = folder / f"{model.arch.name}_torchvision.safetensors"
    save(model, path, layout="torchvision")
    theirs = get_model(f"efficientnet_{model.arch.name}")
    theirs.load_state_dict(load_file(path), strict=False)
    return theirs.eval()  # type: ignore[no-any-return]


def large_photo(photo: Path, kind: str) -> bytes:
    """Return ``photo`` as a JPEG of 12 megapixels: enlarged, with sensor noise, which takes most of its bytes."""
    grain, quality, subsampling = KINDS[kind]
    image = Image.open(photo).convert("RGB")
    scale = max(side / had for side, had in zip(MEGAPIXELS_12, image.size, strict=True))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    values = np.asarray(image.crop((0, 0, *MEGAPIXELS_12)), np.float32)
    if grain:
        draw = np.random.default_rng(0).standard_normal
        values = values + grain * draw((*values.shape[:2], 1), np.float32)
        values = values + grain / 2 * draw(values.shape, np.float32)
    file = BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()
