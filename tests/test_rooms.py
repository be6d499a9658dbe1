"""The rooms import each other in one direction only; imports are read with `ast`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import effnet

ROOT = Path(effnet.__file__).parent

# A room imports only rooms to its left.
ROOMS = (
    *("arch", "metadata", "tasks", "timing", "net", "draw", "data", "weights", "runtime", "exporting", "prediction"),
    *("evaluation", "explanation", "doctor", "training", "serve", "lab", "cli"),
)
STANDARD_LIBRARY_ONLY = ("arch", "metadata")
VAGUE = {"utils", "util", "helpers", "common", "misc", "tools"}
MAX_LINES = 700

# Not in a room: the public API and the command
MODULES = sorted(set(ROOT.rglob("*.py")) - {ROOT / "__init__.py", ROOT / "__main__.py"})


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module that the file imports, also within functions."""
    package = path.relative_to(ROOT.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            near = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*near, *filter(None, [node.module])))
            yield from (f"effnet.{alias.name}" for alias in node.names) if module == "effnet" else (module,)


def rooms_used(path: Path) -> set[str]:
    """Return the rooms that the file imports, and "effnet" for the package itself."""
    ours = [name.split(".") for name in imports(path) if is_ours(name)]
    return {parts[1] if len(parts) > 1 else "effnet" for parts in ours} - {room(path)}


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "effnet"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    here = room(path)
    assert here in ROOMS, f"{here} is missing from ROOMS"
    to_the_left = ROOMS[: ROOMS.index(here)]
    wrong = sorted(rooms_used(path) - set(to_the_left))
    assert not wrong, f"{here} imports {', '.join(wrong)}, which is not to its left: pass a function instead"
    if here in STANDARD_LIBRARY_ONLY:
        foreign = {name.split(".")[0] for name in imports(path) if not is_ours(name)} - sys.stdlib_module_names
        assert not foreign, f"{here} may import the standard library only, not {', '.join(foreign)}"
    assert path.stem not in VAGUE, "name a module after its contents"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: consider splitting the module"


def test_the_package_itself_imports_lazily() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    lazy = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    eager = {
        name
        for node in ast.walk(tree)
        if node not in lazy and isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert {name for name in eager if name.split(".")[0] not in sys.stdlib_module_names} == set()


def test_rooms_are_never_named_as_public_functions() -> None:
    # with a lazy __init__ the second access to effnet.train would give the module
    assert not set(ROOMS) & set(getattr(effnet, "__all__", ()))


def test_arch_and_metadata_need_no_torch() -> None:
    code = "import sys, effnet.arch, effnet.metadata; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
