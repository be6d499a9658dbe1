"""A recipe: everything about a training run that is not the data or the network, as one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from effnet.arch.record import Record, choice, number, whole
from effnet.data.augment import Augment


@dataclass(frozen=True)
class Recipe(Record):
    """How a network is trained. The recipes that come with the package lie in ``training/recipes``."""

    RECORDS = MappingProxyType({"augment": Augment})

    name: str
    epochs: int
    batch: int = 32
    learning_rate: float = 1e-3  # AdamW's, at its peak
    backbone_rate: float = 1.0  # × learning_rate for everything but the classifier
    warm_up: float = 1.0  # epochs of linear rise, then a cosine to zero
    weight_decay: float = 0.05  # of convolutions and the classifier; never of batch norm and biases
    label_smoothing: float = 0.1
    average: float = 0.999  # decay of the running average of the weights, which is what is evaluated
    norms: str = "train"  # batch norm: "train" it, or keep its statistics "frozen"
    norm_momentum: float = 0.01  # share of each new batch in its running statistics
    patience: int = 0  # epochs without a better selection loss before it stops; 0: never
    probe: bool = False  # fit a linear head on the frozen network first
    minutes: float = 0.0  # without a GPU, and unless told otherwise: train as many epochs as take this long; 0: all
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        whole("epochs", self.epochs, 0)
        whole("batch", self.batch, 1)
        whole("patience", self.patience, 0)
        number("learning_rate", self.learning_rate, 0, 10, above=True)
        number("backbone_rate", self.backbone_rate, 0, 1)
        number("warm_up", self.warm_up, 0)
        number("weight_decay", self.weight_decay, 0, 1)
        number("label_smoothing", self.label_smoothing, 0, 0.9)
        number("average", self.average, 0, 0.999999)
        number("norm_momentum", self.norm_momentum, 0, 1)
        number("minutes", self.minutes, 0)
        choice("norms", self.norms, ("train", "frozen"))
