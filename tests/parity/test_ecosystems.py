"""Every layout compared with its ecosystem's networks: small ones of each kind always, the others in the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity import ecosystems

CASES = list(ecosystems.all_cases())
# torchvision's smallest V2 is S
SMALL = [case for case in CASES if case[1] in ecosystems.FAST_VARIANTS or case[:2] == ("torchvision", "v2_s")]
LARGE = [case for case in CASES if case not in SMALL]


def check(layout: str, name: str, suffix: str, folder: Path) -> None:
    differences, limit = ecosystems.compare(layout, name, suffix, folder), ecosystems.peer(layout).LIMIT
    assert all(0 <= value <= limit for value in (*differences.imported.values(), differences.exported)), differences


@pytest.mark.parametrize("layout", ecosystems.LAYOUTS)
def test_the_ecosystem_is_installed(layout: str) -> None:
    if ecosystems.is_missing(layout):
        pytest.skip(f"{ecosystems.LAYOUTS[layout]} is not installed: layout {layout} is not compared")
    assert [case for case in SMALL if case[0] == layout]


@pytest.mark.parametrize(("layout", "name", "suffix"), SMALL)
def test_import_and_export(layout: str, name: str, suffix: str, tmp_path: Path) -> None:
    check(layout, name, suffix, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize(("layout", "name", "suffix"), LARGE)
def test_import_and_export_large(layout: str, name: str, suffix: str, tmp_path: Path) -> None:
    check(layout, name, suffix, tmp_path)
