"""Statistics of a search: paired differences over seeds, how many test images a verdict needs, rank correlation."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, sqrt, tanh
from statistics import mean, stdev

CONFIDENCE_LEVEL = 0.95
Z_95 = 1.96  # of the standard normal distribution
MIN_TEST_IMAGES = 100
MIN_NETWORKS = 20  # before a correlation is trusted
MIN_CORRELATION = 0.2  # at the lower end of its interval, for a score to be used


class Accuracies(tuple[float, ...]):
    """The accuracies of one network as fractions, one per seed."""

    @property
    def mean(self) -> float:
        """Their mean."""
        return mean(self)

    @property
    def spread(self) -> float:
        """Their standard deviation; 0 for a single seed."""
        return stdev(self) if len(self) > 1 else 0.0


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of two accuracies over ``pairs`` of equal seeds, with its 95 % interval: −1 to 1 for one pair."""

    mean: float
    low: float
    high: float
    pairs: int

    def describe(self) -> str:
        """Return "+0.52 points (95 % interval −0.31 to +1.35, 5 seeds)"."""
        mean, low, high = (f"{100 * value:+.2f}".replace("-", "−") for value in (self.mean, self.low, self.high))
        return f"{mean} points (95 % interval {low} to {high}, {self.pairs} seeds)"


def paired_difference(ours: Sequence[float], theirs: Sequence[float], comparisons: int = 1) -> PairedDifference:
    """Return ``ours`` − ``theirs``, one pair per seed, with Student's t interval.

    ``comparisons``: how many the best was chosen from; the interval is then wide enough for all of them to hold
    together (Bonferroni). Raises ``ValueError`` if the lengths differ.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"paired accuracies must come in pairs, got {len(ours)} and {len(theirs)}")
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    count, center = len(differences), mean(differences)
    if count < 2:
        return PairedDifference(center, -1.0, 1.0, 1)
    from scipy.stats import t

    quantile = float(t.ppf(1 - (1 - CONFIDENCE_LEVEL) / (2 * comparisons), count - 1))
    half_width = quantile * stdev(differences) / sqrt(count)
    return PairedDifference(center, center - half_width, center + half_width, count)


def chance_difference(images: int) -> float:
    """Return the difference of two networks' top-1 (fractions) that chance may produce on ``images`` test images.

    √2 times the standard error √(p(1−p)/n) of one at p = ½, times 1.96. This is cautious: accuracies are higher, and
    both networks are tested on the same images and mostly fail on the same ones.
    """
    return Z_95 * sqrt(0.5 / images)


def detectable_difference(images: int) -> float:
    """Return `chance_difference` of ``images``. Raises ``ValueError`` for fewer than 100, too few for a verdict."""
    if images < MIN_TEST_IMAGES:
        raise ValueError(
            f"{images:,} images are too few to compare networks on: chance alone moves an accuracy by "
            f"{100 * Z_95 * sqrt(0.25 / max(images, 1)):.0f} points. Use at least {MIN_TEST_IMAGES}, better 1,000"
        )
    return chance_difference(images)


@dataclass(frozen=True)
class HeldOutImages:
    """The images of the final comparison: how many, and whether no choice was made on them."""

    images: int
    unseen: bool = True

    def caution(self, difference: float) -> str:
        """Return what a verdict on this ``difference`` (a fraction) must add, as sentences; "" if nothing."""
        sentences = []
        if not self.unseen:
            sentences.append("They were tested on the images that were used for selection, which favors the selected.")
        if 0 < abs(difference) < (chance := chance_difference(self.images)):
            sentences.append(
                f"The interval is over seeds: {self.images:,} other test images might move the difference by "
                f"{100 * chance:.1f} points."
            )
        return " ".join(sentences)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation over ``networks``, with its 95 % interval; ``value`` is None if there are too few."""

    networks: int
    value: float | None = None
    low: float = -1.0
    high: float = 1.0

    @property
    def is_clear(self) -> bool:
        """Whether it is clearly positive."""
        return self.value is not None and self.networks >= MIN_NETWORKS and self.low > MIN_CORRELATION

    def describe(self) -> str:
        """Return "0.61 (95 % interval 0.45 to 0.73, 80 networks)"."""
        if self.value is None:
            return f"not known yet ({self.networks} networks)"
        return f"{self.value:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, {self.networks} networks)"


def rank_correlation(scores: Sequence[float], accuracies: Sequence[float]) -> RankCorrelation:
    """Return Spearman's ρ of five or more networks, with the interval of Bonett and Wright (2000) by Fisher's z."""
    from scipy.stats import spearmanr

    count = len(scores)
    if count < 5 or len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return RankCorrelation(count)
    value = float(spearmanr(scores, accuracies).statistic)
    if abs(value) > 1 - 1e-12:
        return RankCorrelation(count, value, value, value)
    half_width = Z_95 * sqrt((1 + value**2 / 2) / (count - 3))
    return RankCorrelation(count, value, tanh(atanh(value) - half_width), tanh(atanh(value) + half_width))
