from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import effnet
from effnet import EfficientNet, Prediction, Predictor
from effnet.data import ImageError, load_input
from effnet.data.preprocessing import normalize
from effnet.prediction.batched_inference import run_batches
from effnet.runtime.autotune import BATCH_SIZES
from tests.prediction.compare import assert_same_prediction

PACKAGE = Path(effnet.__file__).parent
LITE0 = Path(__file__).parents[3] / "shared" / "weights" / "lite0_imagenet_backbone_timm.pth"


@pytest.fixture(scope="module")
def model() -> EfficientNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = effnet.create("nano", classes=7)
    made.labels = effnet.Labels(tuple("abcdefg"))
    return made.eval()


@pytest.fixture(scope="module")
def arrays() -> list[NDArray[np.uint8]]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (height, 48, 3), np.uint8) for height in (30, 40, 50, 60, 70)]


@pytest.fixture
def paths(tmp_path: Path, arrays: list[NDArray[np.uint8]]) -> list[Path]:
    found = [tmp_path / f"{index}.png" for index in range(len(arrays))]
    for path, array in zip(found, arrays, strict=True):
        Image.fromarray(array).save(path)
    return found


def direct(model: EfficientNet, arrays: list[NDArray[np.uint8]]) -> torch.Tensor:
    """Logits of the network itself."""
    x = np.stack([load_input(array, model.preprocess) for array in arrays])
    with torch.inference_mode():
        logits: torch.Tensor = model(normalize(torch.from_numpy(x), model.preprocess))
    return logits


def test_equals_the_network(model: EfficientNet, arrays: list[NDArray[np.uint8]]) -> None:
    expected = direct(model, arrays).softmax(1)
    for one, shares in zip(Predictor(model, batch_size=2)(arrays), expected, strict=True):
        values, indices = shares.topk(5)
        assert one.labels == tuple("abcdefg"[int(index)] for index in indices)
        assert one.probabilities == pytest.approx(values.numpy(), abs=1e-5)
        assert one.label == one.labels[0]
        assert one.probability == one.probabilities[0]


def test_image_sources(model: EfficientNet, arrays: list[NDArray[np.uint8]], paths: list[Path]) -> None:
    predictor = Predictor(model)
    expected = predictor(arrays)
    images = [Image.fromarray(array) for array in arrays]
    contents = [path.read_bytes() for path in paths]
    for sources in (paths, list(map(str, paths)), images, contents, iter(arrays)):
        found = predictor(sources)
        assert [replace(one, image="") for one in found] == [replace(one, image="") for one in expected]
    assert [one.image for one in predictor(paths)] == [str(path) for path in paths]
    assert [one.image for one in predictor(images)] == [f"image {number}" for number in range(1, 6)]


def test_single_image(model: EfficientNet, arrays: list[NDArray[np.uint8]], paths: list[Path]) -> None:
    predictor = Predictor(model)
    (expected,) = predictor(arrays[:1])
    for one in (arrays[0], paths[0], str(paths[0]), paths[0].read_bytes(), Image.fromarray(arrays[0])):
        (found,) = predictor(one)
        assert found.probabilities == expected.probabilities
    assert len(predictor(np.stack([arrays[0]] * 3))) == 3
    assert predictor([]) == []


def test_few_frames_to_the_engine(model: EfficientNet, arrays: list[NDArray[np.uint8]]) -> None:
    """From the call to the engine's ``run`` at most four functions of ours."""
    predictor, stacks = Predictor(model, "eager"), []
    run = predictor.engine.run

    def spy(images: NDArray[np.float32]) -> NDArray[np.float32]:
        ours = (frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE))
        stacks.append([frame.name for frame in ours])
        return run(images)

    predictor.engine.run = spy  # type: ignore[method-assign, assignment]
    predictor(arrays[0])
    assert stacks == [["__call__", "to_predictions", "run_batches", "compute"]]


