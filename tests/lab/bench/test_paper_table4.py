"""Table 4: a small pair measured in every engine, and pairs that cannot be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effnet.lab.bench.backends import module_backends
from effnet.lab.bench.paper_table4 import table4
from effnet.lab.compare.baselines import BASELINES, Baseline
from effnet.lab.compare.comparison_table import PrintedFigure
from effnet.lab.compare.published_numbers import Table4Pair
from effnet.runtime.autotune import max_relative_difference
from effnet.runtime.base import installed_engines

PAIR = Table4Pair("small", "nano", "Small", "Nano", "50.0%", "60.0%", "2s", "1s", "2.0x")


class Bottleneck(nn.Module):
    """One residual branch, whose last batch norm is named as in ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.bn3(self.conv3(x)))


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        Bottleneck(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


BASELINE = Baseline("Small", 32, "here", small)


def test_both_sides_in_their_best_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "small", BASELINE)
    progress: list[tuple[str, int, int]] = []
    table = table4([PAIR], runs=3, seconds=1, progress=lambda *report: progress.append(report))
    assert progress[-1] == ("Small and Nano", 3, 3)
    rows = {row.name: row for row in table.rows}
    kinds = [kind for kind in installed_engines() if kind != "compiled"]
    assert set(rows) == {
        *("Small", "Nano"),
        *(f"Small, {kind}" for kind in kinds if kind not in ("native", "litert")),  # not an EfficientNet
        *(f"Nano, {kind}" for kind in kinds),
    }
    for name in ("Small", "Nano"):
        times = [row["seconds"].measured for other, row in rows.items() if other.startswith(f"{name}, ")]
        assert rows[name]["seconds"].measured == min(times)  # type: ignore[type-var]
        assert rows[f"{name}, {rows[name]['engine'].measured}"]["seconds"].measured == min(times)  # type: ignore[type-var]
    ratio = rows["Nano"]["speedup"]
    assert ratio.quoted == PrintedFigure("2.0x")
    assert isinstance(ratio.measured, float)
    assert rows["Nano"]["speedup_low"].measured <= ratio.measured  # type: ignore[operator]
    assert all(row["difference"].measured < 1e-4 for row in table.rows)  # type: ignore[operator]
    # 3·8·9 on 16×16, 8·8·9 on 16×16, 8·5
    assert rows["Small"]["macs"].computed == 216 * 256 + 576 * 256 + 40
    assert table.to_dict()["machine"]["cores"] >= 1


class Untraceable(nn.Module):
    """torch.fx cannot trace a loop over a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-part for part in self.body(x).chunk(2, 1)], 1).mean((2, 3))


def test_untraceable_modules_are_folded_too(tmp_path: Path) -> None:
    model = Untraceable().eval()
    backends, expected = module_backends(model, 32, tmp_path)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    assert all(max_relative_difference(one.logits(), expected) < 1e-4 for one in backends)


def test_a_network_too_large_for_memory_is_only_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASELINES, "small", BASELINE)
    monkeypatch.setattr("effnet.timing.memory.available_memory", lambda: 1000)
    rows = {row.name: row for row in table4([PAIR]).rows}
    assert "of memory, and 0 GB are free" in rows["Small"]["seconds"].note
    assert rows["Small"]["seconds"].measured is None
    assert rows["Nano"]["speedup"].amount("quoted") == 2.0
