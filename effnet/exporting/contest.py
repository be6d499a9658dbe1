"""The contest behind a choice: engines that are installed, each compared with eager, then timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import numpy as np

from effnet.clock import PAUSE, Stopwatch, Timing
from effnet.clock import contest as timed
from effnet.engines.engine import Engine, Floats, Pictures
from effnet.exporting.choice import Choice, Contestant, LeftOut, Question, Throughput

# The largest difference from eager in float32 that is let through, as a share of eager's largest answer. In bfloat16 a
# network of random numbers is off by .05 to .13, in eager itself as in OpenVINO.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2, "float16": 0.025}
COMPARED = 4  # pictures: enough to show a wrong graph, few enough for the largest networks
SECONDS = 2.5  # of timing
CALL_MOST = 0.5  # seconds of one call; where the batch would take longer, a smaller one is timed
BEHIND = 3.0  # times as slow as the fastest in the first calls: such are not timed further
WORTH = 0.95  # fewer bits are chosen only where they take this share of float32's time, or less
ROUNDS_MOST, CONSECUTIVE = 15, 3
BATCHES = (1, 8, 16, 32, 64, 128)

Opener = Callable[[], Engine]
Ways = Mapping[tuple[str, str], Opener]  # (kind, precision) -> the engine, where it can be had


def hold(
    ways: Ways, reference: Engine, question: Question, pictures: Pictures, left_out: tuple[LeftOut, ...] = ()
) -> tuple[Choice, Engine]:
    """The fastest of ``ways`` that agrees with ``reference``, and why: a few seconds for all but the largest networks.

    ``pictures``: uint8 (N, H, W, C), as many as are to be asked at once. What cannot be opened, or disagrees, is left
    out, and the choice says so. ``ways`` must contain ``reference``'s own kind in float32.
    """
    some = pictures[:COMPARED]
    watch = Stopwatch()
    expected = reference.run(some)
    each = watch.seconds / len(some)
    batch = max(1, min(len(pictures), int(CALL_MOST / max(each, 1e-9))))
    pictures = pictures[:batch]
    engines: dict[tuple[str, str], Engine] = {}
    apart: dict[tuple[str, str], float] = {}
    excluded = list(left_out)
    for (kind, precision), opened in ways.items():
        try:
            engine = opened()
            engine.prepare(batch, pictures.shape[1:3])
            apart[kind, precision] = differing(engine.run(pictures)[:COMPARED], expected[:batch])
        except Exception as error:  # whatever ails one of them, the others run
            excluded.append(LeftOut(kind, precision, str(error) or type(error).__name__))
        else:
            if apart[kind, precision] <= TOLERANCE[precision]:
                engines[kind, precision] = engine
            else:
                excluded.append(LeftOut(kind, precision, f"its answers differ by {apart[kind, precision]:.1e}"))
    times = _times(engines, pictures)
    chosen = _fastest(times)
    contestants = tuple(
        Contestant(*name, time.seconds, time.p10, time.p90, time.runs, apart[name])
        for name, time in sorted(times.items(), key=lambda pair: pair[1].seconds)
    )
    return Choice(question, *chosen, contestants, tuple(excluded), batch, _today()), engines[chosen]


def differing(answers: Floats, expected: Floats) -> float:
    """The largest difference over the largest of ``expected``; infinite where an answer is no number."""
    if answers.shape != expected.shape or not np.isfinite(answers).all():
        return float("inf")
    return float(np.abs(answers - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def throughput(engine: Engine, question: Question, picture: Pictures) -> Throughput:
    """Pictures a second of ``engine`` in batches of `BATCHES`, as long as they gain; a second or two.

    ``picture``: uint8 (1, H, W, C).
    """
    measured: list[tuple[int, float]] = []
    for batch in BATCHES:
        pictures = np.repeat(picture, batch, axis=0)
        engine.prepare(batch, pictures.shape[1:3])
        time = timed({"": partial(engine.run, pictures)}, runs=5, warm_up=1, seconds=SECONDS / 5)[""]
        measured.append((batch, batch / time.seconds))
        if len(measured) > 1 and (measured[-1][1] < measured[-2][1] or time.seconds > 2 * CALL_MOST):
            break
    return Throughput(question, engine.kind, engine.precision, tuple(measured), _today())


def _times(engines: Mapping[tuple[str, str], Engine], pictures: Pictures) -> dict[tuple[str, str], Timing]:
    """What each took; of those far behind, only a first call."""
    names = {" ".join(name): name for name in engines}
    calls = {text: partial(engines[name].run, pictures) for text, name in names.items()}
    first = timed(calls, runs=1, warm_up=0)  # all have answered once already
    least = min(time.seconds for time in first.values())
    ahead = {text: call for text, call in calls.items() if first[text].seconds <= BEHIND * least}
    rounds = SECONDS / sum(PAUSE + (1 + CONSECUTIVE) * first[text].seconds for text in ahead)
    runs = min(max(int(rounds), 3), ROUNDS_MOST)
    found = first | timed(ahead, runs, warm_up=0, consecutive=CONSECUTIVE, pause=PAUSE, seconds=SECONDS)
    return {names[text]: time for text, time in found.items()}


def _fastest(times: Mapping[tuple[str, str], Timing]) -> tuple[str, str]:
    exact = [name for name in times if name[1] == "float32"]
    best, exactly = (min(among, key=lambda name: times[name].seconds) for among in (times, exact or times))
    return best if times[best].seconds <= WORTH * times[exactly].seconds else exactly


def _today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
