"""What the doctor hands back: findings with remedies, and everything that was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from effnet.arch.serde import Record, check_choice
from effnet.metadata import Numerics, Preprocess

SEVERITIES = ("wrong", "suspect", "remark")  # it costs accuracy; it probably does; it is worth knowing


@dataclass(frozen=True)
class Configuration(Record):
    """One way to run the weights: their contract, and what no contract can say.

    ``order``: for each class of the pictures, the output that is taken for it; empty: as the model's labels have it.
    """

    RECORDS = MappingProxyType({"preprocess": Preprocess, "numerics": Numerics})

    preprocess: Preprocess
    numerics: Numerics
    bgr: bool = False  # the network is shown blue, green, red
    rescaled_twice: bool = False  # values are divided by 255 once more
    recomputed_statistics: bool = False  # batch norm's statistics are taken anew, of the given pictures
    label_order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding(Record):
    """One cause: a stable ``code``, what was seen, the numbers it rests on, what to do, in a sentence each."""

    code: str
    severity: str
    observation: str
    remedy: str
    evidence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("severity", self.severity, SEVERITIES)


@dataclass(frozen=True)
class ConfigurationTrial(Record):
    """One reading that was tried, against the best one known before it, on the same pictures.

    ``top1`` is a fraction and ``log_likelihood`` the mean log p of the true class, at the temperature that suits the
    reading best. ``*_gain`` are mean differences and ``*_error`` their standard errors. ``shift`` is how far the stem's
    batch-norm statistics lie from those measured on the pictures. What needs labels is None without them.
    """

    round: int  # 1: one change of the model's contract; 2: one more on top of the best of round 1, …
    code: str
    description: str
    images: int  # fewer than all where it was soon clear that it is worse
    shift: float
    top1: float | None = None
    top1_gain: float | None = None
    top1_error: float | None = None
    log_likelihood: float | None = None
    gain: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Diagnosis(Record):
    """Findings, the gravest first, and the trials they rest on. ``best``: the reading that the remedies lead to."""

    RECORDS = MappingProxyType({"findings": Finding, "trials": ConfigurationTrial, "best": Configuration})

    findings: tuple[Finding, ...]
    best: Configuration
    trials: tuple[ConfigurationTrial, ...] = ()  # the first is the contract as it is
    images: int = 0
    labeled: bool = False
    top1: float | None = None  # as the model is, and as `best` would be
    best_top1: float | None = None
    skipped: tuple[str, ...] = ()  # pictures that could not be read, and why
    labels: tuple[str, ...] = ()  # that ``best.order`` is of: the model's, or without such the pictures'

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that costs accuracy; remarks aside."""
        return all(finding.severity == "remark" for finding in self.findings)
