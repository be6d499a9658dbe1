"""The fastest way to run an EfficientNet on a CPU: fused MBConv blocks in C++, for AVX-512, AVX2 and any other machine.

This package knows plans, not networks: flat lists of layers with their weights, which ``effnet`` writes. Users call
``effnet.engine(model, "native")``, or nothing at all: the engine is chosen where it is the fastest.

Example:
    >>> engine = effnet_native.Engine(ops, weights, "silu", threads=2)
    >>> logits, embedding, maps = engine.run(images, scale, shift)  # uint8 (N, H, W, 3)
"""

import ctypes
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__ = "0.1.0"
PLAN_VERSION = 1
ACTIVATIONS = {"relu": 0, "silu": 1, "relu6": 2}
OP_FIELDS = 12
FEATURE_FIELD, CHANNELS_FIELD, KIND_FIELD = 10, 3, 0
HEAD, CLASSIFIER = 3, 4

FloatArray = NDArray[np.float32]


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that this machine supports, fastest first: of "avx512", "avx2" and "portable"."""
    return tuple(_library().effnet_native_instruction_sets().decode().split())


class Engine:
    """A plan, packed for this machine. Any number of threads may call it; after a fork it works in both processes.

    Args:
        ops: int32 (layers, 12), the fields of ``Op`` in src/plan.h.
        weights: float32, the layers' tensors one after another; copied.
        activation: "silu", "relu" or "relu6".
        threads: threads of one call. Calls at the same time do not wait: one has the threads, the others their own.
        instruction_set: one of `instruction_sets`; by default the fastest.
        spin_microseconds: how long a thread waits awake for the next call before it sleeps.

    Raises:
        ValueError: The plan is damaged, or the instruction set is not supported.
    """

    def __init__(
        self,
        ops: NDArray[np.int32],
        weights: FloatArray,
        activation: str,
        threads: int,
        instruction_set: str = "",
        spin_microseconds: int = 50,
    ) -> None:
        self._handle: int | None = None
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        ops = np.ascontiguousarray(ops, np.int32).reshape(-1, OP_FIELDS)
        weights = np.ascontiguousarray(weights, np.float32)
        self._library = _library()
        self._handle = self._library.effnet_native_open(
            ops.ctypes.data, ops.size, ACTIVATIONS[activation], weights.ctypes.data, weights.size,
            threads, instruction_set.encode(), spin_microseconds,
        )  # fmt: skip
        if not self._handle:
            raise ValueError(self._error())
        kinds = ops[:, KIND_FIELD]
        self.threads = threads
        self.channels = int(ops[0, 1])
        self.embedding = int(ops[kinds == HEAD, CHANNELS_FIELD][0])
        self.classes = int(ops[-1, CHANNELS_FIELD]) if kinds[-1] == CLASSIFIER else 0
        self.feature_count = int(ops[:, FEATURE_FIELD].max())
        self.instruction_set = self._library.effnet_native_instruction_set(self._handle).decode()

    def run(
        self,
        images: NDArray[np.uint8] | FloatArray,
        scale: Sequence[float] | None = None,
        shift: Sequence[float] | None = None,
        *,
        features: bool = False,
    ) -> tuple[FloatArray | None, FloatArray, list[FloatArray]]:
        """Return logits (N, classes), or None without a classifier; the embedding (N, channels); and feature maps.

        Args:
            images: uint8 or float32 (N, H, W, C), which become ``value * scale + shift``; or, if ``scale`` is None,
                normalized float32 (N, C, H, W).
            scale: Factor of each channel.
            shift: Summand of each channel.
            features: Return the maps that the plan numbers, each (N, rows, columns, channels), instead of none.

        Raises:
            ValueError: A shape or type that is not described above.
        """
        planes = scale is None
        expected = (np.float32,) if planes else (np.uint8, np.float32)
        if images.ndim != 4 or images.dtype not in expected or images.shape[1 if planes else 3] != self.channels:
            raise ValueError(f"images of type {images.dtype} and shape {images.shape} do not fit this network")
        images = np.ascontiguousarray(images)
        count = images.shape[0]
        height, width = images.shape[2:] if planes else images.shape[1:3]
        kind = 2 if planes else 0 if images.dtype == np.uint8 else 1
        factors = [np.ascontiguousarray(values, np.float32) for values in (scale, shift)] if not planes else []
        if any(values.shape != (self.channels,) for values in factors):
            raise ValueError(f"scale and shift must have {self.channels} values each")
        logits = np.empty((count, self.classes), np.float32) if self.classes else None
        embedding = np.empty((count, self.embedding), np.float32)
        shapes = [self._feature_shape(i, height, width) for i in range(self.feature_count if features else 0)]
        maps = [np.empty((count, *shape), np.float32) for shape in shapes]
        pointers = (ctypes.c_void_p * len(maps))(*(each.ctypes.data for each in maps)) if maps else None
        done = self._library.effnet_native_run(
            self._handle, kind, images.ctypes.data, count, height, width,
            *([values.ctypes.data for values in factors] or [None, None]),
            None if logits is None else logits.ctypes.data, embedding.ctypes.data, pointers,
        )  # fmt: skip
        if not done:
            raise ValueError(self._error())
        return logits, embedding, maps

    def _feature_shape(self, index: int, height: int, width: int) -> tuple[int, ...]:
        shape = (ctypes.c_int * 3)()
        if not self._library.effnet_native_feature_shape(self._handle, index, height, width, shape):
            raise ValueError(self._error())
        return tuple(shape)

    def _error(self) -> str:
        return str(self._library.effnet_native_error().decode())

    def __repr__(self) -> str:
        return f"<effnet_native.Engine {self.instruction_set}, {self.threads} threads>"

    def __del__(self) -> None:
        if self._handle:
            self._library.effnet_native_close(self._handle)


@cache
def _library() -> Any:
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    prefix = "" if sys.platform == "win32" else "lib"
    library = ctypes.CDLL(str(Path(__file__).with_name(f"{prefix}effnet_native{suffix}")))  # calls release the GIL
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    library.effnet_native_error.restype = ctypes.c_char_p
    library.effnet_native_instruction_sets.restype = ctypes.c_char_p
    library.effnet_native_instruction_set.restype = ctypes.c_char_p
    library.effnet_native_instruction_set.argtypes = [pointer]
    library.effnet_native_open.restype = pointer
    library.effnet_native_open.argtypes = [
        pointer, long, integer, pointer, long, integer, ctypes.c_char_p, integer,
    ]  # fmt: skip
    library.effnet_native_close.argtypes, library.effnet_native_close.restype = [pointer], None
    library.effnet_native_run.argtypes = [pointer, integer, pointer, *[integer] * 3, *[pointer] * 5]
    library.effnet_native_feature_shape.argtypes = [pointer, *[integer] * 3, pointer]
    if library.effnet_native_version() != PLAN_VERSION:
        raise ImportError("effnet-native and its library have different versions: install it again")
    return library
