"""Which pictures the doctor looks at, and which of the model's labels each has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from effnet.arch.serde import check_int
from effnet.data import ImageDataset, ImageError, Item, check_images, open_data, read_image
from effnet.data.inputs import open_inputs
from effnet.doctor import hypotheses, weight_checks
from effnet.doctor.diagnosis import Configuration, Diagnosis, Finding
from effnet.doctor.hypotheses import IntArray
from effnet.doctor.search import ConfigurationSearch
from effnet.evaluation.evaluator import pick_split
from effnet.metadata import Labels
from effnet.net import EfficientNet
from effnet.prediction.pipeline import require_rgb
from effnet.runtime.torch import select_device
from effnet.weights import load

DEFAULT_IMAGES = 200


MIN_IMAGES = 20  # below, differences drown in chance


_MAX_GATHERED_IMAGES = 10_000  # pictures without labels that are chosen from


@dataclass(frozen=True, eq=False)
class SampledImages:
    """Pictures that can be read, one of each class in turn. ``labels`` (N,) are places in ``names``, None without."""

    dataset: ImageDataset
    skipped: tuple[str, ...]
    names: tuple[str, ...] = ()  # the model's labels, or without such the pictures'
    labels: IntArray | None = None
    findings: tuple[Finding, ...] = ()


def sample_images(
    network: EfficientNet, data: ImageDataset | str | Path, max_images: int, seed: int, split: str | None
) -> SampledImages:
    """At most ``pictures`` of ``data``, balanced over the classes; which ones the seed says.

    Raises ``ValueError`` where there are too few, or their classes cannot be those of the network's outputs.
    """
    given = _open_labeled(data, split)
    if given is None or not network.classes:
        chosen, errors = check_images(_sample_balanced(given or _open_unlabeled(data), max_images, seed))
        found = SampledImages(chosen, tuple(map(str, errors)))
    elif {network.labels.task, given.labels.task} != {"classification"}:
        raise ValueError(
            "the doctor judges by the one class that is right, which these labels do not say: give it pictures without "
            "labels, and it goes by the statistics of the network's stem"
        )
    else:
        names, places, findings = _match_labels(network, given)
        known = given.subset(index for index, label in enumerate(given.targets) if places[label] >= 0)
        chosen, errors = check_images(_sample_balanced(known, max_images, seed))
        labels = np.array(places)[chosen.targets]
        found = SampledImages(chosen, tuple(map(str, errors)), names, labels, findings)
    if len(found.dataset) < MIN_IMAGES:
        raise ValueError(f"only {len(found.dataset)} pictures can be used: the doctor needs at least {MIN_IMAGES}")
    return found


def _sample_balanced(dataset: ImageDataset, max_images: int, seed: int) -> ImageDataset:
    shuffled = np.random.default_rng(seed).permutation(len(dataset))
    labels = dataset.targets[shuffled]
    turn = np.zeros(len(labels), np.int64)  # how many of its class come before
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return dataset.subset(shuffled[np.argsort(turn, kind="stable")][:max_images].tolist())


def _open_labeled(data: ImageDataset | str | Path, split: str | None) -> ImageDataset | None:
    """The labelled pictures of ``data``; None where it holds pictures and no class folders."""
    if isinstance(data, ImageDataset):
        return data
    if data != "digits" and not any(path.is_dir() for path in Path(data).glob("*")):
        return None
    return pick_split(open_data(data), split)[1]


def _open_unlabeled(data: ImageDataset | str | Path) -> ImageDataset:
    assert not isinstance(data, ImageDataset)
    return ImageDataset(tuple(islice(_iter_items(data), _MAX_GATHERED_IMAGES)), Labels(("picture",)))


def _iter_items(data: str | Path) -> Iterator[Item]:
    for name, picture in open_inputs([data]):
        if isinstance(picture, (str, Path)):
            yield Item(Path(picture), 0, name)
        elif not isinstance(picture, ImageError):
            yield Item(np.asarray(read_image(picture)), 0, name)


def _match_labels(network: EfficientNet, given: ImageDataset) -> tuple[tuple[str, ...], list[int], tuple[Finding, ...]]:
    """The model's labels, the place among them of each class of the pictures (−1: none), and what does not fit."""
    known, classes, outputs = network.labels.names[: network.classes], given.labels.names, network.classes
    if not known:
        if len(classes) not in (outputs, outputs - 1):
            raise ValueError(f"the model has {outputs} outputs without names, the pictures have {len(classes)} classes")
        return classes, list(range(len(classes))), ()
    places = {name: place for place, name in enumerate(known)}
    missing = [name for name in classes if name not in places]
    if len(missing) == len(classes):
        raise ValueError(
            f"the model knows none of the pictures' classes ({', '.join(classes[:5])}); it knows {', '.join(known[:5])}"
        )
    findings = (hypotheses.unknown_labels_finding(missing, known),) if missing else ()
    return known, [places.get(name, -1) for name in classes], findings


# The examination: the numbers first, then pictures of either kind.


def diagnose(
    model: EfficientNet | str | Path,
    data: ImageDataset | str | Path | None = None,
    max_images: int = DEFAULT_IMAGES,
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
    check_int("pictures", max_images, MIN_IMAGES)
    network = model if isinstance(model, EfficientNet) else load(model)
    reading = Configuration(network.preprocess, network.numerics)
    found = tuple(weight_checks.check_weights(network))
    if data is None or any(finding.code == "not-finite" for finding in found):
        return Diagnosis((*found, *weight_checks.find_unusual(network)), reading)
    require_rgb(network.channels)
    chosen = sample_images(network, data, max_images, seed, split)
    reading = replace(reading, label_order=tuple(range(len(chosen.names))))
    search = ConfigurationSearch(
        network, chosen.dataset, select_device(device), progress, reading, weight_checks.has_statistics(network)
    )
    top1 = best_top1 = None
    if chosen.labels is not None:
        top1, best_top1 = search.search_by_labels(chosen.names, chosen.labels)
        found = tuple(finding for finding in found if finding.code != "labels-shifted")  # it was tried
    else:
        if search.has_statistics:
            search.search_by_stem()
        found = (*found, *weight_checks.find_unusual(network))
    return Diagnosis(
        (*search.findings, *chosen.findings, *found),
        search.configuration,
        tuple(search.trials),
        len(chosen.dataset),
        chosen.labels is not None,
        top1,
        best_top1,
        chosen.skipped,
        chosen.names,
    )
