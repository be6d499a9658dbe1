"""Comparing an exported file, in its bare runtime, with the network it was made from; and the images for that."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from effnet.arch.serde import import_extra
from effnet.data import image_io, prediction_inputs, preprocessing
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.runtime.io_spec import IOSpec, round_to_uint8
from effnet.tasks import MIN_COMPARED_PROBABILITY, task_of
from effnet.telemetry import disable_telemetry

# Runs a file in its own runtime: images as the file takes them -> outputs by name
FileRunner = Callable[[np.ndarray], dict[str, np.ndarray]]

BATCH_SIZE = 3  # besides single images
# Lower bound of the scale for probabilities: logits of untrained networks are so small that they drown in rounding
MIN_LOGIT_SCALE = 0.1
MAX_IMAGES = 32
MAX_SCANNED_SOURCES = 10_000  # of a folder, to choose those from
SKLEARN_PHOTOS = ("china.jpg", "flower.jpg")


@dataclass(frozen=True)
class Agreement:
    """How closely a file agrees with its network."""

    difference: float  # largest difference relative to the largest logit or embedding value; NaN: other outputs
    images: int
    # Images with the same prediction: top class, or all labels if multi-label; None without classifier, for regression
    same_predictions: int | None

    def find_problem(self, tolerance: float) -> str:
        """Return what is wrong with the outputs if they differ by more than ``tolerance``, else ``""``."""
        if self.difference != self.difference:  # NaN
            return "outputs have other names or shapes, or contain NaN or Inf"
        differs = self.difference > tolerance
        return f"outputs differ by {self.difference:.1e} of the largest logit" if differs else ""


def compare_outputs(
    run: FileRunner, model: EfficientNet, io_spec: IOSpec, images: Iterable[image_io.InputImage]
) -> Agreement:
    """Compare ``run`` with ``model``, which is in evaluation mode.

    ``images``: batches (N, H, W, C), one per size. The first image of each is run alone, then all in batches of three.
    Probabilities are compared as `Task.max_difference` does, relative to the largest logit.
    """
    task = task_of(model.labels.task)
    comparable = _is_comparable(model)
    difference: dict[str, float] = {}  # by output
    scale: dict[str, float] = {}
    total = same = 0
    for stack in images:
        batches = [stack[:1], *(stack[start : start + BATCH_SIZE] for start in range(0, len(stack), BATCH_SIZE))]
        for index, batch in enumerate(batches):
            x, expected = _expected_outputs(model, io_spec, batch)
            got = run(x)
            if {name: out.shape for name, out in got.items()} != {name: out.shape for name, out in expected.items()}:
                return Agreement(float("nan"), len(stack), 0 if comparable else None)
            for name, out in expected.items():
                scores = name == "probabilities"
                largest = task.max_difference(got[name], out) if scores else np.abs(got[name] - out).max()
                difference[name] = float(np.maximum(difference.get(name, 0), largest))  # NaN stays
                smallest = MIN_LOGIT_SCALE if scores else MIN_COMPARED_PROBABILITY
                scale[name] = max(scale.get(name, smallest), float(np.abs(out).max()))
            if index and comparable:
                name = next(iter(expected))
                logits = task.invert(got[name]) if name == "probabilities" else got[name]
                same += task.count_equal_rows(logits, expected[name])
        total += len(stack)
    relative = float(np.max([difference[name] / scale[name] for name in difference]))
    return Agreement(relative, total, same if comparable else None)


@torch.inference_mode()
def _expected_outputs(
    model: EfficientNet, io_spec: IOSpec, images: image_io.InputImage
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the file's input and the network's outputs, with logits instead of probabilities."""
    pixels = round_to_uint8(images) if io_spec.input == "pixels" else images.astype(np.float32)
    x = preprocessing.normalize(torch.from_numpy(pixels), model.preprocess)
    if io_spec.input == "normalized":
        x = x.contiguous()
        pixels = x.numpy()
    embedding = model.embed(x)
    outputs: dict[str, torch.Tensor] = {}
    if model.classes:
        outputs[io_spec.output] = model.classifier(embedding)
    if io_spec.embedding or not model.classes:
        outputs["embedding"] = embedding
    return pixels, {name: tensor.numpy() for name, tensor in outputs.items()}


@torch.inference_mode()
def measure_rounding(model: EfficientNet, io_spec: IOSpec, images: Iterable[image_io.InputImage]) -> Agreement | None:
    """Compare ``model`` on images rounded to the whole pixels that a file takes with the same images as they are.

    Returns None if there is nothing to round: the file takes floats, or all ``images`` (see `compare_outputs`) are
    whole, as they always are with PIL's resampling.
    """
    if io_spec.input != "pixels" or model.preprocess.resampling == "pil":
        return None
    difference, scale, same, total = 0.0, MIN_COMPARED_PROBABILITY, 0, 0
    for stack in images:
        for start in range(0, len(stack), BATCH_SIZE):
            exact = torch.from_numpy(stack[start : start + BATCH_SIZE].astype(np.float32))
            rounded = torch.from_numpy(round_to_uint8(exact.numpy()))
            inputs = (preprocessing.normalize(each, model.preprocess) for each in (exact, rounded))
            expected, got = ((model if model.classes else model.embed)(x).numpy() for x in inputs)
            difference = max(difference, float(np.abs(got - expected).max()))
            scale = max(scale, float(np.abs(expected).max()))
            same += task_of(model.labels.task).count_equal_rows(got, expected) if _is_comparable(model) else 0
            total += len(exact)
    return Agreement(difference / scale, total, same if _is_comparable(model) else None)


