"""MnasNet's search space around a base network, as data: the alternatives for each of its stages.

Source: arXiv:1807.11626, section 4.1. All layers of a stage share one choice. Where the paper may replace a residual by
pooling, this space can only drop it, since no `Stage` pools.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from random import Random

from effnet.arch import Arch, Stage, layers

Choice = str | int | float | bool
Choices = dict[str, Choice]  # "stage2.kernel": 5, … one for each of `SearchSpace.options`

NEW_EXPAND_RATIO = 4  # of an MBConv that replaces a stage without expansion
KERNEL_SIZES = (3, 5)
SQUEEZE_RATIOS = (0.0, 0.25)
CHANNEL_FACTORS = (0.75, 1.0, 1.25)  # times the base's
LAYER_CHANGES = (-1, 0, 1)  # more than the base's
# Operation -> `Stage.block`, and whether it expands
OPERATIONS = {
    "mbconv": ("mbconv", True),
    "fused": ("fused", True),
    "separable": ("mbconv", False),
    "plain": ("fused", False),
}
CHOICE_NAMES = ("operation", "kernel", "squeeze", "residual", "channels", "layers")


@dataclass(frozen=True)
class SearchSpace:
    """All networks that the choices make of ``base``, including itself; choices that build the same stage count as one.

    The base's own values are added where the paper's lists lack them.
    """

    base: Arch

    @cached_property
    def options(self) -> dict[str, tuple[Choice, ...]]:
        """The values of every choice: ``stage1.operation``, ``stage1.kernel``, …"""
        options: dict[str, tuple[Choice, ...]] = {}
        for number, stage in enumerate(self.base.stages, start=1):
            values: tuple[tuple[Choice, ...], ...] = (
                tuple(OPERATIONS),
                tuple(sorted({*KERNEL_SIZES, stage.kernel})),
                tuple(sorted({*SQUEEZE_RATIOS, stage.squeeze})),
                (True, False),
                self._distinct_values(number, "channels", CHANNEL_FACTORS),
                self._distinct_values(number, "layers", LAYER_CHANGES),
            )
            options |= {f"stage{number}.{name}": each for name, each in zip(CHOICE_NAMES, values, strict=True)}
        return options

    @property
    def size(self) -> int:
        """The number of combinations."""
        return prod(map(len, self.options.values()))

    @property
    def base_choices(self) -> Choices:
        """The choices that build the base itself."""
        choices: Choices = {}
        for number, stage in enumerate(self.base.stages, start=1):
            operation = next(name for name, block in OPERATIONS.items() if block == (stage.block, _expands(stage)))
            values: tuple[Choice, ...] = (operation, stage.kernel, stage.squeeze, stage.residual, 1.0, 0)
            choices |= {f"stage{number}.{name}": value for name, value in zip(CHOICE_NAMES, values, strict=True)}
        return choices

    def arch(self, choices: Mapping[str, Choice], name: str = "candidate") -> Arch:
        """Build the network of ``choices``. Raises ``ValueError`` for a missing or unknown choice or value."""
        if choices.keys() != self.options.keys():
            raise ValueError(
                f"not the choices of this space: {', '.join(sorted(choices.keys() ^ self.options.keys()))}"
            )
        for choice, value in choices.items():
            if value not in self.options[choice]:
                raise ValueError(f"{choice} must be one of {self.options[choice]}, got {value!r}")
        stages = (self._stage(number, choices) for number in range(1, len(self.base.stages) + 1))
        return replace(self.base, name=name, stages=tuple(stages))

    def random_choices(self, rng: Random) -> Choices:
        """Draw uniformly from the options."""
        return {name: rng.choice(values) for name, values in self.options.items()}

    def smallest_arch(self, cost: Callable[[Arch], float]) -> Arch:
        """Return the network of the lowest ``cost``, found by changing one choice at a time."""
        choices, before = self.base_choices, Choices()
        while choices != before:
            before = choices
            for name, values in self.options.items():
                choices = min(({**choices, name: value} for value in values), key=lambda each: cost(self.arch(each)))
        return self.arch(choices, "smallest")

    def _stage(self, number: int, choices: Mapping[str, Choice]) -> Stage:
        base = self.base.stages[number - 1]
        chosen = {name: choices[f"stage{number}.{name}"] for name in CHOICE_NAMES}
        block, expands = OPERATIONS[str(chosen["operation"])]
        squeeze = float(chosen["squeeze"])
        grown = base.with_layers(max(1, base.layers + int(chosen["layers"])))
        return replace(
            grown,
            block=block,
            expand=(base.expand if _expands(base) else NEW_EXPAND_RATIO) if expands else 1,
            expand_from=base.expand_from if expands else 0,
            expanded=grown.expanded if expands else (),
            kernel=int(chosen["kernel"]),
            squeeze=squeeze,
            squeezed=grown.squeezed if squeeze == base.squeeze else (),
            residual=bool(chosen["residual"]),
            channels=max(1, round(base.channels * float(chosen["channels"]))),
        )

    def _distinct_values(self, number: int, choice: str, values: tuple[Choice, ...]) -> tuple[Choice, ...]:
        """Of values that build the same stage keep one: the base's own, or else the first."""
        kept: dict[object, Choice] = {}
        own = 1.0 if choice == "channels" else 0
        for value in sorted(values, key=lambda each: each != own):
            stage = self._stage(number, {**self.base_choices, f"stage{number}.{choice}": value})
            arch = replace(self.base, stages=(*self.base.stages[: number - 1], stage, *self.base.stages[number:]))
            kept.setdefault(tuple(layer.channels for layer in layers(arch) if layer.stage == number), value)
        return tuple(sorted(kept.values()))


def _expands(stage: Stage) -> bool:
    return stage.expand > 1 or stage.expand_from > 0


def layers_key(arch: Arch) -> tuple[object, ...]:
    """Return a key that is equal for two networks if and only if they have the same layers."""
    return (arch.resolution, arch.activation, *(replace(layer, drop_path=0.0) for layer in layers(arch)))


def count_different_choices(one: Mapping[str, Choice], other: Mapping[str, Choice]) -> int:
    """Return in how many choices two networks differ."""
    return sum(value != other[name] for name, value in one.items())
