"""Thousands of damaged files: each is answered or refused in one sentence, and nothing crashes, hangs or swells."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from effnet.data.storage import embedded_digest
from tests.endurance.damage import damage
from tests.endurance.specimens import Specimen, make_specimens
from tests.endurance.worker import Command, Outcome, run_commands

FILES = int(os.environ.get("EFFNET_ENDURE_FILES", "2000"))
KINDS = os.environ.get("EFFNET_ENDURE_KINDS", "").split(",")  # parts of names; all by default
WORKERS = 2
TOLERANCE = 1e-3  # of a probability, between two runs of one file


@pytest.mark.sweep
def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specimens = [one for one in make_specimens(tmp_path / "specimens") if any(kind in one.name for kind in KINDS)]
    whole = open_whole(specimens, tmp_path / "whole")
    faults: list[str] = []
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    peaks: Counter[str] = Counter()
    commands = prepare(specimens, tmp_path / "cases", FILES)
    by_name = {one.name: one for one in specimens}
    for outcome in run_commands(commands, WORKERS):
        kind, _, rest = outcome.command.name.partition(" #")
        at = int(rest.partition(" ")[0]) // len(specimens)
        words = by_name[kind].commands[at % len(by_name[kind].commands)]
        changed = outcome.status == 0 and differs(whole[kind, words].out, outcome.out)
        silent = changed and not outcome.err.strip()
        fault = outcome.fault or ("another answer, and no word" if by_name[kind].digest and silent else "")
        counts[kind][
            fault.partition(":")[0] or ("refused" if outcome.status else "changed" if changed else "same")
        ] += 1
        peaks[kind] = max(peaks[kind], outcome.peak_bytes)
        if fault:
            faults.append(replace(outcome, fault=fault).describe())
        else:
            shutil.rmtree(outcome.command.folder)
    with capsys.disabled():
        print(f"\n{sum(sum(each.values()) for each in counts.values())} damaged files")
        for kind, count in counts.items():
            print(
                f"  {kind:22} {peaks[kind] / 1e6:5.0f} MB  "
                + ", ".join(f"{n} {what}" for what, n in count.most_common())
            )
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


def open_whole(specimens: Sequence[Specimen], folder: Path) -> dict[tuple[str, tuple[str, ...]], Outcome]:
    """Run all commands on the undamaged files: all of them must succeed."""
    commands, keys = [], []
    for specimen in specimens:
        for index, words in enumerate(dict.fromkeys(specimen.commands)):
            case = folder / f"{specimen.name}-{index}"
            shutil.copytree(specimen.folder, case)
            commands.append(make_command(specimen, f"{specimen.name} whole", case, words))
            keys.append((specimen.name, words))
    found = dict(zip(keys, run_commands(commands, WORKERS), strict=True))
    bad = [one.describe() for (name, words), one in found.items() if one.fault or (one.status and "me/mine" in words)]
    bad += [one.describe() for (name, words), one in found.items() if one.status and name != "bundle"]
    assert not bad, "\n".join(bad)
    shutil.rmtree(folder)
    return found


def prepare(specimens: Sequence[Specimen], folder: Path, count: int) -> Iterator[Command]:
    """Yield commands on folders in each of which one file is damaged, always the same ones."""
    for index in range(count):
        specimen, at = specimens[index % len(specimens)], index // len(specimens)
        words = specimen.commands[at % len(specimen.commands)]
        target = specimen.targets[at // len(specimen.commands) % len(specimen.targets)]
        case = folder / f"{index}"
        shutil.copytree(specimen.folder, case)
        path = case / target
        path.write_bytes(damage(path.name, path.read_bytes(), random.Random(index)))
        if specimen.sealed:
            with suppress(ValueError, OSError, IndexError):  # of a file that ends before it
                embedded_digest.seal(case / specimen.sealed)
        yield make_command(specimen, f"{specimen.name} #{index} ({target})", case, words)


def make_command(specimen: Specimen, name: str, case: Path, words: tuple[str, ...]) -> Command:
    here = {key: value.replace("{}", str(case)) for key, value in specimen.env.items()}
    return Command(name, tuple(word.replace("{}", str(case)) for word in words), case, here)


def differs(expected: str, found: str) -> bool:
    """Return whether two answers in JSON differ in a label, or in a number by more than rounding."""
    try:
        return not is_close(json.loads(expected), json.loads(found))
    except ValueError:
        return False  # no JSON: a table for people


def is_close(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            is_close(one[key], other[key]) for key in one if key not in ("image", "seconds")
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_close, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return abs(one - other) <= TOLERANCE
    return one == other
