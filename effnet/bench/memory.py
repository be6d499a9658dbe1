"""The memory of one contestant, in a process that does nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from effnet.clock import in_fresh_process
from effnet.engines.engine import KINDS

Shape = tuple[int, int, int, int]
CALLS = 2


def memory_of(path: Path, engine: str, precision: str, shape: Shape, threads: int) -> int:
    """The most bytes that a process holds which opens the model in ``path`` and runs ``engine`` on ``shape`` pictures.

    ``shape`` is (N, height, width, channels). What an engine writes to be faster the next time lies in the folder of
    ``path``, and is there already: a process before has left it.
    """
    told = (str(path), engine, precision, shape, threads)
    if engine in KINDS:
        in_fresh_process(_ours, *told)
        return in_fresh_process(_ours, *told).bytes
    return in_fresh_process(_peer, *told).bytes


def _ours(path: str, kind: str, precision: str, shape: Shape, threads: int) -> None:
    os.environ["EFFNET_HOME"] = str(Path(path).parent)
    from effnet.exporting.choose import engine

    batch, height, width, _ = shape
    made = engine(path, kind, batch, (height, width), precision, threads)
    for _ in range(CALLS):
        made.run(np.zeros(shape, np.uint8))


def _peer(path: str, name: str, precision: str, shape: Shape, threads: int) -> None:
    import torch

    from effnet.bench.peers import peers
    from effnet.weights import load

    torch.set_num_threads(threads)
    peer, way = name.split()
    for one in peers(load(path), peer, precision, np.zeros(shape, np.uint8), (way,)):
        for _ in range(CALLS):
            one.run()
