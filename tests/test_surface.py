"""The public API: exactly these names, documented, and nothing heavy imported before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import effnet

PUBLIC = {
    "ARCHS",
    "Arch",
    "Callback",
    "Count",
    "Diagnosis",
    "EfficientNet",
    "Ensemble",
    "Evaluation",
    "Explanation",
    "FusedMBConv",
    "Labels",
    "Layer",
    "MBConv",
    "Numerics",
    "Prediction",
    "Predictor",
    "Preprocess",
    "Provenance",
    "Recipe",
    "Resources",
    "SqueezeExcite",
    "Stage",
    "TrainConfig",
    "convert",
    "count",
    "create",
    "diagnose",
    "engine",
    "export",
    "evaluate",
    "explain",
    "fit",
    "latency",
    "layers",
    "quantize",
    "load",
    "rounding",
    "save",
    "scale",
    "train",
    "train_folds",
}


def fresh(code: str) -> str:
    """What ``code`` prints in a new process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_names() -> None:
    assert set(effnet.__all__) == PUBLIC
    assert len(effnet.__all__) == len(PUBLIC)
    assert set(dir(effnet)) >= PUBLIC | {"__version__"}
    assert effnet.__version__


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_is_documented(name: str) -> None:
    found = getattr(effnet, name)
    assert getattr(effnet, name) is found  # the second access gives the same
    assert not isinstance(found, type(sys)), f"effnet.{name} is a module"
    if name != "ARCHS":
        # a dataclass without a docstring gets its signature as one
        assert (found.__doc__ or "").strip()
        assert not found.__doc__.startswith(f"{name}(")


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(effnet.__file__).read_text(encoding="utf-8"))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in checking.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    assert seen == {name: f"{effnet._MODULE_OF[name]}.{name}" for name in PUBLIC}


def test_submodules_do_not_hide_functions() -> None:
    code = (
        "import effnet, effnet.arch.counting, effnet.weights.loading, effnet.training.train; from types import ModuleType; "
        "print([n for n in effnet.__all__ if isinstance(getattr(effnet, n), ModuleType)])"
    )
    assert fresh(code) == "[]"


def test_import_is_light() -> None:
    code = "import sys, effnet; dir(effnet); print({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules))"
    assert fresh(code) == "set()"


def test_arithmetic_needs_no_torch() -> None:
    code = "import sys, effnet; effnet.count(effnet.scale(effnet.ARCHS['b0'], 1)); print('torch' in sys.modules)"
    assert fresh(code) == "False"


def test_a_wrong_name_gets_a_hint() -> None:
    with pytest.raises(AttributeError, match="create"):
        effnet.crate  # noqa: B018
    with pytest.raises(AttributeError, match="nonsense_"):
        effnet.nonsense_  # noqa: B018
