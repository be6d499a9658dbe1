"""PyTorch's compiler: every shape of pictures is compiled when it first comes, which takes half a minute and more."""

from __future__ import annotations

import os
import shutil

import numpy as np
import torch

from effnet.engines.eager import Compute, Eager
from effnet.engines.engine import Floats, Pictures
from effnet.net import EfficientNet

COMPILERS = ("g++", "clang++", "c++", "cl")


class Compiled(Eager):
    """As `Eager`, through ``torch.compile``.

    Raises ``ValueError`` as `Eager` does, and where there is no C++ compiler, or it does not compile.
    """

    kind = "compiled"

    def __init__(
        self, model: EfficientNet, device: str | None = None, precision: str = "float32", threads: int | None = None
    ) -> None:
        super().__init__(model, device, precision, threads)
        if self.device.type == "cpu" and not compiler():
            raise ValueError("torch.compile needs a C++ compiler, and there is none: install g++, or use eager")
        self._logits = torch.compile(self.model, dynamic=False)
        self._features = torch.compile(self.model.embed, dynamic=False)

    def prepare(self, batch: int, size: tuple[int, int] | None = None) -> None:
        """As `Engine.prepare`."""
        preprocess = self.contract.preprocess
        self.run(np.zeros((batch, *(size or preprocess.size), len(preprocess.mean)), np.uint8))

    def _compute(self, compute: Compute, pictures: Pictures) -> Floats:
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            return super()._compute(compute, pictures)
        except (BackendCompilerFailed, InductorError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"torch.compile fails here ({why}): use eager") from None


def compiler() -> str | None:
    """The C++ compiler that torch would call, if there is one."""
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, (named,) if named else COMPILERS)), None)
