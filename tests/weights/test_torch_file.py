"""Every form of PyTorch's files gives the tensors that PyTorch itself reads, and none costs more than it holds."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effnet.weights.formats import torch_file
from effnet.weights.formats.pytorch import Contents, flatten_content
from effnet.weights.formats.torch_file import open_torch_file
from effnet.weights.formats.unpickler import InertUnpickler

Save = Callable[[Any, Path], None]


def save_old(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_compressed(content: Any, path: Path) -> None:
    plain = io.BytesIO()
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as made, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in made.namelist():
            changed.writestr(name, made.read(name))


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


SAVES: dict[str, Save] = {
    "archive": torch.save,
    "before 1.6": save_old,
    "compressed archive": save_compressed,
    "plain pickle": save_pickle,
}


def read(path: Path) -> dict[str, Tensor]:
    with open_torch_file(path) as file:
        return file.read_tensors(flatten_content(file.content).tensors)


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)
    return {
        "plain": base,
        "transposed": base.t(),
        "a part": base[1:3, ::2],
        "expanded": base[:, :1].expand(4, 1000),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
        "parameter": nn.Parameter(torch.randn(3)),
        "channels last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "truth": torch.tensor([True, False]),
        "bytes": torch.arange(9, dtype=torch.uint8),
        **{str(kind).removeprefix("torch."): torch.arange(7).to(kind) for kind in kinds},
    }


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_tensors_are_what_pytorch_reads(save: Save, tmp_path: Path) -> None:
    content = tensors()
    save(content, tmp_path / "m.pth")
    found = read(tmp_path / "m.pth")
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
        assert found[name].stride() == tensor.stride()


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_views_share_memory(save: Save, tmp_path: Path) -> None:
    base = torch.randn(100)
    save({"whole": base, "part": base[40:60], "again": base}, tmp_path / "m.pth")
    found = read(tmp_path / "m.pth")
    assert torch.equal(found["part"], base[40:60])
    if save is not save_pickle:  # which copies every storage
        found["whole"][50] = 7
        assert found["part"][10] == 7
    assert found["again"].data_ptr() == found["whole"].data_ptr()


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("save", [torch.save, save_old])
def test_what_is_no_plain_array_has_only_a_shape(save: Save, tmp_path: Path) -> None:
    content: dict[str, Tensor] = {
        "complex": torch.zeros(2, 3, dtype=torch.complex64),
        "sparse": torch.eye(4).to_sparse(),
        "meta": torch.zeros(5, device="meta"),
        "float8": torch.zeros(6).to(torch.float8_e4m3fn),
        "quantized": torch.quantize_per_tensor(torch.ones(7), 0.1, 0, torch.qint8),
        "plain": torch.ones(2),
    }
    save(content, tmp_path / "m.pth")
    found = read(tmp_path / "m.pth")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in content.items()
    }
    assert {name for name, tensor in found.items() if not tensor.is_meta} == {"plain"}


class Marked(Tensor):
    """A subclass, as fastai's ``TensorImage``."""


