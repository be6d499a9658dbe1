"""Networks × engines × precisions × batches × threads, against peers: a contest for each cell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effnet.arch import count
from effnet.arch.record import choice, whole
from effnet.bench import peers as other
from effnet.bench.contestant import Contestant, Pictures, difference, pictures, reference
from effnet.bench.memory import memory_of
from effnet.bench.ours import ours
from effnet.bench.row import Cell, Result, Row
from effnet.clock import PAUSE, RUNTIMES, contest, machine, peaks, ratio, versions
from effnet.engines.engine import KINDS, PRECISIONS, installed
from effnet.net import EfficientNet
from effnet.weights import save

LOG = logging.getLogger("effnet")
CONSECUTIVE = 3
AGREE = 1e-3  # of float32 logits: engines differ by rounding, some 1e-5 of the largest


def bench(
    networks: Sequence[EfficientNet],
    engines: Sequence[str] | None = None,
    precisions: Sequence[str] = ("float32",),
    batches: Sequence[int] = (1,),
    threads: Sequence[int] | None = None,
    size: tuple[int, int] | None = None,
    against: Sequence[str] | None = None,
    runs: int = 20,
    seconds: float = 30,
    memory: bool = False,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Result:
    """How fast ``networks`` run here. All contestants of a network, a batch and a number of threads take turns.

    ``engines``: every one that is installed but "compiled", which takes a minute to begin; with it come the peers
    compiled too. ``against``: "timm" and "torchvision", where they are installed. ``threads``: as many as there are
    cores. ``size``: (height, width), the network's own if None. ``runs`` rounds of three calls each, but no further
    round of a contest after ``seconds``. ``memory`` runs each contestant once more in a process of its own.
    Raises ``ValueError`` for an unknown engine or precision, no threads, or where nothing could take part;
    ``ImportError`` for an engine or a peer that is asked for and not installed.
    """
    kinds = tuple(engines) if engines is not None else tuple(kind for kind in installed() if kind != "compiled")
    rivals = tuple(against) if against is not None else other.installed()
    for what, given, allowed in (("engine", kinds, KINDS), ("precision", precisions, PRECISIONS)):
        for one in given:
            choice(what, one, allowed)
    for one in rivals:
        choice("against", one, other.PEERS)
    counts = tuple(threads) if threads is not None else (machine().cores,)
    for number in counts:
        enough(number)
    for batch in batches:
        whole("batch", batch, 1)
    rows: list[Row] = []
    left_out: list[str] = []
    cells = list(product(networks, batches, counts))
    for done, (model, batch, number) in enumerate(cells):
        progress(f"{model.arch.name}, batch {batch}", done, len(cells))
        high, wide = size or model.preprocess.size
        with torch_threads(number):
            seen = pictures(batch, (high, wide), model.channels)
            takers = list(_contestants(model, kinds, precisions, rivals, seen, number, left_out))
            rows += _measured(model, takers, seen, number, runs, seconds, memory)
            del takers
    if not rows:
        raise ValueError("nothing could be measured: " + "; ".join(left_out or ["there is no network or no engine"]))
    return Result(
        *(machine(), tuple(peaks(number) for number in counts), tuple(rows)),
        *(tuple(versions((*RUNTIMES, *rivals)).items()), tuple(left_out)),
    )


def enough(threads: int) -> None:
    """Raises ``ValueError`` for no threads; says where there are more than cores."""
    whole("threads", threads, 1)
    if threads > machine().cores:
        cores = machine().cores
        LOG.warning("%d threads on %d core%s wait for each other", threads, cores, "s" if cores != 1 else "")


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """In this block torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _contestants(
    model: EfficientNet,
    kinds: Sequence[str],
    precisions: Sequence[str],
    rivals: Sequence[str],
    seen: Pictures,
    threads: int,
    left_out: list[str],
) -> Iterator[Contestant]:
    """Those that can take part; why the others cannot goes to ``left_out``."""
    for precision in precisions:
        for kind in kinds:
            try:
                yield ours(model, kind, precision, seen, threads)
            except ValueError as error:  # a precision that this engine or this processor has not
                why = f"{kind} in {precision}: {error}"
                if why not in left_out:
                    LOG.warning("left out: %s", why)
                    left_out.append(why)
        for rival in rivals:
            ways = ("channels-last", "contiguous", *(("compiled",) if "compiled" in kinds else ()))
            yield from other.peers(model, rival, precision, seen, ways)


def _measured(
    model: EfficientNet,
    takers: Sequence[Contestant],
    seen: Pictures,
    threads: int,
    runs: int,
    seconds: float,
    memory: bool,
) -> Iterator[Row]:
    if not takers:
        return
    batch, high, wide, channels = seen.shape
    right = reference(model, seen)
    macs = count(model.arch, (high, wide), model.classes, channels).macs
    cell = Cell(model.arch.name, macs, batch, threads, (high, wide), peaks(threads))
    apart = {one.name: difference(one.logits(), right) if one.same else None for one in takers}
    for name, far in apart.items():
        if far is not None and name.endswith("float32") and not far < AGREE:
            LOG.warning("%s: %s answers otherwise than torch, by %.1g of the largest logit", cell.network, name, far)
    timings = contest({one.name: one.run for one in takers}, runs, 2, CONSECUTIVE, PAUSE, seconds)
    fastest = min(timings.values(), key=lambda timing: timing.seconds)
    for one in takers:
        timing = timings[one.name]
        held = None
        if memory:
            with TemporaryDirectory() as folder:
                path = save(model, Path(folder) / "model.safetensors")
                held = memory_of(path, one.engine, one.precision, (batch, high, wide, channels), threads)
        yield cell.row(one.engine, one.precision, timing, ratio(timing, fastest), apart[one.name], held)
