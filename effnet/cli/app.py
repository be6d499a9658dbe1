"""The command line: a file a verb, and what they have in common when they end.

Verbs import what they work with when they run, so that help is there at once.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from effnet.cli.bench import bench
from effnet.cli.convert import convert
from effnet.cli.doctor import doctor
from effnet.cli.draw import draw
from effnet.cli.evaluate import evaluate
from effnet.cli.explain import explain
from effnet.cli.export import export
from effnet.cli.models import models
from effnet.cli.predict import predict
from effnet.cli.reproduce import reproduce
from effnet.cli.scale import scale
from effnet.cli.search import coefficients, network
from effnet.cli.serve import serve
from effnet.cli.shard import shard
from effnet.cli.show import show
from effnet.cli.train import train

EXIT_INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def main() -> int:
    """The console script ``effnet``: runs a verb and returns 0 done, 1 the work failed, 2 the command was wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no file's name shall fail for the terminal's encoding
    status = 1
    try:
        with _log_to_stderr():
            _build_app()(prog_name="effnet")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        sentence = _error_message(error)
        if sentence is None:
            raise
        print(f"effnet: {sentence}", file=sys.stderr)
    return _flush_stdout(status)


def _build_app() -> typer.Typer:
    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root_command)
    first = (models, show, draw, scale, predict, explain, train, evaluate, convert, export)
    for verb in (*first, bench, reproduce, shard, serve, doctor):
        app.command()(verb)
    app.add_typer(_build_search_app(), name="search")
    return app


def _build_search_app() -> typer.Typer:
    searches = typer.Typer(no_args_is_help=True, help="Find coefficients or a network on your own pictures.")
    searches.command()(coefficients)
    searches.command()(network)
    return searches


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print(f"effnet {version('effnet')}")
        raise typer.Exit


def _root_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """The EfficientNet family as a finished tool: exact, trainable on your own photos, explained."""


def _error_message(error: Exception) -> str | None:
    """What went wrong in words; None for a fault of ours, which deserves its traceback."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error)
    # torch has no one kind of error for a lack of memory
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "the memory does not suffice: try a smaller --batch"
    return None if isinstance(error, RuntimeError) else text


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """What the package logs is shown on standard error, one line each."""
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
        print(f"effnet: {record.getMessage()}", file=sys.stderr)


def _flush_stdout(status: int) -> int:
    """``status``; or 1, quietly, where whoever read our output has gone away."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at its end
        return 1
    return status
