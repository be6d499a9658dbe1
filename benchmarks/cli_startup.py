"""``effnet predict photo.jpg`` from the shell, compared with a timm script: interleaved fresh processes.

    python benchmarks/start.py PHOTO [--rounds 10]

B0 with the same random weights on both sides, each from its own weights file. timm's script is the shortest that does
the work: ``create_model``, ``load_checkpoint``, Pillow, its own transforms, softmax, top-5. effnet with a cold engine
cache, emptied before every round, predicts with PyTorch; with a warm one as in all later runs. Wall time of the whole
process, with the files in the disk cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from subjects import network, photos_of, timms

from effnet.data.torchvision_compat import declare_operators
from effnet.timing import describe_machine, installed_versions, run_command, time_interleaved, time_ratio
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
    shares = model(transform(Image.open(sys.argv[2]).convert("RGB"))[None]).softmax(1)
for share, index in zip(*(found[0].tolist() for found in shares.topk(5))):
    print(f"class {index}", share)
"""


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("photo", type=Path)
    options.add_argument("--rounds", type=int, default=10)
    chosen = options.parse_args()
    declare_operators()
    with TemporaryDirectory() as place:
        folder = Path(place)
        model = network("b0", photos_of(chosen.photo.parent))
        save(model, folder / "b0.safetensors")
        timms(model, folder)  # writes its file
        script = folder / "predict.py"
        script.write_text(SCRIPT)
        # the console script and timm's run with the same interpreter, and without a bar on standard error
        command = [sys.executable, "-c", "import sys; from effnet.cli.app import main; sys.exit(main())", "predict"]
        ours = [*command, chosen.photo, "--model", folder / "b0.safetensors", "--json"]
        homes = {name: folder / name for name in ("cold", "warm")}

        def predict(home: str) -> str:
            return run_command(ours, {"EFFNET_HOME": str(homes[home])}).value

        def cold() -> str:
            shutil.rmtree(homes["cold"], ignore_errors=True)
            return predict("cold")

        def theirs() -> str:
            return run_command([sys.executable, script, folder / "b0_timm.safetensors", chosen.photo]).value

        sides = {
            "timm's script": theirs,
            "effnet predict, cold engine cache": cold,
            "effnet predict, warm engine cache": lambda: predict("warm"),
        }
        expected = theirs().splitlines()[0].rpartition(" ")[0]
        for name in ("cold", "warm", "warm"):
            found = json.loads(predict(name))[0]["labels"][0]["label"]
            assert found == expected, f"effnet ({name}) says {found}, timm {expected}"
        cached = sorted(path.name for path in homes["warm"].rglob("*") if path.is_file())
        times = time_interleaved(sides, chosen.rounds, 1)
    versions = installed_versions(("torch", "timm", "onnxruntime", "openvino"))
    print(f"{describe_machine().describe()}; {versions}; cache: {cached}\n")
    print("| from the shell | s | p10–p90 | that / timm |\n|---|--:|--:|--:|")
    for name, timing in times.items():
        print(
            f"| {name} | {timing.seconds:.2f} | {timing.p10:.2f}–{timing.p90:.2f} "
            f"| {time_ratio(timing, times[next(iter(sides))])} |"
        )


if __name__ == "__main__":
    main()
