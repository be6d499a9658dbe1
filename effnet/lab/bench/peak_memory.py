"""The memory of one contestant, in a process that does nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from effnet.runtime.base import ENGINE_KINDS
from effnet.timing import run_in_subprocess

BatchShape = tuple[int, int, int, int]
CALLS = 2


def measure_peak_memory(path: Path, engine: str, precision: str, shape: BatchShape, threads: int) -> int:
    """The most bytes that a process holds which opens the model in ``path`` and runs ``engine`` on ``shape`` pictures.

    ``shape`` is (N, height, width, channels). What an engine writes to be faster the next time lies in the folder of
    ``path``, and is there already: a process before has left it.
    """
    told = (str(path), engine, precision, shape, threads)
    if engine in ENGINE_KINDS:
        run_in_subprocess(_run_engine, *told)
        return run_in_subprocess(_run_engine, *told).peak_bytes
    return run_in_subprocess(_run_peer, *told).peak_bytes


def _run_engine(path: str, kind: str, precision: str, shape: BatchShape, threads: int) -> None:
    os.environ["EFFNET_HOME"] = str(Path(path).parent)
    from effnet.runtime.autotune import engine

    batch, height, width, _ = shape
    made = engine(path, kind, batch, (height, width), precision, threads)
    for _ in range(CALLS):
        made.run(np.zeros(shape, np.uint8))


def _run_peer(path: str, name: str, precision: str, shape: BatchShape, threads: int) -> None:
    import torch

    from effnet.lab.bench.backends import peer_backends
    from effnet.weights import load

    torch.set_num_threads(threads)
    peer, way = name.split()
    for one in peer_backends(load(path), peer, precision, np.zeros(shape, np.uint8), (way,)):
        for _ in range(CALLS):
            one.run()
