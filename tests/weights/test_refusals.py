"""Files that are not what they should be, and names without a file: one clear sentence each."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from effnet.arch import ARCHS
from effnet.net import create
from effnet.weights import convert, load, save
from effnet.weights.conversion import counted
from effnet.weights.formats import read
from effnet.weights.formats.pytorch import unwrap

State = dict[str, Tensor]


@pytest.fixture
def timm_state() -> State:
    torch.manual_seed(0)
    return convert(counted(create("nano", classes=5).state_dict()), ARCHS["nano"], "effnet", "timm")


def test_every_difference_is_in_one_message(timm_state: State, tmp_path: Path) -> None:
    del timm_state["conv_head.weight"], timm_state["bn2.bias"]
    timm_state["blocks.0.0.conv.weight"] = torch.zeros(16, 3, 3, 3)
    timm_state["classifier.weight"] = torch.zeros(5, 7)
    timm_state["extra.one"] = torch.zeros(2)
    timm_state["extra.two"] = torch.tensor(1.0)
    torch.save(timm_state, tmp_path / "m.pth")
    with pytest.raises(ValueError) as raised:
        load(tmp_path / "m.pth", arch="nano")
    assert str(raised.value).splitlines() == [
        "these are not the weights of nano in timm's layout; 6 differ:",
        "  missing conv_head.weight 192×48×1×1",
        "  missing bn2.bias 192",
        "  extra extra.one 2",
        "  extra extra.two scalar",
        "  misshapen blocks.0.0.conv.weight: 16×3×3×3 in place of 16×16×3×3",
        "  misshapen classifier.weight: 5×7 in place of 5×192",
    ]


def test_convert_lists_them_too(timm_state: State) -> None:
    del timm_state["bn1.weight"]
    with pytest.raises(ValueError, match=r"1 differ:\n  missing bn1\.weight 16"):
        convert(timm_state, ARCHS["nano"])


@pytest.mark.parametrize(
    ("name", "misshapen"),
    [
        ("conv_stem.weight", torch.tensor(1.0)),
        ("conv_stem.weight", torch.zeros(3)),
        ("classifier.weight", torch.zeros(3)),
        ("classifier.weight", torch.zeros(0, 192)),
        pytest.param(
            "classifier.weight",
            torch.tensor(1.0),
        ),
    ],
)
def test_tensors_of_any_shape_are_complained_about(
    timm_state: State, name: str, misshapen: Tensor, tmp_path: Path
) -> None:
    torch.save({**timm_state, name: misshapen}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=name):
        load(tmp_path / "m.pth", arch="nano")


def test_weights_of_another_architecture_are_named_in_one_sentence(tmp_path: Path) -> None:
    save(create("b0"), tmp_path / "m.pth", layout="timm")
    with pytest.raises(ValueError, match=r"m\.pth holds b0 \(timm's layout\), not lite0$"):
        load(tmp_path / "m.pth", arch="efficientnet-lite0")


def test_weights_of_no_architecture_known(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"its 1 tensors are those of no EfficientNet known here; give arch="):
        load(tmp_path / "m.pth")


# Files that are damaged, or more than files ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"", lambda b: b[:5], lambda b: b"\xff" * 64 + b[64:]],
    ids=["half", "last byte gone", "empty", "five bytes", "header overwritten"],
)
def test_a_damaged_file_is_named(
    suffix: str, damage: Callable[[bytes], bytes], timm_state: State, tmp_path: Path
) -> None:
    path = save(create("nano"), tmp_path / f"m{suffix}", layout="timm")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"m\{suffix}: "):
        load(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("content", [b"<html>404 Not Found</html>", b"\x89PNG\r\n\x1a\n" + bytes(64), bytes(64)])
def test_a_file_of_something_else_is_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"m\{suffix}: "):
        load(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_flipped_bytes_never_end_in_anything_but_a_sentence(suffix: str, tmp_path: Path) -> None:
    path = save(create("nano"), tmp_path / f"m{suffix}", layout="timm")
    content, chance = path.read_bytes(), random.Random(0)
    ends = [*range(256), *range(len(content) - 256, len(content))]
    complaints = []
    for _ in range(60):
        damaged = bytearray(content)
        for place in chance.sample(ends, 3):
            damaged[place] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except ValueError as error:
            complaints.append(str(error))
    assert complaints
    assert all(complaint.startswith(f"{path}: ") for complaint in complaints)


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    "writer",
    [
        torch.save,
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
        pytest.param(
            lambda content, path: path.write_bytes(pickle.dumps(content)),
        ),
    ],
    ids=["torch.save", "pickle", "newer pickle"],
)
def test_a_file_that_would_run_a_program_is_left_alone(
    writer: Callable[[object, Path], object], timm_state: State, tmp_path: Path
) -> None:
    sprung = tmp_path / "sprung"
    writer({**timm_state, "trap": Trap(sprung)}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth: not a file of tensors only; such a file can run programs"):
        load(tmp_path / "m.pth")
    assert not sprung.exists()


# What training scripts wrap around the weights -------------------------------------------------------------------


def prefixed(prefix: str) -> Callable[[State], dict[str, object]]:
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {}}, "args": None},
        lambda state: {"model_state_dict": state},
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        lambda state: {"state_dict": prefixed("module.")(state)},
    ],
)
def test_wrappers_are_taken_off(wrap: Callable[[State], object], timm_state: State, tmp_path: Path) -> None:
    torch.save(wrap(timm_state), tmp_path / "m.pth")
    model = load(tmp_path / "m.pth")
    assert (model.arch.name, model.classes) == ("nano", 5)
    assert torch.equal(model.stem.conv.weight, timm_state["conv_stem.weight"])


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("plain", ["state_dict", "model"])
def test_an_average_is_preferred(average: str, plain: str, timm_state: State, tmp_path: Path) -> None:
    averaged = {name: value + 1 for name, value in timm_state.items()}
    torch.save({plain: timm_state, average: averaged}, tmp_path / "m.pth")
    assert torch.equal(load(tmp_path / "m.pth").stem.conv.weight, averaged["conv_stem.weight"])


def test_prefixes_in_the_other_order(timm_state: State, tmp_path: Path) -> None:
    """A compiled module around a distributed one."""
    torch.save(prefixed("_orig_mod.module.")(timm_state), tmp_path / "m.pth")
    assert load(tmp_path / "m.pth").arch.name == "nano"


def test_torchs_own_average_is_opened(tmp_path: Path) -> None:
    """torchvision's training scripts save one; it counts its updates in a tensor beside the weights."""
    averaged = torch.optim.swa_utils.AveragedModel(create("nano")).state_dict()
    assert "n_averaged" in averaged
    torch.save({"model_ema": averaged}, tmp_path / "m.pth")
    assert load(tmp_path / "m.pth").arch.name == "nano"


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, "text", 7, None, {"state_dict": {"a": "b"}}])
def test_no_tensors_in_it(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m\.pth: no tensors by name in it"):
        load(tmp_path / "m.pth")
    with pytest.raises(ValueError, match="no tensors by name in it"):
        unwrap(content, tmp_path / "m.pth")


# Names without a file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b0", "efficientnet-b0", "tf_efficientnet_b0", "EfficientNetB0"])
def test_a_mere_name_says_what_to_give(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^b0: .*--weights FILE, or --weights none"):
        load(name)


@pytest.mark.parametrize(
    ("typo", "meant"), [("efficientnet-b9", r"b\d"), ("lit0", "lite0"), ("v2s_", None), ("nanno", "nano")]
)
def test_a_typo_is_answered_with_the_nearest_name(
    typo: str, meant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"did you mean {meant}" if meant else "--weights FILE"):
        load(typo)


def test_a_published_tag_is_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--weights FILE"):
        load("tf_efficientnet_b0.ns_jft_in1k")


@pytest.mark.parametrize("path", ["model.safetensors", "runs/one", "./b0.pth"])
def test_a_path_with_nothing_there(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such file of weights"):
        load(path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file of weights"):
        load(tmp_path)
