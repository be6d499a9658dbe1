"""Pictures that a tiny network learns in a second: coloured stripes, one direction a class."""

import pytest
import torch

from effnet.arch import Arch, Stage
from effnet.lab.search.dataset import LabeledImages, SearchDataset

TINY = Arch(
    "tiny",
    (Stage("fused", 2, 3, 1, 8, 1), Stage("mbconv", 2, 3, 2, 16, 2, squeeze=0.25)),
    resolution=8,
    dropout=0.0,
    drop_path=0.0,
    stem=8,
    head=32,
    stem_stride=1,
)


def stripes(pictures: int, seed: int, side: int = 16) -> LabeledImages:
    drawn = torch.Generator().manual_seed(seed)
    classes = torch.arange(pictures) % 3
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    ways = torch.stack((rows, columns, rows + columns)) // 4 % 2 * 150
    noise = torch.randint(0, 100, (pictures, 3, side, side), generator=drawn)
    return LabeledImages((ways[classes][:, None] + noise).to(torch.uint8), classes)


@pytest.fixture(scope="session")
def striped() -> SearchDataset:
    return SearchDataset(stripes(192, 0), stripes(60, 1), stripes(120, 2), ("a", "b", "c"), False, "stripes", True)


@pytest.fixture
def tiny() -> Arch:
    return TINY
