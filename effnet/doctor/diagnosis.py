"""Results of the doctor: findings with remedies, and every configuration that was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from effnet.arch.serde import Record, check_choice
from effnet.metadata import Numerics, Preprocess

SEVERITIES = ("wrong", "suspect", "remark")  # it costs accuracy; it probably does; it is worth knowing


@dataclass(frozen=True)
class Configuration(Record):
    """One way to run the weights: their metadata, and what metadata cannot say.

    Attributes:
        preprocess: The preprocessing.
        numerics: Padding and batch-norm epsilon.
        bgr: The network gets its channels as blue, green, red.
        rescaled_twice: Values are divided by 255 a second time.
        recomputed_statistics: Batch-norm statistics are recomputed on the given images.
        label_order: The output that is taken for each class of the data; empty: as in the model's labels.
    """

    RECORDS = MappingProxyType({"preprocess": Preprocess, "numerics": Numerics})

    preprocess: Preprocess
    numerics: Numerics
    bgr: bool = False
    rescaled_twice: bool = False
    recomputed_statistics: bool = False
    label_order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding(Record):
    """One cause: a stable code, the severity, what was observed, what to do, and the numbers behind it."""

    code: str
    severity: str
    observation: str
    remedy: str
    evidence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("severity", self.severity, SEVERITIES)


@dataclass(frozen=True)
class ConfigurationTrial(Record):
    """One configuration that was tried, compared with the best one known before, on the same images.

    Metrics are None without labels.

    Attributes:
        round: 1: one change of the model's configuration; 2: one more on top of the best of round 1, …
        code: Code of the cause.
        description: What was tried.
        images: Number of images; fewer than all if it was soon clear that it is worse.
        shift: Distance of the stem's batch-norm statistics from those measured on the images.
        top1: A fraction.
        top1_gain: Mean difference.
        top1_error: Its standard error.
        log_likelihood: Mean log p of the true class, at the temperature that suits the configuration best.
        gain: Mean difference of the log-likelihood.
        error: Its standard error.
    """

    round: int
    code: str
    description: str
    images: int
    shift: float
    top1: float | None = None
    top1_gain: float | None = None
    top1_error: float | None = None
    log_likelihood: float | None = None
    gain: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Diagnosis(Record):
    """Result of `effnet.diagnose`.

    Attributes:
        findings: Most severe first.
        best: The configuration that the remedies lead to.
        trials: All configurations that were tried; the first is the model's own.
        images: Number of images.
        labeled: Whether they have labels.
        top1: Accuracy of the model as it is.
        best_top1: Accuracy under `best`.
        skipped: Error messages of images that could not be read.
        labels: The labels that ``best.label_order`` is of: the model's, or if it has none the data's.
    """

    RECORDS = MappingProxyType({"findings": Finding, "trials": ConfigurationTrial, "best": Configuration})

    findings: tuple[Finding, ...]
    best: Configuration
    trials: tuple[ConfigurationTrial, ...] = ()
    images: int = 0
    labeled: bool = False
    top1: float | None = None
    best_top1: float | None = None
    skipped: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that costs accuracy."""
        return all(finding.severity == "remark" for finding in self.findings)
