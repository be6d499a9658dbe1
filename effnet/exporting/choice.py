"""Which engine a machine's contest chose for a network, and why: records, remembered as JSON. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

from effnet.arch.record import Record
from effnet.clock.machine import machine, versions
from effnet.exporting import kept

CHOICES = "choices.json"
MOST = 50  # choices that are remembered of a network
SHORT = {"bfloat16": "bf16", "float16": "f16"}


@dataclass(frozen=True)
class Question(Record):
    """What a choice depends on beside the network: another machine, version or use is another question.

    ``batch``: pictures at once; ``size``: their (height, width), None for the network's own; ``precision``: what was
    allowed; ``threads``: None for a thread each core.
    """

    cpu: str
    cores: int
    instructions: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    batch: int
    size: tuple[int, int] | None
    precision: str
    threads: int | None

    @classmethod
    def now(cls, batch: int, size: tuple[int, int] | None, precision: str, threads: int | None) -> Self:
        """The question as this machine asks it today."""
        here, found = machine(), _versions()
        return cls(here.cpu, here.cores, here.instructions, found, batch, size, precision, threads)


@dataclass(frozen=True)
class Contestant(Record):
    """An engine that was timed. Seconds are of one call, its median, first and last decile.

    ``apart``: by how much its answers differ from eager's in float32, as a share of the largest of these.
    """

    kind: str
    precision: str
    seconds: float
    p10: float
    p90: float
    calls: int
    apart: float


@dataclass(frozen=True)
class LeftOut(Record):
    """An engine that was not timed, or whose answers differ, and why."""

    kind: str
    precision: str
    why: str


@dataclass(frozen=True)
class Choice(Record):
    """What was chosen, and its reasons: ``contestants`` from the fastest to the slowest."""

    RECORDS = MappingProxyType({"question": Question, "contestants": Contestant, "left_out": LeftOut})

    question: Question
    kind: str
    precision: str
    contestants: tuple[Contestant, ...]
    left_out: tuple[LeftOut, ...]
    batch: int  # that was timed: fewer than asked for where a call would have taken long
    date: str

    def in_words(self) -> str:
        """One line for a person: "openvino, bf16, 4.9 ms; onnxruntime 6.6; eager 16.2"."""
        chosen, *others = sorted(
            self.contestants, key=lambda one: (one.kind, one.precision) != (self.kind, self.precision)
        )
        told = [f"{chosen.kind}, {SHORT.get(chosen.precision, chosen.precision)}, {chosen.seconds * 1e3:.1f} ms"]
        for one in others:
            narrow = f" {SHORT[one.precision]}" if one.precision in SHORT else ""
            told.append(f"{one.kind}{narrow} {one.seconds * 1e3:.1f}")
        return "; ".join(told)


@dataclass(frozen=True)
class Throughput(Record):
    """What an engine makes of batches. ``measured``: (pictures at once, pictures a second), in order."""

    RECORDS = MappingProxyType({"question": Question})

    question: Question  # its batch is 0: it is what is asked for
    kind: str
    precision: str
    measured: tuple[tuple[int, float], ...]
    date: str

    @property
    def most(self) -> float:
        """The most pictures a second."""
        return max(speed for _, speed in self.measured)

    @property
    def best(self) -> int:
        """The smallest batch that reaches 97 % of the most pictures a second: more would take memory alone."""
        return min(batch for batch, speed in self.measured if speed >= 0.97 * self.most)


@dataclass(frozen=True)
class Proof(Record):
    """An engine that was asked for by its name, and answered as eager does."""

    kind: str
    precision: str
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Choices(Record):
    """All that is remembered of a network, oldest first."""

    RECORDS = MappingProxyType({"choices": Choice, "throughputs": Throughput, "proofs": Proof})

    choices: tuple[Choice, ...] = ()
    throughputs: tuple[Throughput, ...] = ()
    proofs: tuple[Proof, ...] = ()


def read(kept_by: str) -> Choices:
    """What is remembered of the network with that key; nothing where the note is damaged or of another version."""
    path = kept.find(kept_by, CHOICES)
    try:
        return Choices.from_json(path.read_text(encoding="utf-8")) if path else Choices()
    except (OSError, ValueError):
        return Choices()


def remember(kept_by: str, found: Choice | Throughput | Proof) -> None:
    """Notes what was found, in place of an older answer to the same question."""
    before = read(kept_by)
    match found:
        case Choice():
            others = tuple(one for one in before.choices if one.question != found.question)
            now = replace(before, choices=(*others, found)[-MOST:])
        case Throughput():
            same = (found.question, found.kind, found.precision)
            rest = tuple(one for one in before.throughputs if (one.question, one.kind, one.precision) != same)
            now = replace(before, throughputs=(*rest, found)[-MOST:])
        case Proof():
            now = replace(before, proofs=(*before.proofs, found)[-MOST:])
    text = json.dumps(now.to_dict(), indent=1, ensure_ascii=False)
    kept.keep(kept_by, CHOICES, lambda path: path.write_text(text, encoding="utf-8"))


def agreed(kept_by: str, kind: str, precision: str) -> bool:
    """Whether that engine, in the versions that are installed, is known to answer as eager does."""
    known, now = read(kept_by), _versions()
    timed = (
        (one.kind, one.precision, choice.question.versions) for choice in known.choices for one in choice.contestants
    )
    return Proof(kind, precision, now) in known.proofs or (kind, precision, now) in timed


def proved(kept_by: str, kind: str, precision: str) -> None:
    """Notes that the engine was seen to answer as eager does."""
    remember(kept_by, Proof(kind, precision, _versions()))


def remembered(
    kept_by: str,
    batch: int = 1,
    size: tuple[int, int] | None = None,
    precision: str = "float32",
    threads: int | None = None,
) -> Choice | None:
    """The choice for this machine as it is today, with the versions that are installed; None where there is none."""
    question = Question.now(batch, size, precision, threads)
    return next((one for one in read(kept_by).choices if one.question == question), None)


def _versions() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(versions().items()))
