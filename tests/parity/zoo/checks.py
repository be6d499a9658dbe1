"""Opening a file of the table by the public calls, and listing what is not as it must be."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import effnet
from effnet.arch import canonical_name
from effnet.net import EfficientNet
from tests.parity import timm_comparison
from tests.parity.zoo.table import FLOAT64_LIMIT, Opens, Photo, Sample, ZooFile

MAX_LINES = 6  # of a refusal
NEVER_SAID = ("Traceback", "weights_only=True", "In PyTorch 2.6")  # other programs' words
PROBABILITY_LIMIT = 1e-4


class Done(NamedTuple):
    """What a command left: its exit status, stdout and stderr."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect what is logged for the user."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("effnet"), Collect()
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def problems(file: ZooFile, sample: Sample, run: Run) -> list[str]:
    """Return what is wrong with how the file opens; [] if everything is as expected."""
    if isinstance(file.expected, Opens):
        found = list(opening_problems(file.expected, sample, run))
    else:
        found = list(refusal_problems(file.expected.says, sample.path, run))
    if sample.marker is not None and sample.marker.exists():
        found.append("a program in the file was run")
    return found


def difference(expected: Opens, sample: Sample) -> float:
    """Return the largest difference from the answer of the network that wrote it, relative to the largest value."""
    return compare(effnet.load(sample.path, **expected.options), expected, sample)


@torch.no_grad()
def compare(model: EfficientNet, expected: Opens, sample: Sample) -> float:
    """Compare one output, in float64 unless the network that wrote the file computes in float32."""
    images, answer = sample.images, sample.answer
    assert images is not None
    assert answer is not None
    if sample.normalized_by:
        images = normalize(images, sample.normalized_by, model)
    if expected.limit <= FLOAT64_LIMIT * 10:
        model = model.double()
    x = images.to(model.stem.conv.weight)
    match expected.compared:
        case "logits":
            ours = model(x)
        case "embedding":
            ours = model.embed(x)
        case "sigmoid":  # of two classes; theirs is one logit
            logits = model(x)
            ours = logits[:, 1:] - logits[:, :1]
        case name:
            ours = model.features(x)[name]
    if ours.shape != answer.shape:
        return float("inf")
    return timm_comparison.relative_difference(ours.double(), answer.double())


def normalize(images: Tensor, before: Mapping[str, tuple[float, ...]], model: EfficientNet) -> Tensor:
    """Return images normalized by ``before`` as the network's own preprocessing normalizes them."""
    preprocess = model.preprocess
    mean, std = (torch.tensor(before[name], dtype=torch.double)[:, None, None] for name in ("mean", "std"))
    own = (preprocess.mean, preprocess.std)
    own_mean, own_std = (torch.tensor(values, dtype=torch.double)[:, None, None] for values in own)
    return (images * std + mean - own_mean) / own_std


def opening_problems(expected: Opens, sample: Sample, run: Run) -> Iterator[str]:
    with logged() as messages:
        try:
            model = effnet.load(sample.path)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            yield f"refused: {error}"
            return
    text = "\n".join(messages)
    yield from (f"is not said: {pattern} in {text!r}" for pattern in expected.says if not re.search(pattern, text))
    yield from metadata_problems(expected, model)
    if sample.images is not None and sample.answer is not None:
        if expected.options:
            model = effnet.load(sample.path, **expected.options)
        largest = compare(model, expected, sample)
        if not largest <= expected.limit:
            yield f"its {expected.compared} differ by {largest:.1e} of the largest"
    if sample.photo is not None:
        yield from prediction_problems(expected, model, sample.path, sample.photo, run)
    if expected.predict_says:
        yield from predict_refusal_problems(expected.predict_says, sample.path, run)


