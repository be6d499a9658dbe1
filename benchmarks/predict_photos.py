"""From image file to top-5, compared with torchvision: one photo of 12 megapixels, and a folder of small photos.

    python benchmarks/predict_photos.py PHOTOS [--rounds 15] [--only one,folder]

PHOTOS is a folder of JPEGs. torchvision is used as documented: ``Image.open``, the transforms that come with the
weights, the eager network in inference mode, softmax, top-5; for the folder also as an expert would, with a
``DataLoader`` of two workers and batches of 32. Both sides use B0 with the same random weights; effnet's is a
`Predictor` whose engine was options beforehand. The large photos are made from small ones, in several kinds, since the
file size determines the decoding time. All calls are interleaved in one run.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from fixtures import PHOTO_KINDS, build_torchvision, create_calibrated, describe_setup, find_photos, make_large_photo
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from effnet.data.image_io import load_input
from effnet.data.torchvision_compat import declare_operators
from effnet.prediction import Predictor
from effnet.timing import THREAD_POOL_PAUSE, time_interleaved, time_ratio
from effnet.weights import save

BATCH_SIZE = 32
Top5 = list[list[int]]  # class indices of each image, most probable first


class PhotoDataset(Dataset[torch.Tensor]):
    """Photos preprocessed by the transforms of torchvision's B0 weights."""

    def __init__(self, paths: list[Path]) -> None:
        from torchvision.models import EfficientNet_B0_Weights

        self.paths, self.transform = paths, EfficientNet_B0_Weights.DEFAULT.transforms()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(Image.open(self.paths[index]).convert("RGB"))
        return image


def predict_batch(model: nn.Module, batch: torch.Tensor) -> Top5:
    with torch.inference_mode():
        indices: Top5 = model(batch).softmax(1).topk(5).indices.tolist()
    return indices


def predict_one_by_one(model: nn.Module, paths: list[Path]) -> Top5:
    dataset = PhotoDataset(paths)
    return [predict_batch(model, dataset[index][None])[0] for index in range(len(dataset))]


def predict_with_loader(model: nn.Module, paths: list[Path]) -> Top5:
    loader = DataLoader(PhotoDataset(paths), BATCH_SIZE, num_workers=2)
    return [row for batch in loader for row in predict_batch(model, batch)]


def predict_with_effnet(predictor: Predictor, paths: list[Path]) -> Top5:
    return [[int(label.removeprefix("class ")) for label in prediction.labels] for prediction in predictor(paths)]


def count_same_top1(first: Top5, second: Top5) -> str:
    same = sum(a[0] == b[0] for a, b in zip(first, second, strict=True))
    return f"{same} of {len(first)}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=15, help="for one photo; a third as many for the folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="one,folder")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    declare_operators()
    paths = find_photos(options.photos)
    print(f"{describe_setup('torch', 'torchvision', 'pillow', 'onnxruntime', 'openvino')}\n")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["EFFNET_HOME"] = str(folder / "home")
        model = create_calibrated("b0", paths)
        reference = build_torchvision(model, folder)
        save(model, folder / "b0.safetensors")
        predictor = Predictor(folder / "b0.safetensors", threads=options.threads)
        predictor.choose_engine()
        engines = {size: predictor.choose_engine(size) for size in (1, predictor.batch_size)}
        print(
            "; ".join(f"batch size {size}: {engine.kind}, {engine.precision}" for size, engine in engines.items()),
            end="\n\n",
        )
        if "one" in options.only:
            time_large_photo(reference, predictor, paths[len(paths) // 3], folder, options.rounds)
        if "folder" in options.only:
            time_folder(reference, predictor, paths, max(3, options.rounds // 3))


def time_large_photo(reference: nn.Module, predictor: Predictor, photo: Path, folder: Path, rounds: int) -> None:
    """Print a row for each of `PHOTO_KINDS`."""
    exact = Predictor(folder / "b0.safetensors", decode="exact", threads=predictor.engine.threads)
    exact.choose_engine(1)
    print("| 12 megapixels | MB | torchvision ms | effnet ms | torchvision / effnet | exact decoding ms |", end="")
    print(" preprocessing only ms | same top-1 | top-5 in common |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for kind in PHOTO_KINDS:
        path = folder / "large.jpg"
        path.write_bytes(make_large_photo(photo, kind))
        expected, predicted = predict_one_by_one(reference, [path]), predict_with_effnet(predictor, [path])
        assert expected == predict_with_effnet(exact, [path]), "exact decoding must give torchvision's top-5"
        common = len(set(expected[0]) & set(predicted[0]))
        timings = time_interleaved(
            {
                "torchvision": lambda path=path: predict_one_by_one(reference, [path]),
                "effnet": lambda path=path: predict_with_effnet(predictor, [path]),
                "exact": lambda path=path: predict_with_effnet(exact, [path]),
                "preprocessing": lambda path=path: load_input(path, predictor.preprocess),
            },
            rounds,
            2,
            3,
            THREAD_POOL_PAUSE,
        )
        cells = {name: f"{timing.seconds * 1e3:.1f}" for name, timing in timings.items()}
        print(
            f"| {kind} | {path.stat().st_size / 1e6:.1f} | {cells['torchvision']} | {cells['effnet']} "
            f"| {time_ratio(timings['torchvision'], timings['effnet'])} | {cells['exact']} | {cells['preprocessing']} "
            f"| {count_same_top1(expected, predicted)} | {common} |",
            flush=True,
        )
    print()


def time_folder(reference: nn.Module, predictor: Predictor, paths: list[Path], rounds: int) -> None:
    """Print the table for the whole folder."""
    calls = {
        "torchvision, one by one": lambda: predict_one_by_one(reference, paths),
        f"torchvision, DataLoader, batches of {BATCH_SIZE}": lambda: predict_with_loader(reference, paths),
        "effnet": lambda: predict_with_effnet(predictor, paths),
    }
    results = {name: call() for name, call in calls.items()}
    timings = time_interleaved(calls, rounds, 0, 1, THREAD_POOL_PAUSE)
    print(
        f"| {len(paths)} photos | s | photos per second | that / effnet | same top-1 as effnet |\n|---|--:|--:|--:|--:|"
    )
    for name, timing in timings.items():
        print(
            f"| {name} | {timing.seconds:.2f} | {len(paths) / timing.seconds:.0f} "
            f"| {time_ratio(timing, timings['effnet'])} | {count_same_top1(results[name], results['effnet'])} |"
        )


if __name__ == "__main__":
    main()
