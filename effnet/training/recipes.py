"""A recipe: everything about a training run that is not the data or the network, as one frozen record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from effnet.arch.serde import Record, check_choice, check_float, check_int, did_you_mean
from effnet.data.augment import Augment
from effnet.training import recipes

OPTIMIZERS = ("adamw", "rmsprop", "sgd")


SCHEDULES = ("cosine", "exponential", "constant")


BATCH_NORM_MODES = ("auto", "train", "frozen", "estimated")


BALANCE_MODES = ("none", "loss", "sampler")


@dataclass(frozen=True)
class ProgressiveLearning(Record):
    """Progressive learning (arXiv:2104.00298, section 4.2): from the first value to the second in ``steps`` stretches.

    ``size``: pixels a side; ``magnitude``: RandAugment's; ``dropout`` before the classifier; ``mixup``'s α.
    """

    steps: int
    image_size: tuple[int, int]
    magnitude: tuple[float, float]
    dropout: tuple[float, float]
    mixup: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_int("steps", self.steps, 2)
        for side in self.image_size:
            check_int("size", side, 1)
        for low, high, name in ((*self.dropout, "dropout"), (*self.mixup, "mixup"), (*self.magnitude, "magnitude")):
            check_float(name, low, 0)
            check_float(name, high, low)


@dataclass(frozen=True)
class Phase:
    """Some epochs with settings of their own: from epoch ``start`` to before ``end``."""

    start_epoch: int
    end_epoch: int
    image_size: int | None  # pixels a side; None: the network's
    dropout: float | None  # None: the network's
    augment: Augment


@dataclass(frozen=True)
class Recipe(Record):
    """How a network is trained. The recipes that come with the package lie in ``training/recipes``."""

    RECORDS = MappingProxyType({"augment": Augment, "progress": ProgressiveLearning})

    name: str
    epochs: int
    batch_size: int = 32
    optimizer: str = "adamw"  # or "rmsprop" as TensorFlow's, or "sgd"
    learning_rate: float = 1e-3  # at its peak, in batches of `rate_batch`; in others in proportion to them
    lr_reference_batch: int = 32
    backbone_lr_mult: float = 1.0  # × learning_rate for everything but the classifier
    layer_lr_decay: float = 1.0  # × once more for each part (stage) further from the classifier
    momentum: float = 0.9  # of rmsprop and sgd
    rmsprop_alpha: float = 0.9  # rmsprop: of the mean square's average
    rmsprop_eps: float = 1e-3  # rmsprop: added to the mean square, inside the root
    schedule: str = "cosine"  # to zero; or "exponential" in steps; or "constant"
    warmup_epochs: float = 1.0  # epochs of linear rise from zero
    lr_decay: float = 0.97  # exponential: × this …
    lr_decay_epochs: float = 2.4  # … every so many epochs, counted from the start
    weight_decay: float = 0.05  # adamw: decoupled, of convolutions and the classifier; else L2 of all but batch norm
    label_smoothing: float = 0.1
    ema_decay: float = 0.999  # decay of the running average of the weights, which is what is evaluated
    batch_norm: str = (
        "train"  # batch norm's statistics: or "frozen", or "estimated" once on the new pictures; or "auto"
    )
    bn_momentum: float = 0.01  # share of each new batch in its running statistics
    unfreeze_every_epochs: float = (
        0.0  # epochs after which one more part, from the classifier down, is trained; 0: all at once
    )
    balance: str = "none"  # rare classes count more in the "loss", or come more often by the "sampler"
    dropout: float | None = None  # before the classifier; None: the network's
    drop_path: float | None = None  # stochastic depth; None: the network's
    image_size: int | None = None  # pixels a side; None: the network's
    stem_stride: int | None = None  # 1: the network does not halve the picture at once; None: as it is
    selection_fraction: float = 0.2  # of the training pictures, held out for every choice
    patience: int = 0  # epochs without a better selection loss before it stops; 0: never
    tune_test_resolution: bool = (
        False  # in the end, try predicting at larger sizes than were trained at, and keep one if better
    )
    linear_probe: bool = False  # fit a linear head on the frozen network first
    minutes: float = 0.0  # without a GPU, and unless told otherwise: train as many epochs as take this long; 0: all
    distill_weight: float = 0.5  # share of a teacher's answers in the loss, where there is a teacher
    distill_temperature: float = 2.0  # at which the teacher is listened to
    augment: Augment = field(default_factory=Augment)
    progressive: ProgressiveLearning | None = None

    def __post_init__(self) -> None:
        check_int("epochs", self.epochs, 0)
        check_int("batch", self.batch_size, 1)
        check_int("rate_batch", self.lr_reference_batch, 1)
        check_int("patience", self.patience, 0)
        check_choice("optimiser", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("norms", self.batch_norm, BATCH_NORM_MODES)
        check_choice("balance", self.balance, BALANCE_MODES)
        check_float("learning_rate", self.learning_rate, 0, 10, exclusive=True)
        check_float("decay_epochs", self.lr_decay_epochs, 0, exclusive=True)
        check_float("epsilon", self.rmsprop_eps, 0, exclusive=True)
        check_float("label_smoothing", self.label_smoothing, 0, 0.9)
        check_float("average", self.ema_decay, 0, 0.999999)
        check_float("select_share", self.selection_fraction, 0, 0.9, exclusive=True)
        check_float("temperature", self.distill_temperature, 0, exclusive=True)
        for name in ("backbone_rate", "layer_rate", "momentum", "square_decay", "decay", "weight_decay"):
            check_float(name, getattr(self, name), 0, 1)
        for name in ("norm_momentum", "teach"):
            check_float(name, getattr(self, name), 0, 1)
        for name in ("warm_up", "minutes", "unfreeze"):
            check_float(name, getattr(self, name), 0)
        for name in ("dropout", "drop_path"):
            if getattr(self, name) is not None:
                check_float(name, getattr(self, name), 0, 0.99)

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate at its peak, for this batch: in proportion to it (arXiv:1706.02677)."""
        return self.learning_rate * self.batch_size / self.lr_reference_batch

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """The run's epochs by the settings that hold in them: one stretch, or as many as `progress` has steps."""
        if self.progressive is None:
            return (Phase(0, epochs, None, self.dropout, self.augment),)
        progress = self.progressive

        def between(ends: tuple[float, float], step: int) -> float:
            return ends[0] + (ends[1] - ends[0]) * step / (progress.steps - 1)

        return tuple(
            Phase(
                round(epochs * step / progress.steps),
                round(epochs * (step + 1) / progress.steps),
                round(between(progress.image_size, step)),
                between(progress.dropout, step),
                replace(
                    self.augment,
                    randaugment_magnitude=between(progress.magnitude, step),
                    mixup=between(progress.mixup, step),
                ),
            )
            for step in range(progress.steps)
        )


