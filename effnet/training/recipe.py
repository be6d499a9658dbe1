"""A recipe: everything about a training run that is not the data or the network, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType

from effnet.arch.record import Record, choice, number, whole
from effnet.data.augment import Augment

OPTIMISERS = ("adamw", "rmsprop", "sgd")
SCHEDULES = ("cosine", "exponential", "constant")
NORMS = ("auto", "train", "frozen", "estimated")
BALANCES = ("none", "loss", "sampler")


@dataclass(frozen=True)
class Progress(Record):
    """Progressive learning (arXiv:2104.00298, section 4.2): from the first value to the second in ``steps`` stretches.

    ``size``: pixels a side; ``magnitude``: RandAugment's; ``dropout`` before the classifier; ``mixup``'s α.
    """

    steps: int
    size: tuple[int, int]
    magnitude: tuple[float, float]
    dropout: tuple[float, float]
    mixup: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        whole("steps", self.steps, 2)
        for side in self.size:
            whole("size", side, 1)
        for low, high, name in ((*self.dropout, "dropout"), (*self.mixup, "mixup"), (*self.magnitude, "magnitude")):
            number(name, low, 0)
            number(name, high, low)


@dataclass(frozen=True)
class Stretch:
    """Some epochs with settings of their own: from epoch ``start`` to before ``end``."""

    start: int
    end: int
    size: int | None  # pixels a side; None: the network's
    dropout: float | None  # None: the network's
    augment: Augment


@dataclass(frozen=True)
class Recipe(Record):
    """How a network is trained. The recipes that come with the package lie in ``training/recipes``."""

    RECORDS = MappingProxyType({"augment": Augment, "progress": Progress})

    name: str
    epochs: int
    batch: int = 32
    optimiser: str = "adamw"  # or "rmsprop" as TensorFlow's, or "sgd"
    learning_rate: float = 1e-3  # at its peak, in batches of `rate_batch`; in others in proportion to them
    rate_batch: int = 32
    backbone_rate: float = 1.0  # × learning_rate for everything but the classifier
    layer_rate: float = 1.0  # × once more for each part (stage) further from the classifier
    momentum: float = 0.9  # of rmsprop and sgd
    square_decay: float = 0.9  # rmsprop: of the mean square's average
    epsilon: float = 1e-3  # rmsprop: added to the mean square, inside the root
    schedule: str = "cosine"  # to zero; or "exponential" in steps; or "constant"
    warm_up: float = 1.0  # epochs of linear rise from zero
    decay: float = 0.97  # exponential: × this …
    decay_epochs: float = 2.4  # … every so many epochs, counted from the start
    weight_decay: float = 0.05  # adamw: decoupled, of convolutions and the classifier; else L2 of all but batch norm
    label_smoothing: float = 0.1
    average: float = 0.999  # decay of the running average of the weights, which is what is evaluated
    norms: str = "train"  # batch norm's statistics: or "frozen", or "estimated" once on the new pictures; or "auto"
    norm_momentum: float = 0.01  # share of each new batch in its running statistics
    unfreeze: float = 0.0  # epochs after which one more part, from the classifier down, is trained; 0: all at once
    balance: str = "none"  # rare classes count more in the "loss", or come more often by the "sampler"
    dropout: float | None = None  # before the classifier; None: the network's
    drop_path: float | None = None  # stochastic depth; None: the network's
    size: int | None = None  # pixels a side; None: the network's
    stem_stride: int | None = None  # 1: the network does not halve the picture at once; None: as it is
    select_share: float = 0.2  # of the training pictures, held out for every choice
    patience: int = 0  # epochs without a better selection loss before it stops; 0: never
    larger: bool = False  # in the end, try predicting at larger sizes than were trained at, and keep one if better
    probe: bool = False  # fit a linear head on the frozen network first
    minutes: float = 0.0  # without a GPU, and unless told otherwise: train as many epochs as take this long; 0: all
    teach: float = 0.5  # share of a teacher's answers in the loss, where there is a teacher
    temperature: float = 2.0  # at which the teacher is listened to
    augment: Augment = field(default_factory=Augment)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        whole("epochs", self.epochs, 0)
        whole("batch", self.batch, 1)
        whole("rate_batch", self.rate_batch, 1)
        whole("patience", self.patience, 0)
        choice("optimiser", self.optimiser, OPTIMISERS)
        choice("schedule", self.schedule, SCHEDULES)
        choice("norms", self.norms, NORMS)
        choice("balance", self.balance, BALANCES)
        number("learning_rate", self.learning_rate, 0, 10, above=True)
        number("decay_epochs", self.decay_epochs, 0, above=True)
        number("epsilon", self.epsilon, 0, above=True)
        number("label_smoothing", self.label_smoothing, 0, 0.9)
        number("average", self.average, 0, 0.999999)
        number("select_share", self.select_share, 0, 0.9, above=True)
        number("temperature", self.temperature, 0, above=True)
        for name in ("backbone_rate", "layer_rate", "momentum", "square_decay", "decay", "weight_decay"):
            number(name, getattr(self, name), 0, 1)
        for name in ("norm_momentum", "teach"):
            number(name, getattr(self, name), 0, 1)
        for name in ("warm_up", "minutes", "unfreeze"):
            number(name, getattr(self, name), 0)
        for name in ("dropout", "drop_path"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), 0, 0.99)

    @property
    def peak(self) -> float:
        """The learning rate at its peak, for this batch: in proportion to it (arXiv:1706.02677)."""
        return self.learning_rate * self.batch / self.rate_batch

    def stretches(self, epochs: int) -> tuple[Stretch, ...]:
        """The run's epochs by the settings that hold in them: one stretch, or as many as `progress` has steps."""
        if self.progress is None:
            return (Stretch(0, epochs, None, self.dropout, self.augment),)
        progress = self.progress

        def between(ends: tuple[float, float], step: int) -> float:
            return ends[0] + (ends[1] - ends[0]) * step / (progress.steps - 1)

        return tuple(
            Stretch(
                round(epochs * step / progress.steps),
                round(epochs * (step + 1) / progress.steps),
                round(between(progress.size, step)),
                between(progress.dropout, step),
                replace(self.augment, magnitude=between(progress.magnitude, step), mixup=between(progress.mixup, step)),
            )
            for step in range(progress.steps)
        )
