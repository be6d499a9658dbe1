"""A search whose rule other processes can import: six trainings, and one more once these are done."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from effnet.lab.search.job_store import TrainingJob, TrainingResult, run_jobs
from effnet.lab.search.proxy_task import SearchDataset
from tests.lab.search.conftest import TINY

FIRST = [TrainingJob(TINY, 2, seed) for seed in range(6)]
LAST = TrainingJob(TINY, 1, 100)


def rule(results: Mapping[str, TrainingResult]) -> Sequence[TrainingJob]:
    return [*FIRST, LAST] if all(job.key in results for job in FIRST) else FIRST


if __name__ == "__main__":
    store, dataset, processes = sys.argv[1:]
    run_jobs(store, {"search": "test"}, rule, SearchDataset.load(Path(dataset)), processes=int(processes))
