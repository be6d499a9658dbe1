"""Early stopping, from the history of a run."""

from __future__ import annotations

from math import inf

import pytest

from effnet.training.callbacks import EpochMetrics, best_epoch, should_stop_early


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ([], 1, False),
        ([2.0, 1.0, 1.5], 2, False),
        ([2.0, 1.0, 1.5, 1.0], 2, True),  # as low as before is not lower
        ([2.0, 1.0, 1.5, 0.9], 2, False),
        ([1.0, 2.0, 3.0], 0, False),
        ([1.0, 2.0, 3.0], 3, False),
        ([inf, inf, inf], 1, False),  # the average may recover
    ],
)
def test_stops_after_patience_epochs_without_a_lower_loss(losses: list[float], patience: int, stops: bool) -> None:
    history = [EpochMetrics(epoch, 0.0, loss, 0.0, 0.0) for epoch, loss in enumerate(losses, start=1)]
    assert should_stop_early(history, patience) == stops


def test_best_epoch_is_the_first_of_equals() -> None:
    assert (
        best_epoch([EpochMetrics(epoch, 0.0, loss, 0.0, 0.0) for epoch, loss in ((1, 2.0), (2, 1.0), (3, 1.0))]).epoch
        == 2
    )
