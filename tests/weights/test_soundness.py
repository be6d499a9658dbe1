"""What is said of the numbers in a file."""

from __future__ import annotations

import time

import pytest
import torch

from effnet.arch import ARCHS, tensors
from effnet.weights.soundness import remarks


def test_sound_float32_needs_no_words() -> None:
    assert remarks({"a": torch.rand(3), "b": torch.tensor(1e38).expand(100), "c": torch.zeros(0)}) == ()
    assert remarks({}) == ()


@pytest.mark.parametrize(
    ("kind", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float8_e4m3fn, "float8_e4m3fn")]
)
def test_other_precisions_are_named(kind: torch.dtype, name: str) -> None:
    assert remarks({"a": torch.full((9999,), 100.0).to(kind)}) == (
        f"its numbers are {name}; they are computed with in float32",
    )
    assert remarks({"a": torch.ones(2), "b": torch.ones(2).to(kind)})[0].startswith(f"its numbers are {name}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_no_numbers_are_named(value: float, kind: torch.dtype) -> None:
    given = {f"layer{index}.weight": torch.ones(4, 4, dtype=kind) for index in range(7)}
    given["layer3.weight"][2, 1] = value
    said = remarks(given)[-1]
    assert said == "NaN or infinite values in layer3.weight: no answer of this network is sound"
    for index in (1, 2, 5, 6):
        given[f"layer{index}.weight"][0, 0] = value
    said = remarks(given)[-1]
    assert "in layer1.weight, layer2.weight, layer3.weight and 2 more:" in said


def test_a_number_too_large_for_float32_is_infinite_there() -> None:
    assert "infinite values in a" in remarks({"a": torch.tensor([1e300], dtype=torch.float64)})[-1]


def test_the_largest_common_network_takes_no_time() -> None:
    given = {name: torch.ones(shape) for name, shape in tensors(ARCHS["b7"]).items()}
    remarks(given)
    seconds = []
    for _ in range(3):
        before = time.perf_counter()
        remarks(given)
        seconds.append(time.perf_counter() - before)
    assert min(seconds) < 0.2  # measured: 0.03
