"""Search for the best configuration: every hypothesis on the same images, the best kept, then its neighbors.

In a round each image is decoded once for all configurations, and resized once for those that resize it alike. After a
few images most configurations can hardly become significantly better any more, and are given up (successive halving).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import log, sqrt
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from effnet.data import ImageDataset, image_io, prefetch, preprocessing
from effnet.doctor import advice, diagnosis, hypotheses
from effnet.metadata import Preprocess
from effnet.net import EfficientNet, surgery
from effnet.tasks import Float64Array
from effnet.weights import conversion, loading
from effnet.weights.running_statistics import EPSILONS, NumericsFit

MAX_ROUNDS = 4  # causes that are searched for, one on top of the other
GIVE_UP_AFTER_IMAGES = 32  # if a configuration will hardly be better
GIVE_UP_SIGMAS = 2.0  # by how many standard deviations the images to come would have to be lucky
BATCH_SIZE = 16
STATISTICS_IMAGES = 96  # on which batch-norm statistics are recomputed, to try them

# Contrast and sharpness vary from dataset to dataset far more than the mean color, and blurred images must not look
# like a wrong mean: the variance counts for a tenth in the shift
VARIANCE_WEIGHT = 0.1
# What the stem's statistics can show: they follow every value of the input, and hardly depend on its size
STEM_CODES = ("mean-std", "channel-order", "rescaled-twice")
AGREEING_SHIFT_RATIO = 0.8  # of the old shift: the statistics agree with the change
# Without labels: how many times closer to the stored statistics, and by how many standard deviations
MIN_SHIFT_RATIO, MIN_SHIFT_DIFFERENCE = 1.5, 0.08
FAR_SHIFT = 0.5  # standard deviations
# In nats: statistics of the very images that are scored are a little better even for a healthy network
MIN_STATISTICS_GAIN = 0.1

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class Measurement:
    """What was measured of one configuration so far."""

    configuration: diagnosis.Configuration
    logit_batches: list[Float64Array] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)  # of the stem's convolution, (images, channels)
    squares: list[Tensor] = field(default_factory=list)
    norm: nn.BatchNorm2d | None = None  # the stem's, with the statistics of the training

    def runs_like(self, configuration: diagnosis.Configuration) -> bool:
        """Return whether the network gives the same outputs under ``configuration``, whatever they are called."""
        return replace(self.configuration, label_order=()) == replace(configuration, label_order=())

    @property
    def logits(self) -> Float64Array:
        """(images, classes)."""
        return np.concatenate(self.logit_batches)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(map(len, self.means))

    @property
    def shift(self) -> float:
        """Distance of the stem's statistics on these images from the stored ones, in standard deviations.

        The mean over channels of |μ̂ − μ| / σ, and a tenth of that of |log σ̂² / σ²|.
        """
        assert self.norm is not None
        mean, variance = self.norm.get_buffer("running_mean"), self.norm.get_buffer("running_var") + self.norm.eps
        new_mean = torch.cat(self.means).mean(0)
        new_variance = (torch.cat(self.squares).mean(0) - new_mean**2).clamp_min(0) + self.norm.eps
        mean_shift = ((new_mean - mean).abs() / variance.sqrt()).mean()
        return float(mean_shift + VARIANCE_WEIGHT * (new_variance / variance).log().abs().mean())


@dataclass(frozen=True, eq=False)
class _RatedHypothesis:
    hypothesis: hypotheses.Hypothesis  # without a code: the configuration as it is
    score: hypotheses.LikelihoodScore
    shift: float


@dataclass(eq=False)
class ConfigurationSearch:
    """The state of a search on ``dataset``: the best configuration so far, the findings and the trials."""

    model: EfficientNet
    dataset: ImageDataset
    device: torch.device
    progress: Progress | None
    configuration: diagnosis.Configuration
    has_statistics: bool  # whether batch norm has statistics to compare with
    fit: NumericsFit = field(default_factory=NumericsFit)  # padding and ε that all layers' statistics fit
    findings: list[diagnosis.Finding] = field(default_factory=list)
    trials: list[diagnosis.ConfigurationTrial] = field(default_factory=list)
    measured: list[Measurement] = field(default_factory=list)  # in the latest round by labels

    def search_by_running_statistics(self) -> None:
        """Accept the padding and ε that the running statistics of all layers fit better: labels are not needed."""
        for code in ("padding", "epsilon"):
            changes = [change for change in self._hypotheses() if change.code == code and self._fits_better(change)]
            for change in changes[:1]:
                self._accept_by_fit(change)

    def search_by_stem(self) -> None:
        """Search without labels, for the causes that the stem's statistics can show."""
        for number in range(1, MAX_ROUNDS + 1):
            changes = [change for change in self._hypotheses() if change.code in ("", *STEM_CODES)]
            measured = self._measure(changes, stem_only=True)
            self.trials += [
                diagnosis.ConfigurationTrial(number, change.code, change.description, each.images, each.shift)
                for change, each in zip(changes, measured, strict=True)
                if change.code or number == 1
            ]
            old, (closest, best) = measured[0], min(zip(changes, measured, strict=True), key=lambda pair: pair[1].shift)
            if not _is_closer(best.shift, old.shift):
                if old.shift > FAR_SHIFT:
                    self.findings.append(advice.unlike_training_finding(old.shift, old.images))
                return
            self._accept_by_stem(closest, best.shift, old.shift)

    def search_by_labels(self, names: Sequence[str], labels: hypotheses.IntArray) -> tuple[float, float]:
        """Search with labels (N,), indices into ``names``, for every cause; return the first and the best top-1."""
        scores: list[hypotheses.LikelihoodScore] = []
        for number in range(1, MAX_ROUNDS + 1):
            current, *candidates = self._run_round(number, names, labels)
            scores.append(current.score)
            significant = [candidate for candidate in candidates if self._is_significant(candidate, current)]
            if significant:
                best = _pick_most_likely(significant)
                self.findings.append(
                    advice.score_finding(best.hypothesis, self.configuration, best.score, current.score, names)
                )
                self.configuration = best.hypothesis.configuration
            elif fitting := [each for each in candidates if self._fit_may_decide(each, current)]:
                best = fitting[0]
                self._accept_by_fit(best.hypothesis)
            else:
                allowed = [each for each in (current, *candidates) if self._stem_may_decide(each, current)]
                best = min(allowed, key=lambda each: each.shift)
                if not best.hypothesis.code or not _is_closer(best.shift, current.shift):
                    break
                self._accept_by_stem(best.hypothesis, best.shift, current.shift)
            scores.append(best.score)
        return scores[0].top1, scores[-1].top1

    def _hypotheses(self) -> Iterator[hypotheses.Hypothesis]:
        """Yield the best configuration so far, and its neighbors without causes that were found already."""
        yield hypotheses.Hypothesis("", "as it is", self.configuration)
        known = {finding.code for finding in self.findings}
        for change in hypotheses.list_hypotheses(self.configuration, self.model.arch):
            if change.code not in known and (self.has_statistics or change.code != "statistics"):
                yield change

    def _measure(self, changes: Sequence[hypotheses.Hypothesis], **options: Any) -> list[Measurement]:
        configurations = [change.configuration for change in changes]
        known = next((each for each in self.measured if each.runs_like(configurations[0])), None)
        arguments = (self.model, configurations, self.dataset, self.device)
        return measure(*arguments, known=known, progress=self.progress, **options)

    def _accept_by_stem(self, change: hypotheses.Hypothesis, shift: float, old_shift: float) -> None:
        self.findings.append(advice.stem_finding(change, self.configuration, shift, old_shift, len(self.dataset)))
        self.configuration = change.configuration

    def _accept_by_fit(self, change: hypotheses.Hypothesis) -> None:
        self.findings.append(advice.running_statistics_finding(change, self.configuration, self.fit))
        self.configuration = change.configuration

    def _fits_better(self, change: hypotheses.Hypothesis) -> bool:
        """Return whether the running statistics of all layers fit the change of padding or ε better."""
        new, old = change.configuration.numerics, self.configuration.numerics
        if change.code == "padding":
            return self.fit.padding == new.padding
        # The nearer of the two that were tried stands for any ε
        nearest = min(EPSILONS, key=lambda epsilon: abs(log(epsilon / old.bn_eps)))
        return change.code == "epsilon" and self.fit.bn_eps == new.bn_eps != nearest

    def _fit_may_decide(self, candidate: _RatedHypothesis, current: _RatedHypothesis) -> bool:
        """Return whether the running statistics are enough: by the labels it is not significantly worse."""
        gain = hypotheses.compare_scores(candidate.score, current.score)
        not_worse = gain.sigmas > -hypotheses.LIKELY_SIGMAS or gain.likelihood > -hypotheses.MIN_LIKELIHOOD_GAIN
        return self._fits_better(candidate.hypothesis) and not_worse

    def _run_round(self, number: int, names: Sequence[str], labels: hypotheses.IntArray) -> list[_RatedHypothesis]:
        """Return the best configuration so far and all its neighbors, rated."""

        def rate(measured: Measurement) -> hypotheses.LikelihoodScore:
            order = np.array(measured.configuration.label_order)
            return hypotheses.score_logits(measured.logits, order[labels[: measured.images]])

        changes = list(self._hypotheses())

        def is_hopeless(index: int, measured: Measurement, best: Measurement) -> bool:
            if measured.images < GIVE_UP_AFTER_IMAGES:
                return False
            each, current = (
                _RatedHypothesis(changes[at], rate(of), of.shift) for at, of in ((index, measured), (0, best))
            )
            gain = hypotheses.compare_scores(each.score, current.score)
            if self._statistics_agree(each, current):  # then it may be accepted without any gain
                return gain.sigmas < -hypotheses.SURE_SIGMAS
            seen = measured.images / len(self.dataset)
            needed = hypotheses.SURE_SIGMAS * sqrt(seen) - GIVE_UP_SIGMAS * sqrt(1 - seen)
            return max(gain.sigmas, gain.top1_sigmas) < needed

        measured = self.measured = self._measure(changes, is_hopeless=is_hopeless)
        rated = [_RatedHypothesis(each, rate(m), m.shift) for each, m in zip(changes, measured, strict=True)]
        if not any(finding.code.startswith("labels") for finding in self.findings):
            rated[1:1] = self._rate_label_orders(measured[0], names, labels)
        self.trials += [
            _to_trial(number, each, rated[0].score) for each in rated if each.hypothesis.code or number == 1
        ]
        return rated

    def _rate_label_orders(
        self, old: Measurement, names: Sequence[str], labels: hypotheses.IntArray
    ) -> Iterator[_RatedHypothesis]:
        logits, outputs = old.logits, old.logits.shape[1]
        for change in hypotheses.label_order_hypotheses(self.configuration, names, outputs):
            order = np.array(change.configuration.label_order)
            yield _RatedHypothesis(change, hypotheses.score_logits(logits, order[labels]), old.shift)
        match = hypotheses.match_label_order(logits, labels, self.configuration.label_order)
        if match and match[0] != self.configuration.label_order:
            changed = replace(self.configuration, label_order=match[0])
            change = hypotheses.Hypothesis("labels-order", "as the predictions suggest", changed)
            yield _RatedHypothesis(change, match[1], old.shift)

    def _is_significant(self, candidate: _RatedHypothesis, current: _RatedHypothesis) -> bool:
        return hypotheses.compare_scores(candidate.score, current.score).is_significant(
            hypotheses.LIKELY_SIGMAS if self._statistics_agree(candidate, current) else hypotheses.SURE_SIGMAS,
            MIN_STATISTICS_GAIN if candidate.hypothesis.code == "statistics" else hypotheses.MIN_LIKELIHOOD_GAIN,
        )

    def _statistics_agree(self, candidate: _RatedHypothesis, current: _RatedHypothesis) -> bool:
        """Return whether the stem's statistics, or for padding and ε those of all layers, are closer to the stored."""
        closer = candidate.shift < AGREEING_SHIFT_RATIO * current.shift
        by_stem = self.has_statistics and candidate.hypothesis.code in STEM_CODES and closer
        return by_stem or self._fits_better(candidate.hypothesis)

    def _stem_may_decide(self, candidate: _RatedHypothesis, current: _RatedHypothesis) -> bool:
        """Return whether the stem's statistics are enough: by the labels it is not significantly worse."""
        if not candidate.hypothesis.code:
            return True
        gain = hypotheses.compare_scores(candidate.score, current.score)
        not_worse = gain.sigmas > -hypotheses.LIKELY_SIGMAS or gain.likelihood > -hypotheses.MIN_LIKELIHOOD_GAIN
        return self.has_statistics and candidate.hypothesis.code in STEM_CODES and not_worse


