"""MnasNet's search space around a base network, as data: what each of its stages may be in place of what it is.

Source: arXiv:1807.11626, section 4.1. One choice a stage, which all its layers share. Where the paper may replace a
residual by pooling, this may only leave it out, since no `Stage` pools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from random import Random

from effnet.arch import Arch, Stage, layers

Choice = str | int | float | bool
Choices = dict[str, Choice]  # "stage2.kernel": 5, … one for each of `Space.options`

NEW_EXPAND_RATIO = 4  # of an MBConv in place of a stage that does not expand
KERNEL_SIZES = (3, 5)
SQUEEZE_RATIOS = (0.0, 0.25)
CHANNEL_FACTORS = (0.75, 1.0, 1.25)  # times the base's
LAYER_CHANGES = (-1, 0, 1)  # more than the base's
# What a stage may be, and the `block` and whether it expands that this comes to
OPERATIONS = {
    "mbconv": ("mbconv", True),
    "fused": ("fused", True),
    "separable": ("mbconv", False),
    "plain": ("fused", False),
}
CANDIDATE_NAME = "candidate"


@dataclass(frozen=True)
class SearchSpace:
    """All networks that the choices make of ``base``, itself among them.

    What two choices of a stage would build alike, as channels rounded to the same multiple of 8, is one choice. Values
    of the base's own that the paper's lists lack, as a kernel of 7, are added to them.
    """

    base: Arch

    @cached_property
    def options(self) -> dict[str, tuple[Choice, ...]]:
        """What there is to choose from, by the choice's name: ``stage1.operation``, ``stage1.kernel``, …"""
        found: dict[str, tuple[Choice, ...]] = {}
        for number, stage in enumerate(self.base.stages, start=1):
            name = f"stage{number}"
            found[f"{name}.operation"] = tuple(OPERATIONS)
            found[f"{name}.kernel"] = tuple(sorted({*KERNEL_SIZES, stage.kernel}))
            found[f"{name}.squeeze"] = tuple(sorted({*SQUEEZE_RATIOS, stage.squeeze}))
            found[f"{name}.residual"] = (True, False)
            found[f"{name}.channels"] = self._distinct_values(number, "channels", CHANNEL_FACTORS)
            found[f"{name}.layers"] = self._distinct_values(number, "layers", LAYER_CHANGES)
        return found

    @property
    def size(self) -> int:
        """How many combinations of choices there are."""
        return prod(map(len, self.options.values()))

    @property
    def base_choices(self) -> Choices:
        """The choices that build the base itself."""
        found: Choices = {}
        for number, stage in enumerate(self.base.stages, start=1):
            operation = next(name for name, way in OPERATIONS.items() if way == (stage.block, stage.expand > 1))
            own: tuple[Choice, ...] = (operation, stage.kernel, stage.squeeze, stage.residual, 1.0, 0)
            names = ("operation", "kernel", "squeeze", "residual", "channels", "layers")
            found |= {f"stage{number}.{name}": value for name, value in zip(names, own, strict=True)}
        return found

    def arch(self, choices: Mapping[str, Choice], name: str = CANDIDATE_NAME) -> Arch:
        """The network of ``choices``. Raises ``ValueError`` where one is missing, unknown, or none of the options."""
        if choices.keys() != self.options.keys():
            other = sorted(choices.keys() ^ self.options.keys())
            raise ValueError(f"not the choices of this space: {', '.join(other)}")
        for choice, value in choices.items():
            if value not in self.options[choice]:
                raise ValueError(f"{choice} cannot be {value!r}: it is one of {self.options[choice]}")
        stages = (self._stage(number, choices) for number in range(1, len(self.base.stages) + 1))
        return replace(self.base, name=name, stages=tuple(stages))

    def random_choices(self, rng: Random) -> Choices:
        """Choices ``drawn`` at random, each alike likely."""
        return {name: rng.choice(values) for name, values in self.options.items()}

    def smallest_arch(self, cost: Callable[[Arch], float]) -> Arch:
        """The network of the least ``cost``, found choice by choice until no other choice makes it smaller."""
        choices, before = self.base_choices, Choices()
        while choices != before:
            before = choices
            for name, values in self.options.items():
                choices = min(({**choices, name: value} for value in values), key=lambda one: cost(self.arch(one)))
        return self.arch(choices, "smallest")

    def _stage(self, number: int, choices: Mapping[str, Choice]) -> Stage:
        base = self.base.stages[number - 1]
        chosen = {name: choices[f"stage{number}.{name}"] for name in _STAGE_CHOICES}
        block, expands = OPERATIONS[str(chosen["operation"])]
        return replace(
            base,
            block=block,
            expand=(base.expand if base.expand > 1 else NEW_EXPAND_RATIO) if expands else 1,
            expand_from=base.expand_from if expands else 0,
            kernel=int(chosen["kernel"]),
            squeeze=float(chosen["squeeze"]),
            residual=bool(chosen["residual"]),
            channels=max(1, round(base.channels * float(chosen["channels"]))),
            layers=max(1, base.layers + int(chosen["layers"])),
        )

    def _distinct_values(self, number: int, choice: str, values: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """Of ``values``, one for each thing built; the base's own, or else the first, stands for those built alike."""
        kept: dict[object, Choice] = {}
        own = 1.0 if choice == "channels" else 0
        for value in sorted(values, key=lambda one: one != own):
            stage = self._stage(number, {**self.base_choices, f"stage{number}.{choice}": value})
            arch = replace(self.base, stages=(*self.base.stages[: number - 1], stage, *self.base.stages[number:]))
            kept.setdefault(tuple(layer.channels for layer in layers(arch) if layer.stage == number), value)
        return tuple(sorted(kept.values()))


_STAGE_CHOICES = ("operation", "kernel", "squeeze", "residual", "channels", "layers")


def layers_key(arch: Arch) -> tuple[object, ...]:
    """What is equal of two networks if and only if they have the same layers: one is as good as the other."""
    return (arch.resolution, arch.activation, *(replace(layer, drop_path=0.0) for layer in layers(arch)))


def count_different_choices(one: Mapping[str, Choice], other: Mapping[str, Choice]) -> int:
    """In how many choices two networks differ."""
    return sum(value != other[name] for name, value in one.items())
