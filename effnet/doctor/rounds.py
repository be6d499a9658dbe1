"""The search: every neighbour of the contract on the same pictures, the best step taken, its neighbours in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from effnet.data import Pictures
from effnet.doctor import causes
from effnet.doctor.diagnosis import Finding, Reading, Trial
from effnet.doctor.gain import LIKELY, SURE, WORTH, Score, gain, score
from effnet.doctor.measure import Measured, measure
from effnet.doctor.neighbours import Change, neighbours
from effnet.doctor.orders import Whole, matched, orders
from effnet.net import EfficientNet

MOST = 4  # causes that are looked for, one on top of the other
EARLY = 48  # pictures after which a reading that is clearly worse is given up

# What the stem's statistics tell: they follow every number of the input, and hardly its size
BY_STEM = ("mean-std", "channel-order", "rescaled-twice")
ADAPTED = 0.1  # nats: statistics of the very pictures that are judged are a little better even for a sound network
AGREES = 0.8  # times the old shift: batch norm speaks for the change as well
# Without labels, how many times nearer to the stored statistics, and by how many standard deviations
NEARER, NEARER_BY = 1.5, 0.08
FAR = 0.5  # standard deviations

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class Search:
    """What has been tried and found so far, on ``pictures`` for the network ``model``."""

    model: EfficientNet
    pictures: Pictures
    device: torch.device
    progress: Progress | None
    reading: Reading
    statistics: bool  # whether batch norm holds statistics that can be compared
    findings: list[Finding] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)

    def changes(self) -> Iterator[Change]:
        """The neighbours of the best reading, without causes that were already found."""
        known = {finding.code for finding in self.findings}
        for change in neighbours(self.reading, self.model.arch):
            if change.code not in known and (self.statistics or change.code != "statistics"):
                yield change

    def by_stem(self) -> None:
        """Without labels: the causes that the stem's statistics tell."""
        for number in range(1, MOST + 1):
            changes = [change for change in self.changes() if change.code in BY_STEM]
            readings = [self.reading, *(change.reading for change in changes)]
            old, *new = measure(self.model, readings, self.pictures, self.device, True, progress=self.progress)
            if number == 1:
                self.trials.append(Trial(1, "", "as it is", old.pictures, old.shift))
            self.trials += [
                Trial(number, change.code, change.what, one.pictures, one.shift)
                for change, one in zip(changes, new, strict=True)
            ]
            nearest = min(zip(changes, new, strict=True), key=lambda pair: pair[1].shift)
            if not _nearer(nearest[1].shift, old.shift):
                if old.shift > FAR:
                    self.findings.append(causes.far(old.shift, old.pictures))
                return
            self._believe(nearest[0], nearest[1].shift, old.shift)

    def _believe(self, change: Change, shift: float, old_shift: float) -> None:
        """Takes the step that the stem's statistics speak for."""
        self.findings.append(causes.by_stem(change, self.reading, shift, old_shift, len(self.pictures)))
        self.reading = change.reading

    def by_score(self, names: Sequence[str], labels: Whole) -> tuple[float, float]:
        """With labels (N,), indices into ``names``: every cause. Top-1 as the model is, and of the best reading."""
        first: Score | None = None
        last: Score | None = None
        for number in range(1, MOST + 1):
            rated = self._round(number, names, labels)
            old, old_shift = rated[0].score, rated[0].shift
            first, last = first or old, old
            real = [one for one in rated[1:] if self._real(one, old, old_shift)]
            if real:
                best = _likeliest(real)
                assert best.change is not None
                better = gain(best.score, old)
                self.findings.append(causes.by_score(best.change, self.reading, best.score, old, better, names))
                self.reading = best.change.reading
            else:
                best = min((one for one in rated if self._fits(one, old)), key=lambda one: one.shift)
                if best.change is None or not _nearer(best.shift, old_shift):
                    break
                self._believe(best.change, best.shift, old_shift)
            last = best.score
        assert first is not None
        assert last is not None
        return first.top1, last.top1

    def _round(self, number: int, names: Sequence[str], labels: Whole) -> list[_Rated]:
        """The best reading so far, and all its neighbours, rated."""

        def rate(one: Measured) -> Score:
            logits = one.logits
            return score(logits, np.array(one.reading.order)[labels[: len(logits)]])

        def hopeless(one: Measured, best: Measured) -> bool:
            return one.pictures >= EARLY and gain(rate(one), rate(best)).sigmas < -SURE

        changes = list(self.changes())
        readings = [self.reading, *(change.reading for change in changes)]
        old, *new = measure(self.model, readings, self.pictures, self.device, hopeless=hopeless, progress=self.progress)
        rated = [_Rated(None, rate(old), old.shift)]
        if not any(finding.code.startswith("labels") for finding in self.findings):
            rated += self._orders(old, names, labels)
        rated += [_Rated(change, rate(one), one.shift) for change, one in zip(changes, new, strict=True)]
        self.trials += [_trial(number, one, rated[0].score) for one in rated if one.change or number == 1]
        return rated

    def _orders(self, old: Measured, names: Sequence[str], labels: Whole) -> Iterator[_Rated]:
        """The same logits under other orders of the labels."""
        logits, outputs = old.logits, old.logits.shape[1]
        for change in orders(self.reading, names, outputs):
            yield _Rated(change, score(logits, np.array(change.reading.order)[labels]), old.shift)
        match = matched(logits, labels, self.reading.order)
        if match and match[0] != self.reading.order:
            what = "as the confusions have it"
            yield _Rated(Change("labels-order", what, replace(self.reading, order=match[0])), match[1], old.shift)

    def _real(self, one: _Rated, old: Score, old_shift: float) -> bool:
        assert one.change is not None
        better = gain(one.score, old)
        agrees = self.statistics and one.change.code in BY_STEM and one.shift < AGREES * old_shift
        worth = ADAPTED if one.change.code == "statistics" else WORTH
        return better.real(LIKELY if agrees else SURE, worth)

    def _fits(self, one: _Rated, old: Score) -> bool:
        """Whether the stem's statistics may speak for it: by the labels it is not surely worse."""
        if one.change is None:
            return True
        better = gain(one.score, old)
        no_worse = better.sigmas > -LIKELY or better.likelihood > -WORTH
        return self.statistics and one.change.code in BY_STEM and no_worse


@dataclass(frozen=True, eq=False)
class _Rated:
    change: Change | None  # None: the reading as it is
    score: Score
    shift: float


def _nearer(shift: float, old_shift: float) -> bool:
    """Whether the stem's statistics alone are enough for a suspicion."""
    return shift * NEARER < old_shift and shift + NEARER_BY < old_shift


def _likeliest(real: list[_Rated]) -> _Rated:
    """The best; or the first of those that are as good within a standard error, for the likelier causes stand first.

    Statistics measured anew hide most faults of the input: they must be better than all else by two.
    """
    best = max(real, key=lambda one: float(one.score.likelihood.mean()))
    return next(one for one in real if gain(best.score, one.score).sigmas < (LIKELY if _hides(best) else 1))


def _hides(one: _Rated) -> bool:
    return one.change is not None and one.change.code == "statistics"


def _trial(number: int, one: _Rated, old: Score) -> Trial:
    code, what = (one.change.code, one.change.what) if one.change else ("", "as it is")
    better = gain(one.score, old)
    return Trial(
        number,
        code,
        what,
        len(one.score.right),
        one.shift,
        one.score.top1,
        better.top1,
        better.top1_error,
        float(one.score.likelihood.mean()),
        better.likelihood,
        better.likelihood_error,
    )
