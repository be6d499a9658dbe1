"""Contestants that take turns, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, sleep

from effnet.arch.record import number, whole
from effnet.clock.timing import Timing

# Seconds. Measured on B0 with two threads, as processor time after the last call has returned: onnxruntime's pool spins
# for 40 ms, torch's OpenMP for 8, OpenVINO's hardly at all.
PAUSE = 0.05
LEAST = 3  # rounds
LONG = 10  # pauses: what is left of a pool's spinning does not matter to a call that takes longer

Contestant = Callable[[], object]


def contest(
    contestants: Mapping[str, Contestant],
    runs: int = 20,
    warm_up: int = 3,
    consecutive: int = 1,
    pause: float = 0.0,
    seconds: float = float("inf"),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timing]:
    """Times all ``contestants`` in turn: the name of each, and what it took.

    Each is called ``warm_up`` times unmeasured, then ``runs`` rounds call every one, in alternating order.

    Thread pools go on spinning when their work is done, onnxruntime's and OpenMP's among them, and take the next
    contestant's cores. So in a round each contestant may wait for ``pause`` seconds, make one call that is not
    timed (unless its calls are `LONG`), and then ``consecutive`` ones that are; with ``pause=0`` every call is timed.
    `PAUSE` is long enough for them all.

    Past ``seconds`` of measuring no further round begins, `LEAST` of them aside. ``progress`` hears
    how many rounds are done, and of how many.
    Raises ``ValueError`` for no runs, or a negative pause.
    """
    whole("runs", runs, 1)
    whole("warm_up", warm_up, 0)
    whole("consecutive", consecutive, 1)
    number("pause", pause, 0)
    quick: dict[str, bool] = {}
    for name, call in contestants.items():
        for _ in range(warm_up):
            quick[name] = _timed(call) < LONG * pause
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in contestants}
    begun = perf_counter()
    for turn in range(runs):
        if turn >= LEAST and perf_counter() - begun > seconds:
            break
        order = list(contestants.items())
        for name, call in order if turn % 2 == 0 else reversed(order):
            if pause:
                sleep(pause)
                if quick.get(name, True):
                    call()
            rounds[name].append(tuple(_timed(call) for _ in range(consecutive)))
        progress(turn + 1, runs)
    return {name: Timing(tuple(taken)) for name, taken in rounds.items()}


def _timed(call: Contestant) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start
