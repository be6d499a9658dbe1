"""Scoring on the selection images, by which every choice of a run is made, and temperature scaling."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from effnet.data import ImageDataset, ImageError, cache, image_io
from effnet.metadata import Preprocess
from effnet.net import EfficientNet
from effnet.prediction.batched_inference import run_batches
from effnet.runtime.base import FloatArray
from effnet.runtime.torch import EagerEngine, select_device
from effnet.tasks import Float64Array, task_of
from effnet.training import callbacks, distributed
from effnet.training.losses import TargetScaler

EVAL_BATCH_SIZE = 32
MAX_CACHED_BYTES = 64 * 2**20  # of the selection images, which are read after every epoch
LOGIT_SCALES = tuple(float(scale) for scale in np.geomspace(0.25, 100, 64))  # inverse temperatures that are tried


@dataclass(frozen=True)
class SelectionScore:
    """How good a network is on the selection images, its logits multiplied by ``logit_scale``, which fits them best."""

    losses: tuple[float, ...]  # of each image
    metric: float  # the task's headline metric
    logit_scale: float

    @property
    def loss(self) -> float:
        """The mean loss."""
        return sum(self.losses) / len(self.losses)


WORST_SCORE = SelectionScore((float("inf"),), 0.0, 1.0)  # of a network whose output is NaN or infinite


@dataclass(frozen=True, eq=False)
class Targets:
    """The true labels of some images: int64 (N,) class indices for classification, else float (N, outputs)."""

    values: np.ndarray
    task: str
    outputs: int

    @classmethod
    def from_dataset(cls, images: ImageDataset) -> "Targets":
        """Return those of ``images``."""
        return cls(images.targets, images.labels.task, len(images.labels.names))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> "Targets":
        return Targets(self.values[part], self.task, self.outputs)

    def to_matrix(self) -> Float64Array:
        """Return them as (N, outputs), one-hot for classification."""
        return np.eye(self.outputs)[self.values] if self.values.ndim == 1 else self.values.astype(np.float64)

    def losses(self, logits: Float64Array) -> Float64Array:
        """Return the loss of each image (N,)."""
        return task_of(self.task).losses(logits, self.values)

    def metric(self, logits: Float64Array) -> float:
        """Return the task's headline metric."""
        return task_of(self.task).score(logits, self.values)

    def score(self, logits: Float64Array) -> SelectionScore:
        """Return how good ``logits`` (N, outputs) are."""
        if not np.isfinite(logits).all():
            return WORST_SCORE
        logit_scale, _ = self.fit_logit_scale(logits)
        return SelectionScore(tuple(self.losses(logit_scale * logits).tolist()), self.metric(logits), logit_scale)

    def fit_logit_scale(self, logits: Float64Array) -> tuple[float, float]:
        """Return the factor on ``logits`` that gives the lowest loss, and that loss.

        It is the inverse of the temperature of arXiv:1706.04599. Values are not scaled.
        """
        scales = LOGIT_SCALES if task_of(self.task).has_probabilities else (1.0,)
        losses = [float(self.losses(scale * logits).mean()) for scale in scales]
        best = int(np.argmin(losses))
        return scales[best], losses[best]


class Validator:
    """Scores a network on the selection images after every epoch; each process computes its share."""

    def __init__(
        self,
        images: ImageDataset,
        preprocess: Preprocess,
        processes: distributed.SingleProcess,
        callback: callbacks.Callback,
        target_scaler: TargetScaler | None = None,
    ) -> None:
        self.images, self.targets, self.target_scaler = images, Targets.from_dataset(images), target_scaler
        self.preprocess = replace(preprocess, decode="reduced")
        self.processes, self.callback = processes, callback
        self._load = cache.MemoryCache(MAX_CACHED_BYTES)

    def score(self, model: EfficientNet) -> SelectionScore:
        """Return the score of ``model``, whose head answers in standardized units where there is a scaler."""
        if self.target_scaler:
            model = copy.deepcopy(model)
            self.target_scaler.unstandardize_head(model.classifier)
        logits = compute_rows(
            EagerEngine(model, str(self.processes.device)).run,
            self.images,
            self.preprocess,
            self.processes,
            lambda done: self.callback.on_progress("validation", done, len(self.images)),
            self._load,
            require_finite=False,
        )
        return self.targets.score(logits.astype(np.float64))


def compare_losses(
    before: Sequence[float] | Float64Array, after: Sequence[float] | Float64Array, standard_errors: float
) -> tuple[float, float]:
    """Return how much lower the losses ``after`` are than those ``before``, on average, and how much of it is noise.

    They are compared image by image, as most of their spread is in both. Noise is that many standard errors.
    """
    gains = np.array(before) - np.array(after)
    noise = standard_errors * gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("inf")
    return float(gains.mean()), float(noise)


def score_model(model: EfficientNet, images: ImageDataset, device: str | None = None) -> SelectionScore:
    """Return the score of ``model`` on ``images``, at the size of its ``preprocess``."""
    compute, preprocess = EagerEngine(model, device).run, replace(model.preprocess, decode="reduced")
    logits = compute_rows(compute, images, preprocess, distributed.SingleProcess(select_device(device)))
    return Targets.from_dataset(images).score(logits.astype(np.float64))


def compute_rows(
    compute: Callable[[image_io.InputImage], FloatArray],
    images: ImageDataset,
    preprocess: Preprocess,
    processes: distributed.SingleProcess,
    on_progress: Callable[[int], None] = lambda done: None,
    load: Callable[[image_io.ImageSource, Preprocess], image_io.InputImage] = image_io.load_input,
    require_finite: bool = True,
) -> FloatArray:
    """Return ``compute`` of every image, (N, …); each process computes its share."""
    named: list[tuple[str, image_io.ImageSource | ImageError]] = [(item.name, item.image) for item in images.items]
    rows: list[FloatArray] = []
    shard = processes.shard(named)
    for _, row in run_batches(compute, shard, preprocess, EVAL_BATCH_SIZE, load, require_finite):
        if isinstance(row, ImageError):
            raise row  # it was readable a moment ago
        rows.append(row)
        on_progress(len(rows) * processes.world_size)
    gathered: list[FloatArray] = processes.gather(rows)
    return np.stack(gathered)


def scale_logits(model: EfficientNet, logit_scale: float) -> None:
    """Multiply the logits of ``model``: this calibrates its probabilities and changes no prediction."""
    assert isinstance(model.classifier, torch.nn.Linear)
    with torch.no_grad():
        model.classifier.weight.mul_(logit_scale)
        model.classifier.bias.mul_(logit_scale)
