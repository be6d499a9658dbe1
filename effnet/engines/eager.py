"""PyTorch as it is: batch norm folded, channels-last, no gradients."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from effnet.clock.machine import machine
from effnet.data.normalise import normalise
from effnet.engines.engine import Floats as Floats
from effnet.engines.engine import Pictures, granted, normalised, settled
from effnet.net import EfficientNet
from effnet.net.device import pick
from effnet.net.surgery import fold

Compute = Callable[[Tensor], Tensor]

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Instruction sets that multiply the type itself; elsewhere torch widens every number first, and is slower than float32
IN_HARDWARE = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "asimdhp"),
}


class Eager:
    """A network ready to run, made from a copy: what is done to ``model`` later does not reach it.

    In bfloat16 and float16 the weights and maps are, the pictures are normalised in float32, and sums are float32's.
    ``threads=None`` leaves torch's own setting. Several threads may call it at once.
    Raises ``ValueError`` for a device that is not there, less than one thread, or a precision that the CPU has not.
    """

    kind = "eager"

    def __init__(
        self, model: EfficientNet, device: str | None = None, precision: str = "float32", threads: int | None = None
    ) -> None:
        self.device = pick(device)
        self.precision = settled(self.kind, precision, _offered(self.device))
        self.threads = granted(threads) if threads is not None else torch.get_num_threads()
        self.contract, self.classes = model.contract, model.classes
        self._type = TYPES[precision]
        self.model = fold(model).to(self.device, self._type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._logits: Compute = self.model
        self._features: Compute = self.model.embed
        self._apart = _with_threads(self.threads) if self.threads != torch.get_num_threads() else None

    def run(self, pictures: Pictures) -> Floats:
        """As `Engine.run`."""
        return self._answer(self._logits, pictures)

    def embed(self, pictures: Pictures) -> Floats:
        """As `Engine.embed`."""
        return self._answer(self._features, pictures)

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: any shape takes the same time here."""

    def _answer(self, compute: Compute, pictures: Pictures) -> Floats:
        if self._apart:
            return self._apart.submit(self._compute, compute, pictures).result()
        return self._compute(compute, pictures)

    def _compute(self, compute: Compute, pictures: Pictures) -> Floats:
        with torch.inference_mode():
            out: Floats = compute(self._input(pictures).to(self._type)).float().cpu().numpy()
        return out

    def _input(self, pictures: Pictures) -> Tensor:
        if normalised(pictures, len(self.contract.preprocess.mean)):
            x = torch.from_numpy(np.ascontiguousarray(pictures, np.float32))
            return x.to(self.device, memory_format=torch.channels_last)
        if pictures.dtype not in (np.uint8, np.float32):
            pictures = pictures.astype(np.float32)
        return normalise(torch.from_numpy(pictures).to(self.device), self.contract.preprocess)


def _offered(device: torch.device) -> tuple[str, ...]:
    if device.type != "cpu":
        return tuple(TYPES)
    here = machine().instructions
    return ("float32", *(name for name, sets in IN_HARDWARE.items() if any(one in here for one in sets)))


def _with_threads(threads: int) -> ThreadPoolExecutor:
    """A thread in which torch computes with ``threads`` threads of its own.

    torch counts for each thread that calls it: in any other nothing changes, nor does anything between two calls.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, thread_name_prefix="eager")
    pool.submit(_begin, threads).result()
    torch.set_num_threads(before)  # what threads that are yet to come begin with
    return pool


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # a new thread takes the common number when it first asks, whatever it was set to before
