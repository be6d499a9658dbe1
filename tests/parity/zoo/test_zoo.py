"""Every file of the table is written, opened by the public calls, and compared with the network that wrote it.

``EFFNET_UPDATE_SNAPSHOTS=1 pytest tests/parity/zoo`` rewrites the refusals in ``messages``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from effnet.weights import running_statistics
from effnet.weights.running_statistics import NumericsFit
from tests.parity.zoo import checks
from tests.parity.zoo.files import FILES
from tests.parity.zoo.table import Refused, ZooFile

MESSAGES = Path(__file__).parent / "messages"


def parameter(file: ZooFile) -> object:
    marks = [pytest.mark.sweep] if file.sweep else []
    if file.today:
        marks.append(pytest.mark.xfail(strict=True, reason=file.today))
    return pytest.param(file, id=file.id, marks=marks)


@pytest.mark.parametrize("file", [parameter(file) for file in FILES])
def test_opens(file: ZooFile, tmp_path: Path, run: checks.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if not file.kind.startswith("timm"):  # a measurement on photos takes seconds; here it is not what is tested
        monkeypatch.setattr(running_statistics, "fit_numerics", lambda *_: NumericsFit(obstacle="it is not measured"))
    sample = file.write(tmp_path)
    assert checks.problems(file, sample, run) == []
    if isinstance(file.expected, Refused):
        check_snapshot(file, checks.refusal(sample.path))


def check_snapshot(file: ZooFile, message: str) -> None:
    """Compare a refusal with the one that was looked at."""
    path = MESSAGES / f"{re.sub(r'[^a-z0-9]+', '-', file.id.lower())}.txt"
    if os.environ.get("EFFNET_UPDATE_SNAPSHOTS"):
        MESSAGES.mkdir(exist_ok=True)
        path.write_text(f"{message}\n", encoding="utf-8")
    assert f"{message}\n" == path.read_text(encoding="utf-8")


def test_the_table_is_large_enough() -> None:
    assert len(FILES) >= 80
    assert len({file.kind for file in FILES}) >= 30
