"""The ``effnet`` program: its commands, usage errors, logging and exit status."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import zip_longest
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from effnet.cli import printing, search
from effnet.cli.options import UsageError
from effnet.cli.standard_streams import EXIT_INTERRUPTED, flush_stdout, immediate_second_interrupt, safe_streams

# In the order of --help; each is the function of its name in the file of its name
_COMMANDS = (
    *("models", "show", "draw", "scale", "predict", "explain", "train", "evaluate", "convert", "export"),
    *("bench", "reproduce", "shard", "serve", "doctor"),
)
_IMPLIED_VALUES = {"--ray": "local"}  # options that may be given without a value


def main() -> int:
    """Run a command and return its exit status: 0 done, 1 the work failed, 2 the command was wrong."""
    with safe_streams(), immediate_second_interrupt():
        return flush_stdout(_run())


def _run() -> int:
    status = 1
    try:
        with _log_to_stderr():
            if os.path.expanduser("~") == "~":
                from effnet.data.storage.cache_dir import provide_home

                provide_home()
            build_app()(prog_name="effnet")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        message = _error_message(error)
        if message is None:
            raise
        printing.note(message)
    return status


class _Command(TyperCommand):
    """A command that notices when an option would take the next option for its value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an option without its value, or insert the implied one; then parse as usual."""
        end = args.index("--") if "--" in args else len(args)
        options = {
            name: param
            for param in self.get_params(ctx)
            if param.param_type_name == "option"
            for name in (*param.opts, *param.secondary_opts)
        }
        words = []
        for word, following in zip_longest(args[:end], args[1:end]):
            words.append(word)
            takes_value = word in options and not getattr(options[word], "is_flag", False)
            if takes_value and (following is None or following in options):
                if word in _IMPLIED_VALUES:
                    words.append(_IMPLIED_VALUES[word])
                elif not ctx.resilient_parsing:  # as shell completion parses
                    raise UsageError(f"Option '{word}' requires a value", ctx=ctx)
        return super().parse_args(ctx, words + args[end:])


def build_app() -> typer.Typer:
    """Return the program with all of its commands."""
    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root_command)
    for name in _COMMANDS:
        app.command(cls=_Command)(getattr(import_module(f"effnet.cli.{name}"), name))
    searches = typer.Typer(no_args_is_help=True, help="Search for a network on your own images.")
    searches.command(cls=_Command)(search.coefficients)
    searches.command(cls=_Command)(search.network)
    app.add_typer(searches, name="search")
    app.command(name="version")(_version_command)
    return app


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"effnet {version('effnet')}")
        raise typer.Exit


def _root_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """EfficientNets: published weights, training on your own images, export and fast inference."""


def _version_command() -> None:
    """Print the version."""
    _print_version(True)


def _error_message(error: Exception) -> str | None:
    """Return an error as one sentence; None for a bug, which deserves its traceback."""
    text = str(error)
    # torch has no single kind of error for a lack of memory; that of a killed child process says so itself
    torch_error = isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    if isinstance(error, MemoryError) or torch_error:
        return "out of memory; try a smaller --batch-size"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None if isinstance(error, RuntimeError) else text


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    log, handler = logging.getLogger("effnet"), _StderrHandler()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Looked up now, since a progress bar replaces sys.stderr to print above itself
        printing.note(record.getMessage())
