"""Results of the doctor: findings with remedies, and every configuration that was tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from effnet.arch.serde import Record, check_choice
from effnet.metadata import Numerics, Preprocess

SEVERITIES = ("wrong", "suspect", "remark")  # it costs accuracy; it probably does; it is worth knowing


@dataclass(frozen=True)
class Configuration(Record):
    """One way to run the weights: their metadata, and what metadata cannot say."""

    RECORDS = MappingProxyType({"preprocess": Preprocess, "numerics": Numerics})

    preprocess: Preprocess
    numerics: Numerics
    bgr: bool = False  # the network gets its channels as blue, green, red
    rescaled_twice: bool = False  # values are divided by 255 a second time
    recomputed_statistics: bool = False  # batch-norm statistics are recomputed on the given images
    label_order: tuple[int, ...] = ()  # the output of each class of the data; empty: as in the model's labels


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
    """

    round: int  # 1: one change of the model's configuration; 2: one more on top of the best of round 1, …
    code: str
    description: str
    images: int  # fewer than all if it was soon clear that it is worse
    shift: float  # distance of the stem's batch-norm statistics from those measured on the images
    top1: float | None = None
    top1_gain: float | None = None
    top1_error: float | None = None
    log_likelihood: float | None = None  # mean log p of the true class, at the best temperature
    gain: float | None = None  # of the log-likelihood
    error: float | None = None


@dataclass(frozen=True)
class Diagnosis(Record):
    """Result of `effnet.diagnose`."""

    RECORDS = MappingProxyType({"findings": Finding, "trials": ConfigurationTrial, "best": Configuration})

    findings: tuple[Finding, ...]  # most severe first
    best: Configuration  # the configuration that the remedies lead to
    trials: tuple[ConfigurationTrial, ...] = ()  # the first is the model's own configuration
    images: int = 0
    labeled: bool = False
    top1: float | None = None  # of the model as it is
    best_top1: float | None = None  # under `best`
    skipped: tuple[str, ...] = ()  # error messages of images that could not be read
    labels: tuple[str, ...] = ()  # that ``best.label_order`` is of: the model's, or if it has none the data's

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that costs accuracy."""
        return all(finding.severity == "remark" for finding in self.findings)
