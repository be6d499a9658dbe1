"""Classification, multi-label classification and regression: all that depends on what a network's labels mean.

`task_of` gives the `Task` of ``Labels.task``, which knows activation, loss, metric, comparison of outputs and words, so
that other modules need not branch on the kind of label. Importing this module imports numpy only.
"""

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from effnet.metadata import TASKS

if TYPE_CHECKING:
    from torch import Tensor

Float64Array = NDArray[np.float64]

MULTI_LABEL_THRESHOLD = 0.5  # a label is predicted at this probability or above
MIN_PROBABILITY = 1e-12  # lower bound of a probability whose logarithm is taken
MIN_WRITTEN_PROBABILITY = 1e-7  # the same for probabilities that were rounded to seven digits in a file
MIN_COMPARED_PROBABILITY = 1e-30  # a smaller one only says that the logit is very small
# Beyond this logit, to both sides, how near a sigmoid is to 0 or 1 is lost in rounding. The limit is set by the sigmoid
# of onnxruntime, which is right to 6e-8, and 0 below −16.
MAX_COMPARED_LOGIT = 7.0
MIN_INVERTIBLE_PROBABILITY = 2.0**-24  # distance from 0 and 1 at which a sigmoid in float32 is still inverted


def softmax(logits: NDArray[Any]) -> Float64Array:
    """Return probabilities over the last axis, in float64."""
    with np.errstate(invalid="ignore"):  # infinite logits of a damaged network give NaN, which its users report
        exponentials = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


def sigmoid(logits: NDArray[Any]) -> Float64Array:
    """Return the probability of each element by itself, in float64."""
    tail = np.exp(-np.abs(logits.astype(np.float64)))  # the half that cannot overflow
    return np.asarray(np.where(logits < 0, tail, 1) / (1 + tail))


