from __future__ import annotations

import sys

import pytest

from effnet.cli.app import main
from tests.parity.zoo import checks


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> checks.Run:
    """Run ``effnet`` in this process."""

    def call(*words: object) -> checks.Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["effnet", *map(str, words)])
        status = main()
        return checks.Done(status, *capsys.readouterr())

    return call
