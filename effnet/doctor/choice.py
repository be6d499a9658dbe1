"""Which pictures the doctor looks at, and which of the model's labels each has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from effnet.contract import Labels
from effnet.data import Item, PictureError, Pictures, check, open_data, read
from effnet.data.gather import gather
from effnet.doctor import causes
from effnet.doctor.diagnosis import Finding
from effnet.doctor.orders import Whole
from effnet.evaluation import pick_split
from effnet.net import EfficientNet

PICTURES = 200
LEAST = 20  # below, differences drown in chance
_MOST_GATHERED = 10_000  # pictures without labels that are chosen from


@dataclass(frozen=True, eq=False)
class Chosen:
    """Pictures that can be read, one of each class in turn. ``labels`` (N,) are places in ``names``, None without."""

    pictures: Pictures
    left_out: tuple[str, ...]
    names: tuple[str, ...] = ()  # the model's labels, or without such the pictures'
    labels: Whole | None = None
    findings: tuple[Finding, ...] = ()


def choose(network: EfficientNet, data: Pictures | str | Path, pictures: int, seed: int, split: str | None) -> Chosen:
    """At most ``pictures`` of ``data``, balanced over the classes; which ones the seed says.

    Raises ``ValueError`` where there are too few, or their classes cannot be those of the network's outputs.
    """
    given = _labelled(data, split)
    if given is None or not network.classes:
        chosen, errors = check(_balanced(given or _unlabelled(data), pictures, seed))
        found = Chosen(chosen, tuple(map(str, errors)))
    elif {network.labels.kind, given.labels.kind} != {"one"}:
        raise ValueError(
            "the doctor judges by the one class that is right, which these labels do not say: give it pictures without "
            "labels, and it goes by the statistics of the network's stem"
        )
    else:
        names, places, findings = _named(network, given)
        known = given.take(index for index, label in enumerate(given.targets) if places[label] >= 0)
        chosen, errors = check(_balanced(known, pictures, seed))
        labels = np.array(places)[chosen.targets]
        found = Chosen(chosen, tuple(map(str, errors)), names, labels, findings)
    if len(found.pictures) < LEAST:
        raise ValueError(f"only {len(found.pictures)} pictures can be used: the doctor needs at least {LEAST}")
    return found


def _balanced(pictures: Pictures, most: int, seed: int) -> Pictures:
    shuffled = np.random.default_rng(seed).permutation(len(pictures))
    labels = pictures.targets[shuffled]
    turn = np.zeros(len(labels), np.int64)  # how many of its class come before
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return pictures.take(shuffled[np.argsort(turn, kind="stable")][:most].tolist())


def _labelled(data: Pictures | str | Path, split: str | None) -> Pictures | None:
    """The labelled pictures of ``data``; None where it holds pictures and no class folders."""
    if isinstance(data, Pictures):
        return data
    if data != "digits" and not any(path.is_dir() for path in Path(data).glob("*")):
        return None
    return pick_split(open_data(data), split)[1]


def _unlabelled(data: Pictures | str | Path) -> Pictures:
    assert not isinstance(data, Pictures)
    return Pictures(tuple(islice(_items(data), _MOST_GATHERED)), Labels(("picture",)))


def _items(data: str | Path) -> Iterator[Item]:
    for name, picture in gather([data]):
        if isinstance(picture, (str, Path)):
            yield Item(Path(picture), 0, name)
        elif not isinstance(picture, PictureError):
            yield Item(np.asarray(read(picture)), 0, name)


def _named(network: EfficientNet, given: Pictures) -> tuple[tuple[str, ...], list[int], tuple[Finding, ...]]:
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
    findings = (causes.unknown(missing, known),) if missing else ()
    return known, [places.get(name, -1) for name in classes], findings
