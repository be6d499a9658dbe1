"""A guess at how good a network will be before it is trained, and how far such guesses can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, log, sqrt, tanh

import torch

from effnet.arch import Arch
from effnet.net import create

FEWEST = 20  # trained networks before a correlation is believed
CLEAR = 0.2  # the least that a correlation must be, at the lower end of its interval, for the score to be used
NORMAL_95 = 1.96


def synflow(arch: Arch, classes: int) -> float:
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
class Correlation:
    """Spearman's rank correlation over so many ``networks``, with its 95 % interval; None while there are too few."""

    networks: int
    value: float | None = None
    low: float = -1.0
    high: float = 1.0

    @property
    def clear(self) -> bool:
        """Whether it is clearly positive."""
        return self.value is not None and self.networks >= FEWEST and self.low > CLEAR

    def in_words(self) -> str:
        """One line for a person: "0.61 (95 % interval 0.45 to 0.73, 80 networks)"."""
        if self.value is None:
            return f"not known yet ({self.networks} networks)"
        return f"{self.value:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, {self.networks} networks)"


def correlation(scores: Sequence[float], accuracies: Sequence[float]) -> Correlation:
    """Spearman's ρ of two equally long sequences, with the interval of Bonett and Wright (2000) by Fisher's z.

    Known from five networks on, unless all scores or all accuracies are the same.
    """
    from scipy.stats import spearmanr

    many = len(scores)
    if many < 5 or len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return Correlation(many)
    value = float(spearmanr(scores, accuracies).statistic)
    if abs(value) > 1 - 1e-12:
        return Correlation(many, value, value, value)
    off = NORMAL_95 * sqrt((1 + value**2 / 2) / (many - 3))
    return Correlation(many, value, tanh(atanh(value) - off), tanh(atanh(value) + off))