# Fine-tune pretrained weights on your pictures; the default where there are any.
#
# First a probe: one pass of the frozen network, a linear head fitted in closed form. It is reported, and the whole
# network is trained from there at a low rate, batch norm's statistics frozen (not of 20,000 pictures or more). The probe
# stays unless the whole network is clearly better on the pictures to choose by.
#
# Source: our own. Cost and result, two CPU cores, Lite0, 2026-11-21: 245 photos of ants and bees, 62–77 s, 145 of 153
# validation photos (the probe stayed); 1,500 CIFAR-10 pictures at 96 pixels, 167 s, 80.5 % of 400 (the probe 69 %).
# Command: ``effnet train PHOTOS --weights FILE``


FINETUNE = Recipe(
    name="finetune",
    epochs=20,
    batch_size=32,
    lr_reference_batch=32,
    learning_rate=3e-4,
    backbone_lr_mult=0.3,
    warmup_epochs=0.5,
    weight_decay=0.02,
    label_smoothing=0.05,
    ema_decay=0.98,
    batch_norm="auto",
    patience=5,
    linear_probe=True,
    minutes=1.0,
    augment=Augment(min_crop_area=0.4, color_jitter=0.2),
)


# Fine-tune from the top down: a probe, the classifier, then one part more with every epoch, the deeper the slower.
#
# Gradual unfreezing and discriminative learning rates (arXiv:1801.06146), for sets so small or so unlike the pictures of
# the weights that training everything at once forgets more than it learns.
#
# Source: our own settings. Cost and result, two CPU cores, Lite0, 2026-11-21: 245 photos of ants and bees, 122 s,
# stopped after 10 epochs; the best, the fifth, had 98.0 % of 49 photos to choose by and was not clearly better than the
# probe, which stayed: 145 of 153 validation photos, as `finetune`.
# Command: ``effnet train PHOTOS --weights FILE --recipe gradual``


GRADUAL = replace(
    FINETUNE,
    name="gradual",
    epochs=16,
    unfreeze_every_epochs=1.0,
    layer_lr_decay=0.8,
    backbone_lr_mult=1.0,
    minutes=0.0,
)


# A linear head on the frozen network, nothing more: seconds of fitting after one pass over the pictures.
#
# Source: ridge regression, its strength by leaving one out. Cost and result, two CPU cores, Lite0, 2026-11-21: 245 photos
# of ants and bees, 34 s on a busy machine, 145 of 153 validation photos.
# Command: ``effnet train PHOTOS --weights FILE --recipe probe``


