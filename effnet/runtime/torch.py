"""PyTorch as it is: batch norm folded, channels-last, no gradients."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from effnet.data.preprocessing import normalize
from effnet.net import EfficientNet
from effnet.net.surgery import fold_batch_norm
from effnet.runtime.base import FloatArray as FloatArray
from effnet.runtime.base import ImageBatch, is_normalized, resolve_precision, resolve_threads
from effnet.timing.machine import describe_machine

Compute = Callable[[Tensor], Tensor]


TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


# Instruction sets that multiply the type itself; elsewhere torch widens every number first, and is slower than float32
NATIVE_INSTRUCTION_SETS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "asimdhp"),
}


class EagerEngine:
    """A network ready to run, made from a copy: what is done to ``model`` later does not reach it.

    In bfloat16 and float16 the weights and maps are, the pictures are normalised in float32, and sums are float32's.
    ``threads=None`` leaves torch's own setting. Several threads may call it at once.
    Raises ``ValueError`` for a device that is not there, less than one thread, or a precision that the CPU has not.
    """

    kind = "eager"

    def __init__(
        self, model: EfficientNet, device: str | None = None, precision: str = "float32", threads: int | None = None
    ) -> None:
        self.device = select_device(device)
        self.precision = resolve_precision(self.kind, precision, _supported_precisions(self.device))
        self.threads = resolve_threads(threads) if threads is not None else torch.get_num_threads()
        self.metadata, self.classes = model.metadata, model.classes
        self._dtype = TORCH_DTYPES[precision]
        self.model = fold_batch_norm(model).to(self.device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._logits: Compute = self.model
        self._features: Compute = self.model.embed
        self._pool = _make_pool(self.threads) if self.threads != torch.get_num_threads() else None

    def run(self, images: ImageBatch) -> FloatArray:
        """As `Engine.run`."""
        return self._run_in_pool(self._logits, images)

    def embed(self, images: ImageBatch) -> FloatArray:
        """As `Engine.embed`."""
        return self._run_in_pool(self._features, images)

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`: any shape takes the same time here."""

    def _run_in_pool(self, compute: Compute, images: ImageBatch) -> FloatArray:
        if self._pool:
            return self._pool.submit(self._compute, compute, images).result()
        return self._compute(compute, images)

    def _compute(self, compute: Compute, images: ImageBatch) -> FloatArray:
        with torch.inference_mode():
            out: FloatArray = compute(self._to_input(images).to(self._dtype)).float().cpu().numpy()
        return out

    def _to_input(self, images: ImageBatch) -> Tensor:
        if is_normalized(images, len(self.metadata.preprocess.mean)):
            x = torch.from_numpy(np.ascontiguousarray(images, np.float32))
            return x.to(self.device, memory_format=torch.channels_last)
        if images.dtype not in (np.uint8, np.float32):
            images = images.astype(np.float32)
        return normalize(torch.from_numpy(images).to(self.device), self.metadata.preprocess)


def _supported_precisions(device: torch.device) -> tuple[str, ...]:
    if device.type != "cpu":
        return tuple(TORCH_DTYPES)
    here = describe_machine().instructions
    return ("float32", *(name for name, sets in NATIVE_INSTRUCTION_SETS.items() if any(one in here for one in sets)))


def _make_pool(threads: int) -> ThreadPoolExecutor:
    """A thread in which torch computes with ``threads`` threads of its own.

    torch counts for each thread that calls it: in any other nothing changes, nor does anything between two calls.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, thread_name_prefix="eager")
    pool.submit(_set_threads, threads).result()
    torch.set_num_threads(before)  # what threads that are yet to come begin with
    return pool


def _set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # a new thread takes the common number when it first asks, whatever it was set to before


# PyTorch's compiler: every shape of pictures is compiled when it first comes, which takes half a minute and more.


CXX_COMPILERS = ("g++", "clang++", "c++", "cl")


class CompiledEngine(EagerEngine):
    """As `Eager`, through ``torch.compile``.

    Raises ``ValueError`` as `Eager` does, and where there is no C++ compiler, or it does not compile.
    """

    kind = "compiled"

    def __init__(
        self, model: EfficientNet, device: str | None = None, precision: str = "float32", threads: int | None = None
    ) -> None:
        super().__init__(model, device, precision, threads)
        if self.device.type == "cpu" and not find_cxx_compiler():
            raise ValueError("torch.compile needs a C++ compiler, and there is none: install g++, or use eager")
        self._logits = torch.compile(self.model, dynamic=False)
        self._features = torch.compile(self.model.embed, dynamic=False)

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`."""
        preprocess = self.metadata.preprocess
        self.run(np.zeros((batch_size, *(size or preprocess.size), len(preprocess.mean)), np.uint8))

    def _compute(self, compute: Compute, images: ImageBatch) -> FloatArray:
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            return super()._compute(compute, images)
        except (BackendCompilerFailed, InductorError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"torch.compile fails here ({why}): use eager") from None


def find_cxx_compiler() -> str | None:
    """The C++ compiler that torch would call, if there is one."""
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, (named,) if named else CXX_COMPILERS)), None)


def select_device(name: str | None = None) -> torch.device:
    """The device called ``name``; None takes a GPU where there is one. Raises ``ValueError`` for one not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"there is no device {name!r} on this machine: leave --device out, or say cpu") from None
    return device
