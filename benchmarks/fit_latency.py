"""Networks fitted to a latency limit: whether measuring again in new processes confirms the latency.

    python benchmarks/fit_latency.py [--base b0] [--limits 5,20,100] [--threads 2] [--rounds 5]

For each limit, in milliseconds, `effnet.fit` finds the largest network on the compound-scaling line of the base by
measuring. Then every network is measured again in ``--rounds`` interleaved rounds, each in a new process that chooses
the engine and times it. The exit status is 1 unless the median of every network is within 15 % of its limit. Run it on
an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from effnet.arch import Arch, count
from effnet.arch.fitting import FitResult, fit_detailed
from effnet.runtime.autotune import installed_file_engines
from effnet.runtime.latency import FastestEngine, Latency, LatencyMeasurement, LatencyTask, time_fastest_engine
from effnet.timing import Stopwatch, describe_machine, installed_versions, run_in_subprocess

TOLERANCE = 0.15


def measure_latency(arch: Arch, threads: int) -> FastestEngine:
    """Choose the fastest engine and time it, in a new process."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run_in_subprocess(
            time_fastest_engine, LatencyTask(arch, 1000, 3, 1, threads, Path(folder)), installed_file_engines()
        ).value


def fit_to_latency(base: str, limit: float, threads: int) -> tuple[FitResult, Latency, float]:
    """Return the fitted network, the latencies measured on the way, and the seconds that fitting took."""
    watch = Stopwatch()

    def log(measurement: LatencyMeasurement) -> None:
        print(f"  {measurement.arch.name}: {measurement.describe()}", file=sys.stderr, flush=True)

    latency = Latency(threads, on_measured=log)
    return fit_detailed(base, costs=[(latency, limit)]), latency, watch.seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="b0")
    parser.add_argument("--limits", default="5,20,100", help="in milliseconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    limits = [float(text) / 1e3 for text in options.limits.split(",")]
    fits = [fit_to_latency(options.base, limit, options.threads) for limit in limits]
    measurements: list[list[FastestEngine]] = [[] for _ in limits]
    for _ in range(options.rounds):
        for rows, (fit, _, _) in zip(measurements, fits, strict=True):
            rows.append(measure_latency(fit.arch, options.threads))
    print(f"{describe_machine().describe()}, {options.threads} threads; {installed_versions()}\n")
    print(
        "| limit | network | MACs | φ | when fitted | median of rounds | rounds | engines | median / limit | fitting |"
    )
    print("|--:|---|--:|--:|--:|--:|---|---|--:|---|")
    failed = False
    for limit, rows, (fit, latency, seconds) in zip(limits, measurements, fits, strict=True):
        middle = median(row.timing.seconds for row in rows)
        failed |= abs(middle / limit - 1) > TOLERANCE
        rounds = " ".join(f"{row.timing.seconds * 1e3:.3g}" for row in rows)
        engines = ", ".join(sorted({row.engine for row in rows}))
        print(
            f"| {limit * 1e3:g} ms | `{fit.arch.name}` | {count(fit.arch).macs / 1e9:.3f} G | {fit.phi:g} "
            f"| {fit.binding.reached * 1e3:.3g} ms | {middle * 1e3:.3g} ms | {rounds} | {engines} "
            f"| {middle / limit:.2f} | {len(latency.measurements)} networks, {seconds:.0f} s |"
        )
    print(f"\n{'NOT all' if failed else 'All'} within {TOLERANCE:.0%} of their limits")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
