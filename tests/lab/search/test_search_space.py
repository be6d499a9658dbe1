"""The search space: what it contains, how choices become stages, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from effnet.arch import ARCHS, Arch, count, layers
from effnet.lab.search.proxy_task import BASE_ARCH
from effnet.lab.search.search_space import SearchSpace, count_different_choices, layers_key


@pytest.mark.parametrize("name", ["b0", "b3", "lite1", "edge_s", "v2_s", "v2_b1", "nano"])
def test_the_base_is_in_its_space(name: str) -> None:
    space = SearchSpace(ARCHS[name])
    assert layers_key(space.arch(space.base_choices)) == layers_key(ARCHS[name])


def test_the_space_of_b0_is_that_of_mnasnet() -> None:
    # Seven stages with 4 operations, 2 kernels, 2 squeeze ratios, residual or not, 3 channels and 3 depths. One layer
    # cannot become fewer; 16 × .75 = 12 channels of the first stage are rounded to 16 again, 18 of the second to 24.
    space = SearchSpace(ARCHS["b0"])
    per_stage = 4 * 2 * 2 * 2
    channels, depths = (2, 2, 3, 3, 3, 3, 3), (2, 3, 3, 3, 3, 3, 2)
    assert [len(space.options[f"stage{number}.channels"]) for number in range(1, 8)] == list(channels)
    assert [len(space.options[f"stage{number}.layers"]) for number in range(1, 8)] == list(depths)
    expected = 1
    for wide, deep in zip(channels, depths, strict=True):
        expected *= per_stage * wide * deep
    assert space.size == expected


def test_choices_become_stages() -> None:
    space = SearchSpace(BASE_ARCH)
    choices = space.base_choices | {
        "stage1.operation": "mbconv",  # the base's first stage does not expand
        "stage2.operation": "separable",
        "stage2.kernel": 5,
        "stage2.layers": 1,
        "stage3.operation": "plain",
        "stage3.squeeze": 0.0,
        "stage3.residual": False,
        "stage3.channels": 0.75,
    }
    first, second, third = space.arch(choices).stages
    assert (first.block, first.expand, first.channels) == ("mbconv", 4, 16)
    assert (second.block, second.expand, second.kernel, second.layers, second.stride) == ("mbconv", 1, 5, 3, 2)
    assert (third.block, third.expand, third.squeeze, third.residual, third.channels) == ("fused", 1, 0.0, False, 36)
    assert [layer.channels for layer in layers(space.arch(choices)) if layer.stage == 3] == [40, 40, 40]
    assert not any(layer.residual for layer in layers(space.arch(choices)) if layer.stage == 3)


def test_random_choices_can_be_built_and_counted() -> None:
    space, random = SearchSpace(BASE_ARCH), Random(1)
    macs = {count(space.arch(space.random_choices(random)), classes=10).macs for _ in range(50)}
    assert len(macs) > 40


def test_different_choices_may_build_the_same_network() -> None:
    # A single layer of stride 2 has no residual, allowed or not
    space = SearchSpace(BASE_ARCH)
    one = space.base_choices | {"stage2.layers": -1}
    two = one | {"stage2.residual": False}
    assert count_different_choices(one, two) == 1
    assert layers_key(space.arch(one)) == layers_key(space.arch(two))
    assert layers_key(space.arch(one)) != layers_key(space.arch(space.base_choices))
    assert layers_key(space.arch(one)) != layers_key(replace(space.arch(one), resolution=24))


def test_the_smallest_network() -> None:
    space, random = SearchSpace(BASE_ARCH), Random(2)

    def macs(arch: Arch) -> float:
        return float(count(arch, classes=10).macs)

    least = space.smallest_arch(macs)
    assert macs(least) <= min(macs(space.arch(space.random_choices(random))) for _ in range(300))
    assert all(stage.kernel == 3 and stage.squeeze == 0 for stage in least.stages)


def test_unknown_choices_are_refused() -> None:
    space = SearchSpace(BASE_ARCH)
    with pytest.raises(ValueError, match=r"stage2.kernel must be one of \(3, 5\), got 7"):
        space.arch(space.base_choices | {"stage2.kernel": 7})
    with pytest.raises(ValueError, match=r"stage9.kernel"):
        space.arch(space.base_choices | {"stage9.kernel": 3})
    # The base's own kernel is an option
    wide = replace(BASE_ARCH, stages=(replace(BASE_ARCH.stages[0], kernel=7), *BASE_ARCH.stages[1:]))
    assert SearchSpace(wide).options["stage1.kernel"] == (3, 5, 7)
