"""Cross-validation of small images: every one judged once, by a network that has not seen it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet import Predictor
from effnet.data.splits import make_folds
from effnet.data.tables.table import open_table
from effnet.prediction.ensemble import Ensemble
from effnet.prediction.out_of_fold import OutOfFold
from effnet.training import cross_validation as module
from effnet.training.config import Resources, TrainConfig
from effnet.training.cross_validation import CrossValidationResult, _claim_directory, train_folds
from tests.training.conftest import Recorder

HERE = Resources(device="cpu", workers=0)


def write_table(root: Path, labels: list[str], head: str = "image_id,label") -> Path:
    """A table of noisy images, every second one light, with these cells beside their ids."""
    rng = np.random.default_rng(0)
    (root / "train").mkdir(parents=True, exist_ok=True)
    for number in range(len(labels)):
        noise = rng.normal((70, 180)[number % 2], 25, (36, 40, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(root / f"train/{number}.png")
    rows = "".join(f"{number},{label}\n" for number, label in enumerate(labels))
    (root / "train.csv").write_text(f"{head}\n{rows}")
    return root / "train.csv"


def run(data: Path, out: Path, **settings: object) -> CrossValidationResult:
    arguments = {
        "folds": 2,
        "model": "nano",
        "weights": "none",
        "epochs": 1,
        "image_size": 32,
        "batch_size": 8,
        "resources": HERE,
    }
    return train_folds(data, "scratch", out=out, **(arguments | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve dark, twelve light, and of each one twin: a copy of its file."""
    root = tmp_path_factory.mktemp("data")
    path = write_table(root, ["dark", "light"] * 12)
    for number, of in ((24, 0), (25, 1)):
        (root / f"train/{number}.png").write_bytes((root / f"train/{of}.png").read_bytes())
    path.write_text(path.read_text() + "24,dark\n25,light\n")
    return path


@pytest.fixture(scope="module")
def done(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CrossValidationResult, Recorder]:
    recorder = Recorder()
    return run(table, tmp_path_factory.mktemp("runs") / "folds", callback=recorder), recorder


def test_every_image_is_predicted_once_by_a_model_not_trained_on_it(
    done: tuple[CrossValidationResult, Recorder], table: Path
) -> None:
    result, _ = done
    oof = OutOfFold.read(result.oof_path)
    assert Counter(oof.ids) == Counter(str(number) for number in range(26))
    assert [oof.labels.names[place] for place in oof.targets.argmax(1)] == ["dark", "light"] * 13
    for number, model in enumerate(result.models):
        with (model.parent / "split.csv").open(newline="") as file:
            trained_on = {row["image"] for row in csv.DictReader(file) if row["split"] in ("train", "selection")}
        held_out = oof.take(np.flatnonzero(oof.folds == number))
        assert len(trained_on) + len(held_out) == 26
        assert not trained_on & set(held_out.ids)
        repeated = Predictor(model, "eager", "cpu").predict_scores(
            (name, table.parent / f"train/{name}.png") for name in held_out.ids
        )
        assert held_out.predictions == pytest.approx(np.stack([row for _, row in repeated]), abs=1e-5)


def test_metrics(done: tuple[CrossValidationResult, Recorder]) -> None:
    result, recorder = done
    oof = OutOfFold.read(result.oof_path)
    assert result.metrics == pytest.approx(oof.metrics(), abs=1e-5)
    assert [fold["top1"] for fold in result.fold_metrics] == [
        oof.take(np.flatnonzero(oof.folds == number)).metrics()["top1"] for number in (0, 1)
    ]
    assert CrossValidationResult.read(result.out) == result
    saved = json.loads((result.out / "folds.json").read_text())
    assert saved["models"] == ["fold0/model.safetensors", "fold1/model.safetensors"]
    assert (saved["task"], saved["images"]) == ("classification", 26)
    assert result.summary().startswith(f"out of fold, 26 images: top-1 {result.metrics['top1']:.1%} (folds ")
    assert recorder.messages[-1] == result.summary()
    alone = result.fold_metrics[1]
    assert recorder.messages[-2] == f"fold 2/2: held out: top-1 {alone['top1']:.1%}, loss {alone['loss']:.3f}"


def test_duplicates_stay_together_and_are_reported(done: tuple[CrossValidationResult, Recorder]) -> None:
    result, recorder = done
    assert recorder.messages[0] == "2 duplicate images, kept in the same fold: 0 = 24, 1 = 25"
    fold = dict(zip(*((oof := OutOfFold.read(result.oof_path)).ids, oof.folds.tolist()), strict=True))
    assert fold["0"] == fold["24"]
    assert fold["1"] == fold["25"]


