"""Whether a written file answers as the network that it was made from: asked in its bare runtime, always."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from effnet.data.image_io import ImageError, ImageSource, InputImage, load_input
from effnet.data.inputs import open_inputs
from effnet.data.preprocessing import normalize
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.runtime.io_spec import IOSpec
from effnet.tasks import MIN_COMPARED_PROBABILITY, task_of

FileRunner = Callable[
    [NDArray[Any]], dict[str, NDArray[np.float32]]
]  # pictures as the file takes them -> its outputs by name


COMPARED_BATCH_SIZE = 3  # pictures at once, where it is not one


# Logits as small as an untrained network's are lost in the rounding of their probabilities: beside this, not themselves
MIN_LOGIT_SCALE = 0.1


@dataclass(frozen=True)
class Agreement:
    """How far a file answers from the network."""

    difference: float  # the largest of a logit over the largest logit, or of an embedding; NaN: no such outputs
    images: int
    # Pictures whose likeliest class is the network's or, where any label may be right, all labels of 0.5 and above;
    # None without a classifier, and of values
    same_top1: int | None


def compare_outputs(run: FileRunner, model: EfficientNet, io_spec: IOSpec, images: Iterable[InputImage]) -> Agreement:
    """What ``run`` answers beside ``model``, in evaluation mode: each of ``pictures`` is one size, (N, H, W, C).

    Of every size the first picture is asked alone, then all in threes. Probabilities are compared by their logarithms,
    or of labels of which any may be right by the logits that they mean, beside the largest logit too: of a thousand
    classes that are all unlikely none would differ by much otherwise.
    """
    task = task_of(model.labels.task)
    answered = bool(model.classes) and task.has_probabilities
    apart: dict[str, float] = {}  # by output: the largest difference, and the largest number
    most: dict[str, float] = {}
    seen = same = 0
    for whole in images:
        batches = [
            whole[:1],
            *(whole[start : start + COMPARED_BATCH_SIZE] for start in range(0, len(whole), COMPARED_BATCH_SIZE)),
        ]
        for index, batch in enumerate(batches):
            given, expected = _expected_outputs(model, io_spec, batch)
            got = run(given)
            if {name: one.shape for name, one in got.items()} != {name: one.shape for name, one in expected.items()}:
                return Agreement(float("nan"), len(whole), 0 if answered else None)
            for name, wanted in expected.items():
                scores = name == "probabilities"
                difference = task.max_difference(got[name], wanted) if scores else np.abs(got[name] - wanted).max()
                apart[name] = float(np.maximum(apart.get(name, 0), difference))  # NaN stays
                least = MIN_LOGIT_SCALE if scores else MIN_COMPARED_PROBABILITY
                most[name] = max(most.get(name, least), float(np.abs(wanted).max()))
            if index and answered:
                answer = next(iter(expected))
                logits = task.invert(got[answer]) if answer == "probabilities" else got[answer]
                same += task.count_equal_rows(logits, expected[answer])
        seen += len(whole)
    difference = float(np.max([apart[name] / most[name] for name in apart]))
    return Agreement(difference, seen, same if answered else None)


@torch.inference_mode()
def _expected_outputs(
    model: EfficientNet, io_spec: IOSpec, images: InputImage
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The pictures as the file takes them, and what the network answers: logits where the file gives probabilities."""
    given = np.rint(images).astype(np.uint8) if io_spec.input == "pixels" else images.astype(np.float32)
    x = normalize(torch.from_numpy(given), model.preprocess)
    if io_spec.input == "normalised":
        x = x.contiguous()
        given = x.numpy()
    embedding = model.embed(x)
    wanted: dict[str, torch.Tensor] = {}
    if model.classes:
        wanted[io_spec.output] = model.classifier(embedding)
    if io_spec.embedding or not model.classes:
        wanted["embedding"] = embedding
    return given, {name: tensor.numpy() for name, tensor in wanted.items()}


# Pictures to compare by: those that the user gives, or else some that need no data of theirs.


MAX_IMAGES = 32  # more would tell no more


MAX_SOURCES = 10_000  # of a folder, to take those from


