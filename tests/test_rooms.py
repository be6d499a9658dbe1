"""The rooms' one-way order, read from the imports with `ast`."""

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
    *("arch", "telemetry", "metadata", "tasks", "timing", "net", "draw", "data", "weights", "runtime", "exporting"),
    *("prediction", "evaluation", "explanation", "doctor", "training", "serve", "lab", "cli"),
)
STANDARD_LIBRARY_ONLY = ("arch", "telemetry", "metadata")
VAGUE = {"utils", "util", "helpers", "common", "misc", "tools"}
# A module is what one would look for by its name: neither a fragment with one importer nor a drawer.
MIN_LINES, MAX_LINES = 40, 550
MAX_FILES = 25  # of a room, sub-rooms not counted

# Those two stand in front of the rooms: what the package shows, and the command
MODULES = sorted(set(ROOT.rglob("*.py")) - {ROOT / "__init__.py", ROOT / "__main__.py"})


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Full name of every module that the file imports, wherever in it the import stands."""
    package = path.relative_to(ROOT.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            near = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*near, *filter(None, [node.module])))
            yield from (f"effnet.{alias.name}" for alias in node.names) if module == "effnet" else (module,)


def rooms_used(path: Path) -> set[str]:
    """Rooms of this package that the file imports; ``effnet`` for the package itself."""
    ours = [name.split(".") for name in imports(path) if is_ours(name)]
    return {parts[1] if len(parts) > 1 else "effnet" for parts in ours} - {room(path)}


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "effnet"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    here = room(path)
    assert here in ROOMS, f"{here} is no room: give it a place in the order"
    to_the_left = ROOMS[: ROOMS.index(here)]
    wrong = sorted(rooms_used(path) - set(to_the_left))
    assert not wrong, f"{here} imports {', '.join(wrong)}, which is not to its left; pass a function instead"
    if here in STANDARD_LIBRARY_ONLY:
        foreign = {name.split(".")[0] for name in imports(path) if not is_ours(name)} - sys.stdlib_module_names
        assert not foreign, f"{here} is the standard library only, and imports {', '.join(foreign)}"
    assert path.stem not in VAGUE, "name a module after what it holds"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: see whether it has become two modules"
    is_package = path.stem == "__init__" or path.parent.name == "catalog"
    assert lines >= MIN_LINES or is_package, f"{lines} lines: merge it into the module that uses it"


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda path: path.name)
def test_a_room_has_few_files(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MAX_FILES


def test_a_class_name_stands_for_one_class() -> None:
    owners: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                owners.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in owners.items() if len(paths) > 1} == {}


def test_imports_are_a_small_part_of_the_package() -> None:
    lines = imported = 0
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        lines += len(text.splitlines())
        imported += sum(
            (node.end_lineno or node.lineno) - node.lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.Import, ast.ImportFrom))
        )
    assert imported <= 0.06 * lines, f"{imported} of {lines} lines are imports: import modules, or merge files"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_hides_a_function_that_its_package_exports(path: Path) -> None:
    # with a lazy __init__ the second access to effnet.weights.load would give the module
    if path.name == "__init__.py":
        return
    package = (path.parent / "__init__.py").read_text(encoding="utf-8")
    whole = ".".join(("effnet", *path.relative_to(ROOT).with_suffix("").parts))
    exported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(package))
        if isinstance(node, ast.ImportFrom) and node.module == whole
        for alias in node.names
    }
    assert path.stem not in exported


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
