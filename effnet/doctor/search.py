"""A network under another reading of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from effnet.data import ImageDataset
from effnet.data.image_io import read_image, resize_and_crop
from effnet.data.prefetch import prefetch_map
from effnet.data.preprocessing import normalize
from effnet.doctor import hypotheses as causes
from effnet.doctor.diagnosis import Configuration, ConfigurationTrial, Finding
from effnet.doctor.hypotheses import (
    LIKELY_SIGMAS,
    MIN_LIKELIHOOD_GAIN,
    SURE_SIGMAS,
    Hypothesis,
    IntArray,
    LikelihoodScore,
    compare_scores,
    label_order_hypotheses,
    list_hypotheses,
    match_label_order,
    score_logits,
)
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.weights.conversion import drop_batch_counters
from effnet.weights.loading import LoadedWeights, build_network


def apply_configuration(
    model: EfficientNet, configuration: Configuration, device: torch.device | None = None
) -> EfficientNet:
    """The network under ``reading``'s numerics and preprocess, in evaluation mode; its numbers are ``model``'s own."""
    tensors = {
        name: tensor.to(device or tensor.device) for name, tensor in drop_batch_counters(model.state_dict()).items()
    }
    return build_network(
        LoadedWeights(
            model.arch, configuration.numerics, configuration.preprocess, model.labels, model.provenance, tensors
        )
    )


# Runs several readings over the same pictures: each picture is decoded once for all of them.


BATCH_SIZE = 16


# The pictures' contrast and sharpness differ from set to set far more than their mean colour: a blurred set must not
# look like a wrong mean. So the spread counts for a tenth in the shift.
SPREAD_WEIGHT = 0.1


Float64Array = NDArray[np.float64]


@dataclass(eq=False)
class Measurement:
    """What a reading made of the pictures so far."""

    configuration: Configuration
    logit_batches: list[Float64Array] = field(default_factory=list)
    means: list[Tensor] = field(default_factory=list)  # of the stem's convolution, (pictures, channels)
    squares: list[Tensor] = field(default_factory=list)
    norm: nn.BatchNorm2d | None = None  # the stem's, which holds the statistics of the training

    @property
    def logits(self) -> Float64Array:
        """(pictures, classes)."""
        return np.concatenate(self.logit_batches)

    @property
    def images(self) -> int:
        """How many it has seen."""
        return sum(map(len, self.means))

    @property
    def shift(self) -> float:
        """How far the stem's statistics on these pictures lie from the stored ones, in standard deviations.

        The mean over channels of |μ̂ − μ| / σ, and a tenth of that of |log σ̂² / σ²|.
        """
        assert self.norm is not None
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        mean, variance = self.norm.running_mean, self.norm.running_var + self.norm.eps
        seen = torch.cat(self.means).mean(0)
        spread = (torch.cat(self.squares).mean(0) - seen**2).clamp_min(0) + self.norm.eps
        moved = ((seen - mean).abs() / variance.sqrt()).mean() + SPREAD_WEIGHT * (spread / variance).log().abs().mean()
        return float(moved)


def measure(
    model: EfficientNet,
    configurations: Sequence[Configuration],
    dataset: ImageDataset,
    device: torch.device,
    stem_only: bool = False,
    hopeless: Callable[[Measurement, Measurement], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """What each of ``readings`` makes of ``pictures``, which can all be read.

    ``stem_only`` asks for the shift and no logits. The first reading sees all; another stops where
    ``hopeless(it, the first)`` says so after a batch.
    """
    found = [Measurement(reading) for reading in configurations]
    networks: dict[tuple[object, ...], _MeasuredNetwork] = {}
    for reading in configurations:
        if _network_key(reading) not in networks:
            networks[_network_key(reading)] = _MeasuredNetwork(model, reading, dataset, device)
    alive = list(found)
    for done, images in enumerate(_decode_batches(dataset), start=1):
        for one in alive:
            networks[_network_key(one.configuration)].add(
                one, _network_input(images, one.configuration, device), stem_only
            )
        if hopeless:
            alive = [one for one in alive if one is found[0] or not hopeless(one, found[0])]
        if progress:
            progress(min(done * BATCH_SIZE, len(dataset)), len(dataset))
    return found


def _decode_batches(dataset: ImageDataset) -> Iterator[list[Image.Image]]:
    images = prefetch_map(read_image, (item.image for item in dataset.items))
    while batch := list(islice(images, BATCH_SIZE)):
        yield batch


def _network_key(configuration: Configuration) -> tuple[object, ...]:
    """What readings must have in common to be computed by one network."""
    return (configuration.numerics, configuration if configuration.recomputed_statistics else None)


class _MeasuredNetwork:
    """The network under a reading's numerics: its stem for the statistics, all of it, folded, for the logits."""

    def __init__(
        self, model: EfficientNet, configuration: Configuration, dataset: ImageDataset, device: torch.device
    ) -> None:
        network = apply_configuration(model, configuration, device)
        if configuration.recomputed_statistics:
            recompute_statistics(network, configuration, dataset, device)
        norm = network.stem.norm
        assert isinstance(norm, nn.BatchNorm2d)
        self.stem, self.norm = network.stem.conv, norm
        self.folded = fold_batch_norm(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def add(self, one: Measurement, x: Tensor, stem_only: bool) -> None:
        with torch.inference_mode():
            seen = self.stem(x)
            one.means.append(seen.mean((2, 3)))
            one.squares.append((seen * seen).mean((2, 3)))
            one.norm = self.norm
            if not stem_only:
                one.logit_batches.append(self.folded(x).double().cpu().numpy())


def _network_input(images: Sequence[Image.Image], configuration: Configuration, device: torch.device) -> Tensor:
    """Decoded pictures as the network gets them under ``reading``: float32 (N, 3, H, W)."""
    pixels = np.stack([resize_and_crop(image, configuration.preprocess) for image in images])  # (N, H, W, 3)
    x = torch.from_numpy(pixels).to(device)
    if configuration.bgr:
        x = x.flip(-1)
    return normalize(x.float() / 255 if configuration.rescaled_twice else x, configuration.preprocess)


def recompute_statistics(
    network: EfficientNet, configuration: Configuration, dataset: ImageDataset, device: torch.device
) -> None:
    """Takes the batch-norm statistics of ``network`` anew: each is the mean over batches of ``pictures``."""
    norms = [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)]
    for norm in norms:
        assert norm.running_mean is not None
        norm.running_mean = torch.zeros_like(norm.running_mean)  # new ones: the old are the model's own
        norm.running_var = torch.ones_like(norm.running_mean)
        norm.num_batches_tracked = torch.tensor(0, device=device)
        norm.momentum = None  # all batches count alike
        norm.train()
    with torch.inference_mode():
        for images in _decode_batches(dataset):
            network(_network_input(images, configuration, device))
    for norm in norms:
        norm.eval()


