"""What a network is worth to a search: its accuracy, and what it costs beside a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, log, sqrt, tanh

import torch

from effnet.arch import Arch, count
from effnet.arch.serde import check_choice, check_float
from effnet.net import create
from effnet.runtime.latency import Latency

COST_KINDS = ("macs", "params", "latency")


COST_UNITS = {"macs": "MACs", "params": "params", "latency": "s"}


REWARD_EXPONENT = -0.07  # twice the cost is worth it for about 5 % more accuracy (arXiv:1807.11626, section 3)


MAX_COST_FACTOR = 1.5  # times the target: not even trained, for then accuracy would have to be 3 % more


def mnasnet_reward(accuracy: float, cost: float, target: float, exponent: float = REWARD_EXPONENT) -> float:
    """ACC × (cost / target)^w, equation 2 of arXiv:1807.11626, with one w on either side of the target.

    ``accuracy`` is a fraction; ``cost`` and ``target`` are of one unit. Raises ``ValueError`` unless both are above 0.
    """
    check_float("cost", cost, 0, float("inf"), exclusive=True)
    check_float("target", target, 0, float("inf"), exclusive=True)
    return float(accuracy * (cost / target) ** exponent)


def format_cost(cost: float, kind: str) -> str:
    """A cost with its unit: ``4.02 M MACs``, ``301 k params``, ``1.25 ms``."""
    if kind == "latency":
        return f"{cost * 1e3:.3g} ms"
    for size, letter in ((1e9, "G "), (1e6, "M "), (1e3, "k ")):
        if cost >= size:
            return f"{cost / size:.3g} {letter}{COST_UNITS[kind]}"
    return f"{cost:.0f} {COST_UNITS[kind]}"


@dataclass(frozen=True)
class CostFunction:
    """What is held against a network's accuracy: MACs or params of one picture, or seconds measured here.

    Networks answer with ``classes``; latency is of one picture on so many ``threads``: one, since the processes of a
    search, each on one, measure beside each other. Raises ``ValueError`` for another ``kind``.
    """

    kind: str
    classes: int
    threads: int = 1

    def __post_init__(self) -> None:
        check_choice("cost", self.kind, COST_KINDS)

    def __call__(self, arch: Arch) -> float:
        """The cost of ``arch``."""
        if self.kind == "latency":
            return Latency(self.threads, classes=self.classes)(arch)
        return float(getattr(count(arch, classes=self.classes), self.kind))


# A guess at how good a network will be before it is trained, and how far such guesses can be trusted.


MIN_NETWORKS = 20  # trained networks before a correlation is believed


MIN_CORRELATION = (
    0.2  # the least that a correlation must be, at the lower end of its interval, for the score to be used
)


Z_95 = 1.96


def synflow_score(arch: Arch, classes: int) -> float:
    """The logarithm of SynFlow (arXiv:2006.05467, equation 1 with all weights positive), of the untrained network.

    How much all weights together pass on from a picture of ones to the outputs, with the signs of all weights left
    out: Σ |θ · ∂R/∂θ|. No data are needed; in float64, since it grows by orders of magnitude with depth.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = create(arch, classes=classes).double().eval()
    with torch.no_grad():
        for value in model.parameters():
            value.abs_()
    ones = torch.ones(1, 3, arch.resolution, arch.resolution, dtype=torch.float64)
    with torch.enable_grad():
        model(ones).sum().backward()
    with torch.no_grad():
        total = sum(float((value * value.grad).abs().sum()) for value in model.parameters() if value.grad is not None)
    return log(max(total, 1e-300))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation over so many ``networks``, with its 95 % interval; None while there are too few."""

    networks: int
    value: float | None = None
    low: float = -1.0
    high: float = 1.0

    @property
    def is_clear(self) -> bool:
        """Whether it is clearly positive."""
        return self.value is not None and self.networks >= MIN_NETWORKS and self.low > MIN_CORRELATION

    def in_words(self) -> str:
        """One line for a person: "0.61 (95 % interval 0.45 to 0.73, 80 networks)"."""
        if self.value is None:
            return f"not known yet ({self.networks} networks)"
        return f"{self.value:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, {self.networks} networks)"


def rank_correlation(scores: Sequence[float], accuracies: Sequence[float]) -> RankCorrelation:
    """Spearman's ρ of two equally long sequences, with the interval of Bonett and Wright (2000) by Fisher's z.

    Known from five networks on, unless all scores or all accuracies are the same.
    """
    from scipy.stats import spearmanr

    many = len(scores)
    if many < 5 or len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return RankCorrelation(many)
    value = float(spearmanr(scores, accuracies).statistic)
    if abs(value) > 1 - 1e-12:
        return RankCorrelation(many, value, value, value)
    off = Z_95 * sqrt((1 + value**2 / 2) / (many - 3))
    return RankCorrelation(many, value, tanh(atanh(value) - off), tanh(atanh(value) + off))