@pytest.mark.parametrize("save", [torch.save, save_old])
def test_subclasses_and_attributes_of_tensors(save: Save, tmp_path: Path) -> None:
    marked = torch.arange(3.0).as_subclass(Marked)
    marked.info = {"a": torch.ones(2)}  # type: ignore[attr-defined]
    parameter = nn.Parameter(torch.ones(4))
    parameter.info = "text"  # type: ignore[attr-defined]
    save({"marked": marked, "parameter": parameter}, tmp_path / "m.pth")
    found = read(tmp_path / "m.pth")
    assert torch.equal(found["marked"], torch.arange(3.0))
    assert type(found["marked"]) is Tensor
    assert torch.equal(found["parameter"], torch.ones(4))


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    made.register_buffer("mean", torch.zeros(3))
    made.register_buffer("temporary", torch.zeros(3), persistent=False)
    made.add_module("twice", made[0])
    return made


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
@pytest.mark.parametrize("wrap", [lambda made: made, nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_modules_have_the_names_of_their_state_dict(
    wrap: Callable[[nn.Module], nn.Module], save: Save, tmp_path: Path
) -> None:
    made = wrap(network())
    save(made, tmp_path / "m.pth")
    found = read(tmp_path / "m.pth")
    assert list(found) == list(made.state_dict())
    assert all(torch.equal(found[name], tensor) for name, tensor in made.state_dict().items())


def test_values_of_modules(tmp_path: Path) -> None:
    torch.save({"net": network()}, tmp_path / "m.pth")
    with open_torch_file(tmp_path / "m.pth") as file:
        values = flatten_content(file.content).values
    assert values["net.0.__class__"] == "torch.nn.modules.conv.Conv2d"
    assert values["net.0.stride"] == (1, 1)
    assert values["net.1.eps"] == 1e-5
    assert "net.0.training" not in values


# Names -----------------------------------------------------------------------------------------------------------


def names(content: Any, tmp_path: Path) -> list[str]:
    torch.save(content, tmp_path / "m.pth")
    return list(read(tmp_path / "m.pth"))


def test_names_of_what_is_nested(tmp_path: Path) -> None:
    one = torch.ones(1)
    content = {"state_dict": {"a.weight": one}, "list": [one, (one,)], 3: {b"bytes": one}, "none": None}
    assert names(content, tmp_path) == ["state_dict.a.weight", "list.0", "3.bytes", "list.1.0"]


def test_a_dictionary_in_two_places_is_listed_once_where_it_is_nested_least(tmp_path: Path) -> None:
    state = {"weight": torch.ones(1)}
    assert names({"callbacks": {"best": {"model": state}}, "model": state}, tmp_path) == ["model.weight"]


def test_what_contains_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"weight": torch.ones(1)}
    content["again"] = [content]
    assert names(content, tmp_path) == ["weight"]
    module = nn.Linear(1, 1)
    object.__setattr__(module, "owner", {"module": module})
    assert {"weight", "bias"} <= set(names(module, tmp_path))


def test_optimizers_are_left_out(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {"model": layer.state_dict(), "optimizer_states": [optimizer.state_dict()], "object": optimizer}
    assert names(content, tmp_path) == ["model.weight", "model.bias"]


def test_a_module_of_exponentially_many_places_ends(tmp_path: Path) -> None:
    made: nn.Module = nn.Linear(1, 1)
    for _ in range(40):
        made = nn.Sequential(made, made)
    save_old(made, tmp_path / "m.pth")
    with open_torch_file(tmp_path / "m.pth") as file:
        assert len(flatten_content(file.content).tensors) <= 50_000


def flatten_pickle(data: bytes) -> Contents:
    return flatten_content(InertUnpickler(data).load())


MODULE = b"ca\nModule\n)\x81q\x00}(X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_modulesq\x01}q\x02ub"


@pytest.mark.parametrize(
    "data",
    {
        "a module in itself": MODULE
        + b"0h\x02("
        + b"".join(b"J%sh\x00" % n.to_bytes(4, "little") for n in range(20_000))
        + b"u0h\x00.",
        "a list of names everywhere": b"](" + b"K\x01" * 20_000 + b"eq\x000](" + b"](h\x00e" * 100_000 + b"e.",
        "long names": b"}" + b"X\xff\xff\x00\x00" + b"x" * 65535 + b"}s.",
        "long names, nested": b"}q\x00" + (b"X\xff\x00\x00\x00" + b"x" * 255 + b"}") * 100 + b"s" * 100 + b".",
        "many entries": b"}(" + b"".join(b"J%s}" % n.to_bytes(4, "little") for n in range(300_000)) + b"u.",
        "a number of many digits": b"}X\x01\x00\x00\x00a\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b"s.",
    }.values(),
)
def test_naming_everything_costs_little(data: bytes) -> None:
    before = peak()
    found = flatten_pickle(data)
    assert len(found.values) <= 50_000
    assert all(len(name) <= 1000 for name in found.values)
    assert peak() - before < 1200 * 2**20


# Files that hold less, or more, than they say --------------------------------------------------------------------


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], kind: int = 0) -> None:
    """Copy an archive with some members changed, or left out where ``change`` returns None."""
    with zipfile.ZipFile(source) as made, zipfile.ZipFile(target, "w", kind) as changed:
        for name in made.namelist():
            content = change(name, made.read(name))
            if content is not None:
                changed.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: None if name.endswith("/data/0") else data, "data/0"),
        (lambda name, data: data[:-4] if name.endswith("/data/0") else data, "beyond the end"),
        (lambda name, data: None if name.endswith("data.pkl") else data, "without a data"),
        (lambda name, data: b"big" if name.endswith("byteorder") else data, "byte order"),
        (lambda name, data: data[:-9] if name.endswith("data.pkl") else data, "ends early"),
    ],
)
def test_archives_with_something_missing(
    change: Callable[[str, bytes], bytes | None], message: str, tmp_path: Path
) -> None:
    torch.save({"a": torch.ones(100)}, tmp_path / "m.pth")
    rewrite(tmp_path / "m.pth", tmp_path / "n.pth", change)
    with pytest.raises((ValueError, KeyError), match=message):
        read(tmp_path / "n.pth")


