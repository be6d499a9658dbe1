"""Our own files: one safetensors that carries its whole contract."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from effnet.metadata import Labels, Numerics, Preprocess, Provenance
from effnet.net import EfficientNet, create
from effnet.net.surgery import fold_batch_norm, set_classes, set_input_channels
from effnet.weights import load, save
from effnet.weights.conversion import drop_batch_counters


@pytest.fixture
def model() -> EfficientNet:
    """A small network in which every number and every record differs from its default."""
    torch.manual_seed(0)
    network = create("nano", classes=3, numerics=Numerics("symmetric", 1e-5)).eval()
    with torch.no_grad():
        for value in drop_batch_counters(network.state_dict()).values():
            value.uniform_(0.1, 0.9)
    network.preprocess = Preprocess((40, 48), 0.9, "squash", "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "reduced")
    network.labels = Labels(("Ameise", "蜂", 'a "quoted"\nname'))
    network.provenance = Provenance("somewhere", "timm", "Apache-2.0", ("trained", "again"))
    return network


def assert_equal(found: EfficientNet, expected: EfficientNet) -> None:
    for record in ("arch", "numerics", "preprocess", "labels", "provenance", "classes", "channels"):
        assert getattr(found, record) == getattr(expected, record), record
    theirs = drop_batch_counters(expected.state_dict())
    for name, value in drop_batch_counters(found.state_dict()).items():
        assert torch.equal(value, theirs[name]), name


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_round_trip_changes_nothing(model: EfficientNet, tmp_path: Path) -> None:
    found = load(save(model, tmp_path / "model.safetensors"))
    assert_equal(found, model)
    assert not found.training
    x = torch.rand(2, 3, 33, 40)
    assert torch.equal(found(x), model(x))
    assert leftovers(tmp_path) == ["model.safetensors"]


def test_the_header_is_one_json_object(model: EfficientNet, tmp_path: Path) -> None:
    with safe_open(save(model, tmp_path / "model.safetensors"), framework="pt") as file:
        header = json.loads(file.metadata()["effnet"])
    assert set(header) == {"arch", "numerics", "preprocess", "labels", "provenance"}
    assert header["labels"]["names"] == list(model.labels.names)


def test_the_same_network_makes_the_same_bytes(model: EfficientNet, tmp_path: Path) -> None:
    first, second = (save(model, tmp_path / f"{name}.safetensors").read_bytes() for name in "ab")
    assert first == second
    assert save(load(tmp_path / "a.safetensors"), tmp_path / "c.safetensors").read_bytes() == first


def test_the_same_network_makes_the_same_bytes_in_another_process(
    model: EfficientNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save(model, tmp_path / "m.pth", "timm").read_bytes()
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert save(model, tmp_path / "m.pth", "timm").read_bytes() == first


@pytest.mark.parametrize("classes", [0, 1, 17])
@pytest.mark.parametrize("channels", [1, 4])
def test_sizes_are_read_from_the_tensors(classes: int, channels: int, tmp_path: Path) -> None:
    model = set_input_channels(set_classes(create("nano"), classes), channels)
    assert_equal(load(save(model, tmp_path / "m.safetensors")), model)


def test_a_network_in_channels_last_is_saved_as_it_is(model: EfficientNet, tmp_path: Path) -> None:
    plain = save(model, tmp_path / "a.safetensors").read_bytes()
    assert save(model.to(memory_format=torch.channels_last), tmp_path / "b.safetensors").read_bytes() == plain


def test_half_precision_is_half_the_file_and_keeps_its_values(model: EfficientNet, tmp_path: Path) -> None:
    full = save(model, tmp_path / "full.safetensors").stat().st_size
    path = save(model.half(), tmp_path / "half.safetensors")
    assert path.stat().st_size < 0.55 * full
    found = load(path)
    assert {value.dtype for value in found.parameters()} == {torch.float32}
    halves = drop_batch_counters(model.state_dict())
    assert all(
        torch.equal(value, halves[name].float()) for name, value in drop_batch_counters(found.state_dict()).items()
    )


def test_a_runs_folder_stands_for_its_model(model: EfficientNet, tmp_path: Path) -> None:
    save(model, tmp_path / "run" / "model.safetensors")  # the folder is made
    assert_equal(load(tmp_path / "run"), model)


def test_numerics_can_be_overridden(model: EfficientNet, tmp_path: Path) -> None:
    assert load(save(model, tmp_path / "m.safetensors"), numerics=Numerics()).numerics == Numerics()


def test_another_architecture_is_refused(model: EfficientNet, tmp_path: Path) -> None:
    path = save(model, tmp_path / "m.safetensors")
    assert load(path, arch="nano").arch.name == "nano"
    with pytest.raises(ValueError, match=r"m\.safetensors contains nano, not b0$"):
        load(path, arch="b0")


def test_a_folded_copy_is_not_saved(model: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch norm has been folded"):
        save(fold_batch_norm(model), tmp_path / "m.safetensors")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["m.pth", "m.bin", "m"])
def test_only_safetensors_carries_the_contract(model: EfficientNet, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layout are written to \.safetensors"):
        save(model, tmp_path / name)


def test_an_unknown_layout(model: EfficientNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout must be one of effnet, timm"):
        save(model, tmp_path / "m.safetensors", layout="caffe")


def rewritten(path: Path, change: object) -> Path:
    """The same file with another header."""
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["effnet"])
    text = change(header)  # type: ignore[operator]
    save_file(load_file(path), path, metadata={"effnet": text})
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda header: "{",
        lambda header: "[]",
        lambda header: json.dumps({"arch": header["arch"]}),
        lambda header: json.dumps({**header, "arch": {**header["arch"], "width": -1}}),
        lambda header: json.dumps({**header, "arch": None}),
        lambda header: json.dumps({**header, "labels": {"names": [1]}}),
        lambda header: json.dumps({**header, "numerics": {"padding": "valid"}}),
    ],
)
def test_a_header_that_makes_no_sense(model: EfficientNet, change: object, tmp_path: Path) -> None:
    path = rewritten(save(model, tmp_path / "m.safetensors"), change)
    with pytest.raises(ValueError, match=r"m\.safetensors: its header cannot be read"):
        load(path)


# When the disk is full -------------------------------------------------------------------------------------------


@pytest.fixture
def earlier(model: EfficientNet, tmp_path: Path) -> tuple[Path, bytes]:
    """A file that is already there, and what is in it."""
    path = save(model, tmp_path / "m.safetensors")
    return path, path.read_bytes()


def raises(error: Exception) -> object:
    def fail(*arguments: object, **more: object) -> None:
        raise error

    return fail


WRITING = "effnet.weights.formats.pytorch.save_file"
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("place", "error", "reason"),
    [
        (WRITING, FULL, "the disk is full"),
        ("os.fsync", FULL, "the disk is full"),
        ("pathlib.Path.touch", OSError(errno.EROFS, "Read-only file system"), "permission denied for the folder"),
        ("pathlib.Path.touch", PermissionError(errno.EACCES, "Permission denied"), "permission denied for the folder"),
        ("pathlib.Path.replace", OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_failing_write_keeps_the_earlier_file(
    earlier: tuple[Path, bytes], place: str, error: OSError, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = earlier
    with monkeypatch.context() as broken:
        broken.setattr(place, raises(error))
        with pytest.raises(OSError, match=f"could not be written: .*{reason}; the previous file is unchanged"):
            save(create("nano"), path)
    assert path.read_bytes() == content
    assert leftovers(path.parent) == [path.name]


@pytest.mark.parametrize("error", [RuntimeError("something else"), KeyboardInterrupt()])
def test_other_troubles_pass_through_and_leave_nothing(
    earlier: tuple[Path, bytes], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = earlier
    monkeypatch.setattr(WRITING, raises(error))
    with pytest.raises(type(error)):
        save(create("nano"), path)
    assert path.read_bytes() == content
    assert leftovers(path.parent) == [path.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk with room for one small network, not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    ("layout", "name"), [("effnet", "m.safetensors"), ("timm", "m.safetensors"), ("timm", "m.pth")]
)
def test_a_disk_that_is_really_full(model: EfficientNet, small_disk: Path, layout: str, name: str) -> None:
    path = save(model, small_disk / name, layout)
    content = path.read_bytes()
    with pytest.raises(OSError, match="could not be written: the disk is full; the previous file is unchanged"):
        save(create("nano"), path, layout)
    assert path.read_bytes() == content
    assert leftovers(small_disk) == [name]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_folder_that_may_not_be_written(model: EfficientNet, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="permission denied for the folder"):
        save(model, tmp_path / "m.safetensors")
