"""Numbers that nobody means are refused at once, by every command, before data or networks are read."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import pytest
import typer.main

from effnet.cli.app import build_app
from tests.cli.conftest import Run

ABSURD = ("nan", "inf", "-inf", "1e999", "-1e300", "99999999999999", "9" * 5_000, "-99999999999", "", "0x10", "1,5")
# Numbers in text, which an option reads itself: the command with all that it requires and the option, and more of them
SIZES, LISTS = ("1000000", "0", "1000000x224", "224x9999999", "nanxnan"), ("1,nan", "1,99999999", "0,1", "1e3")
TEXTS = {
    "train no-such-folder --image-size": SIZES,
    "evaluate b0 no-such-folder --size": SIZES,
    "bench b0 --image-size": SIZES,
    "bench b0 --batch-size": LISTS,
    "bench b0 --threads": LISTS,
    "search coefficients no-such-folder --epochs": LISTS,
    "search coefficients no-such-folder --step": ("0", "1e-9", "1e999999999", "1e-999999999"),
    "search coefficients no-such-folder --within": ("0", "2"),
    "reproduce scaling no-such-folder --coefficients": ("1,1,nan", "1,1,inf", "1,1,1e30", "0,1,1"),
    "train no-such-folder --learning-rate": ("0", "1e5"),
    "train no-such-folder --dry-run --learning-rate": ("0", "1e5"),
    "scale --macs": ("0", "1e99G"),
    "scale --params": ("0", "1e99G"),
    "scale --memory": ("0", "1e99GiB"),
    "scale --latency": ("0ms", "1e30ms", "100000s"),
    "search network no-such-folder --target": ("0", "1e99G"),
}
SETTINGS = ("epochs", "batch_size", "learning_rate", "minutes", "warmup_epochs", "weight_decay", "label_smoothing")


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    group = group or typer.main.get_command(build_app())
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


OPTIONS = [
    pytest.param(command, param, id=f"{name} {param.opts[0]}")
    for name, command in commands()
    for param in command.params
    if param.type_descriptor.annotation in (int, float) and not param.type_descriptor.parameter_info.parser
]


def test_there_are_numbers() -> None:
    assert len(OPTIONS) > 60


@pytest.mark.parametrize(("command", "param"), OPTIONS)
def test_every_number_has_limits_and_refuses_what_is_beyond(command: Any, param: Any) -> None:
    low, high = param.min, param.max
    assert None not in (low, high), "declare it with options.number or options.real"
    assert all(map(isfinite, (low, high)))
    for text in (*ABSURD, str(low - 1), str(high + 1)):
        with pytest.raises(Exception) as raised:
            command.main([param.opts[0], text], standalone_mode=False)
        error: Any = raised.value
        assert getattr(error, "exit_code", None) == 2, f"{text[:20]}: {error!r}"
        assert param.opts[0] in error.format_message(), text[:20]  # not another argument that is missing


@pytest.mark.parametrize("words", TEXTS)
def test_every_number_in_a_text_refuses_what_is_absurd(run: Run, words: str) -> None:
    for text in ("nan", "inf", "-inf", "1e999", "-1e300", "9" * 5_000, "-1", "0x10", *TEXTS[words]):
        done = run(*words.split(), text)
        assert (done.status in (1, 2), done.out) == (True, ""), text[:20]
        assert "Traceback" not in done.err
        assert "no-such-folder" not in done.err, f"{text[:20]}: {done.err}"


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_of_a_recipe_refuses_what_is_absurd(run: Run, setting: str) -> None:
    for text in ("nan", "inf", "-1", "1e999", "9" * 40):
        done = run("train", "no-such-folder", "--set", f"{setting}={text}")
        assert (done.status, done.out) == (1, ""), text
        assert setting in done.err
        assert "no-such-folder" not in done.err


@pytest.mark.parametrize("field", ["size", "crop", "mean", "std"])
def test_every_number_of_preprocess_refuses_what_is_absurd(run: Run, field: str) -> None:
    for text in ("nan", "inf", "-1", "1e999", "1000000"):
        if (field, text) not in (("mean", "-1"), ("mean", "1000000"), ("std", "1000000")):  # odd, but numbers
            done = run("predict", "photo.jpg", "--model", "b0", "--preprocess", f"{field}={text}")
            assert done.status in (1, 2)
            assert "Traceback" not in done.err