def test_an_archive_that_inflates_without_limit(tmp_path: Path) -> None:
    torch.save({str(index): torch.zeros(2**20) for index in range(25)}, tmp_path / "m.pth")
    rewrite(tmp_path / "m.pth", tmp_path / "n.pth", lambda _, data: data, zipfile.ZIP_DEFLATED)
    (tmp_path / "m.pth").unlink()
    before = peak()
    with pytest.raises(ValueError, match="would inflate to"):
        read(tmp_path / "n.pth")
    assert peak() - before < 200 * 2**20


def test_a_pickle_that_inflates_without_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MAX_PICKLE_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(2**24))
    with pytest.raises(ValueError, match="at most"):
        read(tmp_path / "m.pth")


def test_storages_of_the_format_before_that_lie_about_their_size(tmp_path: Path) -> None:
    save_old({"a": torch.ones(100)}, tmp_path / "m.pth")
    whole = (tmp_path / "m.pth").read_bytes()
    place = whole.rindex(struct.pack("<q", 100))
    for count in (99, 101, 2**40, -1, -(2**63)):
        (tmp_path / "m.pth").write_bytes(whole[:place] + struct.pack("<q", count) + whole[place + 8 :])
        with pytest.raises(ValueError, match="beyond the end"):
            read(tmp_path / "m.pth")


def test_pickles_in_pickles_in_pickles(tmp_path: Path) -> None:
    class Nested:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (self.data,)

    data = pickle.dumps(torch.ones(1))
    for _ in range(5):
        data = pickle.dumps(Nested(data))
    (tmp_path / "m.pth").write_bytes(data)
    with pytest.raises(ValueError, match="pickles within pickles"):
        read(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (("sys_info", "pickle", "tensors", "storages"), r"PyTorch 0\.1: .* torch\.load\(FILE, weights_only=False\)"),
        (("model.pth",), "a tar archive, not a file of weights: unpack it"),
        (("run/storages", "run/model.pth"), "a tar archive, not a file of weights: unpack it"),
    ],
)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_archives_say_what_they_are(members: tuple[str, ...], message: str, format: int, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.pth.tar", "w", format=format) as archive:
        for name in members:
            header = tarfile.TarInfo(name)
            header.size = 700
            archive.addfile(header, io.BytesIO(bytes(700)))
    with pytest.raises(ValueError, match=message), open_torch_file(tmp_path / "model.pth.tar"):
        pass