def metadata_problems(expected: Opens, model: EfficientNet) -> Iterator[str]:
    try:
        wanted = canonical_name(expected.arch)
    except ValueError as error:
        wanted = str(error)
    pairs: list[tuple[str, Any, Any]] = [
        ("arch", model.arch.name, wanted),
        ("classes", model.classes, expected.classes),
        ("channels", model.channels, expected.channels),
        ("task", model.labels.task, expected.task),
    ]
    if expected.numerics is not None:
        pairs.append(("numerics", model.numerics, expected.numerics))
    if expected.labels:
        pairs.append(("labels", model.labels.names, expected.labels))
    for name, value in expected.preprocess.items():
        pairs.append((name, rounded(getattr(model.preprocess, name)), rounded(value)))
    yield from (f"{name} is {found}, not {value}" for name, found, value in pairs if found != value)


def rounded(value: Any) -> Any:
    """Round numbers to the six digits that configurations state."""
    if isinstance(value, (tuple, list)):
        return tuple(rounded(part) for part in value)
    return round(value, 5) if isinstance(value, float) else value


def prediction_problems(expected: Opens, model: EfficientNet, path: Path, photo: Photo, run: Run) -> Iterator[str]:
    """Predict an image of one color from the command line, and compare with the network's own probabilities."""
    preprocess = model.preprocess
    color, mean, std = (torch.tensor(v, dtype=torch.double) for v in (photo.color, preprocess.mean, preprocess.std))
    if len(color) != len(mean):
        yield f"images have {len(mean)} channels, not {len(color)}"
        return
    x = ((color / 255 - mean) / std)[None, :, None, None].expand(1, -1, *preprocess.size)
    wanted = photo.probabilities(x.contiguous())
    done = run("predict", photo.path, "--model", path, "--json", "--top", 1000)
    if done.status:
        yield f"predict: {done.err}"
        return
    found = json.loads(done.out)[0]["labels"]
    order = wanted.argsort(descending=True)
    if expected.labels and [entry["label"] for entry in found] != [expected.labels[index] for index in order]:
        yield f"predict answers {found}"
    probabilities = torch.tensor([entry["probability"] for entry in found], dtype=torch.double)
    if len(probabilities) != len(wanted):
        yield f"predict names {len(probabilities)} classes, not {len(wanted)}"
    elif not (probabilities - wanted[order]).abs().max() <= PROBABILITY_LIMIT:
        yield f"predict answers {probabilities.tolist()}, not {wanted[order].tolist()}"


def predict_refusal_problems(patterns: tuple[str, ...], path: Path, run: Run) -> Iterator[str]:
    photo = path.parent / "any-photo.png"
    write_any_photo(photo)
    done = run("predict", photo, "--model", path)
    if not done.status:
        yield "predict answers, though there is no classifier"
    yield from message_problems("predict", done.err, patterns)


def refusal_problems(patterns: tuple[str, ...], path: Path, run: Run) -> Iterator[str]:
    try:
        model = effnet.load(path)
        yield f"opens as {model.arch.name}"
    except (ValueError, OSError) as error:
        yield from message_problems("load", str(error), patterns)
    photo = path.with_name("any-photo.png")
    write_any_photo(photo)
    commands: dict[str, tuple[object, ...]] = {
        "predict": ("predict", photo, "--model", path),
        "convert": ("convert", path, path.with_name("converted.safetensors"), "--to", "effnet"),
    }
    for name, words in commands.items():
        done = run(*words)
        if done.status != 1:
            yield f"{name} ends with status {done.status}"
        yield from message_problems(name, done.err, patterns)
        if re.search(r"\b(arch|layout)=", done.err):
            yield f"{name} names an argument of Python, not an option"


def message_problems(source: str, text: str, patterns: tuple[str, ...]) -> Iterator[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > MAX_LINES:
        yield f"{source} says {len(lines)} lines"
    yield from (f"{source} says {words}" for words in NEVER_SAID if words in text)
    for pattern in patterns:
        if not re.search(pattern, text):
            yield f"{source} does not say {pattern}: {text[:500]}"


def write_any_photo(path: Path) -> None:
    from PIL import Image

    Image.effect_noise((96, 96), 80).convert("RGB").save(path)


def refusal(path: Path) -> str:
    """Return the message with which the file is refused, without its folder."""
    try:
        effnet.load(path)
    except (ValueError, OSError) as error:
        return str(error).replace(f"{path.parent}/", "")
    return ""
