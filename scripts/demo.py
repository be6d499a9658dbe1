"""Train an EfficientNet on real images, evaluate it, and predict with the file it writes. ``make demo`` runs this.

Environment: DATA, the word digits (embedded, offline) or a folder of your own photos; OUT, the run directory;
WEIGHTS, pretrained weights for your photos; SEED.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from effnet.data import ImageDataset, open_data, read_image
from effnet.evaluation.evaluator import pick_split

EFFNET = str(Path(sys.executable).with_name("effnet"))


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
    print(f"\n$ effnet train {data} {' '.join(arguments)} --output {out}", flush=True)
    train = [EFFNET, "train", data, *arguments, "--output", str(out), "--seed", seed, "--resume"]
    if status := subprocess.run(train, check=False).returncode:
        return status
    images = write_samples(pick_split(open_data(data))[1], out / "images")
    model = out / "model.safetensors"
    print(f"\n$ effnet predict {images} --model {model}", flush=True)
    return subprocess.run([EFFNET, "predict", str(images), "--model", str(model), "--top", "3"], check=False).returncode


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