PROBE = Recipe(name="probe", epochs=0, linear_probe=True)


# Train small pictures from random weights, as for the handwritten digits.
#
# Source: our own. Cost and result, two CPU cores, nano on digits, 2026-11-21: 70–74 s, 355 to 358 of 359 unseen digits
# over three seeds. Command: ``effnet train digits --model nano --weights none``


SCRATCH = Recipe(
    name="scratch",
    epochs=16,
    batch_size=64,
    lr_reference_batch=64,
    learning_rate=4e-3,
    warmup_epochs=2.0,
    weight_decay=0.05,
    label_smoothing=0.1,
    ema_decay=0.99,
    bn_momentum=0.1,
    patience=0,
    augment=Augment(min_crop_area=0.7, rotation=8.0, translation=0.06),
)


# Pictures of about 32 pixels, as CIFAR's: two ways, both from random weights.
#
# ``small_images``: the stem keeps the picture's size (stride 1), so that five halvings become four and the last map is of
# 2×2 pixels. ``small_images_resized``: the network as it is, pictures enlarged to 96 pixels; nine times the pixels of
# the first, at a quarter of its maps' share.
#
# The rate is a quarter of the official one (.016 per 256). Lite0 with a stem of stride 1, five epochs of 4,000 pictures
# of CIFAR-10, judged by 2,000 others, one seed: RMSProp at .002 per 128 30.1 %, at .008 17.9 %; SGD at .1 22.7 %; AdamW
# at .002 19.8 %.
#
# Both, six epochs of nano on 10,000 pictures of CIFAR-10 (2026-11-22, one seed, judged by 2,000 others, which move such a
# figure by 2 points): 49.9 % and 48.1 %, and the enlarged pictures took over twice the time. Hence the first is the one
# to begin with.
#
# Source: our own. All 30 epochs were not run here.
# Command: ``effnet train PICTURES --model nano --weights none --recipe small_images``


SMALL_IMAGES = Recipe(
    name="small_images",
    epochs=30,
    batch_size=128,
    optimizer="rmsprop",
    learning_rate=0.002,
    lr_reference_batch=128,
    schedule="cosine",
    warmup_epochs=2.0,
    weight_decay=1e-5,
    label_smoothing=0.1,
    ema_decay=0.999,
    bn_momentum=0.1,
    image_size=32,
    stem_stride=1,
    selection_fraction=0.1,
    augment=Augment(min_crop_area=0.6, policy="randaugment", randaugment_ops=1, randaugment_magnitude=6),
)


SMALL_IMAGES_RESIZED = replace(SMALL_IMAGES, name="small_images_resized", image_size=96, stem_stride=2)


# The paper's recipe for ImageNet, B0 to B7 (arXiv:1905.11946 v5, section 5.2, and the code published with it).
#
# RMSProp as TensorFlow's (decay and momentum .9, ε .001), .256 for batches of 4,096, risen to in 5 epochs, × .97 every
# 2.4 epochs; L2 of 1e-5 on all but batch norm; the weights' average at .9999; AutoAugment (policy v0); stochastic depth
# .2, dropout by size, both the network's own; labels smoothed by .1; 350 epochs, the best chosen on a part of the
# training set (25,022 pictures) and judged on the validation set.
#
# Source of what the paper leaves out (ε, batch, L2, average, crop): its ``main.py`` and ``preprocessing.py``.
# Result there (AutoAugment): B0 77.1, B1 79.1, B2 80.1, B3 81.6, B4 82.9, B5 83.6, B6 84.0, B7 84.3 % top-1; who ran the
# published scripts again got 76.8 to 77.3 for B0. **Not run here**: no ImageNet is at hand.
# Cost there: not published. By arithmetic: 440 million pictures, of three times the network's MACs each; at 1,000
# pictures a second B0 takes 122 device-hours, and the others as many times longer as they have MACs (B7 98 times).
# Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model b0 --weights none --recipe paper_b0``


PAPER_EPOCHS = 350


MINIVAL_FRACTION = 25_022 / 1_281_167  # 20 of 1,024 shards


def paper_recipe(number: int) -> Recipe:
    """The recipe of B``number``."""
    return Recipe(
        name=f"paper_b{number}",
        epochs=PAPER_EPOCHS,
        batch_size=4096,
        optimizer="rmsprop",
        learning_rate=0.016,
        lr_reference_batch=256,
        schedule="exponential",
        warmup_epochs=5.0,
        weight_decay=1e-5,
        label_smoothing=0.1,
        ema_decay=0.9999,
        bn_momentum=0.01,
        selection_fraction=MINIVAL_FRACTION,
        augment=Augment(min_crop_area=0.08, policy="autoaugment"),
    )


