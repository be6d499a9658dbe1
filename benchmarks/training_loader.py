"""Training images per second that reach the network, compared with torchvision's ``ImageFolder`` and a ``DataLoader``.

    python benchmarks/batches.py PHOTOS [--megapixels 2] [--workers 2] [--rounds 7] [--interpolation bilinear]

PHOTOS is a folder of class folders of JPEGs. torchvision's side is as documented: ``ImageFolder``, PIL,
``RandomResizedCrop(224)``, ``RandomHorizontalFlip``, ``PILToTensor``. effnet's is `TrainingLoader` with the same crop
areas, and the same with a filled cache. Both sides make uint8 batches of 32 with the same number of persistent workers.
All three are timed on the photos as they are, and on enlarged ones; an epoch is one call, calls are interleaved, and
nothing trains beside them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch.utils.data import DataLoader

from effnet.data import open_data, read_image
from effnet.data.augment import Augment
from effnet.data.loader import TrainingLoader
from effnet.data.torchvision_compat import declare_operators
from effnet.metadata import Preprocess
from effnet.timing import describe_machine, installed_versions, time_interleaved

BATCH, SIDE, SHARE = 32, 224, 0.08
THEIRS, OURS, CACHED = "ImageFolder, PIL", "effnet", "effnet, cached"


def enlarged(photos: Path, megapixels: float, into: Path) -> Path:
    """Return the same photos with that many megapixels each, as JPEGs of quality 90."""
    for path in sorted(photos.glob("*/*")):
        image = read_image(path)
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        target = into / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.LANCZOS).save(target, quality=90)
    return into


def torchvisions(photos: Path, workers: int, interpolation: str) -> Iterable[object]:
    declare_operators()
    from torchvision import datasets
    from torchvision.transforms import Compose, InterpolationMode, PILToTensor, RandomHorizontalFlip, RandomResizedCrop

    mode = InterpolationMode[interpolation.upper()]
    steps = [RandomResizedCrop(SIDE, (SHARE, 1.0), interpolation=mode), RandomHorizontalFlip(), PILToTensor()]
    folder = datasets.ImageFolder(str(photos), Compose(steps))
    return DataLoader(folder, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def ours(photos: Path, workers: int, interpolation: str, cache: bool) -> TrainingLoader:
    train = open_data(photos).train
    assert train is not None
    preprocess = Preprocess((SIDE, SIDE), interpolation=interpolation, decode="reduced")
    return TrainingLoader(train, preprocess, Augment(min_crop_area=SHARE), BATCH, 0, workers, cache=cache)


def table(photos: Path, workers: int, interpolation: str, rounds: int) -> None:
    loader = torchvisions(photos, workers, interpolation)
    plain, cached = (ours(photos, workers, interpolation, cache) for cache in (False, True))

    def theirs() -> int:
        return sum(1 for _ in loader)

    def epochs(batches: TrainingLoader) -> Callable[[], int]:
        return lambda: sum(1 for _ in batches.epoch(0))

    count = sum(1 for _ in photos.glob("*/*"))
    found = time_interleaved({THEIRS: theirs, OURS: epochs(plain), CACHED: epochs(cached)}, rounds, 1)
    for side, timing in found.items():
        ratio = found[THEIRS].seconds / timing.seconds
        print(f"| {side} | {count / timing.seconds:.0f} | {ratio:.2f} |")


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photos", type=Path)
    options.add_argument("--megapixels", type=float, default=2.0)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--interpolation", choices=("bilinear", "bicubic"), default="bilinear")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    print(describe_machine().describe(), installed_versions())
    with TemporaryDirectory() as place:
        os.environ["EFFNET_HOME"] = f"{place}/home"
        large = enlarged(chosen.photos, chosen.megapixels, Path(place) / "large")
        for photos, what in ((chosen.photos, "as they are"), (large, f"of {chosen.megapixels:g} megapixels")):
            print(f"\nphotos {what}, {chosen.interpolation}, {chosen.workers} workers\n")
            print("| loaded by | images per second | ratio |\n|---|--:|--:|")
            table(photos, chosen.workers, chosen.interpolation, chosen.rounds)


if __name__ == "__main__":
    main()