def _is_comparable(model: EfficientNet) -> bool:
    """Return whether predictions for one image are the same or not, rather than more or less close."""
    return bool(model.classes) and task_of(model.labels.task).has_probabilities


# Bare runtimes, as a program without this package would use them
def open_onnx_runner(path: Path) -> FileRunner:
    """Open ``path`` in onnxruntime. Raises ``ImportError`` without it."""
    disable_telemetry("onnxruntime")
    onnxruntime = import_extra("onnxruntime", "export", "verifying ONNX files requires")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {source.name: images}), strict=True))


def open_openvino_runner(path: Path) -> FileRunner:
    """Open ``path`` in OpenVINO, on the CPU. Raises ``ImportError`` without it."""
    from effnet.runtime.openvino import get_core

    # float32 explicitly: on a CPU with bfloat16 OpenVINO would use that
    compiled = get_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.any_name for output in compiled.outputs]
    return lambda images: dict(zip(names, compiled([images]).to_tuple(), strict=True))


def open_litert_runner(path: Path) -> FileRunner:
    """Open ``path`` in LiteRT's interpreter. Raises ``ImportError`` without it."""
    from effnet.runtime.base import silence_stderr

    litert = import_extra("ai_edge_litert.interpreter", "litert", "verifying TFLite files requires", "ai-edge-litert")
    interpreter = litert.Interpreter(str(path))
    (source,), outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with silence_stderr():
            interpreter.resize_tensor_input(source["index"], images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return {output["name"]: interpreter.get_tensor(output["index"]) for output in outputs}

    return run


def open_torch_runner(path: Path) -> FileRunner:
    """Open a ``.pt2`` in torch."""
    program = torch.export.load(path).module()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {name: out.numpy() for name, out in program(torch.from_numpy(images)).items()}

    return run


OPEN_RUNNER = {
    "onnx": open_onnx_runner,
    "openvino": open_openvino_runner,
    "litert": open_litert_runner,
    "torch": open_torch_runner,
}


def comparison_images(
    model: EfficientNet, io_spec: IOSpec, images: str | Path | Iterable[image_io.ImageSource] | None
) -> list[image_io.InputImage]:
    """Return ``images``, by default `sample_images`, as a batch (N, H, W, C) per size: a second one if it is open."""
    preprocess = replace(model.preprocess, size=io_spec.size or model.preprocess.size)
    height, width = preprocess.size  # the second size is slightly larger, odd by even, so that padding differs
    others = [] if io_spec.size else [replace(preprocess, size=((height | 1) + 2, width + width % 2 + 10))]
    if images is None:
        return [sample_images(each, model.channels) for each in (preprocess, *others)]
    if isinstance(images, (str, Path)):
        images = (
            source
            for _, source in prediction_inputs.open_inputs([images])
            if not isinstance(source, image_io.ImageError)
        )
    if not (sources := list(islice(images, MAX_SCANNED_SOURCES))):
        raise ValueError("no images to compare on: give some, or omit images to use built-in ones")
    sources = sources[:: -(-len(sources) // MAX_IMAGES)]  # evenly spread
    return [load_images(sources, preprocess), *(load_images(sources[:BATCH_SIZE], each) for each in others)]


def load_images(sources: list[image_io.ImageSource], preprocess: Preprocess) -> image_io.InputImage:
    """Return the readable images, (N, H, W, 3) of ``preprocess.size``."""
    loaded, reason = [], ""
    for source in sources:
        try:
            loaded.append(image_io.load_input(source, preprocess))
        except image_io.ImageError as error:
            reason = str(error)
    if not loaded:
        raise ValueError(f"none of the images to compare on is readable: {reason}")
    return np.stack(loaded)


def sample_images(preprocess: Preprocess, channels: int = 3) -> image_io.InputImage:
    """Return built-in images (N, H, W, channels): scikit-learn's photos, if installed and RGB, and synthetic ones."""
    synthetic = _synthetic_images(*preprocess.size, channels)
    package = find_spec("sklearn")
    folders = [Path(path) / "datasets" / "images" for path in (package and package.submodule_search_locations) or ()]
    photos: list[image_io.ImageSource] = [
        folder / name for folder in folders for name in SKLEARN_PHOTOS if (folder / name).is_file()
    ]
    if channels != 3 or not photos:
        return synthetic
    return np.concatenate([load_images(photos, replace(preprocess, decode="exact")), synthetic])


def _synthetic_images(height: int, width: int, channels: int) -> np.ndarray:
    random = np.random.default_rng(0)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    phase = np.arange(channels) / channels
    gradient = (y * (1 - phase) + x * phase) * 255
    waves = np.sin(40 * x + 6 * phase) * np.sin(25 * y + 9 * y * x) * 127.5 + 127.5
    coarse = [Image.fromarray(random.integers(0, 256, (7, 9), np.uint8)) for _ in range(channels)]
    blobs = np.stack([np.asarray(each.resize((width, height), Image.Resampling.BICUBIC)) for each in coarse], -1)
    noise = random.integers(0, 256, (height, width, channels))
    return np.stack([np.rint(each).astype(np.uint8) for each in (gradient, waves, blobs, noise)])


# Float32 sums in another order differ by 1e-6 to 1e-5; weights stored in 16 bits by a few thousandths
TOLERANCES = {"float32": 1e-4, "float16": 1e-2}
