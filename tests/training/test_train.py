"""Runs from folders of small images: what is written, what is refused, what is kept."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import weakref
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.data import ImageDataset, ImageError, Splits
from effnet.data.dataset import Item
from effnet.metadata import Labels
from effnet.runtime.torch import EagerEngine
from effnet.training import init_model
from effnet.training.checkpoint import Checkpoints
from effnet.training.config import Resources
from effnet.training.distributed import Distributed
from effnet.training.ema import ExponentialMovingAverage
from effnet.training.losses import TrainingLoss
from effnet.training.recipes import RECIPES, Recipe
from tests.training.conftest import Recorder, paint

QUICK = Recipe(name="quick", epochs=2, batch_size=16, learning_rate=0.01, bn_momentum=0.3, ema_decay=0.5)
SHARED = Path(__file__).parents[2].parent / "shared"


def run(data: Path, out: Path, **settings: object) -> effnet.training.run_dir.TrainResult:
    arguments = {"model": "nano", "weights": "none", "resources": Resources(workers=0), **settings}
    return effnet.train(data, arguments.pop("recipe", QUICK), out=out, **arguments)  # type: ignore[arg-type]


def read_splits(out: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    with (out / "split.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            names.setdefault(row["split"], []).append(row["image"])
    return names


def test_folder_to_model(photos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = run(photos, tmp_path / "out", callback=recorder)
    assert result.evaluation.images == 8
    assert result.report_split == "holdout"
    model = effnet.load(tmp_path / "out")
    assert model.labels.names == ("dark", "light")
    assert model.arch == effnet.ARCHS["nano"]
    assert "recipe quick" in model.provenance.history[0]
    splits = read_splits(tmp_path / "out")
    assert {part: len(names) for part, names in splits.items()} == {"holdout": 8, "selection": 6, "train": 26}
    assert sum(map(len, splits.values())) == len(set().union(*splits.values()))
    assert {"epoch 1/2", "epoch 2/2", "validation"} <= {phase for phase, _, _ in recorder.progress}
    assert json.loads((tmp_path / "out/result.json").read_text())["top1"] == result.evaluation.top1
    assert "</html>" in (tmp_path / "out/report.html").read_text()


def test_training_state_is_released(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    averages: list[weakref.ref[object]] = []

    def make_average(model: effnet.EfficientNet, decay: float) -> ExponentialMovingAverage:
        average = ExponentialMovingAverage(model, decay)
        averages.append(weakref.ref(average))
        return average

    def evaluate(model: effnet.EfficientNet, *args: object, **settings: object) -> object:
        assert [one() for one in averages] == [None]
        assert all(parameter.grad is None for parameter in model.parameters())
        return effnet.evaluate(model, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("effnet.training.ema.ExponentialMovingAverage", make_average)
    monkeypatch.setattr("effnet.training.train.evaluate", evaluate)
    assert len(run(photos, tmp_path / "out").history) == 2


def test_same_seed_gives_same_file(photos: Path, tmp_path: Path) -> None:
    models = [
        run(photos, tmp_path / name, seed=seed).model.read_bytes() for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert models[0] == models[1] != models[2]


def test_number_of_workers_changes_nothing(photos: Path, tmp_path: Path) -> None:
    assert (
        run(photos, tmp_path / "0").model.read_bytes()
        == run(photos, tmp_path / "2", resources=Resources(workers=2)).model.read_bytes()
    )


def test_validation_set_is_only_reported_on(photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data / "train")
    paint(data / "val", "dark", 70, 4, seed=9)
    paint(data / "val", "light", 180, 4, seed=9)
    result = run(data, tmp_path / "out")
    assert result.report_split == "val"
    assert {part: len(names) for part, names in read_splits(tmp_path / "out").items()} == {
        "val": 8,
        "selection": 8,
        "train": 32,
    }
    # Other validation images, even wrongly labeled ones, give the same model: nothing was chosen on them.
    (data / "val/dark").rename(data / "val/x")
    (data / "val/light").rename(data / "val/dark")
    (data / "val/x").rename(data / "val/light")
    assert run(data, tmp_path / "other").model.read_bytes() == result.model.read_bytes()
    chosen = run(data, tmp_path / "chosen", select_on="val")
    assert {part: len(names) for part, names in read_splits(tmp_path / "chosen").items()}["train"] == 40
    assert chosen.report_split == "val (selection)"


def test_overlap_of_train_and_validation_is_reported(photos: Path, tmp_path: Path) -> None:
    data, recorder = tmp_path / "data", Recorder()
    shutil.copytree(photos, data / "train")
    paint(data / "val", "dark", 70, 4, seed=9)
    paint(data / "val", "light", 180, 4, seed=9)
    shutil.copy(data / "train/dark/00.png", data / "val/dark/copy.png")
    run(data, tmp_path / "out", epochs=1, callback=recorder)
    assert (
        "1 image of val is in train as well: dark/00.png = dark/copy.png; results on val will look better than they are"
    ) in recorder.messages


def test_directory_in_use_resumed_and_finished(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(photos, out, resume=True)  # nothing there: it starts
    before = first.model.stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="--resume"):
        run(photos, out)
    again = run(photos, out, resume=True)
    assert again.evaluations == first.evaluations
    assert again.model.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"other settings.*seed was 0"):
        run(photos, out, resume=True, seed=5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="no run to resume"):
        run(photos, tmp_path / "mine", resume=True)


def test_unreadable_images_are_reported_and_skipped(photos: Path, tmp_path: Path) -> None:
    (photos / "dark/broken.jpg").write_bytes(b"no image at all")
    recorder = Recorder()
    result = run(photos, tmp_path / "out", callback=recorder)
    assert len(result.skipped) == 1
    assert "broken.jpg" in result.skipped[0]
    assert any("1 image is unreadable" in line and "broken.jpg" in line for line in recorder.messages)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        run(photos, tmp_path / "strict", strict=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1, "minutes": 1.0}, "epochs cannot be combined with minutes"),
        ({"minutes": -1.0}, "above 0"),
        ({"epochs": 0}, "train nothing"),
        ({"recipe": "finetune"}, "--weights FILE"),
        ({"recipe": "finetun"}, "did you mean finetune"),
        ({"model": "b33"}, "did you mean b3"),
        ({"weights": None}, "--weights FILE.*--weights none"),
        ({"weights": "nowhere.pth"}, "no such weights file"),
        ({"select_on": "val"}, "requires a validation set"),
        ({"select_on": "test"}, "one of holdout, val"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"resources": Resources(device="warp9")}, "no device"),
    ],
)
def test_invalid_settings_raise_one_sentence(
    photos: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message) as raised:
        run(photos, tmp_path / "out", **settings)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out/model.safetensors").exists()


def test_failed_start_leaves_the_directory_free(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run(photos, tmp_path / "out", weights="nowhere.pth")
    with pytest.raises(FileNotFoundError):
        run(photos, tmp_path / "out", teacher="nowhere.pth")
    run(photos, tmp_path / "out")


def test_nan_loss_is_reported(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the best weights before it are saved."""
    original, calls = TrainingLoss._image_losses, []

    def losses(self: TrainingLoss, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return original(self, logits, targets) * (torch.nan if len(calls) > 3 else 1)

    monkeypatch.setattr(TrainingLoss, "_image_losses", losses)
    with pytest.raises(
        ValueError, match=r"diverged in epoch 2 .* lower learning rate.* weights after epoch 1, the best so far, are"
    ):
        run(photos, tmp_path / "out")
    assert effnet.load(tmp_path / "out" / "model.safetensors").labels.names == ("dark", "light")
    calls.clear()
    monkeypatch.setattr("effnet.weights.formats.write_checkpoint", lambda *_: raise_disk_full())
    with pytest.raises(
        ValueError, match=r"epoch 2 .* lower learning rate.*model\.safetensors could not be .* disk is full"
    ):
        run(photos, tmp_path / "full")


def raise_disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_probe_is_kept_if_the_loss_becomes_nan(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model": None, "weights": run(photos, tmp_path / "first").model}
    probe = effnet.load(run(photos, tmp_path / "probe", recipe="probe", **settings).model)
    monkeypatch.setattr(TrainingLoss, "_image_losses", lambda self, logits, targets: logits.sum(1) * torch.nan)
    with pytest.raises(ValueError, match=r"epoch 1 .* lower learning rate.*; the linear probe, the best so far"):
        run(photos, tmp_path / "out", recipe="finetune", epochs=1, **settings)
    saved = effnet.load(tmp_path / "out" / "model.safetensors")
    assert torch.equal(saved.classifier.weight, probe.classifier.weight)


def make_logits_overflow(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """The first ``epochs`` are evaluated by logits beyond float32."""
    original, left = EagerEngine.run, iter(range(epochs))

    def run(self: EagerEngine, images: np.ndarray) -> np.ndarray:
        logits = original(self, images)
        return logits if next(left, None) is None else np.full_like(logits, np.inf)

    monkeypatch.setattr(EagerEngine, "run", run)


def test_all_selection_losses_nan(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_logits_overflow(monkeypatch, 2)
    with pytest.raises(ValueError, match=r"diverged in epoch 2 \(the selection loss is NaN\): try"):
        run(photos, tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_ema_may_recover_from_overflow(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_logits_overflow(monkeypatch, 1)
    first, second = run(photos, tmp_path / "out").history
    assert first.selection_loss == inf
    assert f"{second.selection_loss:.3f} after epoch 2 of 2" in (tmp_path / "out" / "report.html").read_text()


def test_nan_in_the_ema_ends_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps before it had a loss; the best weights before it are saved."""
    original, calls = ExponentialMovingAverage.update, []

    def update(self: ExponentialMovingAverage, model: effnet.EfficientNet) -> None:
        calls.append(1)
        original(self, model)
        if len(calls) == 4:
            self.model.classifier.bias.fill_(torch.nan)

    monkeypatch.setattr(ExponentialMovingAverage, "update", update)
    with pytest.raises(ValueError, match=r"epoch 2 \(the selection loss .* after epoch 1, the best"):
        run(photos, tmp_path / "out", epochs=4)
    assert effnet.load(tmp_path / "out" / "model.safetensors").classifier.bias.isfinite().all()


@pytest.mark.parametrize(
    ("name", "epoch"), [("00002-0000000.pt", 1), ("model.safetensors", 2), ("report.html", 2), ("lr_finder.svg", None)]
)
def test_full_disk_is_reported_and_costs_no_checkpoint(
    name: str, epoch: int | None, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"learning_rate": "find", "recipe": replace(QUICK, batch_size=8)} if name == "lr_finder.svg" else {}
    moved, out = Path.replace, tmp_path / "out"

    def replaced(path: Path, target: Path) -> Path:
        return raise_disk_full() if target.name == name else moved(path, target)  # type: ignore[func-returns-value,return-value]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replaced)
        with pytest.raises(OSError, match=f"{name} could not be written: the disk is full") as raised:
            run(photos, out, **settings)
    assert "\n" not in str(raised.value)
    assert not list(out.rglob("*.part"))
    left = Checkpoints(out / "checkpoints").latest()
    assert (left and left["epoch"]) == epoch
    assert len(run(photos, out, resume=True, **settings).history) == 2


def test_out_of_memory_doubles_accumulation_steps(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = TrainingLoss.__call__, []

    def call(self: TrainingLoss, logits: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if len(logits) > 6:
            raise torch.OutOfMemoryError("out of memory")
        seen.append(len(logits))
        return original(self, logits, *rest)

    monkeypatch.setattr(TrainingLoss, "__call__", call)
    recorder = Recorder()
    run(photos, tmp_path / "out", callback=recorder)
    assert max(seen) <= 6
    assert any("out of memory: continuing with 2 gradient accumulation steps" in line for line in recorder.messages)
    monkeypatch.setattr(TrainingLoss, "__call__", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(ValueError, match="out of memory for a single image: try --checkpointing"):
        run(photos, tmp_path / "second")


def test_out_of_memory_in_one_of_several_processes_names_the_read_splits(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, recorder = TrainingLoss.__call__, Recorder()

    def call(self: TrainingLoss, logits: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if len(logits) > 6:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, logits, *rest)

    class OneOfTwo(Distributed):
        def __init__(self, *settings: Any, **named: Any) -> None:
            super().__init__(*settings, **named)
            self.world_size = 2

        def run_on_main(self, function: Any) -> Any:
            return function()

    monkeypatch.setattr(TrainingLoss, "__call__", call)
    with monkeypatch.context() as patched:
        patched.setattr("effnet.training.train.Distributed", OneOfTwo)
        with pytest.raises(ValueError, match="--resume --accumulate 2, which splits the same batch"):
            run(photos, tmp_path / "out")
    run(photos, tmp_path / "out", resume=True, callback=recorder, resources=Resources(workers=0, accumulation_steps=4))
    assert not any("out of memory" in line for line in recorder.messages)


@pytest.mark.parametrize("where", ["torch.optim.AdamW.step", "effnet.training.validation.Validator.score"])
def test_out_of_memory_outside_of_batches(
    where: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(where, fail)
    with pytest.raises(ValueError, match="out of memory: try a smaller --image-size or a smaller network"):
        run(photos, tmp_path / "out")


def test_minutes_become_epochs(photos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = run(photos, tmp_path / "out", minutes=0.02, callback=recorder)
    assert 1 <= len(result.history) <= 200
    assert any("one epoch takes about" in line for line in recorder.messages)


def test_probe_recipe(photos: Path, tmp_path: Path) -> None:
    first = run(photos, tmp_path / "first")
    recorder = Recorder()
    second = run(photos, tmp_path / "second", model=None, weights=first.model, recipe="probe", callback=recorder)
    assert second.chosen == "probe"
    assert second.probe_metric is not None
    assert second.history == ()
    assert any(line.startswith("linear probe on the frozen nano") for line in recorder.messages)


def test_fine_tuning_reports_batch_norm_mode(photos: Path, tmp_path: Path) -> None:
    """The result is the same as with the setting passed explicitly."""
    first, recorder = run(photos, tmp_path / "first"), Recorder()
    auto, frozen = (
        run(photos, tmp_path / name, model=None, weights=first.model, recipe=recipe, epochs=1, callback=recorder)
        for name, recipe in (("auto", "finetune"), ("frozen", replace(RECIPES["finetune"], batch_norm="frozen")))
    )
    assert [line for line in recorder.messages if line.startswith("batch norm")] == [
        "batch norm: frozen, since fewer than 20,000 images do not improve the statistics"
    ]
    assert [replace(one, seconds=0.0) for one in auto.history] == [replace(one, seconds=0.0) for one in frozen.history]
    assert auto.model.read_bytes() == frozen.model.read_bytes()


def test_probe_on_photos_with_real_lite0(tmp_path: Path) -> None:
    weights, data = SHARED / "weights/lite0_imagenet_backbone_timm.pth", SHARED / "data/hymenoptera"
    if not weights.is_file() or not data.is_dir():
        pytest.skip(f"{weights} or {data} is missing")
    result = effnet.train(data, "probe", weights=weights, out=tmp_path / "out")
    assert result.evaluation.images == 153
    assert result.evaluation.top1 >= 0.93


def test_validation_used_for_selection_is_never_trained_on(photos: Path, tmp_path: Path) -> None:
    start = run(photos, tmp_path / "start").model
    data = tmp_path / "data"
    shutil.copytree(photos, data / "train")
    paint(data / "val", "dark", 70, 4, seed=9)
    paint(data / "val", "light", 180, 4, seed=9)
    settings = {"model": None, "weights": start, "recipe": "probe", "select_on": "val"}
    with_val = effnet.load(run(data, tmp_path / "with", **settings).model)
    paint(data / "val", "light", 20, 4, seed=9)
    without = effnet.load(run(data, tmp_path / "without", **settings).model)
    assert torch.equal(with_val.classifier.weight, without.classifier.weight)


def test_learning_rate_is_found_once(photos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    wide = replace(QUICK, batch_size=8)
    result = run(photos, tmp_path / "out", recipe=wide, learning_rate="find", callback=recorder)
    assert any(line.startswith("learning rate: ") for line in recorder.messages)
    assert (tmp_path / "out" / "lr_finder.svg").read_text().startswith("<svg")
    assert result.history[0].learning_rate != QUICK.learning_rate
    with pytest.raises(ValueError, match='the learning rate must be a number or "find"'):
        run(photos, tmp_path / "other", learning_rate="search")


def test_test_resolution_is_tuned(photos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = run(photos, tmp_path / "out", recipe=replace(QUICK, tune_test_resolution=True), callback=recorder)
    assert any("32×32" in line for line in recorder.messages)
    assert effnet.load(result.model).preprocess.size[0] in (32, 48)


def test_stages_are_unfrozen_one_by_one(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    apply_phase: Any = init_model.apply_phase

    def apply_and_record(model: effnet.EfficientNet, *rest: object) -> None:
        apply_phase(model, *rest)
        seen.append({name.partition(".")[0] for name, value in model.named_parameters() if value.requires_grad})

    monkeypatch.setattr(init_model, "apply_phase", apply_and_record)
    run(photos, tmp_path / "out", recipe=replace(QUICK, epochs=3, unfreeze_every_epochs=1.0))
    assert seen == [{"classifier"}, {"classifier", "head"}, {"classifier", "head", "stage3"}]


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_multilabel_and_regression(kind: str, photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    dark = [path.parent.name == "dark" for path in paths]
    labels = (
        [(0,) if one else (0, 1) for one in dark] if kind == "multilabel" else [(1.0 if one else 3.0,) for one in dark]
    )
    items = tuple(
        Item(path, label, path.name + str(n)) for n, (path, label) in enumerate(zip(paths, labels, strict=True))
    )
    names = ("visible", "light") if kind == "multilabel" else ("brightness",)
    splits = Splits(ImageDataset(items, Labels(names, kind)), None, None)
    recipe = replace(QUICK, epochs=10, learning_rate=0.005, label_smoothing=0.0)
    result = run(splits, tmp_path / "out", recipe=recipe)  # type: ignore[arg-type]
    assert result.evaluation.primary_metric.value > 0.8
    assert effnet.load(result.model).labels == Labels(names, kind)
    assert (tmp_path / "out" / "report.html").exists()
    probed = run(splits, tmp_path / "probed", weights=result.model, model=None, recipe="probe")  # type: ignore[arg-type]
    assert probed.evaluation.primary_metric.value > 0.8


def test_images_of_12_bits_with_names_that_are_no_text(tmp_path: Path) -> None:
    for number in range(16):
        folder = tmp_path / "rays" / ("well" if number % 2 else os.fsdecode(b"caf\xe9"))
        folder.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 1000, (24, 24)).astype(np.uint16) + 3000 * (number % 2)
        with (folder / os.fsdecode(b"\xff%d.png" % number)).open("wb") as file:
            Image.fromarray(values).save(file, "PNG")
    result = run(tmp_path / "rays", tmp_path / "out", epochs=1)
    model = effnet.load(result.model)
    assert model.preprocess.bits == 12
    assert model.labels.names == ("caf\\xe9", "well")
    assert {name.split("/")[0] for names in read_splits(tmp_path / "out").values() for name in names} == {
        "caf\\xe9",
        "well",
    }
    assert "12 of 16 bits" in model.preprocess.describe()
    assert effnet.evaluate(model, tmp_path / "rays").images == 16
