"""Images that a tiny network learns in a second: colored stripes, one direction per class."""

import pytest
import torch

from effnet.arch import Arch, Stage
from effnet.lab.search.proxy_task import LabeledImages, SearchDataset

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


def stripes(images: int, seed: int, size: int = 16) -> LabeledImages:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(images) % 3
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    patterns = torch.stack((rows, columns, rows + columns)) // 4 % 2 * 150
    noise = torch.randint(0, 100, (images, 3, size, size), generator=generator)
    return LabeledImages((patterns[classes][:, None] + noise).to(torch.uint8), classes)


@pytest.fixture(scope="session")
def striped() -> SearchDataset:
    return SearchDataset(stripes(192, 0), stripes(60, 1), stripes(120, 2), ("a", "b", "c"), False, "stripes", True)


@pytest.fixture
def tiny() -> Arch:
    return TINY
