"""Print how every file opens today: ``python -m tests.parity.zoo.report [WORD …]`` (files whose names have a word)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from effnet.cli.app import main as effnet_main
from effnet.data.torchvision_compat import declare_operators

declare_operators()  # timm imports torchvision

from tests.parity.zoo import checks  # noqa: E402
from tests.parity.zoo.files import FILES  # noqa: E402
from tests.parity.zoo.table import Opens, ZooFile  # noqa: E402


def main(words: Sequence[str]) -> int:
    """Print a row per file. Returns 1 if any is not as its row says."""
    os.environ["EFFNET_OFFLINE"] = "1"
    torch.set_num_threads(1)
    surprises = 0
    for file in FILES:
        if not words or any(word in file.id for word in words):
            with TemporaryDirectory() as folder:
                right, text = status(file, Path(folder))
            surprises += right == bool(file.today)
            print(f"| {file.kind} | {file.name} | {text} |", flush=True)
    return bool(surprises)


def status(file: ZooFile, folder: Path) -> tuple[bool, str]:
    """Return whether the file is as expected, and what opening it gives."""
    try:
        sample = file.write(folder)
    except (pytest.skip.Exception, ImportError) as error:
        return not file.today, f"not written: {error}"
    found = [shorten(problem.replace(str(folder), "")) for problem in checks.problems(file, sample, run)]
    if found:
        return False, "; ".join(found)
    if isinstance(file.expected, Opens) and sample.answer is not None:
        return True, f"right: {checks.difference(file.expected, sample):.1e}"
    return True, "right"


def shorten(text: str) -> str:
    line = " / ".join(text.splitlines())
    return line if len(line) < 200 else f"{line[:200]}…"


def run(*words: object) -> checks.Done:
    """Run ``effnet`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["effnet", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            done = effnet_main()
    finally:
        sys.argv = before
    return checks.Done(done, out.getvalue(), err.getvalue())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
