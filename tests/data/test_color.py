"""Images as networks of other than three channels see them: read, augmented, cached, predicted, trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.data.augment import Augment, build_augmentation
from effnet.data.cache import DiskCache
from effnet.data.image_io import load_input, read_image
from effnet.data.preprocessing import normalize
from effnet.metadata import COLOR_CHANNELS, Preprocess
from tests.cli.conftest import Run, run

__all__ = ["run"]


def preprocess(color: str, **fields: object) -> Preprocess:
    channels = COLOR_CHANNELS[color]
    return Preprocess((32, 32), 1.0, mean=(0.5,) * channels, std=(0.5,) * channels, color=color, **fields)  # type: ignore[arg-type]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A photo whose left half is transparent."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8).repeat(9, 0).repeat(9, 1)
    pixels[..., 3] = 255
    pixels[:, :36, 3] = 40
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("color", COLOR_CHANNELS)
@pytest.mark.parametrize("resampling", ["pil", "tensorflow"])
def test_reading(image: Path, color: str, resampling: str) -> None:
    found = load_input(image, preprocess(color, resampling=resampling))
    assert found.shape == (32, 32, COLOR_CHANNELS[color])
    whole = read_image(image, color=color)
    assert whole.mode == color
    if color in ("RGBA", "LA"):
        assert set(np.unique(np.asarray(whole)[..., -1])) == {40, 255}
        opaque = read_image(Image.new("RGB", (4, 4), (9, 9, 9)), color=color)
        assert opaque.getpixel((0, 0)) == (9,) * (len(color) - 1) + (255,)
    else:
        assert whole.tobytes() == read_image(image).convert(color).tobytes()


def test_grey_files(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray((grey.astype(np.uint16) << 8) + 7).save(tmp_path / "16.png")
    for name in ("8.png", "16.png"):
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / name, color="L")), grey)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_the_number_of_channels_decides(channels: int, mode: str) -> None:
    assert Preprocess().with_channels(channels).color_mode == mode


def test_refusals() -> None:
    with pytest.raises(ValueError, match="takes 5 channels"):
        Preprocess().with_channels(5).color_mode  # noqa: B018
    with pytest.raises(ValueError, match="L has 1 channels, mean and std are for 3"):
        Preprocess(color="L")
    with pytest.raises(ValueError, match="not as CMYK"):
        build_augmentation(Augment(), preprocess("CMYK"))


@pytest.mark.parametrize("color", ["L", "LA", "HSV", "RGBA"])
@pytest.mark.parametrize("cached", [False, True])
def test_augmentation(image: Path, color: str, cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    settings = Augment(color_jitter=0.3, random_erasing=1.0, policy="randaugment", rotation=10)
    source = DiskCache(preprocess(color), settings.min_crop_area).get_image(image) if cached else image
    for augment in (settings, replace(settings, rotation=0.0)):
        found = build_augmentation(augment, preprocess(color))(source)
        assert (found.shape, found.dtype) == ((32, 32, COLOR_CHANNELS[color]), np.uint8)
    whole = build_augmentation(Augment(1.0, horizontal_flip=False), preprocess(color))(image)
    np.testing.assert_allclose(
        whole.astype(float).mean((0, 1)), load_input(image, preprocess(color)).mean((0, 1)), atol=60
    )


@pytest.mark.parametrize(("channels", "words"), [(1, ()), (4, ()), (4, ("--channels", "cmyk"))])
def test_predict_evaluate_explain(run: Run, image: Path, tmp_path: Path, channels: int, words: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = effnet.create("nano", classes=2, channels=channels).eval()
    model.labels = effnet.Labels(("cat", "dog"))
    path = effnet.save(model, tmp_path / "model.safetensors")
    color = words[1].upper() if words else ""
    pixels = load_input(image, replace(model.preprocess, color=color))
    with torch.no_grad():
        expected = model(normalize(torch.from_numpy(pixels[None]), model.preprocess)).softmax(1)[0]
    done = run("predict", image, "-m", path, "--exact", "--json", *words)
    assert done.status == 0, done.err
    found = {one["label"]: one["probability"] for one in json.loads(done.out)[0]["labels"]}
    assert [found[name] for name in ("cat", "dog")] == pytest.approx(expected.tolist(), abs=1e-5)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.png").write_bytes(image.read_bytes())
    assert json.loads(run("evaluate", path, tmp_path / "set", "--json", *words).out)["top1"] == 0.5
    assert run("explain", path, image, "-o", tmp_path / "maps", *words).status == 0
    assert run("export", path, tmp_path / "model.onnx", "--images", tmp_path / "set").status == 0


@pytest.mark.parametrize("color", ["grey", "RGBA"])
def test_training(run: Run, tmp_path: Path, color: str) -> None:
    noise = np.random.default_rng(0)
    for number in range(16):
        place = tmp_path / "set" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8)).save(place / f"{number}.png")
    words = ("--model", "nano", "--weights", "none", "--epochs", "1", "--channels", color)
    done = run("train", tmp_path / "set", *words, "-o", tmp_path / "run", "--workers", "0", "--track", "none")
    assert done.status == 0, done.err
    model = effnet.load(tmp_path / "run")
    assert (model.channels, model.preprocess.color_mode) == ((1, "L") if color == "grey" else (4, "RGBA"))
    # the other way round: weights of one number of channels for images of another
    more = ("--weights", tmp_path / "run" / "model.safetensors", "--channels", "rgb", "--epochs", "0")
    done = run("train", tmp_path / "set", *more, "-o", tmp_path / "next", "--workers", "0", "--track", "none")
    assert done.status == 0, done.err
    assert effnet.load(tmp_path / "next").channels == 3