def _is_closer(shift: float, old_shift: float) -> bool:
    """Return whether the stem's statistics alone are enough for a suspicion."""
    return shift * MIN_SHIFT_RATIO < old_shift and shift + MIN_SHIFT_DIFFERENCE < old_shift


def _pick_most_likely(candidates: list[_RatedHypothesis]) -> _RatedHypothesis:
    """Return the best, or the first that is as good within a standard error, since likely causes come first.

    Recomputed statistics hide most faults of the input: they must be better than all others by two standard errors.
    """
    best = max(candidates, key=lambda each: float(each.score.likelihood.mean()))
    max_sigmas = hypotheses.LIKELY_SIGMAS if best.hypothesis.code == "statistics" else 1
    return next(each for each in candidates if hypotheses.compare_scores(best.score, each.score).sigmas < max_sigmas)


def _to_trial(number: int, rated: _RatedHypothesis, old: hypotheses.LikelihoodScore) -> diagnosis.ConfigurationTrial:
    change, score = rated.hypothesis, rated.score
    gain = hypotheses.compare_scores(score, old)
    by_top1 = (score.top1, gain.top1, gain.top1_error)
    by_likelihood = (float(score.likelihood.mean()), gain.likelihood, gain.likelihood_error)
    rest = (len(score.right), rated.shift, *by_top1, *by_likelihood)
    return diagnosis.ConfigurationTrial(number, change.code, change.description, *rest)


