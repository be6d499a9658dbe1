"""AutoAugment and RandAugment beside timm's operations, and beside TensorFlow's own where the official code differs."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from effnet.data import autoaugment
from effnet.data.augment import Augment, build_augmentation, temporary_seed
from effnet.metadata import Preprocess
from tests.quiet_tensorflow import tensorflow

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photo(photos: list[Path]) -> Image.Image:
    return Image.open(photos[-1]).convert("RGB").resize((224, 176))


def array(image: Image.Image) -> Array:
    return np.asarray(image)


def apply_timm(name: str, photo: Image.Image, *arguments: float) -> Array:
    auto_augment = pytest.importorskip("timm.data.auto_augment")
    settings = {"fillcolor": (128, 128, 128), "resample": Image.Resampling.NEAREST}
    return array(auto_augment.NAME_TO_OP[name](photo, *arguments, **settings))


OPERATIONS: dict[str, tuple[Callable[..., Image.Image], tuple[tuple[float, ...], ...]]] = {
    "AutoContrast": (ImageOps.autocontrast, ((),)),
    "Equalize": (ImageOps.equalize, ((),)),
    "Invert": (ImageOps.invert, ((),)),
    "Posterize": (autoaugment.posterize, ((1,), (2,), (4,), (6,), (8,))),
    "Solarize": (autoaugment.solarize, ((0,), (51,), (179,), (230,))),
    "SolarizeAdd": (autoaugment.solarize_add, ((0,), (33,), (77,), (110,), (187,))),
    "Rotate": (autoaugment.rotate, ((0,), (21,), (-27,), (51,), (-84,))),
    "TranslateX": (autoaugment.translate, ((40,), (-90,), (170,), (37.5,))),
    "TranslateY": (lambda image, pixels: autoaugment.translate(image, y=pixels), ((40,), (-90,), (225,), (37.5,))),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_timm(name: str, photo: Image.Image) -> None:
    ours, settings = OPERATIONS[name]
    for arguments in settings:
        assert np.array_equal(array(ours(photo, *arguments)), apply_timm(name, photo, *arguments)), arguments


def test_v0_equals_timm() -> None:
    auto_augment = pytest.importorskip("timm.data.auto_augment")
    theirs = auto_augment.auto_augment_policy_v0(auto_augment._HPARAMS_DEFAULT)
    named = [[(op.name.removesuffix("Rel"), op.prob, op.magnitude) for op in line] for line in theirs]
    assert named == [list(line) for line in autoaugment.AUTOAUGMENT_V0]
    assert len(autoaugment.AUTOAUGMENT_V0) == 25


FUNCTIONS = [
    name
    for name, value in vars(autoaugment).items()
    if inspect.isfunction(value) and value.__module__ == autoaugment.__name__ and not name.startswith(("_", "build_"))
]


@pytest.mark.parametrize("name", sorted({*autoaugment.RANDAUGMENT_OPS} - {"Cutout", "Contrast"}))
def test_magnitudes_equal_timm(name: str, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    level_to_argument = pytest.importorskip("timm.data.auto_augment").LEVEL_TO_ARG[name]
    recorded: list[float] = []

    def record(image: Image.Image, *arguments: float, **named: float) -> Image.Image:
        recorded.extend(map(abs, (*arguments, *named.values())))
        return image

    for function in FUNCTIONS:
        monkeypatch.setattr(autoaugment, function, record)
    for magnitude in range(10):  # from 10 on timm's wrap no longer, and stop at a byte
        theirs = level_to_argument(magnitude, {"translate_const": 250}) if level_to_argument else ()
        recorded.clear()
        changed = autoaugment.build_operation(name, magnitude, 250)(photo)
        if name in ("Color", "Brightness", "Sharpness"):
            assert np.array_equal(array(changed), apply_timm(name, photo, *theirs)), magnitude
        else:
            assert recorded == pytest.approx(list(map(abs, theirs))), magnitude


def test_both_directions() -> None:
    gradient = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (96, 96, 3)).copy()
    moved = autoaugment.build_operation("TranslateX", 2, 100)
    torch.manual_seed(0)
    counts = Counter(int(array(moved(Image.fromarray(gradient)))[0, 32, 0]) for _ in range(400))
    assert set(counts) == {12, 52}
    assert 150 < counts[12] < 250


def nearest(photo: Image.Image, back: tuple[float, ...]) -> Array:
    """TensorFlow's ``ImageProjectiveTransform``: ``back`` takes a pixel's center to where it was, rounded."""
    tf = tensorflow()
    filled = np.concatenate([array(photo), np.ones((*array(photo).shape[:2], 1), np.uint8)], 2)[None]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=filled,
        transforms=np.array([[*back, 0, 0]], np.float32),
        output_shape=filled.shape[1:3],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    ).numpy()[0]
    return np.where(moved[..., 3:] == 0, np.uint8(128), moved[..., :3])


def rotated(photo: Image.Image, degrees: float) -> Array:
    right, bottom = photo.width - 1, photo.height - 1
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = (right - (cosine * right - sine * bottom)) / 2
    y = (bottom - (sine * right + cosine * bottom)) / 2
    return nearest(photo, (cosine, -sine, x, sine, cosine, y))


@pytest.mark.parametrize("share", [0.4, -0.9, 1.7, -2.8])
def test_geometry_equals_tensorflow(share: float, photo: Image.Image) -> None:
    pairs = {
        "rotate": (autoaugment.rotate(photo, 30 * share), rotated(photo, 30 * share)),
        "shear_x": (autoaugment.shear(photo, x=0.3 * share), nearest(photo, (1, 0.3 * share, 0, 0, 1, 0))),
        "shear_y": (autoaugment.shear(photo, y=0.3 * share), nearest(photo, (1, 0, 0, 0.3 * share, 1, 0))),
        "translate_x": (autoaugment.translate(photo, x=90 * share), nearest(photo, (1, 0, 90 * share, 0, 1, 0))),
        "translate_y": (autoaugment.translate(photo, y=90 * share), nearest(photo, (1, 0, 0, 0, 1, 90 * share))),
    }
    for name, (ours, theirs) in pairs.items():
        differ = float((array(ours) != theirs).any(2).mean())
        assert differ < (0.002 if name == "rotate" else 0.012), f"{name}: {differ:.2%} of the pixels"  # ties


def blended(first: Any, second: Any, factor: float) -> Array:
    mixed = first.astype(np.float32) + np.float32(factor) * (second.astype(np.float32) - first.astype(np.float32))
    return mixed.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(224, 176), (256, 256), (40, 33)])
@pytest.mark.parametrize("factor", [0.1, 1.72, 3.16])
def test_contrast_equals_the_official_code(factor: float, size: tuple[int, int], photo: Image.Image) -> None:
    tf = tensorflow()
    image = photo.resize(size)
    gray = tf.cast(tf.image.rgb_to_grayscale(array(image)), tf.int32)
    counts = tf.histogram_fixed_width(gray, [0, 255], nbins=256)
    level = np.clip(tf.reduce_sum(tf.cast(counts, tf.float32)).numpy() / 256, 0, 255).astype(np.uint8)
    wanted = blended(np.full_like(array(image), level), array(image), factor)
    assert np.array_equal(array(autoaugment.contrast(image, factor)), wanted)


@pytest.mark.parametrize("magnitude", [0, 2, 5, 9, 10, 15, 17, 20, 25, 28, 30])
def test_bytes_wrap_as_in_tensorflow(magnitude: int, photo: Image.Image) -> None:
    tf = tensorflow()
    x = tf.constant(array(photo))
    threshold = tf.constant(np.array(int(magnitude / 10 * 256)).astype(np.uint8))
    wanted = tf.where(x < threshold, x, 255 - x).numpy()
    assert np.array_equal(array(autoaugment.build_operation("Solarize", magnitude, 100)(photo)), wanted)
    shift = tf.constant(np.array(8 - int(magnitude / 10 * 4)).astype(np.uint8))
    wanted = tf.bitwise.left_shift(tf.bitwise.right_shift(x, shift), shift).numpy()
    assert np.array_equal(array(autoaugment.build_operation("Posterize", magnitude, 100)(photo)), wanted)


def test_tensorflow_constants_wrap() -> None:
    tf = tensorflow()
    assert [int(tf.constant(value, tf.uint8)) for value in (256, 435, -3)] == [0, 179, 253]


@pytest.mark.parametrize(("magnitude", "factor"), [(0, 0.1), (9, 1.72), (17, 3.16)])
def test_colors_equal_tensorflow_within_rounding(magnitude: float, factor: float, photo: Image.Image) -> None:
    tf = tensorflow()
    x = array(photo)

    def max_difference(name: str, base: Array) -> int:
        ours = autoaugment.build_operation(name, magnitude, 100)(photo)
        return int(np.abs(array(ours).astype(int) - blended(base, x, factor)).max())

    rounding = math.ceil(abs(1 - factor))
    assert max_difference("Color", np.repeat(tf.image.rgb_to_grayscale(x).numpy(), 3, 2)) <= rounding
    assert max_difference("Brightness", np.zeros_like(x)) == 0
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32)[:, :, None, None] / 13
    inner = tf.nn.depthwise_conv2d(x[None].astype(np.float32), np.tile(kernel, (1, 1, 3, 1)), [1] * 4, "VALID")
    smooth = x.copy()
    smooth[1:-1, 1:-1] = inner.numpy()[0].clip(0, 255).astype(np.uint8)
    assert max_difference("Sharpness", smooth) <= rounding + 1


def test_cutout_is_clipped_at_the_border() -> None:
    black = Image.new("RGB", (50, 40))
    covered = array(autoaugment.cutout(black, 10, 45, 3))
    assert (covered[:13, 35:] == 128).all()
    assert int((covered == 128).all(2).sum()) == 13 * 15
    assert not array(black).any()
    torch.manual_seed(0)
    cut = autoaugment.build_operation("Cutout", 5, 100)  # 40 pixels a side
    large = Image.new("RGB", (96, 120))
    assert max(int((array(cut(large)) == 128).all(2).sum()) for _ in range(20)) == 1600


def test_small_images_move_less() -> None:
    gradient = np.broadcast_to(np.arange(56, dtype=np.uint8)[:, None, None], (56, 56, 3)).copy()
    moved = autoaugment.build_operation("TranslateY", 4, 100)  # 40 pixels, a quarter of them: 10
    torch.manual_seed(0)
    assert {int(array(moved(Image.fromarray(gradient)))[28, 0, 0]) for _ in range(20)} == {18, 38}
    cut = autoaugment.build_operation("Cutout", 8, 100)  # 64 pixels a side, a quarter of them: 16
    found = {int((array(cut(Image.fromarray(gradient))) == 128).all(2).sum()) for _ in range(60)}
    assert max(found) == 256


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float]]:
    """Operations that only record their name, magnitude and largest shift."""
    done: list[tuple[str, float, float]] = []

    def build(*arguments: Any) -> autoaugment.ImageTransform:
        def apply(image: Image.Image) -> Image.Image:
            done.append(arguments)
            return image

        return apply

    monkeypatch.setattr(autoaugment, "build_operation", build)
    return done


def test_autoaugment_draws_policies_equally_often(applied: list[tuple[str, float, float]]) -> None:
    """The lines' frequencies and each operation's probability."""
    change = autoaugment.build_autoaugment()
    torch.manual_seed(0)
    runs = 20_000
    for _ in range(runs):
        change(Image.new("RGB", (1, 1)))
    expected: Counter[tuple[str, float, float]] = Counter()
    for line in autoaugment.AUTOAUGMENT_V0:
        for name, probability, magnitude in line:
            expected[name, magnitude, 250] += probability * runs / 25  # type: ignore[assignment]
    counted = Counter(applied)
    assert set(counted) == {key for key, count in expected.items() if count}
    for key, count in counted.items():
        assert abs(count - expected[key]) < 5 * math.sqrt(expected[key]), key


def test_randaugment_applies_num_ops(applied: list[tuple[str, float, float]]) -> None:
    change = autoaugment.build_randaugment(3, 17)
    torch.manual_seed(0)
    for _ in range(4000):
        change(Image.new("RGB", (1, 1)))
    counted = Counter(applied)
    assert len(applied) == 12_000
    assert set(counted) == {(name, 17, 100) for name in autoaugment.RANDAUGMENT_OPS}
    assert len(autoaugment.RANDAUGMENT_OPS) == 16
    assert all(abs(count - 750) < 5 * math.sqrt(750) for count in counted.values())


@pytest.mark.parametrize("name", ["autoaugment", "randaugment"])
def test_augmentation_depends_on_the_seed(name: str, photo: Image.Image) -> None:
    preprocess = Preprocess((64, 64))
    plain = build_augmentation(Augment(min_crop_area=0.08), preprocess)
    change = build_augmentation(Augment(min_crop_area=0.08, policy=name, randaugment_magnitude=28), preprocess)

    def one(function: Callable[[Image.Image], Array], seed: int) -> Array:
        with temporary_seed(seed):
            return function(photo)

    for seed in range(40):
        assert one(change, seed).shape == (64, 64, 3)
        assert np.array_equal(one(change, seed), one(change, seed))
    assert sum(not np.array_equal(one(change, seed), one(plain, seed)) for seed in range(40)) > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "trivial"}, "policy must be one of none, autoaugment, randaugment"),
        ({"randaugment_ops": 0}, "randaugment_ops must be an integer of at least 1"),
        ({"randaugment_magnitude": 31}, "randaugment_magnitude must be at least 0 and at most 30"),
        ({"mixup": -0.1}, "mixup must be at least 0"),
        ({"cutmix": float("nan")}, "cutmix must be at least 0"),
    ],
)
def test_invalid_augment(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment(**options)
