"""Linear probe: a linear head on frozen features by ridge regression, its strength chosen by leave-one-out.

The features are computed once. One eigendecomposition gives, for every strength, the predictions that each image would
get from a head fitted on all the others (PRESS identity): the choice costs nothing and no image is wasted.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from effnet.data import ImageDataset
from effnet.net import EfficientNet
from effnet.runtime.torch import EagerEngine
from effnet.tasks import Float64Array, task_of
from effnet.training import callbacks, data_plan, distributed, validation

REGULARIZATION_STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-10, 9))  # times the features' mean variance


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear head: logits are ``features @ weight.T + bias``."""

    weight: Float64Array  # (outputs, features)
    bias: Float64Array  # (outputs,)
    regularization: float
    logit_scale: float
    losses: Float64Array  # (N,): of each image, by the head fitted on all the others
    metric: float  # the task's headline metric, likewise

    @property
    def loss(self) -> float:
        """The mean leave-one-out loss."""
        return float(self.losses.mean())

    def logits(self, features: np.ndarray) -> Float64Array:
        """Return logits (N, outputs) for features (N, D)."""
        return np.asarray(features.astype(np.float64) @ self.weight.T + self.bias)

    def set_head(self, model: EfficientNet) -> None:
        """Copy the probe into the classifier of ``model``."""
        assert isinstance(model.classifier, torch.nn.Linear)
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(self.weight))
            model.classifier.bias.copy_(torch.from_numpy(self.bias))


@dataclass(frozen=True, eq=False)
class ProbedModel:
    """A frozen network and the linear probes on its features."""

    start: LinearProbe  # fitted on the training images: fine-tuning starts from it
    final: LinearProbe  # on the selection images as well, if they are part of the training set: kept if it is better
    selection_losses: Float64Array  # (N,): of the selection images, by heads that were fitted without them
    frozen_state: dict[str, torch.Tensor]

    def restore(self, model: EfficientNet) -> None:
        """Turn ``model`` back into the frozen network with the final probe."""
        model.load_state_dict(self.frozen_state)
        self.final.set_head(model)


def probe_model(
    model: EfficientNet, plan: data_plan.DataPlan, processes: distributed.SingleProcess, callback: callbacks.Callback
) -> ProbedModel:
    """Fit linear probes on the features of ``model``; each process computes its share."""
    train_count = len(plan.train)
    images = ImageDataset((*plan.train.items, *plan.selection.items), plan.train.labels, plan.train.allow_flip)
    features = validation.compute_rows(
        EagerEngine(model, str(processes.device)).embed,
        images,
        replace(model.preprocess, decode="reduced"),
        processes,
        lambda done: callback.on_progress("linear probe", done, len(images)),
    )
    targets = validation.Targets.from_dataset(images)
    start = final = fit_linear_probe(features[:train_count], targets[:train_count])
    if plan.probe_on_selection:
        final = fit_linear_probe(features, targets)
        selection_losses = final.losses[train_count:]
    else:
        selection_losses = targets[train_count:].losses(start.logits(features[train_count:]))
    callback.on_message(
        f"linear probe on the frozen {model.arch.name}, leave-one-out: "
        f"{task_of(targets.task).format_metric(final.metric)}, loss {final.loss:.3f}"
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return ProbedModel(start, final, selection_losses, state)


def fit_linear_probe(features: np.ndarray, targets: validation.Targets) -> LinearProbe:
    """Fit a head on features (N, D) with the regularization and logit scale of the lowest leave-one-out loss."""
    x = features.astype(np.float64)
    y = targets.to_matrix()  # (N, outputs)
    # Scores between 0 (absent) and 1 (present) become logits around 0
    border = 0.5 if targets.task == "multilabel" else 0.0
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    left, variances = _left_singular_vectors(x)  # (N, R), (R,)
    projected = left.T @ y  # (R, outputs)
    best: tuple[float, float, float, float, Float64Array] | None = None
    for strength in REGULARIZATION_STRENGTHS:
        ridge = strength * variances.sum() / len(x)
        shrinkage = variances / (variances + ridge)  # (R,)
        fitted = left @ (shrinkage[:, None] * projected)
        leverage = 1 / len(x) + (left**2) @ shrinkage  # (N,)
        residuals = (y - fitted) / np.maximum(1 - leverage, 1e-9)[:, None]  # of each image, left out
        scores = y - residuals + y_mean - border  # (N, outputs)
        logit_scale, loss = targets.fit_logit_scale(scores)
        if best is None or loss < best[0]:
            best = (loss, strength, logit_scale, ridge, scores)
    assert best is not None
    _, strength, logit_scale, ridge, scores = best
    weight = x.T @ (left @ (projected / (variances + ridge)[:, None]))  # (D, outputs)
    return LinearProbe(
        logit_scale * weight.T,
        logit_scale * (y_mean - border - x_mean @ weight),
        strength,
        logit_scale,
        targets.losses(logit_scale * scores),
        targets.metric(scores),
    )


def _left_singular_vectors(x: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return left singular vectors (N, R) of ``x`` (N, D) and squared singular values (R,), by the smaller side."""
    wide = x.shape[0] <= x.shape[1]
    variances, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    nonzero = variances > variances[-1] * 1e-10
    variances, vectors = variances[nonzero], vectors[:, nonzero]
    return (vectors if wide else (x @ vectors) / np.sqrt(variances)), variances