SKLEARN_PHOTOS = ("china.jpg", "flower.jpg")  # scikit-learn's two sample images


def select_images(images: str | Path | Iterable[ImageSource]) -> list[ImageSource]:
    """Up to `MOST` of the pictures that a folder, a pattern or a list means, evenly spread.

    Raises ``FileNotFoundError``, and ``ValueError`` where there are none.
    """
    if isinstance(images, (str, Path)):
        images = (source for _, source in open_inputs([images]) if not isinstance(source, ImageError))
    found = list(islice(images, MAX_SOURCES))
    if not found:
        raise ValueError("there are no pictures to compare by: leave them out, and some of our own are taken")
    return found[:: -(-len(found) // MAX_IMAGES)]


def load_images(images: list[ImageSource], preprocess: Preprocess) -> InputImage:
    """(N, H, W, 3) of ``preprocess.size``; what is no readable picture is passed over.

    Raises ``ValueError`` where none can be read.
    """
    read, why = [], ""
    for source in images:
        try:
            read.append(load_input(source, preprocess))
        except ImageError as error:
            why = str(error)
    if not read:
        raise ValueError(f"none of the pictures to compare by can be read: {why}")
    return np.stack(read)


def sample_images(preprocess: Preprocess, channels: int = 3) -> InputImage:
    """(N, H, W, channels) of ``preprocess.size``, always the same: gradients, a texture, blots and noise.

    With three channels also the two photos that come with scikit-learn, by the network's own preprocessing.
    """
    drawn = _synthetic_images(*preprocess.size, channels)
    package = find_spec("sklearn")
    places = [Path(place) / "datasets" / "images" for place in (package and package.submodule_search_locations) or ()]
    photos: list[ImageSource] = [
        place / name for place in places for name in SKLEARN_PHOTOS if (place / name).is_file()
    ]
    if channels != 3 or not photos:
        return drawn
    return np.concatenate([load_images(photos, replace(preprocess, decode="exact")), drawn])


def _synthetic_images(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """(4, height, width, channels)."""
    chance = np.random.default_rng(0)
    down, along = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    turn = np.arange(channels) / channels
    gradient = (down * (1 - turn) + along * turn) * 255
    waves = np.sin(40 * along + 6 * turn) * np.sin(25 * down + 9 * down * along) * 127.5 + 127.5
    coarse = [Image.fromarray(chance.integers(0, 256, (7, 9), np.uint8)) for _ in range(channels)]
    blots = np.stack([np.asarray(each.resize((width, height), Image.Resampling.BICUBIC)) for each in coarse], -1)
    noise = chance.integers(0, 256, (height, width, channels))
    return np.stack([np.rint(each).astype(np.uint8) for each in (gradient, waves, blots, noise)])


def run_onnx_file(path: Path) -> FileRunner:
    """The file at ``path`` in onnxruntime. Raises ``ImportError`` without it."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError("ONNX files are checked by onnxruntime: pip install onnxruntime") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    return lambda pictures: dict(zip(names, session.run(names, {given.name: pictures}), strict=True))


def run_openvino_file(path: Path) -> FileRunner:
    """The file at ``path`` in OpenVINO, on the CPU. Raises ``ImportError`` without it."""
    from effnet.runtime.openvino import get_core

    # In float32: where a CPU has bfloat16, OpenVINO would take that by itself.
    compiled = get_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.any_name for output in compiled.outputs]
    return lambda pictures: dict(zip(names, compiled([pictures]).to_tuple(), strict=True))


def run_litert_file(path: Path) -> FileRunner:
    """The file at ``path`` in LiteRT's interpreter. Raises ``ImportError`` without it."""
    from effnet.runtime.litert import silence_xnnpack

    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ImportError("TFLite files are checked by ai-edge-litert: pip install ai-edge-litert") from None
    interpreter = Interpreter(str(path))
    (given,), outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pictures: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        with silence_xnnpack():
            interpreter.resize_tensor_input(given["index"], pictures.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], pictures)
        interpreter.invoke()
        return {each["name"]: interpreter.get_tensor(each["index"]) for each in outputs}

    return run