PAPER_RECIPES = tuple(paper_recipe(number) for number in range(8))


# The recipe of the Lite networks on ImageNet: the paper's, on pictures as Lite sees them.
#
# Lite differs from the paper's recipe in the pictures alone: bilinear crops, (x − 127) / 128, which the network's own
# preprocessing says. Source: the official code's ``lite`` README and ``main.py``.
# Result there: Lite0 75.1, Lite1 76.7, Lite2 77.6, Lite3 79.8, Lite4 81.5 % top-1.
# **Not run here**: no ImageNet is at hand. Cost: not published; by arithmetic as of the paper's B0, 122 device-hours at
# 1,000 pictures a second.
# Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model lite0 --weights none --recipe lite``


LITE = replace(paper_recipe(0), name="lite")


# EfficientNetV2's recipe for ImageNet: progressive learning (arXiv:2104.00298, section 4.2 and Table 6).
#
# Four stretches of about 87 epochs: pictures grow from 128 to 300 (S) or 380 pixels (M, L), and with them RandAugment
# (5 to 15, 20, 25), dropout (.1 to .3, .4, .5) and mixup (0 to 0, .2, .5). The rest is the paper's recipe for B0:
# RMSProp, .256 for batches of 4,096, the average at .9999.
#
# The published code has other values (RandAugment to 10, 15, 20, no rising dropout, L at 384 pixels, cutmix as mixup);
# these are the paper's. Result there: S 83.9, M 85.2, L 85.7 % top-1; cost there 7.1, 13 and 24 hours on 32 TPUv3 cores.
# **Not run here**: no ImageNet is at hand.
# Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model v2_s --weights none --recipe v2_s``


def v2_recipe(name: str, image_size: int, magnitude: float, dropout: float, mixup: float) -> Recipe:
    """The recipe of V2-``name``: what its settings rise to."""
    return replace(
        paper_recipe(0),
        name=f"v2_{name}",
        augment=Augment(min_crop_area=0.08, policy="randaugment", randaugment_ops=2),
        progressive=ProgressiveLearning(4, (128, image_size), (5, magnitude), (0.1, dropout), (0, mixup)),
    )


V2_RECIPES = (v2_recipe("s", 300, 15, 0.3, 0.0), v2_recipe("m", 380, 20, 0.4, 0.2), v2_recipe("l", 380, 25, 0.5, 0.5))


# One file a recipe. Each docstring is a promise: what, source, cost, result, command.


_OWN = (FINETUNE, GRADUAL, PROBE, SCRATCH, SMALL_IMAGES, SMALL_IMAGES_RESIZED)


RECIPES = {recipe.name: recipe for recipe in (*_OWN, *PAPER_RECIPES, LITE, *V2_RECIPES)}


def get_recipe(recipe: str | Recipe | None, pretrained: bool) -> Recipe:
    """The recipe of that name; None takes "finetune" for pretrained weights and "scratch" for random ones.

    Raises ``ValueError`` for an unknown name.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None:
        return FINETUNE if pretrained else SCRATCH
    if recipe not in RECIPES:
        close = did_you_mean(recipe, list(RECIPES))
        raise ValueError(f"no recipe is called {recipe!r}{close or '; there are ' + ', '.join(RECIPES)}")
    return RECIPES[recipe]


def override_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """``recipe`` with some of its settings changed, each as ``name=value``: "balance=sampler", "augment.mixup=0.2".

    Raises ``ValueError`` for a setting that it does not have, and for a value that it cannot take.
    """
    found = recipe.to_dict()
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ValueError(f"{setting!r} changes nothing: write name=value, as balance=sampler")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        inner = found["augment"] if name.startswith("augment.") else found
        inner[name.removeprefix("augment.")] = value
    return Recipe.from_dict(found)


def resolve_recipe(
    recipe: str | Recipe | None,
    weights: str | Path | None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | str | None = None,
) -> Recipe:
    """The recipe with what was asked in place of its own. Raises ``ValueError`` for what does not go together."""
    chosen = recipes.get_recipe(recipe, pretrained=weights != "none")
    if batch_size is not None:
        chosen = replace(chosen, batch_size=batch_size)
    if isinstance(learning_rate, str) and learning_rate != "find":
        raise ValueError(f'the learning rate is a number, or "find", not {learning_rate!r}')
    if isinstance(learning_rate, (int, float)):
        chosen = replace(chosen, learning_rate=learning_rate)
    if chosen.linear_probe and weights == "none":
        raise ValueError(f"the recipe {chosen.name} starts from pretrained weights: give --weights FILE")
    if not chosen.linear_probe and epochs == 0:
        raise ValueError(f"0 epochs of the recipe {chosen.name} train nothing: give --epochs 1 or more")
    return chosen
