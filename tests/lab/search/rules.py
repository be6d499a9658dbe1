"""A search whose rule other processes can import: four trainings, and one more when these are done."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from effnet.lab.search.dataset import SearchDataset
from effnet.lab.search.scheduler import TrainingJob, run_jobs
from effnet.lab.search.store import TrainingResult
from tests.lab.search.conftest import TINY

FIRST = [TrainingJob(TINY, 2, seed) for seed in range(6)]
LAST = TrainingJob(TINY, 1, 100)


def wanted(results: Mapping[str, TrainingResult]) -> Sequence[TrainingJob]:
    return [*FIRST, LAST] if all(job.key in results for job in FIRST) else FIRST


if __name__ == "__main__":
    store, pictures, processes = sys.argv[1:]
    run_jobs(store, {"search": "test"}, wanted, SearchDataset.load(Path(pictures)), processes=int(processes))
