from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import effnet
from effnet.data import ImageDataset, Item, Splits
from effnet.data.preprocessing import normalize
from effnet.metadata import Labels, Numerics
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.training.model_soup import make_soup, soup_runs
from effnet.training.validation import score_model
from effnet.weights import save
from tests.squares import CLASSES, squares, trained_on_squares


def make_network(seed: int = 0) -> EfficientNet:
    torch.manual_seed(seed)
    return effnet.create("nano", classes=3).eval()


def shift_model(model: EfficientNet, amount: float) -> EfficientNet:
    """``model`` with ``amount`` added to its classifier's first bias, and to batch norm's first mean."""
    other = copy_model(model)
    with torch.no_grad():
        assert isinstance(other.classifier, nn.Linear)
        other.classifier.bias[0] += amount
        norm = next(module for module in other.modules() if isinstance(module, nn.BatchNorm2d))
        assert norm.running_mean is not None
        norm.running_mean[0] += amount
    return other


def copy_model(model: EfficientNet) -> EfficientNet:
    other = EfficientNet(model.arch, model.classes, model.channels, model.numerics, model.preprocess, model.labels)
    other.load_state_dict(model.state_dict())
    return other.eval()


def bias(model: EfficientNet) -> float:
    assert isinstance(model.classifier, nn.Linear)
    return float(model.classifier.bias[0].detach())


def test_weights_and_statistics_of_all_are_averaged() -> None:
    base = make_network()
    models = [shift_model(base, amount) for amount in (1.0, 2.0, -6.0)]
    losses = iter([0.3, 0.4, 0.5, 0.2, 0.1])  # of each network, and of two averages
    averaged, soup = make_soup(models, lambda model: next(losses))
    assert soup.members == (0, 1, 2)
    assert soup.model_losses == (0.3, 0.4, 0.5)
    assert soup.loss == 0.1
    assert [candidate.accepted for candidate in soup.candidates] == [True, True]
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            mean = sum(model.state_dict()[name].double() for model in models) / 3
            assert torch.allclose(value, mean.float(), atol=1e-6), name
        else:
            assert torch.equal(value, base.state_dict()[name]), name
    assert [bias(model) for model in models] == pytest.approx([1, 2, -6])  # untouched
    assert not averaged.training
    assert "averaged with 2 others" in averaged.provenance.history[-1]
    assert "average of networks 1, 2, 3" in soup.summary()


def test_greedy_accepts_what_helps() -> None:
    base = make_network()
    models = [shift_model(base, amount) for amount in (3.0, -1.0, 50.0, -2.0)]
    averaged, soup = make_soup(models, lambda model: abs(bias(model)))
    # From the best on: −1; with −2 it is −1.5, worse; with 3 it is 1, no better; with 50 it is far off
    assert soup.members == (1,)
    assert [(candidate.members, candidate.accepted) for candidate in soup.candidates] == [
        ((1, 3), False),
        ((1, 0), False),
        ((1, 2), False),
    ]
    assert "no average of these 4 networks is better than number 2 alone" in soup.summary()
    assert bias(averaged) == pytest.approx(-1)
    averaged, soup = make_soup([*models, shift_model(base, 1.2)], lambda model: abs(bias(model)))
    assert soup.members == (1, 4)
    assert soup.loss == pytest.approx(0.1)
    assert bias(averaged) == pytest.approx(0.1)
    assert "networks 2, 5: loss 0.1000, the best of them alone 1.0000" in soup.summary()


def test_never_worse_than_the_best_alone() -> None:
    base = make_network()
    for seed in range(6):
        torch.manual_seed(seed)
        models = [shift_model(base, float(amount)) for amount in torch.randn(4) * 3]
        averaged, soup = make_soup(models, lambda model: abs(bias(model) - 0.3))
        assert abs(bias(averaged) - 0.3) == pytest.approx(soup.loss)
        assert soup.loss <= min(soup.model_losses)


def test_nan_weights_are_left_out() -> None:
    base = make_network()
    models = [shift_model(base, amount) for amount in (2.0, float("nan"), -1.0)]
    averaged, soup = make_soup(models, lambda model: abs(bias(model)))
    assert soup.members == (2, 0)
    assert bias(averaged) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="weights are damaged"):
        make_soup([shift_model(base, float("nan"))] * 2, lambda model: abs(bias(model)))


