"""Training recipes: all settings (`Recipe`), and the recipes of the package, each with its source, cost and result."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from effnet.arch import serde
from effnet.arch.serde import Record, check_choice, check_float, check_int, did_you_mean, parse_json
from effnet.data.augment import Augment

CHOICES = {  # of settings that are words
    "optimizer": ("adamw", "rmsprop", "sgd"),
    "schedule": ("cosine", "exponential", "constant"),
    "batch_norm": ("auto", "train", "frozen", "estimated"),
    "balance": ("none", "loss", "sampler"),
}


@dataclass(frozen=True)
class ProgressiveLearning(Record):
    """Progressive learning (arXiv:2104.00298, section 4.2): settings that rise from the first to the second value."""

    steps: int  # phases of equal length
    image_size: tuple[int, int]  # side in pixels
    magnitude: tuple[float, float]  # RandAugment's
    dropout: tuple[float, float]
    mixup: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_int("steps", self.steps, 2)
        for side in self.image_size:
            check_int("image_size", side, 1, serde.MAX_IMAGE_SIDE)
        for name in ("dropout", "mixup", "magnitude"):
            low, high = getattr(self, name)
            check_float(name, low, 0)
            check_float(name, high, low)


@dataclass(frozen=True)
class Phase:
    """The epochs from ``start_epoch`` to before ``end_epoch``, and their settings."""

    start_epoch: int
    end_epoch: int
    image_size: int | None  # None: the network's
    dropout: float | None  # None: the network's
    augment: Augment


@dataclass(frozen=True)
class Recipe(Record):
    """Everything about training except the data, the network and the hardware."""

    RECORDS = MappingProxyType({"augment": Augment, "progressive": ProgressiveLearning})

    name: str
    epochs: int
    batch_size: int = 32
    optimizer: str = "adamw"  # "rmsprop" is TensorFlow's
    learning_rate: float = 1e-3  # peak, at `lr_reference_batch`; scaled linearly with the batch size
    lr_reference_batch: int = 32
    backbone_lr_mult: float = 1.0  # of everything but the classifier
    layer_lr_decay: float = 1.0  # per stage away from the classifier
    momentum: float = 0.9  # of rmsprop and sgd
    rmsprop_alpha: float = 0.9  # decay of the mean square
    rmsprop_eps: float = 1e-3  # inside the square root
    schedule: str = "cosine"  # "cosine" to zero, "exponential" in steps, or "constant"
    warmup_epochs: float = 1.0  # linear, from zero
    lr_decay: float = 0.97  # of the exponential schedule, every `lr_decay_epochs`
    lr_decay_epochs: float = 2.4  # counted from the start
    weight_decay: float = 0.05  # adamw: decoupled, of convolutions and the classifier; else L2 of all but batch norm
    label_smoothing: float = 0.1
    ema_decay: float = 0.999  # of the averaged weights, which are evaluated
    batch_norm: str = "train"  # "train", "frozen", "estimated" (once, on the new images) or "auto"
    bn_momentum: float = 0.01  # of the running statistics, as torch defines it
    unfreeze_every_epochs: float = 0.0  # train one more stage after that many epochs, from the classifier down; 0: all
    balance: str = "none"  # of rare classes: "loss" weights them, "sampler" draws them more often
    dropout: float | None = None  # before the classifier; None: the network's
    drop_path: float | None = None  # stochastic depth; None: the network's
    image_size: int | None = None  # side in pixels; None: the network's
    stem_stride: int | None = None  # 1 keeps the image's size in the stem; None: the network's
    selection_fraction: float = 0.2  # of the training images, held out for model selection
    patience: int = 0  # early stopping after that many epochs without a lower selection loss; 0: never
    tune_test_resolution: bool = False  # in the end, predict at a larger size if that is better
    linear_probe: bool = False  # start from a linear probe on the frozen network, and keep it if it is as good
    minutes: float = 0.0  # time budget on a CPU, unless epochs or minutes are given; 0: none
    distill_weight: float = 0.5  # share of the teacher in the loss, if there is one
    distill_temperature: float = 2.0
    augment: Augment = field(default_factory=Augment)
    progressive: ProgressiveLearning | None = None

    def __post_init__(self) -> None:
        check_int("epochs", self.epochs, 0, serde.MAX_EPOCHS)
        check_int("patience", self.patience, 0)
        for name in ("batch_size", "lr_reference_batch"):
            check_int(name, getattr(self, name), 1, serde.MAX_BATCH_SIZE)
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        check_float("learning_rate", self.learning_rate, 0, serde.MAX_LEARNING_RATE, exclusive=True)
        check_float("label_smoothing", self.label_smoothing, 0, 0.9)
        check_float("ema_decay", self.ema_decay, 0, 0.999999)
        check_float("selection_fraction", self.selection_fraction, 0, 0.9, exclusive=True)
        for name in ("lr_decay_epochs", "rmsprop_eps", "distill_temperature"):
            check_float(name, getattr(self, name), 0, exclusive=True)
        fractions = ("backbone_lr_mult", "layer_lr_decay", "momentum", "rmsprop_alpha", "lr_decay", "weight_decay")
        for name in (*fractions, "bn_momentum", "distill_weight"):
            check_float(name, getattr(self, name), 0, 1)
        check_float("minutes", self.minutes, 0, serde.MAX_MINUTES)
        for name in ("warmup_epochs", "unfreeze_every_epochs"):
            check_float(name, getattr(self, name), 0, serde.MAX_EPOCHS)
        for name in ("dropout", "drop_path"):
            if getattr(self, name) is not None:
                check_float(name, getattr(self, name), 0, 0.99)

    @property
    def peak_learning_rate(self) -> float:
        """The peak learning rate for this batch size: in proportion to it (arXiv:1706.02677)."""
        return self.learning_rate * self.batch_size / self.lr_reference_batch

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Return the phases of ``epochs`` epochs: one, or those of progressive learning."""
        if self.progressive is None:
            return (Phase(0, epochs, None, self.dropout, self.augment),)
        rising = self.progressive

        def interpolate(ends: tuple[float, float], step: int) -> float:
            return ends[0] + (ends[1] - ends[0]) * step / (rising.steps - 1)

        return tuple(
            Phase(
                round(epochs * step / rising.steps),
                round(epochs * (step + 1) / rising.steps),
                round(interpolate(rising.image_size, step)),
                interpolate(rising.dropout, step),
                replace(
                    self.augment,
                    randaugment_magnitude=interpolate(rising.magnitude, step),
                    mixup=interpolate(rising.mixup, step),
                ),
            )
            for step in range(rising.steps)
        )


