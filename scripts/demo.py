"""Train an EfficientNet on real pictures, see how good it is, and use the file that it leaves. ``make demo`` runs this.

Environment: DATA, the word digits (embedded, offline) or a folder of your own photos; OUT, where the results go;
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
    """Exit status of the verb that failed, or 0."""
    data, out = os.environ.get("DATA", "digits"), Path(os.environ.get("OUT", "runs/demo"))
    weights, seed = os.environ.get("WEIGHTS", ""), os.environ.get("SEED", "0")
    given = ["--model", "nano", "--weights", "none"] if data == "digits" else ["--weights", weights] if weights else []
    if (out / "result.json").exists():
        print(f"{out} holds a finished run, shown again here: remove it, or say OUT=another/folder, to train anew.")
    print(f"\n$ effnet train {data} {' '.join(given)} --out {out}", flush=True)
    train = [EFFNET, "train", data, *given, "--out", str(out), "--seed", seed, "--resume"]
    if status := subprocess.run(train, check=False).returncode:
        return status
    pictures = five(pick_split(open_data(data))[1], out / "pictures")
    model = out / "model.safetensors"
    print(f"\n$ effnet predict {out / 'pictures'} --model {model}", flush=True)
    return subprocess.run(
        [EFFNET, "predict", str(pictures), "--model", str(model), "--top", "3"], check=False
    ).returncode


def five(pictures: ImageDataset, folder: Path) -> Path:
    """Writes five of ``pictures``, of classes as different as there are, to ``folder`` under their labels' names."""
    folder.mkdir(parents=True, exist_ok=True)
    step = max(len(pictures) // 5, 1)
    for number, item in enumerate(pictures.items[step // 2 :: step][:5], start=1):
        label = pictures.labels.name(item.label)
        image: Image.Image = read_image(item.image)
        image.save(folder / f"{number} is {label}.png")
    return folder


if __name__ == "__main__":
    sys.exit(main())
