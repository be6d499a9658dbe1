"""Training images per second, compared with torchvision's ``ImageFolder`` and a ``DataLoader``.

    python benchmarks/training_loader.py PHOTOS [--megapixels 2] [--workers 2] [--rounds 7] [--interpolation bilinear]

PHOTOS is a folder of class folders of JPEGs. torchvision's pipeline is the documented one: ``ImageFolder``, PIL,
``RandomResizedCrop(224)``, ``RandomHorizontalFlip``, ``PILToTensor``. effnet's is `TrainingLoader` with the same crop
areas, without and with a filled cache. Both yield uint8 batches of 32 and use the same number of persistent workers.
Epochs are interleaved, once over the photos as they are and once over copies of ``--megapixels``; nothing is trained.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
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

BATCH_SIZE, SIZE, MIN_CROP_AREA = 32, 224, 0.08
TORCHVISION, EFFNET, CACHED = "ImageFolder, PIL", "effnet", "effnet, cached"


def enlarge_photos(photos: Path, megapixels: float, folder: Path) -> Path:
    """Write copies of the photos at ``megapixels`` to ``folder``, as JPEGs of quality 90."""
    for path in sorted(photos.glob("*/*")):
        image = read_image(path)
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        target = folder / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        size = (round(image.width * scale), round(image.height * scale))
        image.resize(size, Image.Resampling.LANCZOS).save(target, quality=90)
    return folder


def torchvision_loader(photos: Path, workers: int, interpolation: str) -> Iterable[object]:
    """Return the pipeline of torchvision's documentation."""
    declare_operators()
    from torchvision import datasets
    from torchvision.transforms import Compose, InterpolationMode, PILToTensor, RandomHorizontalFlip, RandomResizedCrop

    mode = InterpolationMode[interpolation.upper()]
    transforms = [
        RandomResizedCrop(SIZE, (MIN_CROP_AREA, 1.0), interpolation=mode),
        RandomHorizontalFlip(),
        PILToTensor(),
    ]
    dataset = datasets.ImageFolder(str(photos), Compose(transforms))
    return DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def effnet_loader(photos: Path, workers: int, interpolation: str, cache: bool) -> TrainingLoader:
    """Return effnet's loader with the same augmentation."""
    train = open_data(photos).train
    assert train is not None
    preprocess = Preprocess((SIZE, SIZE), interpolation=interpolation, decode="reduced")
    return TrainingLoader(train, preprocess, Augment(min_crop_area=MIN_CROP_AREA), BATCH_SIZE, 0, workers, cache=cache)


def print_rows(photos: Path, workers: int, interpolation: str, rounds: int) -> None:
    """Time one epoch of each loader and print the rows of the table."""
    reference = torchvision_loader(photos, workers, interpolation)
    plain, cached = (effnet_loader(photos, workers, interpolation, cache) for cache in (False, True))
    timings = time_interleaved(
        {
            TORCHVISION: lambda: sum(1 for _ in reference),
            EFFNET: lambda: sum(1 for _ in plain.epoch(0)),
            CACHED: lambda: sum(1 for _ in cached.epoch(0)),
        },
        rounds,
        1,
    )
    count = sum(1 for _ in photos.glob("*/*"))
    for name, timing in timings.items():
        print(f"| {name} | {count / timing.seconds:.0f} | {timings[TORCHVISION].seconds / timing.seconds:.2f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--megapixels", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), default="bilinear")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine().describe(), installed_versions())
    with TemporaryDirectory() as temporary:
        os.environ["EFFNET_HOME"] = f"{temporary}/home"
        large = enlarge_photos(options.photos, options.megapixels, Path(temporary) / "large")
        for photos, description in ((options.photos, "as they are"), (large, f"of {options.megapixels:g} megapixels")):
            print(f"\nphotos {description}, {options.interpolation}, {options.workers} workers\n")
            print("| loader | images per second | ratio |\n|---|--:|--:|")
            print_rows(photos, options.workers, options.interpolation, options.rounds)


if __name__ == "__main__":
    main()