def test_incompatible_networks() -> None:
    base = make_network()
    other = copy_model(base)
    for what, changed in {
        "architecture": effnet.create(replace(base.arch, name="other"), classes=3),
        "classes": effnet.create("nano", classes=4),
        "numerics": effnet.create("nano", classes=3, numerics=Numerics("symmetric")),
    }.items():
        with pytest.raises(ValueError, match=f"network 3 differs from the first in its {what}") as raised:
            make_soup([base, other, changed], lambda model: 0.0)
        assert "\n" not in str(raised.value)
    other.labels = Labels(("a", "b", "c"))
    with pytest.raises(ValueError, match="differs from the first in its labels"):
        make_soup([base, other], lambda model: 0.0)
    with pytest.raises(ValueError, match="at least two networks, got 1"):
        make_soup([base], lambda model: 0.0)
    with pytest.raises(ValueError, match="batch norm is folded"):
        make_soup([fold_batch_norm(base), fold_batch_norm(base)], lambda model: 0.0)


def test_score_model_equals_the_network() -> None:
    model, images = trained_on_squares(), squares(60, seed=7)
    score = score_model(model, images, "cpu")
    from effnet.data import load_input

    inputs = torch.stack([torch.from_numpy(load_input(item.image, model.preprocess)) for item in images.items])
    with torch.inference_mode():
        logits = model(normalize(inputs, model.preprocess)).double() * score.logit_scale
    losses = nn.functional.cross_entropy(logits, torch.from_numpy(images.targets), reduction="none")
    assert torch.allclose(torch.tensor(score.losses).double(), losses, atol=1e-3)
    assert score.metric == float((logits.argmax(1).numpy() == images.targets).mean())


# --- finished runs


def write_run(
    folder: Path, model: EfficientNet, select: list[str], chosen: str = "fine-tuned", on: str = "holdout"
) -> Path:
    folder.mkdir()
    save(model, folder / "model.safetensors")
    with (folder / "split.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "label", "split"))
        rows.writerows((name, "x", "selection") for name in select)
        rows.writerow(("elsewhere", "x", "train"))
    (folder / "run.json").write_text(json.dumps({"select_on": on}))
    result = {"chosen": chosen, "evaluations": {}, "history": [], "probe_metric": None, "skipped": [], "seconds": 0.0}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def add_noise(model: EfficientNet, seed: int) -> EfficientNet:
    other = copy_model(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        assert isinstance(other.classifier, nn.Linear)
        other.classifier.weight += torch.randn_like(other.classifier.weight) * other.classifier.weight.std()
    return other


def test_soup_of_runs(tmp_path: Path) -> None:
    base, images = trained_on_squares(), squares(120, seed=7)
    names = [item.name for item in images.items[:60]]
    runs = [write_run(tmp_path / str(seed), add_noise(base, seed), names) for seed in range(3)]
    splits = Splits(images, None, None)
    averaged, soup = soup_runs(runs, splits, device="cpu")
    assert len(soup.members) > 1  # errors of their own, which an average loses
    assert soup.loss < min(soup.model_losses)
    score = score_model(averaged, images.subset(range(60)), "cpu")
    assert score.loss == pytest.approx(soup.loss, rel=1e-3)
    assert score.logit_scale == pytest.approx(1, rel=0.2)  # the logits are scaled already
    assert averaged.labels.names == CLASSES


def test_incomparable_runs(tmp_path: Path) -> None:
    base, images = trained_on_squares(), squares(40, seed=7)
    splits = Splits(images, None, None)
    names = [item.name for item in images.items]
    one = write_run(tmp_path / "one", base, names[:20])
    for folder, message in {
        write_run(tmp_path / "other", base, names[15:35]): r"only 5 selection images in common.*same --seed",
        write_run(tmp_path / "probe", base, names[:20], chosen="probe"): "kept its linear probe",
        write_run(tmp_path / "val", base, names[:20], on="val"): "pass runs that agree",
        tmp_path / "none": "has no finished run",
    }.items():
        with pytest.raises(ValueError, match=message):
            soup_runs([one, folder], splits, device="cpu")
    two = write_run(tmp_path / "two", base, names[:20])
    with pytest.raises(ValueError, match="has 10 of the 20 selection images"):
        soup_runs([one, two], Splits(images.subset(range(10)), None, None), device="cpu")


def test_runs_selected_on_the_validation_set(tmp_path: Path) -> None:
    base, images = trained_on_squares(), squares(60, seed=7)
    names = [item.name for item in images.items]
    runs = [write_run(tmp_path / str(seed), add_noise(base, seed), names, on="val") for seed in range(2)]
    wrong = ImageDataset(tuple(Item(item.image, 0, item.name) for item in images.items), images.labels)
    _, soup = soup_runs(runs, Splits(wrong, images, None), device="cpu")
    assert soup.model_losses[0] == pytest.approx(score_model(add_noise(base, 0), images, "cpu").loss, rel=1e-3)
