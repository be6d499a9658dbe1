"""Undamaged files of every kind that the program reads, and the commands that read them."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import effnet
from effnet.net import EfficientNet
from tests.exporting.networks import network
from tests.training.conftest import paint
from tests.weights import test_tensorflow_saved_model as saved_model
from tests.weights.test_torch_file import save_compressed, save_old

CLASSES = 5
PREDICT = ("predict", "{}/photo.png", "--json", "--threads", "1", "--batch-size", "1")
EAGER = (*PREDICT, "--engine", "eager")


@dataclass(frozen=True)
class Specimen:
    """A folder with files of one kind.

    ``commands`` are tried in turn, ``{}`` in their words is the folder. ``digest``: a file of ours that says what it
    has to hold, so that a damaged one must not be answered from in another way without a word. ``sealed``: a file
    that gets a digest that fits after it was damaged, so that the runtime itself sees the damage.
    """

    name: str
    folder: Path
    targets: tuple[str, ...]  # what is damaged, in turn
    commands: tuple[tuple[str, ...], ...]
    digest: bool = False
    env: dict[str, str] = field(default_factory=dict)
    sealed: str = ""


def make_specimens(root: Path) -> list[Specimen]:
    """Write specimens of all kinds whose packages are installed; a kind's name is that of its format."""
    root.mkdir(parents=True, exist_ok=True)
    photo = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    made = []
    for kind, (file, write) in model_writers().items():
        if not is_readable(file):
            continue
        folder = root / kind.replace(" ", "-")
        folder.mkdir()
        write(folder / file)
        targets = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        Image.fromarray(photo).save(folder / "photo.png")
        exported = kind.startswith(("exported", "resealed", "foreign")) and not file.endswith(".safetensors")
        predict = (*(PREDICT if exported else EAGER), "--model", "{}/" + file)
        convert = ("convert", "{}/" + file, "{}/copy.safetensors", "--to", "effnet")
        commands = (predict,) if file.endswith(".xml") else (predict, predict, convert)
        has_digest, sealed = kind.startswith("exported"), file if kind.startswith("resealed") else ""
        made.append(Specimen(kind, folder, tuple(targets), commands, has_digest, sealed=sealed))
    good = root / "effnet-safetensors" / "model.safetensors"
    for kind, suffix, options in IMAGES:
        folder = root / kind.replace(" ", "-")
        folder.mkdir()
        write_image(folder / f"a{suffix}", photo, **options)
        command = ("predict", "{}/a" + suffix, *EAGER[2:], "--model", str(good))
        made.append(Specimen(f"image {kind}", folder, (f"a{suffix}",), (command,)))
    return [*made, *make_data_specimens(root, good)]


def model_writers() -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Return, of every kind of model, the file's name and the function that writes it."""
    model, b0 = network(classes=CLASSES), network("b0", classes=CLASSES)  # nano is in no other library
    state = {"epoch": 3, "state_dict": model.state_dict(), "args": {"model": "nano", "lr": 0.1}}

    def save(layout: str, of: EfficientNet = model) -> Callable[[Path], object]:
        return lambda path: effnet.save(of, path, layout)

    export = partial(effnet.export, model)
    return {
        "effnet safetensors": ("model.safetensors", save("effnet")),
        "timm safetensors": ("weights.safetensors", save("timm")),
        "timm pth": ("weights.pth", save("timm")),
        "timm folder": ("model.safetensors", save("timm", b0)),
        "huggingface folder": ("model.safetensors", save("huggingface", b0)),
        "keras h5": ("model.h5", save("keras", b0)),
        "keras weights": ("model.weights.h5", save("keras", b0)),
        "keras archive": ("model.keras", save("keras", b0)),
        "tensorflow checkpoint": ("model.index", save("tensorflow")),
        "tensorflow saved model": ("model", lambda path: saved_model.write(path, model)),
        "tflite": ("model.tflite", save("tflite")),
        "pth of old": ("model.pth", lambda path: save_old(state, path)),
        "pth compressed": ("model.pth", lambda path: save_compressed(state, path)),
        "pickled module": ("model.pt", lambda path: torch.save(model, path)),
        "plain pickle": ("model.pkl", lambda path: path.write_bytes(pickle.dumps(model.state_dict()))),
        "exported onnx": ("model.onnx", export),  # a .pt2 is written, and never read
        "exported openvino": ("model.xml", export),
        "exported litert": ("model.tflite", export),
        "resealed onnx": ("model.onnx", export),
        "resealed openvino": ("model.xml", export),
        "resealed litert": ("model.tflite", export),
        "resealed safetensors": ("model.safetensors", save("effnet")),
        "foreign onnx": ("model.onnx", lambda path: write_without_metadata(model, path)),
    }