# finetune: fine-tune pretrained weights; the default where there are any.
#
# First a linear probe: one pass of the frozen network, and a linear head in closed form. From there the whole network
# is trained at a low learning rate, with batch norm's statistics frozen (unless there are 20,000 images or more). The
# probe is kept unless fine-tuning is clearly better on the selection images.
#
# Source: our own. Cost and result, two CPU cores, Lite0, 2026-11-21: 245 photos of ants and bees, 62–77 s, 145 of 153
# validation photos (the probe was kept); 1,500 CIFAR-10 images at 96 pixels, 167 s, 80.5 % of 400 (the probe 69 %).
# Command: effnet train PHOTOS --weights FILE
FINETUNE = Recipe(
    name="finetune",
    epochs=20,
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

# gradual: fine-tune from the top down: a linear probe, the classifier, then one more stage with every epoch.
#
# Gradual unfreezing and discriminative learning rates (arXiv:1801.06146), for data so small or so unlike that of the
# pretrained weights that training everything at once forgets more than it learns.
#
# Source: our own settings. Cost and result, two CPU cores, Lite0, 2026-11-21: 245 photos of ants and bees, 122 s,
# stopped after 10 epochs; the best, the fifth, had 98.0 % of 49 selection photos and was not clearly better than the
# probe, which was kept: 145 of 153 validation photos, as `finetune`.
# Command: effnet train PHOTOS --weights FILE --recipe gradual
GRADUAL = replace(
    FINETUNE,
    name="gradual",
    epochs=16,
    unfreeze_every_epochs=1.0,
    layer_lr_decay=0.8,
    backbone_lr_mult=1.0,
    minutes=0.0,
)

# probe: a linear head on the frozen network, nothing more: seconds of fitting after one pass over the images.
#
# Source: ridge regression, its strength chosen by leave-one-out. Cost and result, two CPU cores, Lite0, 2026-11-21: 245
# photos of ants and bees, 34 s on a busy machine, 145 of 153 validation photos.
# Command: effnet train PHOTOS --weights FILE --recipe probe
PROBE = Recipe(name="probe", epochs=0, linear_probe=True)

# scratch: train on small images from random weights, such as handwritten digits.
#
# Source: our own. Cost and result, two CPU cores, nano on digits, 2026-11-21: 70–74 s, 355 to 358 of 359 test digits
# over three seeds.
# Command: effnet train digits --model nano --weights none
SCRATCH = Recipe(
    name="scratch",
    epochs=16,
    batch_size=64,
    lr_reference_batch=64,
    learning_rate=4e-3,
    warmup_epochs=2.0,
    ema_decay=0.99,
    bn_momentum=0.1,
    augment=Augment(min_crop_area=0.7, rotation=8.0, translation=0.06),
)

# small_images, small_images_resized: images of about 32 pixels, as in CIFAR, from random weights.
#
# small_images: the stem keeps the image's size (stride 1), so that five halvings become four and the last feature map
# has 2×2 pixels. small_images_resized: the network as it is, images enlarged to 96 pixels; nine times the pixels of
# the first, at a quarter of its share of feature maps.
#
# The learning rate is a quarter of the official one (.016 per 256). Lite0 with a stem of stride 1, five epochs of 4,000
# images of CIFAR-10, evaluated on 2,000 others, one seed: RMSProp at .002 per 128 30.1 %, at .008 17.9 %; SGD at .1
# 22.7 %; AdamW at .002 19.8 %.
#
# Both, six epochs of nano on 10,000 images of CIFAR-10 (2026-11-22, one seed, evaluated on 2,000 others, which move
# such an accuracy by 2 points): 49.9 % and 48.1 %, and the enlarged images took over twice the time: start with the
# first.
#
# Source: our own. All 30 epochs were not run here.
# Command: effnet train IMAGES --model nano --weights none --recipe small_images
SMALL_IMAGES = Recipe(
    name="small_images",
    epochs=30,
    batch_size=128,
    optimizer="rmsprop",
    learning_rate=0.002,
    lr_reference_batch=128,
    warmup_epochs=2.0,
    weight_decay=1e-5,
    bn_momentum=0.1,
    image_size=32,
    stem_stride=1,
    selection_fraction=0.1,
    augment=Augment(min_crop_area=0.6, policy="randaugment", randaugment_ops=1, randaugment_magnitude=6),
)
SMALL_IMAGES_RESIZED = replace(SMALL_IMAGES, name="small_images_resized", image_size=96, stem_stride=2)

MINIVAL_FRACTION = 25_022 / 1_281_167  # 20 of 1,024 shards


def paper_recipe(number: int) -> Recipe:
    """Return the paper's recipe for B0 to B7 on ImageNet (arXiv:1905.11946 v5, section 5.2, and its published code).

    RMSProp as in TensorFlow (decay and momentum .9, ε .001), .256 for batches of 4,096, reached after 5 epochs, × .97
    every 2.4 epochs; L2 of 1e-5 on all but batch norm; EMA .9999; AutoAugment (policy v0); stochastic depth .2, dropout
    by size, both the network's own; label smoothing .1; 350 epochs, the best selected on a part of the training set
    (25,022 images) and evaluated on the validation set.

    Source of what the paper leaves out (ε, batch, L2, EMA, crop): its ``main.py`` and ``preprocessing.py``.
    Result there (AutoAugment): B0 77.1, B1 79.1, B2 80.1, B3 81.6, B4 82.9, B5 83.6, B6 84.0, B7 84.3 % top-1;
    others got 76.8 to 77.3 for B0 with the published scripts. **Not run here**: ImageNet is not available.
    Cost there: not published. By arithmetic: 440 million images, of three times the network's MACs each; at 1,000
    images per second B0 takes 122 device-hours, the others in proportion to their MACs (B7 98 times as long).
    Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model b0 --weights none --recipe paper_b0``
    """
    return Recipe(
        name=f"paper_b{number}",
        epochs=350,
        batch_size=4096,
        optimizer="rmsprop",
        learning_rate=0.016,
        lr_reference_batch=256,
        schedule="exponential",
        warmup_epochs=5.0,
        weight_decay=1e-5,
        ema_decay=0.9999,
        selection_fraction=MINIVAL_FRACTION,
        augment=Augment(min_crop_area=0.08, policy="autoaugment"),
    )


PAPER_RECIPES = tuple(paper_recipe(number) for number in range(8))

# lite: the Lite networks on ImageNet: the paper's recipe, on images as Lite sees them.
#
# Lite differs from the paper's recipe only in the images: bilinear crops and (x − 127) / 128, which are part of the
# network's own preprocessing. Source: the official code's ``lite`` README and ``main.py``.
# Result there: Lite0 75.1, Lite1 76.7, Lite2 77.6, Lite3 79.8, Lite4 81.5 % top-1.
# **Not run here**: ImageNet is not available. Cost: not published; by arithmetic as for the paper's B0, 122
# device-hours at 1,000 images per second.
# Command: torchrun --nproc-per-node 8 -m effnet train IMAGENET --model lite0 --weights none --recipe lite
LITE = replace(paper_recipe(0), name="lite")


def v2_recipe(name: str, image_size: int, magnitude: float, dropout: float, mixup: float) -> Recipe:
    """Return EfficientNetV2's recipe for ImageNet; the arguments are the final values of progressive learning.

    Source: arXiv:2104.00298, section 4.2 and Table 6. Four phases of about 87 epochs: the image size grows from 128 to
    300 (S) or 380 pixels (M, L), and with it RandAugment (5 to 15, 20, 25), dropout (.1 to .3, .4, .5) and MixUp (0 to
    0, .2, .5). The rest is the paper's recipe for B0: RMSProp, .256 for batches of 4,096, EMA .9999.

    The published code has other values (RandAugment to 10, 15, 20, constant dropout, L at 384 pixels, CutMix as MixUp);
    these are the paper's. Result there: S 83.9, M 85.2, L 85.7 % top-1; cost there 7.1, 13 and 24 hours on 32 TPUv3
    cores. **Not run here**: ImageNet is not available.
    Command: ``torchrun --nproc-per-node 8 -m effnet train IMAGENET --model v2_s --weights none --recipe v2_s``
    """
    return replace(
        paper_recipe(0),
        name=f"v2_{name}",
        augment=Augment(min_crop_area=0.08, policy="randaugment", randaugment_ops=2),
        progressive=ProgressiveLearning(4, (128, image_size), (5, magnitude), (0.1, dropout), (0, mixup)),
    )


V2_RECIPES = (v2_recipe("s", 300, 15, 0.3, 0.0), v2_recipe("m", 380, 20, 0.4, 0.2), v2_recipe("l", 380, 25, 0.5, 0.5))

RECIPES = {
    recipe.name: recipe
    for recipe in (
        *(FINETUNE, GRADUAL, PROBE, SCRATCH, SMALL_IMAGES, SMALL_IMAGES_RESIZED),
        *(*PAPER_RECIPES, LITE, *V2_RECIPES),
    )
}


def get_recipe(recipe: str | Recipe | None, pretrained: bool) -> Recipe:
    """Return a recipe by its name; None for "finetune" with pretrained weights and "scratch" with random ones."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None:
        return FINETUNE if pretrained else SCRATCH
    if recipe not in RECIPES:
        suggestion = did_you_mean(recipe, list(RECIPES))
        raise ValueError(f"unknown recipe {recipe!r}{suggestion or '; available: ' + ', '.join(RECIPES)}")
    return RECIPES[recipe]


def override_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Return ``recipe`` with ``settings``, each ``name=value``: "balance=sampler", "augment.mixup=0.2"."""
    values = recipe.to_dict()
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ValueError(f"{setting!r} is not a setting: write name=value, such as balance=sampler")
        try:
            value = parse_json(text, name)
        except ValueError:
            value = text
        inner = values["augment"] if name.startswith("augment.") else values
        inner[name.removeprefix("augment.")] = value
    return Recipe.from_dict(values)


def resolve_recipe(
    recipe: str | Recipe | None,
    weights: str | Path | None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | str | None = None,
) -> Recipe:
    """Return the recipe for ``weights``, with this batch size and learning rate."""
    resolved = get_recipe(recipe, pretrained=weights != "none")
    if batch_size is not None:
        resolved = replace(resolved, batch_size=batch_size)
    if isinstance(learning_rate, str) and learning_rate != "find":
        raise ValueError(f'the learning rate must be a number or "find", got {learning_rate!r}')
    if isinstance(learning_rate, (int, float)):
        resolved = replace(resolved, learning_rate=learning_rate)
    if resolved.linear_probe and weights == "none":
        raise ValueError(f"the recipe {resolved.name} requires pretrained weights: pass --weights FILE")
    if not resolved.linear_probe and epochs == 0:
        raise ValueError(f"0 epochs of the recipe {resolved.name} train nothing: pass --epochs 1 or more")
    return resolved
