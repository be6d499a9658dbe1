"""From files to top-5: one photo of 12 megapixels, and a folder of small ones, compared with torchvision as documented.

    python benchmarks/photos.py PHOTOS [--rounds 15] [--only one,folder]

PHOTOS is a folder of JPEGs. torchvision's side is as documented: ``Image.open``, the transforms of the weights, the
eager network in inference mode, softmax, top-5. For the folder also as an expert would do it, with a ``DataLoader`` of
two workers and batches of 32. B0 with the same random weights on all sides; effnet is a ``Predictor`` whose engine was
chosen before, as on every day but the first. Large photos are made from small ones: their size in bytes decides how
long decoding takes, so there are several kinds. All in one run, interleaved.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from subjects import KINDS, large_photo, network, photos_of, torchvisions
from torch import nn
from torch.utils.data import DataLoader, Dataset

from effnet.data.image_io import load_input
from effnet.data.torchvision_compat import declare_operators
from effnet.prediction import Predictor
from effnet.timing import THREAD_POOL_PAUSE, describe_machine, installed_versions, time_interleaved, time_ratio
from effnet.weights import save

BATCH = 32
Top = list[list[int]]


def transforms() -> Callable[[Image.Image], torch.Tensor]:
    """The transforms of torchvision's B0."""
    from torchvision.models import EfficientNet_B0_Weights

    chosen: Callable[[Image.Image], torch.Tensor] = EfficientNet_B0_Weights.DEFAULT.transforms()
    return chosen


class Files(Dataset[torch.Tensor]):
    """The images of a folder, transformed for torchvision's network."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths, self.transform = paths, transforms()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def top5(model: nn.Module, batch: torch.Tensor) -> Top:
    with torch.inference_mode():
        found: Top = model(batch).softmax(1).topk(5).indices.tolist()
    return found


def one_by_one(model: nn.Module, paths: list[Path]) -> Top:
    files = Files(paths)
    return [top5(model, files[index][None])[0] for index in range(len(files))]


def by_loader(model: nn.Module, paths: list[Path]) -> Top:
    loader = DataLoader(Files(paths), BATCH, num_workers=2)
    return [row for batch in loader for row in top5(model, batch)]


def ours(predictor: Predictor, paths: list[Path]) -> Top:
    return [[int(label.removeprefix("class ")) for label in one.labels] for one in predictor(paths)]


def agreement(one: Top, other: Top) -> str:
    """Return how many top-1 predictions are the same."""
    same = sum(a[0] == b[0] for a, b in zip(one, other, strict=True))
    return f"{same} of {len(one)}"


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photos", type=Path)
    options.add_argument("--rounds", type=int, default=15, help="for one photo; a third of it for the folder")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--only", default="one,folder")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    declare_operators()
    paths = photos_of(chosen.photos)
    versions = installed_versions(("torch", "torchvision", "pillow", "onnxruntime", "openvino"))
    print(f"{describe_machine().describe()}; {versions}\n")
    with TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["EFFNET_HOME"] = str(folder / "home")
        model = network("b0", paths)
        theirs = torchvisions(model, folder)
        save(model, folder / "b0.safetensors")
        predictor = Predictor(folder / "b0.safetensors", threads=chosen.threads)
        predictor.choose_engine()
        engines = {batch: predictor.choose_engine(batch) for batch in (1, predictor.batch_size)}
        print("; ".join(f"batch size {size}: {one.kind}, {one.precision}" for size, one in engines.items()), end="\n\n")
        if "one" in chosen.only:
            large(theirs, predictor, paths[len(paths) // 3], folder, chosen.rounds)
        if "folder" in chosen.only:
            many(theirs, predictor, paths, max(3, chosen.rounds // 3))


def large(theirs: nn.Module, predictor: Predictor, photo: Path, folder: Path, rounds: int) -> None:
    exact = Predictor(folder / "b0.safetensors", decode="exact", threads=predictor.engine.threads)
    exact.choose_engine(1)
    print("| 12 megapixels | MB | torchvision ms | effnet ms | torchvision / effnet | decoded exactly ms |", end="")
    print(" pixels alone ms | same top-1 | top-5 in common |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for kind in KINDS:
        path = folder / "large.jpg"
        path.write_bytes(large_photo(photo, kind))
        answers = one_by_one(theirs, [path]), ours(predictor, [path])
        assert one_by_one(theirs, [path])[0] == ours(exact, [path])[0], "exact pixels must give torchvision's answer"
        common = len(set(answers[0][0]) & set(answers[1][0]))
        times = time_interleaved(
            {
                "torchvision": lambda path=path: one_by_one(theirs, [path]),
                "effnet": lambda path=path: ours(predictor, [path]),
                "exact": lambda path=path: ours(exact, [path]),
                "pixels": lambda path=path: load_input(path, predictor.preprocess),
            },
            rounds,
            2,
            3,
            THREAD_POOL_PAUSE,
        )
        found = {name: f"{timing.seconds * 1e3:.1f}" for name, timing in times.items()}
        print(
            f"| {kind} | {path.stat().st_size / 1e6:.1f} | {found['torchvision']} | {found['effnet']} "
            f"| {time_ratio(times['torchvision'], times['effnet'])} | {found['exact']} | {found['pixels']} "
            f"| {agreement(*answers)} | {common} |",
            flush=True,
        )
    print()


def many(theirs: nn.Module, predictor: Predictor, paths: list[Path], rounds: int) -> None:
    sides = {
        "torchvision, one by one": lambda: one_by_one(theirs, paths),
        f"torchvision, DataLoader, batches of {BATCH}": lambda: by_loader(theirs, paths),
        "effnet": lambda: ours(predictor, paths),
    }
    answers = {name: call() for name, call in sides.items()}
    times = time_interleaved(sides, rounds, 0, 1, THREAD_POOL_PAUSE)
    print(
        f"| {len(paths)} photos | s | photos per second | that / effnet | same top-1 as effnet |\n|---|--:|--:|--:|--:|"
    )
    for name, timing in times.items():
        ratio, same = time_ratio(timing, times["effnet"]), agreement(answers[name], answers["effnet"])
        print(f"| {name} | {timing.seconds:.2f} | {len(paths) / timing.seconds:.0f} | {ratio} | {same} |")


if __name__ == "__main__":
    main()
