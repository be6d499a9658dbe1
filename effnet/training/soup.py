"""A soup: several networks fine-tuned from the same weights, averaged into one that costs no more (arXiv:2203.05482).

Networks that started from the same weights mostly lie in one valley, and the middle of it is better than its slopes.
Batch norm's statistics are averaged with the weights, as in the paper.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from effnet.net import EfficientNet
from effnet.net.surgery import folded

Judge = Callable[[EfficientNet], float]  # a loss on pictures that no network has learned from: lower is better


@dataclass(frozen=True)
class Taste:
    """A soup that was tried: the places of its ``networks``, its ``loss``, and whether it was ``kept``."""

    networks: tuple[int, ...]
    loss: float
    kept: bool


@dataclass(frozen=True)
class Soup:
    """What was tried and what came of it. Networks go by their places in what was given, from 0."""

    singles: tuple[float, ...]  # each network's own loss
    tastes: tuple[Taste, ...]  # in the order in which they were tried
    networks: tuple[int, ...]  # what is in the soup; one: nothing was better than the best network alone
    loss: float

    def in_words(self) -> str:
        """A sentence for a person."""
        best = min(self.singles)
        if len(self.networks) == 1:
            return (
                f"no soup of these {len(self.singles)} networks is better than number {self.networks[0] + 1} alone, "
                f"loss {best:.4f}"
            )
        named = ", ".join(str(place + 1) for place in self.networks)
        return f"the average of networks {named}: loss {self.loss:.4f}, the best of them alone {best:.4f}"


def soup(models: Sequence[EfficientNet], judge: Judge, greedy: bool = True) -> tuple[EfficientNet, Soup]:
    """The average of ``models``, or of those that help, in evaluation mode, and how it came to be.

    ``greedy``: they are added from the best to the worst, each kept only where the average's loss becomes lower; else
    it is the average of all. What comes back is never worse by ``judge`` than the best of ``models``: where no average
    is better, it is that one. The models stay as they are. Raises ``ValueError`` for fewer than two, for networks that
    differ in more than their numbers, and where ``judge`` gives no number for any.
    """
    _alike(models)
    singles = [_loss(judge, model) for model in models]
    order = sorted(range(len(models)), key=lambda place: singles[place])
    if singles[order[0]] == float("inf"):
        raise ValueError("none of these networks has a loss that is a number: their weights are damaged")
    best, loss = models[order[0]], singles[order[0]]
    chosen: tuple[int, ...] = (order[0],)
    tastes: list[Taste] = []
    kept = _Pot(best)
    for step in [order[1:]] if not greedy else [[place] for place in order[1:]]:
        pot = kept
        for place in step:
            pot = pot.with_one(models[place])
        tried = pot.network(best)
        found, inside = _loss(judge, tried), (*chosen, *step)
        tastes.append(Taste(inside, found, found < loss))
        if found < loss:
            kept, chosen, loss = pot, inside, found
    made = kept.network(best)
    if len(chosen) > 1:
        made.provenance = made.provenance.then(f"averaged with {len(chosen) - 1} others of the same architecture")
    return made, Soup(tuple(singles), tuple(tastes), chosen, loss)


class _Pot:
    """The sum of networks' numbers, in float64."""

    def __init__(self, first: EfficientNet) -> None:
        self.count = 1
        self.sum: dict[str, Tensor] = {
            name: value.double() for name, value in first.state_dict().items() if value.is_floating_point()
        }

    def with_one(self, model: EfficientNet) -> _Pot:
        """Another pot, with ``model`` in it too."""
        pot = copy.copy(self)
        numbers = model.state_dict()
        pot.count = self.count + 1
        pot.sum = {name: value + numbers[name].to(value) for name, value in self.sum.items()}
        return pot

    def network(self, like: EfficientNet) -> EfficientNet:
        """The average, with everything else from ``like``."""
        made = copy.deepcopy(like).eval()
        before = made.state_dict()
        averages = {name: (value / self.count).to(before[name].dtype) for name, value in self.sum.items()}
        made.load_state_dict({**before, **averages})
        return made


def _loss(judge: Judge, model: EfficientNet) -> float:
    """What ``judge`` says, and the worst of all for what is no number."""
    found = float(judge(model))
    return found if found == found else float("inf")


def _alike(models: Sequence[EfficientNet]) -> None:
    if len(models) < 2:
        raise ValueError(f"a soup is made of at least two networks, and there {('is one', 'are none')[not models]}")
    first = models[0]
    for number, model in enumerate(models[1:], start=2):
        for what in ("arch", "classes", "channels", "labels", "numerics", "preprocess"):
            if getattr(model, what) != getattr(first, what):
                name = {"arch": "architecture", "channels": "input channels"}.get(what, what)
                raise ValueError(
                    f"network {number} differs from the first in its {name}: a soup needs networks of one architecture "
                    "with the same classes, that see pictures alike"
                )
    if any(map(folded, models)):
        raise ValueError("batch norm was folded into one of these copies: give the networks that they were made from")
