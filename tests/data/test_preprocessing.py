"""The network's input, number for number, as other libraries have it: timm, torchvision, TensorFlow and two more.

All start from the same decoded pixels: how TensorFlow decodes a JPEG is another matter (docs/preprocessing.md).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from effnet import ARCHS
from effnet.arch.variants import RELEASED_ARCHS
from effnet.data import load_input, read_image, resize_and_crop
from effnet.data.preprocessing import normalize, resize_tensorflow, visible_region
from effnet.metadata import Preprocess, default_crop_fraction
from effnet.weights import defaults
from tests import quiet_tensorflow
from tests.data.conftest import SHARED

PHOTOS = SHARED / "photos"
INCEPTION = ((0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def eight_photos() -> list[Image.Image]:
    """The eight photos, five BMPs and three JPEGs, of eight shapes between 354×410 and 929×512."""
    paths = sorted(PHOTOS.glob("*.bmp")) + sorted(PHOTOS.glob("*.jpg"))
    if len(paths) < 8:
        pytest.skip("no photos in shared/data/photos")
    return [read_image(path) for path in paths]


def load_ours(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """float32 (3, H, W), as every engine computes it."""
    return normalize(torch.from_numpy(load_input(image, preprocess))[None], preprocess)[0]


def load_by_timm(image: Image.Image, preprocess: Preprocess) -> Tensor:
    from timm.data import create_transform

    transform = create_transform(
        input_size=(3, *preprocess.size),
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        crop_pct=preprocess.crop_fraction,
        crop_mode="squash" if preprocess.resize == "squash" else "center",
    )
    tensor: Tensor = transform(image)
    return tensor


@pytest.mark.parametrize("name", ARCHS)
def test_official_preprocessing_equals_timm(name: str, eight_photos: list[Image.Image]) -> None:
    if name == "nano":
        pytest.skip("not cropped by the official rule")
    preprocess = defaults.default_preprocess(ARCHS[name])
    for image in eight_photos:
        assert torch.equal(load_ours(image, preprocess), load_by_timm(image, preprocess))


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess((300, 300), 0.904),  # timm's own, rounded: 331 pixels, where r/(r+32) gives 332
        Preprocess((475, 475), 0.936),
        Preprocess((288, 288), 1.0, interpolation="bilinear"),
        Preprocess((384, 384), 1.0, "squash", "bicubic", *INCEPTION),
        Preprocess((300, 300), 0.9, "squash", "bicubic", *INCEPTION),  # tf_efficientnetv2_b3.in21k_ft_in1k
        Preprocess((192, 256), 0.95, "squash", "bilinear"),
        Preprocess((224, 288)),
        Preprocess((300, 197), 0.9, interpolation="bilinear"),
        Preprocess((111, 112), 1.0, interpolation="lanczos"),
        Preprocess((96, 320), 0.875, interpolation="bilinear"),
    ],
    ids=str,
)
def test_catalog_entries_equal_timm(preprocess: Preprocess, eight_photos: list[Image.Image]) -> None:
    for image in eight_photos:
        for turned in (image, image.transpose(Image.Transpose.ROTATE_90)):
            assert torch.equal(load_ours(turned, preprocess), load_by_timm(turned, preprocess))


def test_crop_fractions_equal_timm() -> None:
    """timm has no guard against 332 / … being a hair below a whole number; at the family's sizes it needs none."""
    for arch in RELEASED_ARCHS:
        crop = default_crop_fraction(arch.resolution)
        assert Preprocess((arch.resolution,) * 2, crop).resize_size == (int(arch.resolution / crop),) * 2


@pytest.mark.parametrize("name", ["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l"])
def test_torchvision(name: str, eight_photos: list[Image.Image]) -> None:
    from torchvision.models import get_model_weights

    transform = get_model_weights(f"efficientnet_{name}").DEFAULT.transforms()
    preprocess = defaults.torchvision_preprocess(ARCHS[name])
    for image in eight_photos:
        assert torch.equal(load_ours(image, preprocess), transform(image))


def test_torchvision_networks() -> None:
    arch = ARCHS["lite0"]
    assert defaults.torchvision_preprocess(arch) == defaults.default_preprocess(arch)


def test_lukemelas(eight_photos: list[Image.Image]) -> None:
    """Resize to the size itself, bicubic, then cut: its ``examples/imagenet/main.py``, also with ``--advprop``."""
    from torchvision import transforms

    for name, normalization in (
        ("b3", transforms.Normalize(Preprocess.mean, Preprocess.std)),
        ("b8", transforms.Lambda(lambda x: x * 2.0 - 1.0)),
    ):
        size = ARCHS[name].resolution
        chain = transforms.Compose([
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            normalization,
        ])  # fmt: skip
        preprocess = defaults.lukemelas_preprocess(ARCHS[name])
        for image in eight_photos:
            assert (load_ours(image, preprocess) - chain(image)).abs().max() <= 1e-6


