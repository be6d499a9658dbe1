"""The public API: exactly these names, documented, without heavy imports before they are used."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

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


def run_python(code: str) -> str:
    """Run ``code`` in a new process and return what it prints."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return process.stdout.strip()


def test_names() -> None:
    assert set(effnet.__all__) == PUBLIC
    assert len(effnet.__all__) == len(PUBLIC)
    assert set(dir(effnet)) >= PUBLIC | {"__version__"}
    assert effnet.__version__


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_is_documented(name: str) -> None:
    value = getattr(effnet, name)
    assert getattr(effnet, name) is value  # also at the second access
    assert not isinstance(value, type(sys)), f"effnet.{name} is a module"
    if name != "ARCHS":
        # the default docstring of a dataclass is its signature
        assert (value.__doc__ or "").strip()
        assert not value.__doc__.startswith(f"{name}(")


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(effnet.__file__).read_text(encoding="utf-8"))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in checking.body if isinstance(node, ast.ImportFrom)]
    imported = {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    assert imported == {name: f"{effnet._MODULE_OF[name]}.{name}" for name in PUBLIC}


def exported_names(package: ModuleType) -> set[str]:
    """Names that a package gives away: those it lists, and those it imports, at once or for type checkers."""
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    return {*getattr(package, "__all__", ()), *imported, *getattr(package, "_MODULE_OF", ())}


def test_no_submodule_has_the_name_of_what_its_package_exports() -> None:
    """Otherwise importing it replaces the function: "'module' object is not callable". Of every package."""
    modules = [module.name for module in pkgutil.walk_packages(effnet.__path__, "effnet.") if module.name[-2:] != "__"]
    packages = {name.rpartition(".")[0] for name in modules}
    assert {"effnet", "effnet.weights", "effnet.weights.formats", "effnet.lab.search"} <= packages
    for name in sorted(packages):
        package = import_module(name)
        stems = {module.rpartition(".")[2] for module in modules if module.rpartition(".")[0] == name}
        hidden = {
            each for each in stems & exported_names(package) if not inspect.ismodule(getattr(package, each, package))
        }
        assert not hidden, f"{name}: name these modules after what they hold: {hidden}"


def test_submodules_do_not_hide_functions() -> None:
    code = (
        "import effnet, effnet.arch.counting, effnet.weights.loading, effnet.training.train; "
        "from effnet.weights.loading import load; from effnet.exporting.export import export; "
        "from effnet.runtime.latency import latency; from effnet.exporting.quantize import quantize; "
        "import effnet.net.layers, effnet.doctor.diagnosis, effnet.weights.conversion, effnet.weights.saving; "
        "from types import ModuleType; "
        "print([n for n in effnet.__all__ if isinstance(getattr(effnet, n), ModuleType)], "
        "all(map(callable, (effnet.load, effnet.weights.load, effnet.weights.save, effnet.weights.convert))))"
    )
    assert run_python(code) == "[] True"


def test_import_is_light() -> None:
    code = "import sys, effnet; dir(effnet); print({'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules))"
    assert run_python(code) == "set()"


def test_counting_does_not_import_torch() -> None:
    code = "import sys, effnet; effnet.count(effnet.scale(effnet.ARCHS['b0'], 1)); print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_unknown_name_suggests_a_similar_one() -> None:
    with pytest.raises(AttributeError, match="create"):
        effnet.crate  # noqa: B018
    with pytest.raises(AttributeError, match="nonsense_"):
        effnet.nonsense_  # noqa: B018