def is_readable(file: str) -> bool:
    """Return whether the package that reads such files is installed."""
    packages = {
        ".h5": "h5py",
        ".keras": "h5py",
        ".onnx": "onnxruntime",
        ".xml": "openvino",
        ".tflite": "ai_edge_litert",
    }
    return find_spec(packages.get(Path(file).suffix, "torch")) is not None


IMAGES: list[tuple[str, str, dict[str, Any]]] = [
    ("jpeg", ".jpg", {"quality": 90}),
    ("progressive jpeg", ".jpg", {"progressive": True}),
    ("png", ".png", {}),
    ("png of 16 bits", ".png", {"mode": "I;16"}),
    ("palette", ".png", {"mode": "P"}),
    ("gif", ".gif", {}),
    ("webp", ".webp", {}),
    ("bmp", ".bmp", {}),
    ("tiff", ".tif", {}),
    ("tiff lzw", ".tif", {"compression": "tiff_lzw"}),
    ("tiff deflate", ".tif", {"compression": "tiff_adobe_deflate"}),
    ("tiff jpeg", ".tif", {"compression": "jpeg"}),
    ("tiff of 16 bits", ".tif", {"mode": "I;16"}),
    ("ppm", ".ppm", {}),
    ("avif", ".avif", {}),
    ("icon", ".ico", {}),
]


def write_image(path: Path, pixels: NDArray[np.uint8], mode: str = "RGB", **options: Any) -> None:
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    image.save(path, **options)


def write_without_metadata(model: EfficientNet, path: Path) -> None:
    """Write an .onnx as someone else's: it says nothing of itself."""
    import onnx

    effnet.export(model, path)
    graph = onnx.load(path)
    del graph.metadata_props[:]
    onnx.save(graph, path)


