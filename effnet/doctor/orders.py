"""Labels in another order: shifted by one, sorted another way, or in an order that only the confusions tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effnet.doctor.diagnosis import Reading
from effnet.doctor.gain import Doubles, Score, score
from effnet.doctor.neighbours import Change
from effnet.prediction.pipeline import softmax

Whole = NDArray[np.int64]
Order = tuple[int, ...]  # for each label, the output that is taken for it

LEAST = 4  # pictures a class, before confusions may tell an order

# How outputs are commonly numbered; digits in a name split it into texts and numbers in turn
_SORTED: tuple[tuple[str, Callable[[str], Any]], ...] = (
    ("as text", str),
    ("as text, small letters and capitals alike", str.casefold),
    ("by their numbers", lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]),
)


def orders(reading: Reading, names: Sequence[str], outputs: int) -> Iterator[Change]:
    """The orders that are commonly meant: every label one output further or one back, or outputs in sorted order."""
    now = reading.order
    for step, where in ((1, "after"), (-1, "before")):
        shifted = tuple((output + step) % outputs for output in now)
        yield Change("labels-shifted", f"each label for the output {where} its own", replace(reading, order=shifted))
    tried, places = {now}, sorted(now)
    for how, key in _SORTED:
        ranked = sorted(range(len(names)), key=lambda index: key(names[index]))
        order = tuple(places[place] for place in np.argsort(ranked).tolist())
        if order not in tried:
            tried.add(order)
            yield Change("labels-order", f"labels sorted {how}", replace(reading, order=order))


def matched(logits: Doubles, labels: Whole, now: Order) -> tuple[Order, Score] | None:
    """The order under which the network is most often right, and its score on pictures that did not choose it.

    Each half of the pictures (N,) is judged by the order found on the other half. None where there are too few of a
    class for that. ``labels`` are indices into ``now``; labels without pictures keep their output, or get a spare one.
    """
    counts = np.bincount(labels, minlength=len(now))
    if counts[counts > 0].min() < LEAST:
        return None
    turn = np.zeros(len(labels), np.int64)
    for label in np.flatnonzero(counts):
        turn[labels == label] = np.arange(counts[label]) % 2
    shares, targets = softmax(logits), np.zeros(len(labels), np.int64)
    for half in (0, 1):
        order = np.array(_assigned(shares[turn != half], labels[turn != half], now))
        targets[turn == half] = order[labels[turn == half]]
    return _assigned(shares, labels, now), score(logits, targets)


def _assigned(shares: Doubles, labels: Whole, now: Order) -> Order:
    """One output for each label, so that the probability given to the labels' outputs is the largest in all."""
    from scipy.optimize import linear_sum_assignment

    seen = np.unique(labels)
    given = np.stack([shares[labels == label].sum(0) for label in seen])  # (seen labels, outputs)
    rows, columns = linear_sum_assignment(given, maximize=True)
    order = dict(zip(seen[rows].tolist(), columns.tolist(), strict=True))
    free = [output for output in range(shares.shape[1]) if output not in order.values()]
    for label, output in enumerate(now):
        if label not in order and output in free:
            order[label] = output
            free.remove(output)
    for label in range(len(now)):
        if label not in order:
            order[label] = free.pop(0)
    return tuple(order[label] for label in range(len(now)))