def test_lukemelas_lite_is_the_official_one() -> None:
    lite = defaults.lukemelas_preprocess(ARCHS["lite2"])
    assert lite == defaults.default_preprocess(ARCHS["lite2"])
    assert (lite.crop_fraction, lite.interpolation, lite.mean[0]) == (260 / 292, "bilinear", 127 / 255)


def test_relatives_have_timms_preprocessing() -> None:
    small, untrained, pruned = (
        defaults.default_preprocess(ARCHS[name]) for name in ("v2_rw_t", "mnasnet_050", "b1_pruned")
    )
    assert small == Preprocess((288, 288), 1.0)
    assert untrained == Preprocess()
    assert pruned == Preprocess((240, 240), 0.882, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_huggingface(eight_photos: list[Image.Image]) -> None:
    """Its processor with what Google's files state: size, nearest, and the roots of the standard deviations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processing = pytest.importorskip("transformers.models.efficientnet.image_processing_pil_efficientnet")
    processor = processing.EfficientNetImageProcessorPil(
        size={"height": 260, "width": 260},
        resample=Image.Resampling.NEAREST,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.47853944, 0.4732864, 0.47434163],
    )
    preprocess = defaults.huggingface_preprocess(ARCHS["b2"])
    for image in eight_photos:
        theirs = torch.from_numpy(np.asarray(processor(image)["pixel_values"][0]))
        assert (load_ours(image, preprocess) - theirs).abs().max() <= 3e-6


@pytest.fixture(scope="module")
def tf() -> Any:
    return quiet_tensorflow.tensorflow()


def load_by_tensorflow(tf: Any, image: Image.Image, preprocess: Preprocess) -> NDArray[np.float32]:
    """As tensorflow/tpu and google/automl do: cut, then the resize that each of them calls; not normalized."""
    array, size = np.asarray(image), preprocess.size[0]
    legacy = preprocess.resampling == "tensorflow1"
    if preprocess.resize == "crop":
        height, width = array.shape[:2]
        side = int(tf.cast(size / (size + 32) * tf.cast(tf.minimum(height, width), tf.float32), tf.int32))
        top, left = (height - side + legacy) // 2, (width - side + legacy) // 2
        array = array[top : top + side, left : left + side]
    if not legacy:
        return np.asarray(tf.image.resize(array, [size, size], preprocess.interpolation))
    if preprocess.interpolation == "bicubic":
        return np.asarray(tf.compat.v1.image.resize_bicubic([array], [size, size])[0])
    return np.asarray(tf.compat.v1.image.resize([array], [size, size], tf.image.ResizeMethod.BILINEAR)[0])


@pytest.mark.parametrize("resampling", ["tensorflow", "tensorflow1"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "resize"), [(224, "crop"), (300, "crop"), (600, "crop"), (384, "squash")])
def test_tensorflow(
    resampling: str, interpolation: str, size: int, resize: str, eight_photos: list[Image.Image], tf: ModuleType
) -> None:
    """To a thousandth of 1 / 255, and beyond 0 … 255 where a cubic goes there."""
    crop = default_crop_fraction(size) if resize == "crop" else 1.0
    preprocess = Preprocess((size, size), crop, resize, interpolation, resampling=resampling)
    for image in eight_photos:
        theirs = load_by_tensorflow(tf, image, preprocess)
        assert np.abs(resize_and_crop(image, preprocess) - theirs).max() < 1e-3


@pytest.mark.parametrize("shape", [(2, 2), (3, 1000), (600, 3), (50, 70), (224, 224)])
@pytest.mark.parametrize("resampling", ["tensorflow", "tensorflow1"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_tensorflow_edges(shape: tuple[int, int], resampling: str, interpolation: str, tf: ModuleType) -> None:
    """Tiny images, made larger: every pixel is at an edge."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    for size, resize in ((224, "crop"), (41, "squash")):
        crop = size / (size + 32) if resize == "crop" else 1.0
        preprocess = Preprocess((size, size), crop, resize, interpolation, resampling=resampling)
        theirs = load_by_tensorflow(tf, image, preprocess)
        assert np.abs(resize_tensorflow(image, preprocess) - theirs).max() < 2e-3


@pytest.mark.parametrize(("name", "scaled"), [("lite0", (127, 128)), ("edge_l", (127, 128)), ("v2_s", (128, 128))])
def test_official_input(name: str, scaled: tuple[int, int], eight_photos: list[Image.Image], tf: ModuleType) -> None:
    """The whole way of the published accuracies, to the network's input."""
    preprocess = defaults.tensorflow_preprocess(ARCHS[name])
    mean, std = scaled
    for image in eight_photos[:3]:
        theirs = (load_by_tensorflow(tf, image, preprocess) - mean) / std
        found = load_ours(image, preprocess).permute(1, 2, 0).numpy()
        assert np.abs(found - theirs).max() * std < 1e-3


def test_tensorflow_1_or_2() -> None:
    kinds = {name: defaults.tensorflow_preprocess(arch).resampling for name, arch in ARCHS.items()}
    assert {name for name, kind in kinds.items() if kind == "tensorflow"} == {"v2_s", "v2_m", "v2_l", "v2_xl"}
    assert set(kinds.values()) == {"tensorflow", "tensorflow1"}


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("lite0", lambda x: (x - 127) / 128),
        ("edge_s", lambda x: (x - 127) / 128),
        ("v2_m", lambda x: (x - 128) / 128),
        ("b8", lambda x: x * 2 / 255 - 1),
        ("b0", lambda x: (x - 0.485 * 255) / (0.229 * 255)),
    ],
)
def test_normalization_equals_the_published_one(name: str, formula: Any) -> None:
    values = np.arange(256, dtype=np.uint8)
    preprocess = defaults.default_preprocess(ARCHS[name])
    found = normalize(torch.from_numpy(np.repeat(values, 3).reshape(1, 16, 16, 3)), preprocess)
    assert np.abs(found[0, 0].numpy().ravel() - formula(values.astype(np.float64))).max() <= 1e-6


