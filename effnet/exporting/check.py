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
# Of a sigmoid's logit, to both sides: beyond, how near its probability is to 0 or 1 is lost in the rounding. The border
# is set by onnxruntime, whose sigmoid is right to 6e-8, and 0 below −16
MOST = 7.0
# Logits as small as an untrained network's are lost in the rounding of their probabilities: beside this, not themselves
SMALL = 0.1


@dataclass(frozen=True)
class Agreement:
    """How far a file answers from the network."""

    difference: float  # the largest of a logit over the largest logit, or of an embedding; NaN: no such outputs
    pictures: int
    # Pictures whose likeliest class is the network's or, where any label may be right, all labels of 0.5 and above;
    # None without a classifier, and of values
    same_top1: int | None


def compare(run: Run, model: EfficientNet, interface: Interface, pictures: Iterable[Fitted]) -> Agreement:
    """What ``run`` answers beside ``model``, in evaluation mode: each of ``pictures`` is one size, (N, H, W, C).

    Of every size the first picture is asked alone, then all in threes. Probabilities are compared by their logarithms,
    or of labels of which any may be right by the logits that they mean, beside the largest logit too: of a thousand
    classes that are all unlikely none would differ by much otherwise.
    """
    kind = model.labels.kind
    answered = bool(model.classes) and kind != "value"
    apart: dict[str, float] = {}  # by output: the largest difference, and the largest number
    most: dict[str, float] = {}
    seen = same = 0
    for whole in pictures:
        batches = [whole[:1], *(whole[start : start + SEVERAL] for start in range(0, len(whole), SEVERAL))]
        for index, batch in enumerate(batches):
            given, expected = _expected(model, interface, batch)
            got = run(given)
            if {name: one.shape for name, one in got.items()} != {name: one.shape for name, one in expected.items()}:
                return Agreement(float("nan"), len(whole), 0 if answered else None)
            for name, wanted in expected.items():
                by = kind if name == "probabilities" else ""
                apart[name] = float(np.maximum(apart.get(name, 0), _apart(got[name], wanted, by)))  # NaN stays
                least = SMALL if name == "probabilities" else LEAST
                most[name] = max(most.get(name, least), float(np.abs(wanted).max()))
            if index and answered:
                answer = next(iter(expected))
                same += _same(got[answer], expected[answer], kind, answer)
        seen += len(whole)
    difference = float(np.max([apart[name] / most[name] for name in apart]))
    return Agreement(difference, seen, same if answered else None)


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


def _apart(got: NDArray[np.float32], expected: NDArray[np.float32], by: str) -> float:
    """The largest difference. ``by``: of labels of which kind ``got`` are probabilities; ``expected`` are logits."""
    if by == "one":
        shifted = expected.astype(np.float64) - expected.max(1, keepdims=True)
        expected = np.maximum(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), np.log(LEAST))
        got = np.log(np.maximum(got.astype(np.float64), LEAST))
    elif by == "any":
        expected = expected.astype(np.float64).clip(-MOST, MOST)
        shares = got.astype(np.float64).clip(1e-12, 1 - 1e-12)
        got = (np.log(shares) - np.log1p(-shares)).clip(-MOST, MOST)
    return float(np.abs(got - expected).max())


def _same(got: NDArray[np.float32], expected: NDArray[np.float32], kind: str, name: str) -> int:
    """How many rows of ``got`` say what the logits ``expected`` do."""
    if kind == "one":
        return int((got.argmax(1) == expected.argmax(1)).sum())
    least = 0.5 if name == "probabilities" else 0
    return int(((got >= least) == (expected >= 0)).all(1).sum())