def make_data_specimens(root: Path, model: Path) -> Iterator[Specimen]:
    """Data sets, tables, and what runs leave: of a model with the classes dark and light."""
    photos = root / "photos"
    paint(photos, "dark", 70, 12)
    paint(photos, "light", 180, 12)
    run = root / "finished"
    command = ["train", str(photos), "--model", "nano", "--weights", "none", "--epochs", "2", "--output", str(run)]
    command += ["--batch-size", "8", "--workers", "0", "--track", "none"]
    call_program(command)
    texts = tuple(str(path.relative_to(run)) for path in sorted(run.rglob("*")) if path.suffix in (".json", ".csv"))
    yield Specimen(
        "run",
        run,
        ("model.safetensors", *texts),
        (("evaluate", "{}", str(photos)), ("train", *command[1:8], "--output", "{}", *command[10:], "--resume")),
    )
    broken = root / "broken-off"
    shutil.copytree(run, broken)
    first, second = sorted(str(path.relative_to(run)) for path in run.rglob("*.pt"))
    for name in (second, "model.safetensors", "result.json"):
        (broken / name).unlink()
    resume = ("train", *command[1:8], "--output", "{}", *command[10:], "--resume")
    yield Specimen("run broken off", broken, (first, "run.json", "split.csv"), (resume,))

    shards = root / "shards"
    call_program(["shard", str(photos), str(shards)])
    tars = tuple(str(path.relative_to(shards)) for path in sorted(shards.rglob("*")) if path.is_file())
    on = ("evaluate", str(run))
    yield Specimen("shards", shards, tars, ((*on, "{}"),))
    packed = root / "packed"
    packed.mkdir()
    tar = next(shards / name for name in tars if name.endswith(".tar"))
    (packed / "a.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    yield Specimen(
        "shards gzip",
        packed,
        ("a.tar.gz",),
        (("predict", "{}/a.tar.gz", "--model", str(run), "--output", "{}/out.csv"),),
    )
    table = root / "table"
    shutil.copytree(photos, table)
    rows = [
        f"{path.parent.name}/{path.name},{path.parent.name},{index % 3}"
        for index, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    (table / "a.csv").write_text("path,label,fold\n" + "\n".join(rows) + "\n")
    yield Specimen(
        "table",
        table,
        ("a.csv",),
        ((*on, "{}/a.csv"), ("train", "{}/a.csv", "--dry-run", "--model", "nano", "--weights", "none")),
    )
    bulky = root / "bulk"
    bulky.mkdir()
    call_program(["predict", str(photos), "--model", str(run), "--output", str(bulky / "a.csv")])
    kept = tuple(sorted(path.name for path in bulky.iterdir() if path.is_file()))
    yield Specimen("bulk", bulky, kept, (("predict", str(photos), "--model", str(run), "--output", "{}/a.csv"),))
    labels = root / "labels"
    labels.mkdir()
    (labels / "a.json").write_text(json.dumps([f"label {index}" for index in range(CLASSES)]))
    (labels / "a.txt").write_text("\n".join(f"label {index}" for index in range(CLASSES)))
    Image.open(photos / "dark" / "00.png").save(labels / "photo.png")
    yield Specimen("labels", labels, ("a.json",), ((*EAGER, "--model", str(model), "--labels", "{}/a.json"),))
    yield Specimen("labels text", labels, ("a.txt",), ((*EAGER, "--model", str(model), "--labels", "{}/a.txt"),))
    if find_spec("pyarrow"):
        yield write_parquet(root / "parquet", photos, on)
    yield from write_bundle_specimen(root / "bundle", model)
    if find_spec("av"):
        yield write_video(root / "video", model)
    arch = root / "arch"
    arch.mkdir()
    (arch / "a.json").write_text(json.dumps(effnet.ARCHS["b0"].to_dict()))
    yield Specimen("arch", arch, ("a.json",), (("show", "{}/a.json"), ("draw", "{}/a.json", "--output", "{}/a.svg")))


def write_parquet(folder: Path, photos: Path, on: tuple[str, ...]) -> Specimen:
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir()
    files = sorted(photos.rglob("*.png"))
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    table = pa.table({"image": images, "label": [path.parent.name for path in files]})
    parquet.write_table(table, folder / "train.parquet")
    return Specimen("parquet", folder, ("train.parquet",), ((*on, "{}"),))


def write_video(folder: Path, model: Path) -> Specimen:
    import av

    folder.mkdir()
    with av.open(str(folder / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(6):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Specimen("video", folder, ("a.mp4",), ((EAGER[0], "{}/a.mp4", *EAGER[2:], "--model", str(model)),))


def write_bundle_specimen(folder: Path, model: Path) -> Iterator[Specimen]:
    """A bundle with the weights of a hub's model, packed where there is a network."""
    from hashlib import sha256
    from zipfile import ZipFile

    home = folder / "home"
    home.mkdir(parents=True)
    key = "weights/huggingface.co/me/mine/resolve/main/model.safetensors"
    content = model.read_bytes()
    manifest = {"files": {key: {"bytes": len(content), "sha256": sha256(content).hexdigest()}}, "entries": {}}
    with ZipFile(home / "weights.zip", "w") as archive:
        archive.writestr("effnet-bundle.json", json.dumps(manifest))
        archive.writestr(key, content)
    Image.new("RGB", (40, 40), "red").save(folder / "photo.png")
    commands = ((*EAGER, "--model", "me/mine"), ("models",), (*EAGER, "--model", "b0"))
    yield Specimen("bundle", folder, ("home/weights.zip",), commands, env={"EFFNET_HOME": "{}/home"})


def call_program(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "effnet", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
