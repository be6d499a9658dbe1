"""Whether a written file answers as the network that it was made from: asked in its bare runtime, always."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from effnet.data.normalise import normalise
from effnet.data.pixels import Fitted
from effnet.engines.interface import Interface
from effnet.net import EfficientNet

Run = Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]]  # pictures as the file takes them -> its outputs by name

SEVERAL = 3  # pictures at once, where it is not one
LEAST = 1e-30  # a smaller probability says no more about the logit than that it is very small
# Logits as small as an untrained network's are lost in the rounding of their probabilities: beside this, not themselves
SMALL = 0.1


@dataclass(frozen=True)
class Agreement:
    """How far a file answers from the network."""

    difference: float  # the largest of a logit over the largest logit, or of an embedding; NaN: no such outputs
    pictures: int
    same_top1: int | None  # pictures whose likeliest class is the network's; None without a classifier


def compare(run: Run, model: EfficientNet, interface: Interface, pictures: Iterable[Fitted]) -> Agreement:
    """What ``run`` answers beside ``model``, in evaluation mode: each of ``pictures`` is one size, (N, H, W, C).

    Of every size the first picture is asked alone, then all in threes. Probabilities are compared by their logarithms,
    beside the largest logit too: of a thousand classes that are all unlikely none would differ by much otherwise.
    """
    apart: dict[str, float] = {}  # by output: the largest difference, and the largest number
    most: dict[str, float] = {}
    seen = same = 0
    for whole in pictures:
        batches = [whole[:1], *(whole[start : start + SEVERAL] for start in range(0, len(whole), SEVERAL))]
        for index, batch in enumerate(batches):
            given, expected = _expected(model, interface, batch)
            got = run(given)
            if {name: one.shape for name, one in got.items()} != {name: one.shape for name, one in expected.items()}:
                return Agreement(float("nan"), len(whole), 0 if model.classes else None)
            for name, wanted in expected.items():
                apart[name] = float(np.maximum(apart.get(name, 0), _apart(got[name], wanted, name)))  # NaN stays
                least = SMALL if name == "probabilities" else LEAST
                most[name] = max(most.get(name, least), float(np.abs(wanted).max()))
            if index and model.classes:
                answer = next(iter(expected))
                same += int((got[answer].argmax(1) == expected[answer].argmax(1)).sum())
        seen += len(whole)
    difference = float(np.max([apart[name] / most[name] for name in apart]))
    return Agreement(difference, seen, same if model.classes else None)


@torch.inference_mode()
def _expected(
    model: EfficientNet, interface: Interface, pictures: Fitted
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The pictures as the file takes them, and what the network answers: logits where the file gives probabilities."""
    given = np.rint(pictures).astype(np.uint8) if interface.input == "pixels" else pictures.astype(np.float32)
    x = normalise(torch.from_numpy(given), model.preprocess)
    if interface.input == "normalised":
        x = x.contiguous()
        given = x.numpy()
    embedding = model.embed(x)
    wanted: dict[str, torch.Tensor] = {}
    if model.classes:
        wanted[interface.output] = model.classifier(embedding)
    if interface.embedding or not model.classes:
        wanted["embedding"] = embedding
    return given, {name: tensor.numpy() for name, tensor in wanted.items()}


def _apart(got: NDArray[np.float32], expected: NDArray[np.float32], name: str) -> float:
    """The largest difference; ``expected`` are logits also where ``got`` are probabilities."""
    if name == "probabilities":
        shifted = expected.astype(np.float64) - expected.max(1, keepdims=True)
        expected = np.maximum(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), np.log(LEAST))
        got = np.log(np.maximum(got.astype(np.float64), LEAST))
    return float(np.abs(got - expected).max())
