"""Loading costs no more than the file, says what it assumes, and follows its arguments."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from effnet.arch import ARCHS, tensor_shapes
from effnet.metadata import Labels, Numerics, Preprocess
from effnet.net import create
from effnet.weights import convert, load, save
from effnet.weights.catalog import CatalogEntry
from effnet.weights.conversion import drop_batch_counters
from effnet.weights.download import RemoteFile
from effnet.weights.formats import read_checkpoint
from effnet.weights.loading import check_values
from effnet.weights.resolve import WeightsFile

loading = import_module("effnet.weights.loading")  # the package shows the function of that name


MEMORY = """
import sys, torch
from effnet.weights.loading import load
from effnet.timing import peak_memory
torch.set_num_threads(1)
torch.zeros(9).sum().item()
before = peak_memory()
model = load(sys.argv[1])
assert sum(float(value.sum()) for value in model.parameters())
print(peak_memory() - before)
"""


def test_no_random_number_is_drawn(tmp_path: Path) -> None:
    path = save(create("b0"), tmp_path / "b0.safetensors")
    before = torch.random.get_rng_state()
    model = load(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_memory_is_that_of_the_file(tmp_path: Path) -> None:
    path = save(create("b5"), tmp_path / "b5.safetensors")  # large enough to stand out from the imports
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert int(done.stdout) <= 1.2 * path.stat().st_size


def test_what_is_loaded_can_be_trained_and_leaves_the_file_alone(tmp_path: Path) -> None:
    path = save(create("nano", classes=3), tmp_path / "m.safetensors")
    content = path.read_bytes()
    model = load(path).train()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert path.read_bytes() == content
    assert model.stem.norm.num_batches_tracked == 1


def test_what_the_caller_says_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(create("b0", classes=2), tmp_path / "m.pth", layout="timm")
    numerics, preprocess = Numerics("symmetric", 1e-5), Preprocess((96, 96), interpolation="bilinear")
    with caplog.at_level(logging.INFO, "effnet"):
        model = load(path, numerics=numerics, preprocess=preprocess)
    assert (model.numerics, model.preprocess) == (numerics, preprocess)
    assert "given: symmetric padding, batch-norm ε 1e-05" in caplog.text
    assert "given: images 96×96" in caplog.text


def test_our_own_file_can_be_overruled_too(tmp_path: Path) -> None:
    path = save(create("nano"), tmp_path / "m.safetensors")
    assert load(path, numerics=Numerics(bn_eps=1e-5)).numerics.bn_eps == 1e-5


def test_a_card_says_what_the_file_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = create("b0", classes=5)
    path = save(model, tmp_path / "m.pth", layout="timm")
    card = CatalogEntry(
        name="b0/some_in1k",
        arch="b0",
        layout="timm",
        publisher="timm",
        numerics=Numerics("symmetric", 1e-5),
        preprocess=Preprocess((240, 240), 0.95),
        citation="this test",
        classes=5,
        label_set="",
        top1=77.7,
        test_size=240,
        license="apache-2.0",
    )
    monkeypatch.setattr(
        "effnet.weights.resolve.resolve_weights", lambda source: WeightsFile(path, RemoteFile.from_entry(card))
    )
    with caplog.at_level(logging.INFO, "effnet"):
        found = load("b0")
    assert (found.numerics, found.preprocess, found.labels) == (card.numerics, card.preprocess, Labels())
    assert (found.provenance.source, found.provenance.license) == ("b0/some_in1k", "apache-2.0")
    assert "b0/some_in1k: weights of timm, published with 77.7 % top-1 on ImageNet at 240 pixels" in caplog.text
    monkeypatch.setattr(
        "effnet.weights.resolve.resolve_weights",
        lambda source: WeightsFile(path, RemoteFile.from_entry(replace(card, arch="b1"))),
    )
    with pytest.raises(ValueError, match=r"contains b0 .*not b1"):
        load("b1")


# What is said of the numbers in a file.


def test_sound_float32_needs_no_words() -> None:
    assert check_values({"a": torch.rand(3), "b": torch.tensor(1e38).expand(100), "c": torch.zeros(0)}) == ()
    assert check_values({}) == ()


@pytest.mark.parametrize(
    ("kind", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float8_e4m3fn, "float8_e4m3fn")]
)
def test_other_precisions_are_named(kind: torch.dtype, name: str) -> None:
    assert check_values({"a": torch.full((9999,), 100.0).to(kind)}) == (f"weights are {name}; computing in float32",)
    assert check_values({"a": torch.ones(2), "b": torch.ones(2).to(kind)})[0].startswith(f"weights are {name}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_no_numbers_are_named(value: float, kind: torch.dtype) -> None:
    tensors = {f"layer{index}.weight": torch.ones(4, 4, dtype=kind) for index in range(7)}
    tensors["layer3.weight"][2, 1] = value
    note = check_values(tensors)[-1]
    assert note == "NaN or infinite values in layer3.weight: its outputs are meaningless"
    for index in (1, 2, 5, 6):
        tensors[f"layer{index}.weight"][0, 0] = value
    note = check_values(tensors)[-1]
    assert "in layer1.weight, layer2.weight, layer3.weight and 2 more:" in note


def test_a_number_too_large_for_float32_is_infinite_there() -> None:
    assert "infinite values in a" in check_values({"a": torch.tensor([1e300], dtype=torch.float64)})[-1]


def test_the_largest_common_network_takes_no_time() -> None:
    tensors = {name: torch.ones(shape) for name, shape in tensor_shapes(ARCHS["b7"]).items()}
    check_values(tensors)
    seconds = []
    for _ in range(3):
        before = time.perf_counter()
        check_values(tensors)
        seconds.append(time.perf_counter() - before)
    assert min(seconds) < 0.2  # measured: 0.03


# Files that are not what they should be: one clear sentence each.


State = dict[str, Tensor]


@pytest.fixture
def timm_state() -> State:
    torch.manual_seed(0)
    return convert(drop_batch_counters(create("nano", classes=5).state_dict()), ARCHS["nano"], "effnet", "timm")


def test_what_differs_from_the_nearest_network_is_in_one_message(timm_state: State, tmp_path: Path) -> None:
    del timm_state["conv_head.weight"], timm_state["bn2.bias"]
    timm_state["blocks.0.0.conv.weight"] = torch.zeros(16, 3, 3, 3)
    timm_state["classifier.weight"] = torch.zeros(5, 7)
    timm_state["extra.one"] = torch.zeros(2)
    timm_state["extra.two"] = torch.tensor(1.0)
    torch.save(timm_state, tmp_path / "m.pth")
    with pytest.raises(ValueError) as raised:
        load(tmp_path / "m.pth", arch="nano")
    assert str(raised.value).splitlines() == [
        f"{tmp_path / 'm.pth'}: its {len(timm_state)} tensors are not those of nano; nearest is nano in timm's layout, "
        f"of which it has {len(timm_state) - 5} of {len(timm_state) - 2} tensors; convert --arch and --from choose "
        "what it is compared with",
        "  missing conv_head.weight 192×48×1×1",
        "  missing bn2.bias 192",
        "  misshapen blocks.0.0.conv.weight: 16×3×3×3 instead of 16×16×3×3",
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
        ("blocks.1.0.bn1.weight", torch.zeros(3, 3)),
        ("bn2.bias", torch.zeros(0)),
    ],
)
def test_tensors_of_any_shape_are_complained_about(
    timm_state: State, name: str, misshapen: Tensor, tmp_path: Path
) -> None:
    torch.save({**timm_state, name: misshapen}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=name):
        load(tmp_path / "m.pth", arch="nano")


@pytest.mark.parametrize("misshapen", [torch.zeros(3), torch.zeros(0, 192), torch.tensor(1.0), torch.zeros(5, 7)])
def test_a_classifier_of_any_shape_is_left_aside(timm_state: State, misshapen: Tensor, tmp_path: Path) -> None:
    torch.save({**timm_state, "classifier.weight": misshapen}, tmp_path / "m.pth")
    assert load(tmp_path / "m.pth", arch="nano").classes == 0


def test_weights_of_another_architecture_are_named_in_one_sentence(tmp_path: Path) -> None:
    save(create("b0"), tmp_path / "m.pth", layout="timm")
    with pytest.raises(ValueError, match=r"m\.pth contains b0 \(timm's layout\), not lite0$"):
        load(tmp_path / "m.pth", arch="efficientnet-lite0")


def test_weights_of_no_architecture_known(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"its 1 tensors are those of no known EfficientNet; nearest"):
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
            read_checkpoint(path)
        except ValueError as error:
            complaints.append(str(error))
    assert complaints
    assert all(complaint.startswith(f"{path}: ") for complaint in complaints)


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "m.pth")
    return folder / "m.pth"


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
        pytest.param(lambda content, path: path.write_bytes(pickle.dumps(content))),
    ],
    ids=["torch.save", "pickle", "newer pickle"],
)
def test_nothing_in_a_file_that_would_run_a_program_is_run(
    writer: Callable[[object, Path], object], timm_state: State, tmp_path: Path
) -> None:
    sprung = tmp_path / "sprung"
    writer({**timm_state, "trap": Trap(sprung)}, tmp_path / "m.pth")
    model = load(tmp_path / "m.pth")
    assert not sprung.exists()
    assert torch.equal(model.stem.conv.weight, timm_state["conv_stem.weight"])


def test_a_pickled_network_opens_as_its_state_dict(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), tmp_path / "m.pth")
    assert list(read_checkpoint(tmp_path / "m.pth").tensors) == ["0.weight", "0.bias"]


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "odd",
    [lambda tensor: tensor.to("meta"), lambda tensor: tensor.to_sparse(), lambda tensor: tensor.to(torch.complex64)],
)
def test_tensors_that_are_no_plain_arrays(odd: Callable[[Tensor], Tensor], timm_state: State, tmp_path: Path) -> None:
    timm_state["bn1.weight"] = odd(timm_state["bn1.weight"])
    with pytest.raises(ValueError, match=r"m\.pth: bn1\.weight is quantized, sparse, complex or empty"):
        load(saved(timm_state, tmp_path))


def test_a_resnet_is_no_efficientnet(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in resnet50().state_dict().items()}
    path = saved({name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}, tmp_path)
    with pytest.raises(ValueError, match=r"m\.pth: its 267 tensors are those of no known EfficientNet"):
        load(path)


# Files that lie about their sizes --------------------------------------------------------------------------------
def lying(tensors: dict[str, tuple[list[int], int, int]] | bytes, size: int, length: int | None = None) -> bytes:
    """A safetensors file of ``size`` bytes of numbers, whose header says: name → shape, first byte, last byte + 1."""
    if isinstance(tensors, dict):
        entries = {name: {"dtype": "F32", "shape": s, "data_offsets": [a, b]} for name, (s, a, b) in tensors.items()}
        tensors = json.dumps(entries).encode()
    return struct.pack("<Q", len(tensors) if length is None else length) + tensors + bytes(size)


TWICE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'


LIES = {
    "overlapping": lying({"a": ([4], 0, 16), "b": ([4], 8, 24)}, 24),
    "with a hole": lying({"a": ([2], 0, 8), "b": ([2], 16, 24)}, 24),
    "beyond the end": lying({"a": ([4], 0, 16)}, 8),
    "bytes left over": lying({"a": ([2], 0, 8)}, 64),
    "end before start": lying({"a": ([4], 16, 0)}, 16),
    "shape of other bytes": lying({"a": ([5], 0, 16)}, 16),
    "negative shape": lying({"a": ([-4], 0, 16)}, 16),
    "ten gigabytes of shape": lying({"conv_stem.weight": ([50_000, 50_000], 0, 16)}, 16),
    "ten gigabytes of bytes": lying({"conv_stem.weight": ([50_000, 50_000], 0, 10**10)}, 1000),
    "more than can be counted": lying({"a": ([2**40, 2**40], 0, 16)}, 16),
    "endless header": lying({"a": ([4], 0, 16)}, 16, length=2**62),
    "header of 99 megabytes": lying({"a": ([4], 0, 16)}, 16, length=99_000_000),
    "header that is no JSON": lying(b"{nope", 16),
    "header that is no text": lying(b"\xff\xfe{}", 16),
    "header without an end": lying(b"[" * 100_000, 16),
    "a name twice": lying(TWICE, 16),
}


@pytest.mark.usefixtures("frozen_gc")
@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused_at_once(lie: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(LIES[lie])
    before, memory = time.process_time(), peak()
    with pytest.raises(ValueError, match=r"m\.safetensors: a damaged weights file \([^\n]*\)$"):
        load(path)
    assert time.process_time() - before < 0.5
    assert peak() - memory < 64 * 2**20


@pytest.mark.parametrize("name", ["conv_stem.weight", "anything"])
def test_a_small_file_of_a_huge_tensor(name: str, tmp_path: Path) -> None:
    """PyTorch's files keep strides: one number can stand for ten gigabytes."""
    path = saved({name: torch.zeros(()).expand(50_000, 50_000)}, tmp_path)
    memory = peak()
    with pytest.raises(ValueError, match="those of no known EfficientNet"):
        load(path)
    with pytest.raises(ValueError, match="not those of nano"):
        load(path, arch="nano", layout="timm")
    assert peak() - memory < 64 * 2**20


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_a_module_that_normalizes_states_mean_and_std(scale: float, timm_state: State, tmp_path: Path) -> None:
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) * scale for values in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    network = {f"net.{name}": tensor for name, tensor in timm_state.items()}
    path = saved(network | {"normalize.mean": mean, "normalize.std": std}, tmp_path)
    preprocess = load(path, arch="nano", numerics=Numerics()).preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    other = {"a.mean": mean, "a.std": std, "b.mean": std, "b.std": mean}
    targets = {"target.mean": torch.tensor([1.0, 40, 7]), "target.std": torch.ones(3)}
    for beside in (other, targets):
        model = load(saved(network | beside, tmp_path), arch="nano", numerics=Numerics())
        assert model.preprocess.mean == Preprocess.mean