def messages_before_training(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run of folds says of the table before the first of them is trained, where it is stopped."""
    recorder = Recorder()

    def stopped(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_training", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(path, path.parent / "out", callback=recorder)
    return recorder.messages


def test_duplicates_separated_by_the_data_s_own_folds_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images 0, 1 and 2 once more: in another fold, in the same one, and in none."""
    path = write_table(tmp_path, [f"{('dark', 'light')[number % 2]},{number // 2 % 2}" for number in range(24)])
    for number, of in ((24, 0), (25, 1), (26, 2)):
        (tmp_path / f"train/{number}.png").write_bytes((tmp_path / f"train/{of}.png").read_bytes())
    rows = path.read_text().partition("\n")[2]
    path.write_text(f"image_id,label,fold\n{rows}24,dark,1\n25,light,0\n26,dark,\n")
    assert messages_before_training(path, monkeypatch)[:2] == [
        "1 duplicate image, kept in the same fold: 1 = 25",
        "2 duplicate images, separated by the data's own folds: 0 = 24, 2 = 26; metrics will look better than "
        "they are: give both files the same fold, or leave one out",
    ]


def test_directory_is_an_ensemble(done: tuple[CrossValidationResult, Recorder], table: Path) -> None:
    result, _ = done
    image = table.parent / "train/3.png"
    shares = [dict(zip(one.labels, one.probabilities, strict=True)) for model in result.models
              for one in Predictor(model, "eager")(image)]  # fmt: skip
    (prediction,) = Ensemble([result.out])(image)
    for label, share in zip(prediction.labels, prediction.probabilities, strict=True):
        assert share == pytest.approx((shares[0][label] + shares[1][label]) / 2, abs=1e-5)


def test_used_finished_and_other_folds(
    done: tuple[CrossValidationResult, Recorder], table: Path, tmp_path: Path
) -> None:
    result, _ = done
    with pytest.raises(FileExistsError, match="--resume"):
        run(table, result.out)
    before = result.oof_path.stat().st_mtime_ns
    assert run(table, result.out, resume=True) == result
    assert result.oof_path.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another --folds or --seed"):
        run(table, result.out, resume=True, folds=3)
    with pytest.raises(ValueError, match="another --folds or --seed"):
        run(table, result.out, resume=True, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").touch()
    with pytest.raises(FileExistsError, match="has no folds to resume"):
        run(table, tmp_path / "mine", resume=True)
    with pytest.raises(FileExistsError, match="is a file"):
        run(table, tmp_path / "mine/letter.txt")


def test_resume_continues_in_the_interrupted_fold(
    done: tuple[CrossValidationResult, Recorder], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = module.run_training, []

    def interrupted(config: TrainConfig) -> object:
        calls.append(config.out.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(config)

    monkeypatch.setattr(module, "run_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(table, tmp_path / "out")
    assert not (tmp_path / "out/folds.json").exists()
    written = (tmp_path / "out/fold0/model.safetensors").stat().st_mtime_ns
    repeated = run(table, tmp_path / "out", resume=True)
    assert calls == ["fold0", "fold1", "fold0", "fold1"]
    assert (tmp_path / "out/fold0/model.safetensors").stat().st_mtime_ns == written
    assert repeated.oof_path.read_bytes() == done[0].oof_path.read_bytes()


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_multilabel_and_regression(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table, its folds and figures, around a train that makes random networks."""
    import torch

    import effnet

    cells = {"multilabel": ["a|b", "b", "", "a"] * 5, "regression": [f"{number}.5" for number in range(20)]}[kind]
    splits = open_table(write_table(tmp_path, cells), kind)
    configured = []

    def record_config(config: TrainConfig) -> object:
        with torch.random.fork_rng():
            torch.manual_seed(len(configured))
            model = effnet.create("nano", classes=len(splits.train.labels.names))  # type: ignore[union-attr]
        model.labels = splits.train.labels  # type: ignore[union-attr]
        config.out.mkdir(parents=True)
        configured.append(config.data)
        return type("Made", (), {"model": effnet.save(model, config.out / "model.safetensors")})

    monkeypatch.setattr(module, "run_training", record_config)
    result = run(splits, tmp_path / "out", folds=4, tta="mirror")  # type: ignore[arg-type]
    oof = OutOfFold.read(result.oof_path, kind)
    assert oof.ids == tuple(map(str, range(20)))
    assert oof.targets == pytest.approx(splits.train.target_matrix)  # type: ignore[union-attr]
    assert (
        set(result.metrics)
        == {"multilabel": {"mean_average_precision", "label_accuracy", "loss"}, "regression": {"rmse", "r2"}}[kind]
    )
    assert result.metrics == pytest.approx(oof.metrics(), rel=1e-4)
    assert result.task == kind
    expected = make_folds(splits.train, 4, 0)  # type: ignore[arg-type]
    for (train, held_out), splits in zip(expected, configured, strict=True):
        assert [item.name for item in splits.train.items] == [item.name for item in train.items]
        assert [item.name for item in splits.val.items] == [item.name for item in held_out.items]
    if kind == "multilabel":
        assert "mean average precision" in result.summary()
    else:
        assert "RMSE" in result.summary()


def test_errors_of_the_last_fold_are_raised_before_the_first(tmp_path: Path) -> None:
    few = write_table(tmp_path, ["a", "b"] * 5 + ["rare"] * 2)
    with pytest.raises(ValueError, match="class 'rare' has only one image"):
        run(few, tmp_path / "out")
    for settings, reason in (
        ({"tta": "all"}, "tta must be"),
        ({"folds": 1}, "folds must be"),
        ({"epochs": 0}, "epochs"),
    ):
        with pytest.raises(ValueError, match=reason):
            run(few, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_group_with_a_whole_class_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path, ["a,", "b,"] * 6 + ["c,one"] * 3, "image_id,label,group")
    recorder = messages_before_training(path, monkeypatch)
    assert any("holds out all images of 'c', which are in one group" in line for line in recorder)


def test_folds_are_compared_by_what_their_table_says(tmp_path: Path) -> None:
    safe, exact, other = (f"id,label,fold\n{name},a,0\n" for name in ("'=1.jpg", "=1.jpg", "=2.jpg"))
    _claim_directory(tmp_path / "out", exact, resume=False)
    _claim_directory(tmp_path / "out", safe, resume=True)
    with pytest.raises(ValueError, match="has folds of other images"):
        _claim_directory(tmp_path / "out", other, resume=True)
