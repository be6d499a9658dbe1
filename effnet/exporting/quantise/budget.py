"""Which layers stay in float so that a written file keeps within a loss of accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST_FLOAT = 0.5  # of the layers: a file of more floats than that is no int8 file


def within(
    max_drop: float, drop: Callable[[frozenset[str]], float], ranked: Callable[[], Sequence[str]], layers: int
) -> frozenset[str]:
    """The layers that stay in float: as few of the most harmful ones as keep the drop within ``max_drop``.

    ``drop`` writes a file with those layers in float, runs it and answers with what it loses, in percentage points;
    its last call is with what is returned. ``ranked`` gives the layers, most harmful first; it is only asked where
    leaving none in float is too much. Their number is doubled until the budget is kept, then halved back as far as it
    stays kept. Raises ``ValueError`` where half of the ``layers`` in float is not enough.
    """
    first = drop(frozenset())
    if first <= max_drop:
        return frozenset()
    order = list(ranked())
    most = min(int(layers * MOST_FLOAT), len(order))
    kept, count, lost = 0, 1, first
    while kept < most:
        count = min(count, most)
        lost = drop(frozenset(order[:count]))
        if lost <= max_drop:
            break
        kept, count = count, count * 2
    else:
        raise ValueError(
            f"int8 would lose {first:.2f} percentage points, and still {lost:.2f} with the {most} most harmful of "
            f"{layers} layers in float, where {max_drop:g} are allowed: allow more, or give more pictures"
        )
    last = count  # with which `drop` was called last
    while count - kept > 1:
        middle = (kept + count) // 2
        last = middle
        kept, count = (kept, middle) if drop(frozenset(order[:middle])) <= max_drop else (middle, count)
    if last != count:
        drop(frozenset(order[:count]))
    return frozenset(order[:count])