# The search: every neighbour of the contract on the same pictures, the best step taken, its neighbours in turn.


MAX_ROUNDS = 4  # causes that are looked for, one on top of the other


GIVE_UP_AFTER_IMAGES = 48  # pictures after which a reading that is clearly worse is given up


# What the stem's statistics tell: they follow every number of the input, and hardly its size
STEM_CODES = ("mean-std", "channel-order", "rescaled-twice")


MIN_STATISTICS_GAIN = (
    0.1  # nats: statistics of the very pictures that are judged are a little better even for a sound network
)


AGREEING_SHIFT_RATIO = 0.8  # times the old shift: batch norm speaks for the change as well


# Without labels, how many times nearer to the stored statistics, and by how many standard deviations
MIN_SHIFT_RATIO, MIN_SHIFT_DIFFERENCE = 1.5, 0.08


FAR_SHIFT = 0.5  # standard deviations


Progress = Callable[[int, int], None]


@dataclass(eq=False)
class ConfigurationSearch:
    """What has been tried and found so far, on ``pictures`` for the network ``model``."""

    model: EfficientNet
    dataset: ImageDataset
    device: torch.device
    progress: Progress | None
    configuration: Configuration
    has_statistics: bool  # whether batch norm holds statistics that can be compared
    findings: list[Finding] = field(default_factory=list)
    trials: list[ConfigurationTrial] = field(default_factory=list)

    def hypotheses(self) -> Iterator[Hypothesis]:
        """The neighbours of the best reading, without causes that were already found."""
        known = {finding.code for finding in self.findings}
        for change in list_hypotheses(self.configuration, self.model.arch):
            if change.code not in known and (self.has_statistics or change.code != "statistics"):
                yield change

    def search_by_stem(self) -> None:
        """Without labels: the causes that the stem's statistics tell."""
        for number in range(1, MAX_ROUNDS + 1):
            changes = [change for change in self.hypotheses() if change.code in STEM_CODES]
            readings = [self.configuration, *(change.configuration for change in changes)]
            old, *new = measure(self.model, readings, self.dataset, self.device, True, progress=self.progress)
            if number == 1:
                self.trials.append(ConfigurationTrial(1, "", "as it is", old.images, old.shift))
            self.trials += [
                ConfigurationTrial(number, change.code, change.description, one.images, one.shift)
                for change, one in zip(changes, new, strict=True)
            ]
            nearest = min(zip(changes, new, strict=True), key=lambda pair: pair[1].shift)
            if not _is_nearer(nearest[1].shift, old.shift):
                if old.shift > FAR_SHIFT:
                    self.findings.append(causes.unlike_training_finding(old.shift, old.images))
                return
            self._accept(nearest[0], nearest[1].shift, old.shift)

    def _accept(self, change: Hypothesis, shift: float, old_shift: float) -> None:
        """Takes the step that the stem's statistics speak for."""
        self.findings.append(causes.stem_finding(change, self.configuration, shift, old_shift, len(self.dataset)))
        self.configuration = change.configuration

    def search_by_labels(self, names: Sequence[str], labels: IntArray) -> tuple[float, float]:
        """With labels (N,), indices into ``names``: every cause. Top-1 as the model is, and of the best reading."""
        first: LikelihoodScore | None = None
        last: LikelihoodScore | None = None
        for number in range(1, MAX_ROUNDS + 1):
            rated = self._run_round(number, names, labels)
            old, old_shift = rated[0].score, rated[0].shift
            first, last = first or old, old
            real = [one for one in rated[1:] if self._is_real(one, old, old_shift)]
            if real:
                best = _pick_likeliest(real)
                assert best.hypothesis is not None
                better = compare_scores(best.score, old)
                self.findings.append(
                    causes.score_finding(best.hypothesis, self.configuration, best.score, old, better, names)
                )
                self.configuration = best.hypothesis.configuration
            else:
                best = min((one for one in rated if self._stem_may_decide(one, old)), key=lambda one: one.shift)
                if best.hypothesis is None or not _is_nearer(best.shift, old_shift):
                    break
                self._accept(best.hypothesis, best.shift, old_shift)
            last = best.score
        assert first is not None
        assert last is not None
        return first.top1, last.top1

    def _run_round(self, number: int, names: Sequence[str], labels: IntArray) -> list[_RatedHypothesis]:
        """The best reading so far, and all its neighbours, rated."""

        def rate(one: Measurement) -> LikelihoodScore:
            logits = one.logits
            return score_logits(logits, np.array(one.configuration.label_order)[labels[: len(logits)]])

        def hopeless(one: Measurement, best: Measurement) -> bool:
            return one.images >= GIVE_UP_AFTER_IMAGES and compare_scores(rate(one), rate(best)).sigmas < -SURE_SIGMAS

        changes = list(self.hypotheses())
        readings = [self.configuration, *(change.configuration for change in changes)]
        old, *new = measure(self.model, readings, self.dataset, self.device, hopeless=hopeless, progress=self.progress)
        rated = [_RatedHypothesis(None, rate(old), old.shift)]
        if not any(finding.code.startswith("labels") for finding in self.findings):
            rated += self._rate_label_orders(old, names, labels)
        rated += [_RatedHypothesis(change, rate(one), one.shift) for change, one in zip(changes, new, strict=True)]
        self.trials += [_to_trial(number, one, rated[0].score) for one in rated if one.hypothesis or number == 1]
        return rated

    def _rate_label_orders(
        self, old: Measurement, names: Sequence[str], labels: IntArray
    ) -> Iterator[_RatedHypothesis]:
        """The same logits under other orders of the labels."""
        logits, outputs = old.logits, old.logits.shape[1]
        for change in label_order_hypotheses(self.configuration, names, outputs):
            yield _RatedHypothesis(
                change, score_logits(logits, np.array(change.configuration.label_order)[labels]), old.shift
            )
        match = match_label_order(logits, labels, self.configuration.label_order)
        if match and match[0] != self.configuration.label_order:
            what = "as the confusions have it"
            yield _RatedHypothesis(
                Hypothesis("labels-order", what, replace(self.configuration, label_order=match[0])), match[1], old.shift
            )

    def _is_real(self, one: _RatedHypothesis, old: LikelihoodScore, old_shift: float) -> bool:
        assert one.hypothesis is not None
        better = compare_scores(one.score, old)
        agrees = (
            self.has_statistics and one.hypothesis.code in STEM_CODES and one.shift < AGREEING_SHIFT_RATIO * old_shift
        )
        worth = MIN_STATISTICS_GAIN if one.hypothesis.code == "statistics" else MIN_LIKELIHOOD_GAIN
        return better.is_significant(LIKELY_SIGMAS if agrees else SURE_SIGMAS, worth)

    def _stem_may_decide(self, one: _RatedHypothesis, old: LikelihoodScore) -> bool:
        """Whether the stem's statistics may speak for it: by the labels it is not surely worse."""
        if one.hypothesis is None:
            return True
        better = compare_scores(one.score, old)
        no_worse = better.sigmas > -LIKELY_SIGMAS or better.likelihood > -MIN_LIKELIHOOD_GAIN
        return self.has_statistics and one.hypothesis.code in STEM_CODES and no_worse