def measure(
    model: EfficientNet,
    configurations: Sequence[diagnosis.Configuration],
    dataset: ImageDataset,
    device: torch.device,
    stem_only: bool = False,
    is_hopeless: Callable[[int, Measurement, Measurement], bool] | None = None,
    known: Measurement | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure configurations on images that can all be read; with ``stem_only`` the shift, but no logits.

    The first configuration sees all images, unless it is ``known``; another, of index i, stops after a batch if
    ``is_hopeless(i, it, the first)``.
    """
    measurements = [Measurement(configuration) for configuration in configurations]
    active = dict(enumerate(measurements))
    if known and known.images == len(dataset):
        measurements[0] = replace(known, configuration=configurations[0])
        del active[0]
    by_network = {_network_key(each.configuration): each.configuration for each in active.values()}
    networks = {key: _MeasuredNetwork(model, each, dataset, device) for key, each in by_network.items()}
    for done, images in enumerate(_decode_batches(dataset, configurations[0]), start=1):
        resized: dict[Preprocess, Tensor] = {}
        for each in active.values():
            x = _network_input(images, each.configuration, device, resized)
            networks[_network_key(each.configuration)].add(each, x, stem_only)
        if is_hopeless:
            active = {i: each for i, each in active.items() if i == 0 or not is_hopeless(i, each, measurements[0])}
        if progress:
            progress(min(done * BATCH_SIZE, len(dataset)), len(dataset))
        if not active:
            break
    return measurements


def _decode_batches(dataset: ImageDataset, configuration: diagnosis.Configuration) -> Iterator[list[Image.Image]]:
    bits = configuration.preprocess.bits
    images = prefetch.prefetch_map(lambda item: image_io.read_image(item.image, bits=bits), dataset.items)
    while batch := list(islice(images, BATCH_SIZE)):
        yield batch


def _network_key(configuration: diagnosis.Configuration) -> tuple[object, ...]:
    """Return what configurations must have in common to be computed by one network."""
    return (configuration.numerics, configuration if configuration.recomputed_statistics else None)


class _MeasuredNetwork:
    """The network with a configuration's numerics: its stem for the statistics, all of it, folded, for the logits."""

    def __init__(
        self, model: EfficientNet, configuration: diagnosis.Configuration, dataset: ImageDataset, device: torch.device
    ) -> None:
        network = apply_configuration(model, configuration, device)
        if configuration.recomputed_statistics:
            recompute_statistics(network, configuration, _first(dataset, STATISTICS_IMAGES), device)
        norm = network.stem.norm
        assert isinstance(norm, nn.BatchNorm2d)
        self.stem, self.norm = network.stem.conv, norm
        self.folded = surgery.fold_batch_norm(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def add(self, measurement: Measurement, x: Tensor, stem_only: bool) -> None:
        features = self.stem(x)
        measurement.means.append(features.mean((2, 3)))
        measurement.squares.append((features * features).mean((2, 3)))
        measurement.norm = self.norm
        if not stem_only:
            measurement.logit_batches.append(self.folded(x).double().cpu().numpy())


def _first(dataset: ImageDataset, count: int) -> ImageDataset:
    return dataset.subset(range(min(count, len(dataset))))


def _network_input(
    images: Sequence[Image.Image],
    configuration: diagnosis.Configuration,
    device: torch.device,
    resized: dict[Preprocess, Tensor],
) -> Tensor:
    """Return decoded images as the network gets them: float32 (N, 3, H, W). ``resized`` keeps those of other calls."""
    geometry = replace(configuration.preprocess, mean=(0.0,) * 3, std=(1.0,) * 3)
    if geometry not in resized:
        pixels = np.stack([image_io.resize_and_crop(image, geometry) for image in images])  # (N, H, W, 3)
        resized[geometry] = torch.from_numpy(pixels).to(device)
    x = resized[geometry]
    if configuration.bgr:
        x = x.flip(-1)
    return preprocessing.normalize(x.float() / 255 if configuration.rescaled_twice else x, configuration.preprocess)


def apply_configuration(
    model: EfficientNet, configuration: diagnosis.Configuration, device: torch.device | None = None
) -> EfficientNet:
    """Return the network with other numerics and preprocessing, in evaluation mode; it shares the model's weights."""
    state = conversion.drop_batch_counters(model.state_dict())
    tensors = {name: tensor.to(device or tensor.device) for name, tensor in state.items()}
    numerics, preprocess = configuration.numerics, configuration.preprocess
    return loading.build_network(replace(model.metadata, numerics=numerics, preprocess=preprocess), tensors)


def recompute_statistics(
    network: EfficientNet, configuration: diagnosis.Configuration, dataset: ImageDataset, device: torch.device
) -> None:
    """Recompute the batch-norm statistics in place: means over the batches of ``dataset``."""
    norms = [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean = torch.zeros_like(norm.weight)  # new tensors: the old ones are shared
        norm.running_var = torch.ones_like(norm.weight)
        norm.num_batches_tracked = torch.tensor(0, device=device)
        norm.momentum = None  # equal weight for all batches
        norm.train()
    with torch.inference_mode():
        for images in _decode_batches(dataset, configuration):
            network(_network_input(images, configuration, device, {}))
    network.eval()
