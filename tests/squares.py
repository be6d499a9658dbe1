"""A small world in which everything that the doctor looks at matters: squares of three colours and two sizes.

None of the colours becomes another when red and blue change places: that would be a change of labels.
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
from effnet.training.metrics import Targets

CLASSES = (
    "10 red",
    "2 green",
    "3 yellow",
    "b large",
    "C large",
    "d large",
)  # as text, by number and by case: three orders
PREPROCESS = Preprocess((32, 32), 0.8, "crop", "bilinear", (0.5,) * 3, (0.5,) * 3)


def squares(count: int, seed: int) -> ImageDataset:
    """Noisy grey pictures of 60×64 pixels with a square: its colour and its size are the class."""
    dice = np.random.default_rng(seed)
    items = []
    for index in range(count):
        label = index % len(CLASSES)
        picture = dice.normal(dice.uniform(90, 170), 25, (60, 64, 3))
        side = 16 if label < 3 else 30
        top, left = dice.integers(12, 48 - side, 2)
        colour = dice.uniform(20, 70, 3)
        colour[[[0], [1], [0, 1]][label % 3]] = dice.uniform(150, 230)
        picture[top : top + side, left : left + side] += 0.55 * (colour - 128)
        items.append(Item(picture.clip(0, 255).astype(np.uint8), label, f"{index}"))
    return ImageDataset(tuple(items), Labels(CLASSES))


def knowing(twice: bool = False) -> EfficientNet:
    """A nano network that tells the squares apart: random convolutions, measured batch norm, a head in closed form.

    ``twice``: it saw values divided by 255 once more.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = effnet.create("nano", classes=len(CLASSES)).eval()
    model.preprocess, model.labels = PREPROCESS, Labels(CLASSES)
    pictures = squares(480, seed=1)
    reading = Configuration(PREPROCESS, model.numerics, rescaled_twice=twice)
    recompute_statistics(model, reading, pictures, torch.device("cpu"))
    x = torch.from_numpy(np.stack([load_input(item.image, PREPROCESS) for item in pictures.items]))
    with torch.inference_mode():
        features = model.embed(normalize(x.float() / 255 if twice else x, PREPROCESS)).numpy()
    head = fit_linear_probe(features, Targets.from_dataset(pictures))
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head.weight))
        model.classifier.bias.copy_(torch.from_numpy(head.bias))
    return model
