"""torchvision is imported beside a torch that its compiled operators do not fit, in anybody's script."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "torchvision_hook.py"


@pytest.mark.parametrize("modules", ["torchvision, torchvision.models, torchvision.transforms.v2, timm"])
def test_a_script_of_someone_else_imports_torchvision(modules: str, tmp_path: Path) -> None:
    """As at Python's start, with the folder that `make setup` writes to."""
    pytest.importorskip("timm")
    runpy.run_path(str(SCRIPT))["write_hook"](tmp_path)
    assert (tmp_path / "effnet_torchvision_hook.pth").read_text() == "import effnet_torchvision_hook\n"
    code = (
        f"import site, sys; site.addsitedir({str(tmp_path)!r})\n"
        "first = sys.meta_path[0]; assert 'torch' not in sys.modules and 'effnet' not in sys.modules\n"
        f"import {modules}\n"
        "assert first not in sys.meta_path\n"
        "print(len(list(torchvision.models.efficientnet_b0(weights=None).parameters())))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_without_this_package_the_hook_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = runpy.run_path(str(SCRIPT))
    finder: dict[str, object] = {}
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    exec(names["HOOK"], finder)
    first = sys.meta_path[0]
    monkeypatch.setitem(sys.modules, "effnet.data.torchvision_compat", None)
    assert first.find_spec("json", None) is None
    assert first in sys.meta_path
    assert first.find_spec("torchvision", None) is None
    assert first not in sys.meta_path
