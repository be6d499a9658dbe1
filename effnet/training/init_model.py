"""The network as it is trained: weights to start from, head, stem, image size, batch norm, dropout, frozen stages."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from effnet.arch import resolve_arch, serde
from effnet.data import ImageDataset, augment, load_input, prefetch, preprocessing
from effnet.metadata import COLOR_CHANNELS, Labels, Preprocess
from effnet.net import EfficientNet, create, surgery
from effnet.training import recipes
from effnet.training.config import TrainConfig
from effnet.weights import load

BATCH_NORM_BATCH_SIZE = 32
MIN_IMAGES_TO_UPDATE_BATCH_NORM = 20_000  # training images; not measured above 2,000


def build_model(config: TrainConfig, labels: Labels) -> EfficientNet:
    """Return the network of ``config`` with a new head for ``labels``.

    Its weights are those of ``config.weights``, by default the published ones, or random for ``"none"``.
    """
    recipe, stem_stride = config.resolved_recipe, config.resolved_recipe.stem_stride
    torch.manual_seed(augment.stable_seed(config.seed, "start"))
    outputs = len(labels.names)
    if config.weights == "none":
        arch = resolve_arch(config.model or "b0")
        channels = COLOR_CHANNELS[config.color] if config.color else 3
        model = create(arch if stem_stride is None else replace(arch, stem_stride=stem_stride), outputs, channels)
    else:
        source = config.weights if config.weights is not None else str(config.model or "b0")
        how = {"prefix": config.prefix, "padding": config.padding, "bn_eps": config.bn_eps}
        model = load(source, arch=config.model, classes=outputs, **how)  # type: ignore[arg-type]
        if stem_stride is not None and stem_stride != model.arch.stem_stride:
            arch, loaded = replace(model.arch, stem_stride=stem_stride), model
            settings = (loaded.classes, loaded.channels, loaded.numerics, loaded.preprocess)
            model = EfficientNet(arch, *settings, provenance=loaded.provenance)
            model.load_state_dict(loaded.state_dict())
    model.labels = labels
    if config.color:
        if COLOR_CHANNELS[config.color] != model.channels:
            surgery.set_input_channels(model, COLOR_CHANNELS[config.color])
        model.preprocess = replace(model.preprocess, color=config.color)
    augment.working_color(model.preprocess)  # raises for what cannot be trained on
    model.preprocess = replace(model.preprocess, resampling="pil")  # as training crops are resized
    image_size = recipe.image_size if config.image_size is None else config.image_size
    if image_size is not None:
        model.preprocess = replace(model.preprocess, size=serde.check_size(image_size, "image_size"))
    return model


def prepare_model(model: EfficientNet, recipe: recipes.Recipe) -> None:
    """Set batch norm and stochastic depth as ``recipe`` says, and the memory format that convolutions prefer."""
    model.frozen_batch_norm = recipe.batch_norm in ("frozen", "estimated")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum
    if recipe.drop_path is not None:
        surgery.set_drop_path(model, recipe.drop_path)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def apply_phase(model: EfficientNet, recipe: recipes.Recipe, phase: recipes.Phase, epoch: int) -> None:
    """Set dropout and the frozen stages for ``epoch``."""
    if phase.dropout is not None:
        model.dropout.p = phase.dropout
    if recipe.unfreeze_every_epochs:
        names = model.feature_names()
        frozen = len(names) - int(epoch / recipe.unfreeze_every_epochs)
        surgery.freeze(model, names[frozen - 1] if frozen > 0 else None)


def choose_batch_norm(image_count: int, pretrained: bool) -> tuple[str, str]:
    """Return the recipe's ``batch_norm`` for this many training images, and the reason.

    Never "estimated": re-estimated on 100 to 2,000 images of CIFAR-10, the statistics cost 19 to 23 points of top-1, on
    photos 1 to 2; updated in two epochs of 500 or 1,500, 7 and 11 (docs/diary/2026-11-21-training.md).
    """
    if not pretrained:
        return "train", "training starts from random weights"
    if image_count < MIN_IMAGES_TO_UPDATE_BATCH_NORM:
        return "frozen", f"fewer than {MIN_IMAGES_TO_UPDATE_BATCH_NORM:,} images do not improve the statistics"
    return "train", f"{image_count:,} images are enough to update the statistics"


def inference_batches(
    images: ImageDataset, preprocess: Preprocess, max_images: int | None = None
) -> Iterator[torch.Tensor]:
    """Yield uint8 (N, H, W, C) batches of ``images`` as prediction sees them, at most ``max_images`` evenly spread."""
    stride = -(-len(images) // max_images) if max_images else 1
    reduced = replace(preprocess, decode="reduced")
    inputs = prefetch.prefetch_map(lambda item: load_input(item.image, reduced), images.items[::stride])
    while batch := list(islice(inputs, BATCH_NORM_BATCH_SIZE)):
        yield torch.from_numpy(np.stack(batch))


@torch.no_grad()
def estimate_batch_norm(model: EfficientNet, batches: Iterable[torch.Tensor]) -> None:
    """Set batch norm's running statistics to their plain mean over ``batches``, uint8 (N, H, W, 3) each."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()  # no dropout, no stochastic depth
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    device = next(model.parameters()).device
    for images in batches:
        model(preprocessing.normalize(images.to(device), model.preprocess))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
