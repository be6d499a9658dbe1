"""Running a network with PyTorch: eagerly, or compiled with ``torch.compile``. Devices and threads."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import torch

from effnet.data.preprocessing import normalize
from effnet.metadata import ModelMetadata
from effnet.net import EfficientNet, surgery
from effnet.runtime.base import Engine, FloatArray, ImageBatch, is_normalized, resolve_precision, resolve_threads
from effnet.timing import machine

log = logging.getLogger("effnet")

Compute = Callable[[torch.Tensor], torch.Tensor]

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Instruction sets that multiply the dtype natively; without them torch widens every number first, slower than float32
NATIVE_INSTRUCTION_SETS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "asimdhp"),
}
CXX_COMPILERS = ("g++", "clang++", "c++", "cl")


class EagerEngine(Engine):
    """A network in plain PyTorch: batch norm folded, channels-last, no gradients. Thread-safe.

    It is a copy: later changes to ``model`` do not affect it. In bfloat16 and float16, weights and feature maps have
    that dtype; normalization and accumulation stay in float32. ``threads=None`` keeps torch's own setting. Raises
    ``ValueError`` for an unavailable device or precision.
    """

    kind = "eager"
    metadata: ModelMetadata

    def __init__(
        self, model: EfficientNet, device: str | None = None, precision: str = "float32", threads: int | None = None
    ) -> None:
        self.device = select_device(device)
        self.precision = resolve_precision(self.kind, precision, _supported_precisions(self.device))
        self.threads = resolve_threads(threads) if threads is not None else torch.get_num_threads()
        self.metadata, self.classes = model.metadata, model.classes
        self._dtype = TORCH_DTYPES[precision]
        self.model = surgery.fold_batch_norm(model).to(self.device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._logits: Compute = self.model
        self._features: Compute = self.model.embed
        self._pool = _make_pool(self.threads) if self.threads != torch.get_num_threads() else None
        self._process = os.getpid()
        _compute_with_one_thread_after_forks()

    def run(self, images: ImageBatch) -> FloatArray:
        """See `Engine.run`."""
        return self._run_in_pool(self._logits, images)

    def embed(self, images: ImageBatch) -> FloatArray:
        """See `Engine.embed`."""
        return self._run_in_pool(self._features, images)

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """See `Engine.prepare`. Nothing to do: every shape runs equally well."""

    def _run_in_pool(self, compute: Compute, images: ImageBatch) -> FloatArray:
        if self._process != os.getpid():
            self._process, self._pool, self.threads = os.getpid(), None, 1
            log.warning("PyTorch has one thread in a process that was forked: start processes by spawn for more")
        if self._pool:
            return self._pool.submit(self._compute, compute, images).result()
        return self._compute(compute, images)

    def _compute(self, compute: Compute, images: ImageBatch) -> FloatArray:
        with torch.inference_mode():
            out: FloatArray = compute(self._to_input(images).to(self._dtype)).float().cpu().numpy()
        return out

    def _to_input(self, images: ImageBatch) -> torch.Tensor:
        if is_normalized(images, len(self.metadata.preprocess.mean)):
            x = torch.from_numpy(np.ascontiguousarray(images, np.float32))
            return x.to(self.device, memory_format=torch.channels_last)
        if images.dtype not in (np.uint8, np.float32):
            images = images.astype(np.float32)
        return normalize(torch.from_numpy(images).to(self.device), self.metadata.preprocess)


@cache
def _compute_with_one_thread_after_forks() -> None:
    """Let the children of this process compute: they wait for its OpenMP threads, which they do not have, forever.

    Data loading processes of PyTorch do the same.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class CompiledEngine(EagerEngine):
    """As `EagerEngine`, through ``torch.compile``, which takes half a minute or more for each new input shape."""

    kind = "compiled"

    def __init__(
        self, model: EfficientNet, device: str | None = None, precision: str = "float32", threads: int | None = None
    ) -> None:
        super().__init__(model, device, precision, threads)
        if self.device.type == "cpu" and not find_cxx_compiler():
            raise ValueError("torch.compile requires a C++ compiler: install g++, or use the eager engine")
        self._logits = torch.compile(self.model, dynamic=False)
        self._features = torch.compile(self.model.embed, dynamic=False)

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """See `Engine.prepare`."""
        preprocess = self.metadata.preprocess
        self.run(np.zeros((batch_size, *(size or preprocess.size), len(preprocess.mean)), np.uint8))

    def _compute(self, compute: Compute, images: ImageBatch) -> FloatArray:
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            return super()._compute(compute, images)
        except (BackendCompilerFailed, InductorError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"torch.compile failed ({reason}): use the eager engine") from None


def find_cxx_compiler() -> str | None:
    """Return the path of the C++ compiler that torch would call, or None."""
    cxx = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, (cxx,) if cxx else CXX_COMPILERS)), None)


def select_device(name: str | None = None) -> torch.device:
    """Return the device ``name``, by default a GPU if there is one. Raises ``ValueError`` if it is not available."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"there is no device {name!r} on this machine: omit --device, or use cpu") from None
    return device


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Make torch compute with ``count`` threads in this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _supported_precisions(device: torch.device) -> tuple[str, ...]:
    if device.type != "cpu":
        return tuple(TORCH_DTYPES)
    available = set(machine.describe_machine().instructions)
    return ("float32", *(name for name, sets in NATIVE_INSTRUCTION_SETS.items() if available & set(sets)))


def _make_pool(threads: int) -> ThreadPoolExecutor:
    # torch keeps this number per calling thread: nothing changes in other threads, or between calls
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, thread_name_prefix="eager")
    pool.submit(_set_threads, threads).result()
    torch.set_num_threads(before)  # the number that threads created later start with
    return pool


def _set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # a new thread adopts the global number on its first query, even if it was set before
