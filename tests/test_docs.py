"""Documentation: sessions are run and compared, examples compiled, links checked."""

from __future__ import annotations

import doctest
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")


def blocks(kind: str) -> list[object]:
    """Return the fenced blocks of that language in all documents."""
    return [
        pytest.param(text, id=f"{path.name}-{number}")
        for path in DOCUMENTS
        for number, (language, text) in enumerate(FENCE.findall(path.read_text(encoding="utf-8")))
        if language == kind
    ]


@pytest.mark.parametrize("text", blocks("pycon"))
def test_python_sessions(text: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, {}, "session", None, 0)
    assert test.examples
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


@pytest.mark.parametrize("text", blocks("console"))
def test_shell_sessions(text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from effnet.cli.app import main

    for session in filter(None, text.split("$ ")):
        command, _, expected = session.partition("\n")
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        assert main() == 0
        printed = [line.rstrip() for line in capsys.readouterr().out.strip().splitlines()]
        assert printed == [line.rstrip() for line in expected.strip().splitlines()]


@pytest.mark.parametrize("text", blocks("python"))
def test_names_in_python_examples_exist(text: str) -> None:
    import effnet

    compile(text, "example", "exec")
    for name in re.findall(r"\beffnet\.(\w+)", text):
        assert hasattr(effnet, name) or find_spec(f"effnet.{name}"), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_link_targets_exist(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