@dataclass(frozen=True, eq=False)
class _RatedHypothesis:
    hypothesis: Hypothesis | None  # None: the reading as it is
    score: LikelihoodScore
    shift: float


def _is_nearer(shift: float, old_shift: float) -> bool:
    """Whether the stem's statistics alone are enough for a suspicion."""
    return shift * MIN_SHIFT_RATIO < old_shift and shift + MIN_SHIFT_DIFFERENCE < old_shift


def _pick_likeliest(real: list[_RatedHypothesis]) -> _RatedHypothesis:
    """The best; or the first of those that are as good within a standard error, for the likelier causes stand first.

    Statistics measured anew hide most faults of the input: they must be better than all else by two.
    """
    best = max(real, key=lambda one: float(one.score.likelihood.mean()))
    return next(
        one
        for one in real
        if compare_scores(best.score, one.score).sigmas < (LIKELY_SIGMAS if _hides_input_faults(best) else 1)
    )


def _hides_input_faults(one: _RatedHypothesis) -> bool:
    return one.hypothesis is not None and one.hypothesis.code == "statistics"


def _to_trial(number: int, one: _RatedHypothesis, old: LikelihoodScore) -> ConfigurationTrial:
    code, what = (one.hypothesis.code, one.hypothesis.description) if one.hypothesis else ("", "as it is")
    better = compare_scores(one.score, old)
    return ConfigurationTrial(
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