def test_weights_file(model: EfficientNet, arrays: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    path = effnet.save(model, tmp_path / "model.safetensors")
    first, *others = (Predictor(each, engine="eager")(arrays) for each in (path, str(tmp_path), model))
    assert others == [first, first]


def test_unreadable_images(model: EfficientNet, paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(paths[0].read_bytes()[:500])
    sources = [paths[0], tmp_path / "cut.png", tmp_path / "no.png", paths[1], tmp_path / "no.png"]
    found = Predictor(model, engine="eager", batch_size=1)(sources)  # batches differ in the last bits
    assert [one.image for one in found] == [str(path) for path in sources]
    assert [bool(one.error) for one in found] == [False, True, True, False, True]
    assert "is damaged" in found[1].error
    assert "does not exist" in found[2].error
    assert (found[1].label, found[1].probability) == ("", 0)
    assert [found[0], found[3]] == Predictor(model, engine="eager", batch_size=1)(paths[:2])


def test_stream_in_bounded_memory(model: EfficientNet, arrays: list[NDArray[np.uint8]]) -> None:
    asked = 0

    def endless() -> Iterator[tuple[str, NDArray[np.uint8] | ImageError]]:
        nonlocal asked
        while True:
            asked += 1
            yield f"{asked}", arrays[0] if asked % 3 else ImageError(f"{asked} is no image")

    stream = Predictor(model, batch_size=4).stream(endless())
    first = [next(stream) for _ in range(20)]
    assert [one.image for one in first] == [str(number) for number in range(1, 21)]
    assert [one.error for one in first[:3]] == ["", "", "3 is no image"]
    assert asked < 20 + 4 * 64 + 8  # a few per core ahead
    stream.close()  # type: ignore[attr-defined]


def test_top(model: EfficientNet, arrays: list[NDArray[np.uint8]]) -> None:
    predictor = Predictor(model)
    assert [len(predictor(arrays[:1], top=top)[0].labels) for top in (1, 3, 7, 100)] == [1, 3, 7, 7]
    assert sum(predictor(arrays[:1], top=7)[0].probabilities) == pytest.approx(1)
    with pytest.raises(ValueError, match="top must be"):
        predictor(arrays, top=0)


def test_unknown_labels(arrays: list[NDArray[np.uint8]]) -> None:
    found = Predictor(effnet.create("nano", classes=3))(arrays[:1])
    assert set(found[0].labels) == {"class 0", "class 1", "class 2"}


def test_embeddings(model: EfficientNet, arrays: list[NDArray[np.uint8]]) -> None:
    named = [("good", arrays[0]), ("bad", np.zeros((3, 3), np.float32)), ("last", arrays[1])]
    (_, first), (name, error), (_, last) = Predictor(model).embeddings(named)  # type: ignore[arg-type]
    x = normalize(torch.from_numpy(np.stack([load_input(a, model.preprocess) for a in arrays[:2]])), model.preprocess)
    with torch.inference_mode():
        expected = model.embed(x).numpy()
    assert isinstance(error, ImageError)
    assert name == "bad"
    assert first == pytest.approx(expected[0], abs=1e-5)
    assert last == pytest.approx(expected[1], abs=1e-5)


def test_missing_classifier(arrays: list[NDArray[np.uint8]]) -> None:
    predictor = Predictor(effnet.create("nano", classes=0))
    with pytest.raises(ValueError, match="has no classifier"):
        predictor(arrays)
    assert len(list(predictor.embeddings([("a", arrays[0])]))) == 1


def test_decode(model: EfficientNet, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    rows, columns = np.mgrid[0:600, 0:800]
    Image.fromarray(np.stack([rows // 3, columns // 4, rows // 4], -1).astype(np.uint8)).save(path)
    exact, reduced = (Predictor(model, decode=decode)(path)[0] for decode in ("exact", "reduced"))
    assert exact.probabilities != reduced.probabilities
    assert exact.probabilities == pytest.approx(reduced.probabilities, abs=0.02)
    expected = direct(model, [path]).softmax(1).max()  # type: ignore[list-item]
    assert exact.probability == pytest.approx(float(expected), abs=1e-5)


def test_invalid_arguments(model: EfficientNet) -> None:
    with pytest.raises(ValueError, match="takes 5 channels, and no kind of image has as many"):
        Predictor(effnet.create("nano", channels=5))(Image.new("RGB", (9, 9)))
    with pytest.raises(ValueError, match="engine must be one of"):
        Predictor(model, engine="warp")
    with pytest.raises(ValueError, match="batch_size must be"):
        Predictor(model, batch_size=0)
    with pytest.raises(ValueError, match="no device"):
        Predictor(model, device="tpu9")
    with pytest.raises(ValueError, match="decode must be"):
        Predictor(model, decode="half")


def test_damaged_weights(arrays: list[NDArray[np.uint8]]) -> None:
    broken = effnet.create("nano", classes=3)
    assert isinstance(broken.classifier, torch.nn.Linear)
    torch.nn.init.constant_(broken.classifier.bias, float("nan"))
    with pytest.raises(ValueError, match="its weights are damaged"):
        Predictor(broken)(arrays)


def test_only_unreadable_images(model: EfficientNet) -> None:
    def never(_: object) -> NDArray[np.float32]:
        raise AssertionError("nothing to compute")

    found = list(run_batches(never, [("a", ImageError("so")), ("b", ImageError("no"))], model.preprocess, batch_size=1))
    assert [name for name, _ in found] == ["a", "b"]


def test_to_dict() -> None:
    one = Prediction("a.jpg", ("cat", "dog"), (0.75, 0.25))
    assert json.loads(json.dumps(one.to_dict())) == {
        "image": "a.jpg",
        "labels": [{"label": "cat", "probability": 0.75}, {"label": "dog", "probability": 0.25}],
    }
    assert Prediction("b.jpg", error="b.jpg is empty").to_dict() == {"image": "b.jpg", "error": "b.jpg is empty"}


@pytest.mark.skipif(not LITE0.is_file(), reason="no such weights here")
def test_real_weights(arrays: list[NDArray[np.uint8]]) -> None:
    predictor = Predictor(LITE0)
    (_, found), (_, other) = predictor.embeddings([("a", arrays[0]), ("b", arrays[1])])
    assert isinstance(found, np.ndarray)
    assert isinstance(other, np.ndarray)
    assert found.shape == (1280,)
    assert np.abs(found - other).max() > 0.1


class TestEngines:
    """With ``engine="auto"``: PyTorch first, then a file, then the fastest."""

    @pytest.fixture(autouse=True)
    def _home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))

    @pytest.fixture
    def path(self, model: EfficientNet, tmp_path: Path) -> Path:
        return effnet.save(model, tmp_path / "model.safetensors")

    def test_first_image_in_torch(self, path: Path, arrays: list[NDArray[np.uint8]]) -> None:
        predictor = Predictor(path)
        (one,) = predictor(arrays[0])
        assert predictor.engine.kind == "eager"
        assert one.label == Predictor(path, engine="eager")(arrays[0])[0].label

    def test_cached_engine_starts_without_torch(self, path: Path, paths: list[Path]) -> None:
        first = Predictor(path)
        expected = first(paths)
        first.cache_engine_file()
        code = (
            "import sys; from effnet import Predictor\n"
            "found = Predictor(sys.argv[1]); print(found.engine.kind)\n"
            "print(*[one.label for one in found(sys.argv[2:])])\n"
            "assert 'torch' not in sys.modules"
        )
        command = [sys.executable, "-c", code, str(path), *map(str, paths)]
        kind, labels = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert kind != "eager"
        assert labels.split() == [one.label for one in expected]

    def test_autotunes_when_it_pays(
        self, path: Path, arrays: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("effnet.prediction.predictor.AUTOTUNE_AFTER_IMAGES", 4)
        predictor = Predictor(path, batch_size=2, threads=1)
        expected = Predictor(path, engine="eager", batch_size=2)(arrays)
        kinds = []
        for one, right in zip(predictor.stream(enumerate_named(arrays)), expected, strict=True):
            kinds.append(predictor.engine.kind)
            assert_same_prediction(one, right, 1e-5)
        assert kinds[0] == "eager"
        assert kinds[2] != "eager"  # the file that was written after the first batch
        assert predictor.choose_engine(2) is predictor.engine
        remembered = Predictor(path, batch_size=2, threads=1)
        assert remembered.choose_engine().kind == predictor.engine.kind

    def test_tunes_the_batch_size_when_it_pays(
        self, path: Path, arrays: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("effnet.prediction.predictor.AUTOTUNE_AFTER_IMAGES", 2)
        monkeypatch.setattr("effnet.prediction.predictor.TUNE_BATCH_AFTER_IMAGES", 4)
        monkeypatch.setattr("effnet.prediction.batched_inference.DEFAULT_BATCH_SIZE", 2)
        predictor = Predictor(path, threads=1)
        assert predictor.batch_size == 2
        expected = Predictor(path, engine="eager", batch_size=2)(arrays)
        for one, right in zip(predictor.stream(enumerate_named(arrays)), expected, strict=True):
            assert_same_prediction(one, right)
        assert predictor.batch_size in BATCH_SIZES
        assert predictor.choose_engine() is predictor.engine
        asked = Predictor(path, batch_size=3, threads=1)
        asked.choose_engine()
        assert asked.batch_size == 3
        with pytest.raises(ValueError, match="batch_size must be"):
            Predictor(path, batch_size=0)

    def test_later_changes_of_the_network(self, arrays: list[NDArray[np.uint8]]) -> None:
        network = effnet.create("nano", classes=7).eval()
        predictor = Predictor(network)
        before = predictor(arrays)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        predictor.cache_engine_file()
        for one, same in zip(before, predictor(arrays), strict=True):
            assert one.probabilities == pytest.approx(same.probabilities, abs=1e-5)

    @pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
    def test_exported_files(
        self, model: EfficientNet, arrays: list[NDArray[np.uint8]], tmp_path: Path, suffix: str
    ) -> None:
        exported = effnet.export(model, tmp_path / f"model{suffix}").path
        predictor = Predictor(exported)
        assert predictor.labels == model.labels
        for one, right in zip(predictor(arrays), Predictor(model, engine="eager")(arrays), strict=True):
            assert_same_prediction(one, right)
        with pytest.raises(ValueError, match="was exported and runs on the CPU"):
            Predictor(exported, device="cuda")

    def test_device(self, path: Path) -> None:
        with pytest.raises(ValueError, match="onnxruntime runs on the CPU"):
            Predictor(path, engine="onnxruntime", device="cpu")
        assert Predictor(path, device="cpu").engine.kind == "eager"

    def test_invalid_threads(self, path: Path) -> None:
        with pytest.raises(ValueError, match="threads"):
            Predictor(path, threads=0)


def enumerate_named(arrays: list[NDArray[np.uint8]]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    yield from ((str(index), array) for index, array in enumerate(arrays))