class Task(ABC):
    """What a network's outputs mean. The three tasks are stateless; get one by `task_of`.

    Logits are (N, outputs). *Scores* are logits after the activation: probabilities, or the values themselves.
    Targets are int64 (N,) class indices for classification, (N, outputs) of 0 and 1 for multi-label, (N, outputs)
    values for regression; a *target matrix* is (N, outputs) for all three, one-hot for classification.
    """

    name: ClassVar[str]
    activation: ClassVar[str]  # as Keras names it
    output: ClassVar[str]  # what scores are called: "probabilities" or "values"
    metric: ClassVar[str]  # the headline metric's name
    agreement: ClassVar[str]  # what two networks are compared by
    metric_unit: ClassVar[str]  # what the metric is a share of
    plural: ClassVar[str]
    description: ClassVar[str]

    @property
    def has_probabilities(self) -> bool:
        """Whether scores are probabilities."""
        return self.output == "probabilities"

    @abstractmethod
    def activate(self, logits: NDArray[Any]) -> Float64Array:
        """Return the scores of ``logits``, in float64."""

    @abstractmethod
    def invert(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits that give ``scores``; probabilities of 0 and 1 become the nearest finite ones."""

    @abstractmethod
    def max_difference(self, scores: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
        """Return how far ``scores`` are from those of ``logits``, at most, in logits or logarithms of probabilities."""

    @abstractmethod
    def predict(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the most likely class (N,), which labels are present (N, outputs), or the values as they are."""

    def score(self, logits: NDArray[Any], targets: NDArray[Any]) -> float:
        """Return the headline metric: the share of right predictions, at most 1. Regression: R², may be negative."""
        return float((self.predict(logits) == targets).mean())

    def count_equal_rows(self, logits: NDArray[Any], other: NDArray[Any]) -> int:
        """Return for how many rows both networks predict the same. Not defined for values, which are never equal."""
        same = self.predict(logits) == self.predict(other)
        return int((same if same.ndim == 1 else same.all(1)).sum())

    @abstractmethod
    def losses(self, logits: NDArray[Any], targets: NDArray[Any]) -> Float64Array:
        """Return the loss of each image (N,): −log p of what is true; of values, squared error over variance."""

    @abstractmethod
    def loss_terms(self, scores: Float64Array, target_matrix: Float64Array) -> Float64Array:
        """Return (…, N, terms), what the loss is of: probabilities of what is true, or errors in standard deviations.

        Terms of averaged scores are averages of the terms, which is what ensemble weights are fitted on.
        """

    def term_losses(self, terms: Float64Array) -> Float64Array:
        """Return the loss of each image (N,) from `loss_terms`, for scores that were written with seven digits."""
        return np.asarray(-np.log(np.clip(terms, MIN_WRITTEN_PROBABILITY, 1)).mean(-1))

    @abstractmethod
    def score_metrics(self, scores: Float64Array, target_matrix: Float64Array) -> dict[str, float]:
        """Return all metrics by name, from scores that were written with seven digits, and a target matrix."""

    @abstractmethod
    def torch_activate(self, logits: "Tensor") -> "Tensor":
        """Apply the activation in torch, in the dtype of ``logits``."""

    @abstractmethod
    def torch_losses(self, logits: "Tensor", targets: "Tensor", label_smoothing: float = 0.0) -> "Tensor":
        """Return the training loss of each image (N,). Values are expected in units of their standard deviation."""

    @abstractmethod
    def torch_distillation_losses(self, logits: "Tensor", teacher_logits: "Tensor", temperature: float) -> "Tensor":
        """Return the distillation loss of each image (N,), arXiv:1503.02531."""

    def top_k(self, scores: Float64Array, top: int) -> Float64Array:
        """Return (N, 2, top): the indices of the highest scores, highest first, and the scores."""
        negated = -scores
        if top < scores.shape[1]:  # sorting a thousand classes takes longer than a small network
            candidates = np.sort(np.argpartition(negated, top - 1, axis=1)[:, :top], axis=1)
        else:
            candidates = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        order = np.argsort(np.take_along_axis(negated, candidates, 1), axis=1, kind="stable")
        best = np.take_along_axis(candidates, order, 1)
        return np.stack([best, np.take_along_axis(scores, best, 1)], 1)

    def count_predicted(self, sorted_scores: Float64Array) -> int:
        """Return how many of an image's scores, highest first, are predicted labels."""
        return len(sorted_scores)

    def format_metric(self, value: float, digits: int = 1) -> str:
        """Return the headline metric for people: ``top-1 93.1%``."""
        return f"{self.metric} {value:.{digits}%}"

    def format_score(self, score: float) -> str:
        """Return one score for people: ``97.3%``."""
        return f"{score:.1%}"


class _Classification(Task):
    name, plural, description = "classification", "classes", "exactly one class per image"
    activation, output = "softmax", "probabilities"
    metric, agreement, metric_unit = "top-1", "same top-1", "images"

    def activate(self, logits: NDArray[Any]) -> Float64Array:
        return softmax(logits)

    def invert(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.log(np.maximum(scores, np.finfo(np.float32).tiny)))

    def max_difference(self, scores: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
        """By logarithms: of a thousand unlikely classes none would differ by much otherwise."""
        shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
        expected = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        got = np.log(np.maximum(scores.astype(np.float64), MIN_COMPARED_PROBABILITY))
        return float(np.abs(got - np.maximum(expected, np.log(MIN_COMPARED_PROBABILITY))).max())

    def predict(self, logits: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(logits.argmax(1))

    def losses(self, logits: NDArray[Any], targets: NDArray[Any]) -> Float64Array:
        right = softmax(logits)[np.arange(len(targets)), targets]
        return np.asarray(-np.log(np.maximum(right, MIN_PROBABILITY)))

    def loss_terms(self, scores: Float64Array, target_matrix: Float64Array) -> Float64Array:
        return np.asarray((scores * target_matrix).sum(-1, keepdims=True))

    def score_metrics(self, scores: Float64Array, target_matrix: Float64Array) -> dict[str, float]:
        right = scores.argmax(1) == target_matrix.argmax(1)
        losses = self.term_losses(self.loss_terms(scores, target_matrix))
        return {"top1": float(right.mean()), "loss": float(losses.mean())}

    def torch_activate(self, logits: "Tensor") -> "Tensor":
        return logits.softmax(1)

    def torch_losses(self, logits: "Tensor", targets: "Tensor", label_smoothing: float = 0.0) -> "Tensor":
        """Cross-entropy; ``targets`` may be probabilities too."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")

    def torch_distillation_losses(self, logits: "Tensor", teacher_logits: "Tensor", temperature: float) -> "Tensor":
        from torch.nn import functional as F

        teacher, student = ((each / temperature).log_softmax(1) for each in (teacher_logits, logits))
        return F.kl_div(student, teacher, log_target=True, reduction="none").sum(1) * temperature**2


class _MultiLabel(Task):
    name, plural, description = "multilabel", "labels", "any number of labels per image"
    activation, output = "sigmoid", "probabilities"
    metric, agreement, metric_unit = "label accuracy", "same labels", "labels"

    def activate(self, logits: NDArray[Any]) -> Float64Array:
        return sigmoid(logits)

    def invert(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logit, within ±16.6: as near as float32 comes to 1, and the sigmoids of runtimes to 0."""
        clipped = np.clip(scores.astype(np.float64), MIN_INVERTIBLE_PROBABILITY, 1 - MIN_INVERTIBLE_PROBABILITY)
        return np.asarray((np.log(clipped) - np.log1p(-clipped)).astype(np.float32))

    def max_difference(self, scores: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
        probabilities = scores.astype(np.float64).clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        got = np.log(probabilities) - np.log1p(-probabilities)
        clipped = (each.clip(-MAX_COMPARED_LOGIT, MAX_COMPARED_LOGIT) for each in (got, logits.astype(np.float64)))
        return float(np.abs(np.subtract(*clipped)).max())

    def predict(self, logits: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(logits >= 0)

    def losses(self, logits: NDArray[Any], targets: NDArray[Any]) -> Float64Array:
        return np.asarray(np.logaddexp(0, np.where(targets > 0, -logits, logits)).mean(1))

    def loss_terms(self, scores: Float64Array, target_matrix: Float64Array) -> Float64Array:
        return np.asarray(np.where(target_matrix > 0.5, scores, 1 - scores))

    def score_metrics(self, scores: Float64Array, target_matrix: Float64Array) -> dict[str, float]:
        from sklearn.metrics import average_precision_score

        precisions = [
            average_precision_score(present, of_label)
            for present, of_label in zip(target_matrix.T, scores.T, strict=True)
            if present.any()
        ]
        return {
            "mean_average_precision": float(np.mean(precisions)) if precisions else 0.0,
            "label_accuracy": float(((scores >= MULTI_LABEL_THRESHOLD) == (target_matrix > 0.5)).mean()),
            "loss": float(self.term_losses(self.loss_terms(scores, target_matrix)).mean()),
        }

    def torch_activate(self, logits: "Tensor") -> "Tensor":
        return logits.sigmoid()

    def torch_losses(self, logits: "Tensor", targets: "Tensor", label_smoothing: float = 0.0) -> "Tensor":
        from torch.nn import functional as F

        smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none").mean(1)

    def torch_distillation_losses(self, logits: "Tensor", teacher_logits: "Tensor", temperature: float) -> "Tensor":
        return self.torch_losses(logits, teacher_logits.sigmoid())

    def count_predicted(self, sorted_scores: Float64Array) -> int:
        return int((sorted_scores >= MULTI_LABEL_THRESHOLD).sum())


class _Regression(Task):
    name, plural, description = "regression", "values", "numeric values"
    activation, output = "linear", "values"
    metric, agreement, metric_unit = "R²", "R²", "variance"

    def activate(self, logits: NDArray[Any]) -> Float64Array:
        return logits.astype(np.float64)

    def invert(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return scores

    def max_difference(self, scores: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
        return float(np.abs(scores - logits).max())

    def predict(self, logits: NDArray[Any]) -> NDArray[Any]:
        return logits

    def score(self, logits: NDArray[Any], targets: NDArray[Any]) -> float:
        """R², the mean over the values; 0 where predicting the mean of ``targets`` would do as well."""
        return 1 - float(self.losses(logits, targets).mean())

    def losses(self, logits: NDArray[Any], targets: NDArray[Any]) -> Float64Array:
        variance = np.maximum(targets.astype(np.float64).var(0), MIN_PROBABILITY)
        return np.asarray(((logits.astype(np.float64) - targets) ** 2 / variance).mean(1))

    def loss_terms(self, scores: Float64Array, target_matrix: Float64Array) -> Float64Array:
        """Error in standard deviations; a value that never varies counts in its own unit."""
        std = target_matrix.std(0)
        return np.asarray((scores - target_matrix) / np.where(std > 0, std, 1))

    def term_losses(self, terms: Float64Array) -> Float64Array:
        return np.asarray((terms**2).mean(-1))

    def score_metrics(self, scores: Float64Array, target_matrix: Float64Array) -> dict[str, float]:
        """``rmse`` and ``r2``, means over the values; R² over those that vary."""
        errors = ((scores - target_matrix) ** 2).mean(0)
        variance = target_matrix.var(0)
        explained = 1 - errors[variance > 0] / variance[variance > 0]
        return {"rmse": float(np.sqrt(errors).mean()), "r2": float(explained.mean()) if len(explained) else 0.0}

    def torch_activate(self, logits: "Tensor") -> "Tensor":
        return logits

    def torch_losses(self, logits: "Tensor", targets: "Tensor", label_smoothing: float = 0.0) -> "Tensor":
        """Squared error, mean over the values; there is nothing to smooth."""
        return ((logits - targets) ** 2).mean(1)

    def torch_distillation_losses(self, logits: "Tensor", teacher_logits: "Tensor", temperature: float) -> "Tensor":
        return ((logits - teacher_logits) ** 2).mean(1)

    def top_k(self, scores: Float64Array, top: int) -> Float64Array:
        return np.stack([np.broadcast_to(np.arange(scores.shape[1]), scores.shape), scores], 1)

    def count_predicted(self, sorted_scores: Float64Array) -> int:
        return 0

    def format_metric(self, value: float, digits: int = 1) -> str:
        return f"{self.metric} {value:.3f}"

    def format_score(self, score: float) -> str:
        return f"{score:.4g}"


_TASKS = MappingProxyType({task.name: task for task in (_Classification(), _MultiLabel(), _Regression())})
assert tuple(_TASKS) == TASKS


def task_of(name: str) -> Task:
    """Return the task that ``Labels.task`` names."""
    return _TASKS[name]
