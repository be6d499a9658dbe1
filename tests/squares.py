"""A small dataset on which all settings examined by the doctor matter: squares of three colors and two sizes.

Swapping red and blue turns no color into another, as that would permute the labels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import effnet
from effnet.data import ImageDataset, Item, load_input
from effnet.data.preprocessing import normalize
from effnet.doctor.diagnosis import Configuration
from effnet.doctor.search import recompute_statistics
from effnet.metadata import Labels, Preprocess
from effnet.net import EfficientNet
from effnet.training.linear_probe import fit_linear_probe
from effnet.training.validation import Targets

CLASSES = (
    "10 red",
    "2 green",
    "3 yellow",
    "b large",
    "C large",
    "d large",
)  # sorted as text, by number and ignoring case: three different orders
PREPROCESS = Preprocess((32, 32), 0.8, "crop", "bilinear", (0.5,) * 3, (0.5,) * 3)


def squares(count: int, seed: int) -> ImageDataset:
    """Return noisy gray images of 60×64 pixels with a square whose color and size determine the class."""
    rng = np.random.default_rng(seed)
    items = []
    for index in range(count):
        label = index % len(CLASSES)
        image = rng.normal(rng.uniform(90, 170), 25, (60, 64, 3))
        side = 16 if label < 3 else 30
        top, left = rng.integers(12, 48 - side, 2)
        color = rng.uniform(20, 70, 3)
        color[[[0], [1], [0, 1]][label % 3]] = rng.uniform(150, 230)
        image[top : top + side, left : left + side] += 0.55 * (color - 128)
        items.append(Item(image.clip(0, 255).astype(np.uint8), label, f"{index}"))
    return ImageDataset(tuple(items), Labels(CLASSES))


def trained_on_squares(twice: bool = False) -> EfficientNet:
    """Return a nano network that classifies the squares: random convolutions, measured batch norm, a linear probe.

    With ``twice`` its inputs were divided by 255 twice.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = effnet.create("nano", classes=len(CLASSES)).eval()
    model.preprocess, model.labels = PREPROCESS, Labels(CLASSES)
    images = squares(480, seed=1)
    configuration = Configuration(PREPROCESS, model.numerics, rescaled_twice=twice)
    recompute_statistics(model, configuration, images, torch.device("cpu"))
    x = torch.from_numpy(np.stack([load_input(item.image, PREPROCESS) for item in images.items]))
    with torch.inference_mode():
        features = model.embed(normalize(x.float() / 255 if twice else x, PREPROCESS)).numpy()
    head = fit_linear_probe(features, Targets.from_dataset(images))
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head.weight))
        model.classifier.bias.copy_(torch.from_numpy(head.bias))
    return model
