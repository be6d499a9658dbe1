"""What all commands share: help, version, usage errors, exit status."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import effnet
from effnet.cli import app as cli
from effnet.cli import standard_streams
from effnet.cli.options import parse_image_size, parse_quantity
from effnet.cli.printing import format_si
from tests.cli.conftest import Run

COMMANDS = ("models", "show", "scale", "predict", "train", "evaluate", "convert", "export", "bench", "doctor")
EFFNET = (sys.executable, "-c", "import sys; from effnet.cli.app import main; sys.exit(main())")


def test_help(run: Run) -> None:
    done = run("--help")
    assert done.status == 0
    assert done.err == ""
    assert all(f"  {command} " in done.out for command in COMMANDS)
    assert "…" not in done.out
    assert "..." not in done.out.partition("Commands:")[2]  # no help text is cut off


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(run: Run, command: str) -> None:
    done = run(command, "-h")
    assert done.status == 0
    assert "--json" in done.out


def test_version(run: Run) -> None:
    assert run("--version") == run("version") == (0, f"effnet {effnet.__version__}\n", "")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['effnet', '--help']; from effnet.cli.app import main; main(); "
        "print({'torch', 'numpy', 'PIL', 'rich', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("words", [(), ("shwo",), ("models", "--nonsense"), ("show",), ("show", "b0", "--size", "big")])
def test_usage_error_exits_with_2(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.status == 2
    assert "Usage: " in done.out + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [("show", "b33"), ("predict", ".", "-m", "b33"), ("evaluate", "b33", "digits")])
def test_mistyped_model(run: Run, words: tuple[str, ...], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    done = run(*words)
    assert done == (1, "", "effnet: no EfficientNet is called 'b33'; did you mean b3?\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("it is so"), "it is so"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), "x.csv: No such file or directory"),
        (OSError("the disk is full"), "the disk is full"),
        (ImportError("pip install it"), "pip install it"),
        (ChildProcessError("the child process was killed"), "the child process was killed"),
        (MemoryError(), "out of memory; try a smaller --batch-size"),
        (RuntimeError("CUDA out of memory. Tried"), "out of memory; try a smaller --batch-size"),
    ],
)
def test_errors_are_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("effnet.arch.count", fail)
    assert run("show", "b0") == (1, "", f"effnet: {message}\n")


def test_bugs_keep_their_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("effnet.arch.count", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run("show", "b0")


def test_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("effnet.arch.count", interrupt)
    assert run("show", "b0").status == standard_streams.EXIT_INTERRUPTED == 130


def test_closed_pipe() -> None:
    process = subprocess.Popen([*EFFNET, "show", "b7", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [("8M", 8e6), ("1.5g", 1.5e9), ("500MB", 5e8), ("64MiB", 2**26), ("1e9", 1e9), ("300", 300), (".5 kB", 500)],
)
def test_quantities(text: str, value: float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "M", "8X", "-3", "8iB", "1,5G"])
def test_invalid_quantities(text: str) -> None:
    with pytest.raises(Exception, match="not an amount"):
        parse_quantity(text)


def test_sizes() -> None:
    assert parse_image_size("240") == (240, 240)
    assert parse_image_size("197x251") == (197, 251)
    assert parse_image_size(None) is None
    for wrong in ("0", "12x", "x12", "1x2x3", "-1"):
        with pytest.raises(Exception, match="not a size"):
            parse_image_size(wrong)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (928, "928"), (1448, "1.45 k"), (386e6, "386 M"), (999_900, "1.00 M"), (1.0e9, "1.00 G")],
)
def test_si_prefix(value: float, text: str) -> None:
    assert format_si(value) == text


def test_si_prefix_with_unit() -> None:
    assert format_si(6_823_936, "B") == "6.82 MB"


def test_documented_options_exist() -> None:
    """Every option in a command line of the documents, a docstring or a message belongs to its command."""
    app = typer.main.get_command(cli.build_app())
    root = Path(effnet.__file__).parent.parent
    unknown = []
    for path in (root / "README.md", *(root / "docs").glob("*.md"), *(root / "effnet").rglob("*.py")):
        for match in re.finditer(
            r"\beffnet (\w+)( coefficients| network)?((?: [^\n#`|\"']*)?)", path.read_text("utf-8")
        ):
            command = app.commands.get(match[1])  # type: ignore[attr-defined]
            if command is not None and match[1] == "search" and match[2]:
                command = command.commands[match[2].strip()]
            if command is not None:
                options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
                given = re.findall(r"(?<!\S)--[a-z][a-z-]*", match[3])
                unknown += [f"{path.name}: {match[0]}: {name}" for name in given if name not in {*options, "--help"}]
    assert unknown == []
