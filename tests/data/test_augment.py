from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from effnet.data.augment import mix_batch, random_resized_crop, resize_array, sample_crop, temporary_seed
from effnet.metadata import Preprocess
from tests.data.conftest import encode


@pytest.fixture
def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((641, 479), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize(("height", "width"), [(479, 641), (100, 100), (3, 400), (2, 2)])
def test_sampled_crops(height: int, width: int) -> None:
    torch.manual_seed(0)
    boxes = [sample_crop(height, width, 0.2) for _ in range(500)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    if min(height, width) >= 100:
        shares = [(right - left) * (bottom - top) / (height * width) for left, top, right, bottom in boxes]
        ratios = [(right - left) / (bottom - top) for left, top, right, bottom in boxes]
        assert 0.19 < min(shares) < 0.22
        assert max(shares) > 0.9
        assert 0.73 < min(ratios) < 0.8
        assert 1.25 < max(ratios) < 1.36
        assert min(box[0] for box in boxes) == 0
        assert max(box[2] for box in boxes) == width


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_resizing_equals_pil(photo: Image.Image, interpolation: str) -> None:
    for size in ((64, 48), (700, 650)):
        found = resize_array(np.array(photo), size, interpolation).astype(int)
        expected = photo.resize(size[::-1], Image.Resampling[interpolation.upper()])
        apart = np.abs(found - np.asarray(expected, int))
        assert apart.max() <= (0 if interpolation == "lanczos" else 3)
        assert apart.mean() < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decoded_at_reduced_scale(photo: Image.Image, orientation: int) -> None:
    exact, reduced = (random_resized_crop(Preprocess((40, 40), decode=how), 0.1) for how in ("exact", "reduced"))
    content = jpeg(photo, orientation)
    for seed in range(6):
        with temporary_seed(seed):
            one = exact(content)
        with temporary_seed(seed):
            other = reduced(content)
        assert one.shape == other.shape == (40, 40, 3)
        assert np.abs(one.astype(int) - other).mean() < 6  # the same part, the same way up


def test_arrays_are_cropped_like_files(photo: Image.Image) -> None:
    crop = random_resized_crop(Preprocess((40, 40)), 0.3)
    for source in (np.asarray(photo), photo, photo.convert("L")):
        with temporary_seed(3):
            assert crop(source).shape == (40, 40, 3)
    with temporary_seed(3):
        one = crop(np.array(photo))
    with temporary_seed(3):
        assert np.array_equal(one, crop(photo))


def uniform_images(count: int, height: int = 24, width: int = 40) -> Tensor:
    """Pictures of one number each: 0, 1, 2, …"""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, height, width, 3).contiguous()


def test_no_mixing_by_default() -> None:
    images, wanted = uniform_images(4), torch.eye(4)
    before = torch.get_rng_state()
    same, as_wanted = mix_batch(images, wanted, 0, 0)
    assert same is images
    assert as_wanted is wanted
    assert torch.equal(torch.get_rng_state(), before)


def test_mixup_blends_images_as_labels() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (8, 6, 5, 3), dtype=torch.uint8)
    mixed, wanted = mix_batch(images, torch.eye(8), 0.5, 0)
    assert mixed.dtype == wanted.dtype == torch.float32
    shares = wanted.diagonal()
    assert torch.allclose(wanted.roll(1, 1).diagonal()[1:], (1 - shares)[1:])  # of the image before
    assert shares.unique().numel() == 8  # each its own
    for index in range(8):
        blend = shares[index] * images[index] + (1 - shares[index]) * images[index - 1]
        assert torch.allclose(mixed[index], blend, atol=1e-3)


def test_cutmix_labels_are_fractions_of_pixels() -> None:
    torch.manual_seed(1)
    images = uniform_images(60)
    mixed, wanted = mix_batch(images, torch.eye(60), 0, 1.0)
    assert mixed.dtype == torch.uint8
    own = (mixed == images)[..., 0]
    assert torch.allclose(own.float().mean((1, 2)), wanted.diagonal(), atol=1e-6)
    assert torch.allclose(wanted.sum(1), torch.ones(60))
    for index in range(60):
        rows, columns = torch.where(~own[index])
        if len(rows):
            box = mixed[index, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box == (index - 1) % 60).all()  # one box, wholly of the image before


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_fractions_follow_the_beta_distribution(alpha: float) -> None:
    torch.manual_seed(2)
    _, wanted = mix_batch(uniform_images(200, 1, 1).float(), torch.eye(200), alpha, 0)
    _, more = mix_batch(uniform_images(200, 1, 1).float(), torch.eye(200), alpha, 0)
    shares = torch.cat([wanted.diagonal(), more.diagonal()])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.07)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)


def test_mixup_and_cutmix_alternate_at_random() -> None:
    torch.manual_seed(3)
    blended = sum(mix_batch(uniform_images(2, 4, 4), torch.eye(2), 0.2, 1.0)[0].is_floating_point() for _ in range(200))
    assert 70 < blended < 130


def test_mixing_depends_on_the_seed() -> None:
    def once() -> tuple[Tensor, Tensor]:
        with temporary_seed(5):
            return mix_batch(uniform_images(6), torch.eye(6), 0.4, 0.4)

    first, second = once(), once()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[1].sum() == pytest.approx(6)


def test_values_are_mixed() -> None:
    torch.manual_seed(4)
    ages = torch.tensor([[10.0], [50.0]])
    mixed, wanted = mix_batch(uniform_images(2).float(), ages, 1.0, 0)
    assert torch.allclose((wanted - 10) / 40, mixed[:, 0, 0, :1], atol=1e-5)  # 0 is 10, 1 is 50