def test_normalize_does_not_change_its_input() -> None:
    """Pixels that TensorFlow did not round can be fed too."""
    dataset = torch.rand(2, 5, 7, 3) * 255
    before = dataset.clone()
    preprocess = Preprocess()
    found = normalize(dataset, preprocess)
    assert torch.equal(dataset, before)
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    assert torch.equal(found.permute(0, 2, 3, 1), (dataset / 255 - mean) / std)


def test_tensorflow_never_decodes_reduced() -> None:
    """It takes single pixels of the whole image: those of a smaller one, averaged, are others."""
    path = PHOTOS / "parrot.jpg"
    if not path.exists():
        pytest.skip("no photos in shared/data/photos")
    for resampling in ("tensorflow", "tensorflow1"):
        exact = Preprocess((84, 84), interpolation="bilinear", resampling=resampling)
        found = load_input(path, replace(exact, decode="reduced"))
        assert min(read_image(path, exact.resize_size).size) < min(read_image(path).size)
        assert np.array_equal(found, load_input(path, exact))


# Where the network's input lies in the photo: read off a photo whose colors are its coordinates.


@pytest.mark.parametrize("size", [(300, 200), (201, 333), (120, 900)], ids=str)
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess((64, 64)),
        Preprocess((97, 65), crop_fraction=0.7),
        Preprocess((64, 64), crop_fraction=1.0),
        Preprocess((48, 64), crop_fraction=0.9, resize="squash"),
        Preprocess((64, 64), resampling="tensorflow"),
        Preprocess((80, 64), resampling="tensorflow1", interpolation="bilinear"),
    ],
    ids=lambda preprocess: preprocess.describe()[:40],
)
def test_visible_region(size: tuple[int, int], preprocess: Preprocess) -> None:
    height, width = size
    photo = np.zeros((height, width, 3), np.uint8)
    photo[..., 0] = np.linspace(0, 250, width).round()
    photo[..., 1] = np.linspace(0, 250, height).round()[:, None]
    found = resize_and_crop(Image.fromarray(photo), preprocess).astype(float)
    left, top, right, bottom = visible_region(height, width, preprocess)
    high, wide = preprocess.size
    for share in (0.25, 0.5, 0.75):  # the coordinates that the colors say, against those of the box
        x = found[high // 2, int(share * wide), 0] / 250 * (width - 1) + 0.5
        y = found[int(share * high), wide // 2, 1] / 250 * (height - 1) + 0.5
        pixel = (right - left) / wide, (bottom - top) / high
        assert x == pytest.approx(left + (int(share * wide) + 0.5) * pixel[0], abs=0.6 * pixel[0] + width / 250)
        assert y == pytest.approx(top + (int(share * high) + 0.5) * pixel[1], abs=0.6 * pixel[1] + height / 250)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_visible_region_by_hand() -> None:
    # 200 × 100 to 64 × 32 / 0.5: the short side becomes 64, the middle 32 of 128 × 64 are 50 pixels of the photo
    assert visible_region(100, 200, Preprocess((32, 32), crop_fraction=0.5)) == (75, 25, 125, 75)
    assert visible_region(100, 200, Preprocess((32, 32), crop_fraction=1.0, resize="squash")) == (0, 0, 200, 100)
    tensorflow = Preprocess((32, 32), crop_fraction=0.5, resampling="tensorflow")
    assert visible_region(100, 200, tensorflow) == (75, 25, 125, 75)
