"""The examination: the numbers first, then pictures of either kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from effnet.arch.record import whole
from effnet.data import Pictures
from effnet.doctor import numbers
from effnet.doctor.choice import LEAST, PICTURES, choose
from effnet.doctor.diagnosis import Diagnosis, Reading
from effnet.doctor.rounds import Search
from effnet.net import EfficientNet
from effnet.net.device import pick
from effnet.prediction.pipeline import for_rgb
from effnet.weights import load


def diagnose(
    model: EfficientNet | str | Path,
    data: Pictures | str | Path | None = None,
    pictures: int = PICTURES,
    seed: int = 0,
    split: str | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """What makes ``model``'s accuracy silently low, and what to do about it.

    Without ``data`` the numbers alone are looked at. With pictures that have no labels (a folder without class folders,
    a pattern) the stem's batch-norm statistics tell whether mean, std and the order of channels are those of the
    training. With labelled pictures (as `effnet.evaluate` takes them) every neighbour of the contract is tried on at
    most ``pictures`` of them, balanced over the classes; the best that is surely better is kept, and its neighbours
    tried in turn. ``progress`` is called with the pictures done in a round, and how many there are.
    Raises ``ValueError`` where the model is not for RGB, or the pictures' classes cannot be those of its outputs.
    """
    whole("pictures", pictures, LEAST)
    network = model if isinstance(model, EfficientNet) else load(model)
    reading = Reading(network.preprocess, network.numerics)
    found = tuple(numbers.examine(network))
    if data is None or any(finding.code == "not-finite" for finding in found):
        return Diagnosis((*found, *numbers.unusual(network)), reading)
    for_rgb(network.channels)
    chosen = choose(network, data, pictures, seed, split)
    reading = replace(reading, order=tuple(range(len(chosen.names))))
    search = Search(network, chosen.pictures, pick(device), progress, reading, numbers.measurable(network))
    top1 = best_top1 = None
    if chosen.labels is not None:
        top1, best_top1 = search.by_score(chosen.names, chosen.labels)
        found = tuple(finding for finding in found if finding.code != "labels-shifted")  # it was tried
    else:
        if search.statistics:
            search.by_stem()
        found = (*found, *numbers.unusual(network))
    return Diagnosis(
        (*search.findings, *chosen.findings, *found),
        search.reading,
        tuple(search.trials),
        len(chosen.pictures),
        chosen.labels is not None,
        top1,
        best_top1,
        chosen.left_out,
        chosen.names,
    )
