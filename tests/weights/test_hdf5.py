"""Files of HDF5 and Keras' archives that are cut off, damaged, or more than files: one clear sentence each."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from effnet.weights import load
from effnet.weights.formats import hdf5, read_checkpoint

SUFFIXES = (".h5", ".weights.h5", ".keras")


def small(kind: str) -> bytes:
    """The stem alone, in each kind of file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        name = "stem_conv/stem_conv/kernel:0" if kind == ".h5" else "layers/conv2d/vars/0"
        file[name] = np.ones((3, 3, 3, 32), np.float32)
        if kind == ".h5":
            file.attrs["layer_names"] = [b"stem_conv"]
        else:
            file["layers/conv2d/vars"].attrs["name"] = "stem_conv"
    if kind != ".keras":
        return buffer.getvalue()
    stem = {"class_name": "Conv2D", "config": {"name": "stem_conv"}}
    last = {"class_name": "Activation", "config": {"name": "top_activation", "activation": "swish"}}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("config.json", json.dumps({"class_name": "Model", "config": {"layers": [stem, last]}}))
        written.writestr("model.weights.h5", buffer.getvalue())
    return archive.getvalue()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_off_anywhere(suffix: str, tmp_path: Path) -> None:
    path, whole, chance = tmp_path / f"m{suffix}", small(suffix), random.Random(0)
    path.write_bytes(whole)
    assert list(read_checkpoint(path).tensors) == ["stem_conv/kernel"]
    for length in (0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(100))):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"m\{suffix}: "):
            read_checkpoint(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bytes_never_end_in_anything_but_a_sentence(suffix: str, tmp_path: Path) -> None:
    path, whole, chance = tmp_path / f"m{suffix}", small(suffix), random.Random(0)
    complaints = []
    for _ in range(300):
        damaged = bytearray(whole)
        for place in [chance.randrange(len(whole)) for _ in range(4)]:
            damaged[place] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except ValueError as error:
            complaints.append(str(error))
    assert complaints
    assert all(complaint.startswith(f"{path}: ") for complaint in complaints)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".hdf5"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04" + bytes(60), hdf5.HDF5_MAGIC + bytes(99)])
def test_a_file_of_something_else(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"m\{suffix}: "):
        load(path)


def of_zeros(name: str) -> bytes:
    """An archive with much nothing in it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        for each in ("config.json", "model.weights.h5"):
            written.writestr(each, bytes(10**7) if each == name else b"{}")
    return archive.getvalue()


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_an_archive_of_zeros(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(of_zeros(name))
    with pytest.raises(ValueError, match=rf"m\.keras: {name} has 10000000 bytes but stores"):
        load(path)


def test_an_archive_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(ValueError, match=r"m\.keras: an archive without model\.weights\.h5 and config\.json"):
        load(path)


def huge(file: h5py.File) -> None:
    file.create_dataset("stem_conv/stem_conv/kernel:0", (10**5, 10**5), "f4")


def huge_and_compressed(file: h5py.File) -> None:
    file.create_dataset("stem_conv/stem_conv/kernel:0", (10**5, 10**5), "f4", chunks=(100, 100), compression="gzip")


def external(file: h5py.File) -> None:
    file["stem_conv"] = h5py.ExternalLink("/etc/passwd", "/")


def soft(file: h5py.File) -> None:
    file["stem_conv"] = h5py.SoftLink("/stem_conv")


def elsewhere(file: h5py.File) -> None:
    stored = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("stem_conv/stem_conv/kernel:0", (3, 3, 3, 32), "f4", external=stored)


def virtual(file: h5py.File) -> None:
    shape = h5py.VirtualLayout((3,), "f4")
    shape[:] = h5py.VirtualSource("other.h5", "a", (3,))
    file.create_virtual_dataset("stem_conv/stem_conv/kernel:0", shape)


def text(file: h5py.File) -> None:
    file["stem_conv/stem_conv/kernel:0"] = np.array([b"abc"])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (huge, "has 40000000000 bytes but stores 0"),
        (huge_and_compressed, "has 40000000000 bytes but stores 0"),
        (external, "stem_conv is a link"),
        (soft, "stem_conv is a link"),
        (elsewhere, "is stored in another file"),
        (virtual, "is stored in another file"),
        (text, "contains no numbers"),
    ],
)
def test_hdf5_that_leads_out_of_the_file_or_claims_too_much(
    make: Callable[[h5py.File], None], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"stem_conv"]
        make(file)
    with pytest.raises(ValueError, match=rf"m\.h5: .*{complaint}"):
        load(path)


def test_numbers_of_every_kind(tmp_path: Path) -> None:
    """Compressed, of another byte order, and bfloat16 as Keras marks it."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("zeros", data=np.zeros((100, 100), "f4"), compression="gzip")
        file["other"] = np.arange(3, dtype=">f4")
        file["brain"] = np.array([0x3F80, 0xC000], "u2").view("V2")
        file["brain"].attrs["dtype"] = "bfloat16"
        file.attrs["names0"], file.attrs["names1"] = [b"one", b"two"], [b"three"]
    with hdf5.open_hdf5(tmp_path / "m.h5", tmp_path / "m.h5") as tree:
        assert torch.equal(tree.tensor("zeros"), torch.zeros(100, 100))
        assert torch.equal(tree.tensor("other"), torch.tensor([0.0, 1, 2]))
        assert torch.equal(tree.tensor("brain"), torch.tensor([1, -2], dtype=torch.bfloat16))
        assert tree.string_list("", "names") == ("one", "two", "three")
