"""The native engine: runs plans with the package effnet-native. Imports no torch.

A plan (``.effplan``) is a safetensors file with two tensors, the layers as integers and their weights, and the model's
metadata. It holds no sizes of images and nothing of the machine; `effnet.runtime.native_writer` writes it.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from effnet.metadata import ModelMetadata
from effnet.runtime import base

PLAN_VERSION = "1"
PLAN_SUFFIX = ".effplan"
SUPPORTED_PRECISIONS = ("float32",)


@dataclass(frozen=True)
class Plan:
    """``ops``: int32 (layers, 12); ``weights``: float32, the layers' tensors in the order of native/src/plan.h."""

    ops: NDArray[np.int32]
    weights: NDArray[np.float32]
    metadata_json: str  # of a `ModelMetadata`

    @property
    def checksum(self) -> str:
        """CRC-32 of everything that decides the outputs."""
        header = zlib.crc32(self.ops.tobytes(), zlib.crc32(f"{PLAN_VERSION} {self.metadata_json}".encode()))
        return f"{zlib.crc32(self.weights.data, header):08x}"


def read_plan(path: Path) -> Plan:
    """Read a plan. Raises ``ValueError`` for a damaged or another file."""
    damaged = ValueError(f"{path} is not a plan, or is damaged: export the network again")
    try:
        with safe_open(path, "numpy") as file:
            texts = file.metadata() or {}
            plan = Plan(file.get_tensor("ops"), file.get_tensor("weights"), texts["effnet"])
            version, checksum = texts["plan"], texts["checksum"]
    except (SafetensorError, KeyError, TypeError):
        raise damaged from None
    if version != PLAN_VERSION:
        raise ValueError(f"{path} was written by another version of effnet: export the network again")
    if plan.checksum != checksum:
        raise damaged
    return plan


class NativeEngine(base.Engine):
    """A plan, ready to run on the CPU with effnet-native. Thread-safe, and usable after a fork.

    Any image size runs without being prepared. Outputs are the same bits for any number of threads. Raises as
    `base.open_exported` does.
    """

    kind = "native"

    def __init__(
        self, plan: Plan | str | Path, precision: str = "float32", threads: int | None = None, instruction_set: str = ""
    ) -> None:
        self.threads = base.resolve_threads(threads)
        self.precision = base.resolve_precision(self.kind, precision, SUPPORTED_PRECISIONS)
        name = "the plan" if isinstance(plan, Plan) else str(plan)
        if not isinstance(plan, Plan):
            if not Path(plan).is_file():
                raise FileNotFoundError(f"{plan}: no such file")
            plan = read_plan(Path(plan))
        self.metadata = ModelMetadata.from_json(plan.metadata_json)
        try:
            from effnet_native import Engine
        except ImportError:
            raise base.not_installed_error(self.kind) from None
        try:
            self._engine = Engine(plan.ops, plan.weights, self.metadata.arch.activation, self.threads, instruction_set)
        except ValueError as error:
            raise ValueError(f"native cannot open {name}: {error}") from None
        self.classes = self._engine.classes
        mean, std = (
            np.array(values, np.float64) for values in (self.metadata.preprocess.mean, self.metadata.preprocess.std)
        )
        self._scale, self._shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    @property
    def instruction_set(self) -> str:
        """Which it uses: "avx512", "avx2" or "portable"."""
        return str(self._engine.instruction_set)

    def run(self, images: base.ImageBatch) -> base.FloatArray:
        """See `Engine.run`."""
        logits, embedding, _ = self._run(images)
        out: base.FloatArray = embedding if logits is None else logits
        return out

    def embed(self, images: base.ImageBatch) -> base.FloatArray:
        """See `Engine.embed`."""
        out: base.FloatArray = self._run(images)[1]
        return out

    def features(self, images: base.ImageBatch) -> dict[str, base.FloatArray]:
        """Return the maps after "stem", "stage1", …, "head", each float32 (N, channels, height, width)."""
        maps = self._run(images, features=True)[2]
        names = ("stem", *(f"stage{number}" for number in range(1, len(maps) - 1)), "head")
        return {name: each.transpose(0, 3, 1, 2) for name, each in zip(names, maps, strict=True)}

    def prepare(self, batch_size: int, size: tuple[int, int] | None = None) -> None:
        """See `Engine.prepare`. Nothing to do: every shape runs equally well."""

    def _run(self, images: base.ImageBatch, features: bool = False) -> Any:
        if base.is_normalized(images, self._engine.channels):
            return self._engine.run(np.asarray(images, np.float32), features=features)
        pixels = images if images.dtype == np.uint8 else np.asarray(images, np.float32)
        return self._engine.run(pixels, self._scale, self._shift, features=features)
