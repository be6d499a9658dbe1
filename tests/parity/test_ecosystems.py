"""Every layout against the networks of its own ecosystem: up to B4 and V2-S always, the rest in the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity import ecosystems

CASES = list(ecosystems.every())
SMALL = [case for case in CASES if case[1] in ecosystems.QUICK]
LARGE = [case for case in CASES if case[1] not in ecosystems.QUICK]


def check(layout: str, name: str, suffix: str, folder: Path) -> None:
    figures, limit = ecosystems.compare(layout, name, suffix, folder), ecosystems.peer(layout).LIMIT
    assert all(0 <= value <= limit for value in (*figures.there.values(), figures.back)), figures


@pytest.mark.parametrize("layout", ecosystems.LAYOUTS)
def test_the_ecosystem_is_installed(layout: str) -> None:
    if ecosystems.missing(layout):
        pytest.skip(f"{ecosystems.LAYOUTS[layout]} is not installed: {layout}'s layout is not compared")
    assert [case for case in SMALL if case[0] == layout]


@pytest.mark.parametrize(("layout", "name", "suffix"), SMALL)
def test_there_and_back_again(layout: str, name: str, suffix: str, tmp_path: Path) -> None:
    check(layout, name, suffix, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize(("layout", "name", "suffix"), LARGE)
def test_the_large_ones(layout: str, name: str, suffix: str, tmp_path: Path) -> None:
    check(layout, name, suffix, tmp_path)
