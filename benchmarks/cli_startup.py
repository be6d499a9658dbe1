"""``effnet predict photo.jpg`` from the shell, compared with a timm script.

    python benchmarks/cli_startup.py PHOTOS [--rounds 10]

PHOTOS is a folder, of which the first photo is predicted. Both sides use B0 with the same random weights, each from its
own file. The timm script is the shortest that does the same: ``create_model``, ``load_checkpoint``, Pillow, timm's
transforms, softmax, top-5. effnet runs with a cold engine cache, which is deleted before every round, so that PyTorch
computes the prediction, and with a warm one. Times are of whole new processes, interleaved, with the files in the page
cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from fixtures import EFFNET_COMMAND, build_timm, create_calibrated, describe_setup, find_photos

from effnet.data.torchvision_compat import declare_operators
from effnet.timing import run_command, time_interleaved, time_ratio
from effnet.weights import save

SCRIPT = """
import sys
import torch
from effnet.data.torchvision_compat import declare_operators
declare_operators()
import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import load_checkpoint

model = timm.create_model("efficientnet_b0")
load_checkpoint(model, sys.argv[1])
model.eval()
transform = create_transform(**resolve_data_config({}, model=model))
with torch.inference_mode():
    scores = model(transform(Image.open(sys.argv[2]).convert("RGB"))[None]).softmax(1)
for score, index in zip(*(values[0].tolist() for values in scores.topk(5))):
    print(f"class {index}", score)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    declare_operators()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = find_photos(options.photos)
        photo, model = photos[0], create_calibrated("b0", photos)
        save(model, folder / "b0.safetensors")
        build_timm(model, folder)  # writes b0_timm.safetensors
        script = folder / "predict.py"
        script.write_text(SCRIPT)
        command = [*EFFNET_COMMAND, "predict", photo, "--model", folder / "b0.safetensors", "--json"]
        homes = {name: folder / name for name in ("cold", "warm")}

        def predict(home: str) -> str:
            return run_command(command, {"EFFNET_HOME": str(homes[home])}).value

        def predict_cold() -> str:
            shutil.rmtree(homes["cold"], ignore_errors=True)
            return predict("cold")

        def predict_with_timm() -> str:
            return run_command([sys.executable, script, folder / "b0_timm.safetensors", photo]).value

        calls = {
            "timm script": predict_with_timm,
            "effnet predict, cold engine cache": predict_cold,
            "effnet predict, warm engine cache": lambda: predict("warm"),
        }
        expected = predict_with_timm().splitlines()[0].rpartition(" ")[0]
        for name in ("cold", "warm", "warm"):
            label = json.loads(predict(name))[0]["labels"][0]["label"]
            assert label == expected, f"effnet ({name} cache) predicts {label}, timm {expected}"
        cached = sorted(path.name for path in homes["warm"].rglob("*") if path.is_file())
        timings = time_interleaved(calls, options.rounds, 1)
    print(f"{describe_setup('torch', 'timm', 'onnxruntime', 'openvino')}; cache: {cached}\n")
    print("| from the shell | s | p10–p90 | relative to timm |\n|---|--:|--:|--:|")
    for name, timing in timings.items():
        print(
            f"| {name} | {timing.seconds:.2f} | {timing.p10:.2f}–{timing.p90:.2f} "
            f"| {time_ratio(timing, timings['timm script'])} |"
        )


if __name__ == "__main__":
    main()
