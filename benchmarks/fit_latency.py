"""Do networks that were fitted to a latency keep it? Measured again in interleaved fresh processes.

    python benchmarks/latency_budget.py [--base b0] [--limits 5,20,100] [--threads 2] [--rounds 5]

For each limit, in milliseconds, `effnet.fit` finds the largest scaled network. Then every network is measured again in
each round, in one fresh process per network and round, including the choice of the engine. The median over the rounds
must be within 15 % of the limit; otherwise the exit status is 1. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from effnet.arch import Arch, count
from effnet.arch.fitting import FitResult, fit_detailed
from effnet.runtime.latency import (
    FastestEngine,
    Latency,
    LatencyMeasurement,
    LatencyTask,
    installed_file_engines,
    time_fastest_engine,
)
from effnet.timing import Stopwatch, describe_machine, installed_versions, run_in_subprocess

TOLERANCE = 0.15


def measure_again(arch: Arch, threads: int) -> FastestEngine:
    """Choose and time the engine again, in one fresh process."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run_in_subprocess(
            time_fastest_engine, LatencyTask(arch, 1000, 3, 1, threads, Path(folder)), installed_file_engines()
        ).value


def fit_to_limit(base: str, limit: float, threads: int) -> tuple[FitResult, Latency, float]:
    """Return the fit, its measurements, and the seconds it took."""
    watch = Stopwatch()

    def log(one: LatencyMeasurement) -> None:
        print(f"  {one.arch.name}: {one.describe()}", file=sys.stderr, flush=True)

    timer = Latency(threads, on_measured=log)
    return fit_detailed(base, costs=[(timer, limit)]), timer, watch.seconds


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--base", default="b0")
    options.add_argument("--limits", default="5,20,100", help="in milliseconds")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    limits = [float(text) / 1e3 for text in chosen.limits.split(",")]
    answers = [fit_to_limit(chosen.base, limit, chosen.threads) for limit in limits]
    times: list[list[FastestEngine]] = [[] for _ in limits]
    for _ in range(chosen.rounds):
        for rows, (fit, _, _) in zip(times, answers, strict=True):
            rows.append(measure_again(fit.arch, chosen.threads))
    print(f"{describe_machine().describe()}, {chosen.threads} threads; {installed_versions()}\n")
    print("| limit | network | MACs | at φ | when fitted | again, median | rounds | engines | / limit | fitted with |")
    print("|--:|---|--:|--:|--:|--:|---|---|--:|---|")
    failed = False
    for limit, rows, (fit, timer, seconds) in zip(limits, times, answers, strict=True):
        middle = median(row.timing.seconds for row in rows)
        failed |= abs(middle / limit - 1) > TOLERANCE
        each = " ".join(f"{row.timing.seconds * 1e3:.3g}" for row in rows)
        kinds = ", ".join(sorted({row.engine for row in rows}))
        print(
            f"| {limit * 1e3:g} ms | `{fit.arch.name}` | {count(fit.arch).macs / 1e9:.3f} G | {fit.phi:g} "
            f"| {fit.binding.reached * 1e3:.3g} ms | {middle * 1e3:.3g} ms | {each} | {kinds} | {middle / limit:.2f} "
            f"| {len(timer.measurements)} networks, {seconds:.0f} s |"
        )
    print(f"\n{'NOT all' if failed else 'All'} within {TOLERANCE:.0%} of their limits")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
