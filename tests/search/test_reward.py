from __future__ import annotations

import pytest

from effnet.arch import count
from effnet.search.proxy import BASE
from effnet.search.reward import Cost, reward


def test_twice_the_cost_is_worth_five_percent_more_accuracy() -> None:
    # MnasNet, section 3: the exponent is chosen for that
    assert reward(0.75, 4e6, 4e6) == 0.75
    assert reward(0.75 * 1.05, 8e6, 4e6) == pytest.approx(0.75, rel=0.001)
    assert reward(0.5, 1e6, 4e6) == pytest.approx(0.5 * 4**0.07)


def test_a_cost_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="target"):
        reward(0.5, 1e6, 0)
    with pytest.raises(ValueError, match="cost"):
        reward(0.5, 0, 1e6)


def test_costs_are_counted_with_the_classes_there_are() -> None:
    counted = count(BASE, classes=10)
    assert Cost("macs", 10)(BASE) == counted.macs
    assert Cost("params", 10)(BASE) == counted.params
    with pytest.raises(ValueError, match="macs, params"):
        Cost("flops", 10)
