"""Peak memory of one backend, in a process that does nothing else."""

import os
from pathlib import Path

import numpy as np

from effnet.runtime.base import ENGINE_KINDS
from effnet.timing import run_in_subprocess

BatchShape = tuple[int, ...]  # (N, height, width, channels)
CALLS = 2


def measure_peak_memory(path: Path, engine: str, precision: str, shape: BatchShape, threads: int) -> int:
    """Return the peak bytes of a process that opens the model at ``path`` and runs it on images of ``shape``.

    What an engine caches to be faster the next time, an earlier process has left in the folder of ``path``.
    """
    arguments = (str(path), engine, precision, shape, threads)
    if engine in ENGINE_KINDS:
        run_in_subprocess(_run_engine, *arguments)
        return run_in_subprocess(_run_engine, *arguments).peak_bytes
    return run_in_subprocess(_run_peer, *arguments).peak_bytes


def _run_engine(path: str, kind: str, precision: str, shape: BatchShape, threads: int) -> None:
    os.environ["EFFNET_HOME"] = str(Path(path).parent)
    from effnet.runtime.autotune import engine

    batch_size, height, width, _ = shape
    opened = engine(path, kind, batch_size, (height, width), precision, threads)
    for _ in range(CALLS):
        opened.run(np.zeros(shape, np.uint8))


def _run_peer(path: str, name: str, precision: str, shape: BatchShape, threads: int) -> None:
    import torch

    from effnet.lab.bench.backends import peer_backends
    from effnet.weights import load

    torch.set_num_threads(threads)
    peer, variant = name.split()
    for backend in peer_backends(load(path), peer, precision, np.zeros(shape, np.uint8), (variant,)):
        for _ in range(CALLS):
            backend.run()
