from __future__ import annotations

import pytest
import torch
from torch import Tensor

from effnet.data.augment import seeded
from effnet.data.mixing import mix


def even(count: int, height: int = 24, width: int = 40) -> Tensor:
    """Pictures of one number each: 0, 1, 2, …"""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, height, width, 3).contiguous()


def test_nothing_asked_nothing_changed() -> None:
    pictures, wanted = even(4), torch.eye(4)
    before = torch.get_rng_state()
    same, as_wanted = mix(pictures, wanted, 0, 0)
    assert same is pictures
    assert as_wanted is wanted
    assert torch.equal(torch.get_rng_state(), before)


def test_mixup_blends_pictures_as_labels() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (8, 6, 5, 3), dtype=torch.uint8)
    mixed, wanted = mix(pictures, torch.eye(8), 0.5, 0)
    assert mixed.dtype == wanted.dtype == torch.float32
    shares = wanted.diagonal()
    assert torch.allclose(wanted.roll(1, 1).diagonal()[1:], (1 - shares)[1:])  # of the picture before
    assert shares.unique().numel() == 8  # each its own
    for index in range(8):
        blend = shares[index] * pictures[index] + (1 - shares[index]) * pictures[index - 1]
        assert torch.allclose(mixed[index], blend, atol=1e-3)


def test_cutmix_labels_are_the_shares_of_pixels() -> None:
    torch.manual_seed(1)
    pictures = even(60)
    mixed, wanted = mix(pictures, torch.eye(60), 0, 1.0)
    assert mixed.dtype == torch.uint8
    own = (mixed == pictures)[..., 0]
    assert torch.allclose(own.float().mean((1, 2)), wanted.diagonal(), atol=1e-6)
    assert torch.allclose(wanted.sum(1), torch.ones(60))
    for index in range(60):
        rows, columns = torch.where(~own[index])
        if len(rows):
            box = mixed[index, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box == (index - 1) % 60).all()  # one box, wholly of the picture before


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    torch.manual_seed(2)
    _, wanted = mix(even(200, 1, 1).float(), torch.eye(200), alpha, 0)
    _, more = mix(even(200, 1, 1).float(), torch.eye(200), alpha, 0)
    shares = torch.cat([wanted.diagonal(), more.diagonal()])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.07)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)


def test_both_take_turns_by_chance() -> None:
    torch.manual_seed(3)
    blended = sum(mix(even(2, 4, 4), torch.eye(2), 0.2, 1.0)[0].is_floating_point() for _ in range(200))
    assert 70 < blended < 130


def test_the_same_seed_mixes_the_same() -> None:
    def once() -> tuple[Tensor, Tensor]:
        with seeded(5):
            return mix(even(6), torch.eye(6), 0.4, 0.4)

    first, second = once(), once()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[1].sum() == pytest.approx(6)


def test_values_are_mixed_too() -> None:
    torch.manual_seed(4)
    ages = torch.tensor([[10.0], [50.0]])
    mixed, wanted = mix(even(2).float(), ages, 1.0, 0)
    assert torch.allclose((wanted - 10) / 40, mixed[:, 0, 0, :1], atol=1e-5)  # 0 is 10, 1 is 50
